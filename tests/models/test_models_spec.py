"""Specifications are typed: a misspelt key, a missing size and an unfit value are sentences, whoever writes them."""

import json

import pytest
from command_server import gapless

from gapless import GaplessModel
from gapless.core.errors import UsageError
from gapless.modalities.image import ImageInput
from gapless.modalities.text import TextInput
from gapless.modalities.vector import VectorInput
from gapless.models.aligner import GaplessConfig
from gapless.models.spec import LinearLayer, MlpLayer, VectorEncoderSpec, modality_spec
from gapless.training.recipes import OTHERS, RECIPES, get_recipe


def vector_modality(**changes):
    parts = {
        "input": {"kind": "vector", "size": 6},
        "encoder": {"kind": "vector", "size": 6},
        "head": [{"kind": "mlp", "hidden": 5, "size": 4, "dropout": 0.5}],
    }
    return {**parts, **changes}


def test_a_mapping_becomes_the_typed_specification():
    spec = modality_spec("ecg", vector_modality())
    assert spec.input == VectorInput(6)
    assert spec.encoder.trainable
    assert spec.head == (MlpLayer(hidden=5, size=4, dropout=0.5),)
    assert modality_spec("x", {**vector_modality(), "head": None}).head is None


@pytest.mark.parametrize(
    ("part", "value", "words"),
    [
        ("input", {"kind": "vector", "sizes": 6}, ["sizes", "'size'", "ecg"]),
        ("input", {"kind": "vector"}, ["no size", "ecg"]),
        ("input", {"kind": "image", "chanels": 1}, ["chanels", "'channels'"]),
        ("input", {"kind": "image", "channels": 2}, ["channels", "1 or 3", "2"]),
        ("input", {"kind": "image", "size": "64"}, ["size", "whole number", "'64'"]),
        ("input", {"kind": "image", "size": True}, ["size", "whole number"]),
        ("input", {"kind": "image", "fit": "padd"}, ["fit", "'pad'"]),
        ("input", {"kind": "image", "mean": 0.5}, ["mean", "list of numbers"]),
        ("input", {"kind": "text", "max_lenght": 9}, ["max_lenght", "'max_length'"]),
        ("input", {"kind": "picture"}, ["picture", "image"]),
        ("input", {}, ["input kind"]),
        ("input", "image", ["mapping"]),
        ("encoder", {"kind": "vector", "size": 6, "trainble": False}, ["trainble", "'trainable'"]),
        ("encoder", {"kind": "vector", "size": 6, "trainable": "no"}, ["trainable", "true or false", "'no'"]),
        ("encoder", {"kind": "transformers", "config": {}, "poling": "cls"}, ["poling", "'pooling'"]),
        ("encoder", {"kind": "transformers", "config": {}, "pooling": "max"}, ["pooling", "'cls'", "'max'"]),
        ("encoder", {"kind": "open_clip", "config": {}}, ["no tower"]),
        ("head", [{"kind": "mlp", "hidden": 5, "size": 4, "dropuot": 0.9}], ["dropuot", "'dropout'", "layer 1"]),
        ("head", [{"kind": "linear"}], ["no size"]),
        ("head", [{"kind": "unit_norm"}, {"kind": "liner", "size": 4}], ["liner", "linear", "layer 2"]),
        ("head", {"kind": "linear", "size": 4}, ["list of layers"]),
        ("head", [{"kind": "dropout", "rate": float("nan")}], ["rate", "number"]),
        ("haed", [], ["haed", "'head'"]),
    ],
)
def test_what_does_not_fit_is_one_sentence_that_names_it(part, value, words):
    with pytest.raises(UsageError) as refused:
        modality_spec("ecg", vector_modality(**{part: value}))
    for word in words:
        assert word in str(refused.value)
    assert "\n" not in str(refused.value)


def test_a_modality_without_an_encoder_gets_that_of_its_kind():
    parts = {key: value for key, value in vector_modality().items() if key != "encoder"}
    assert modality_spec("ecg", parts).encoder == VectorEncoderSpec(6)
    assert GaplessConfig({"ecg": parts}).modalities["ecg"]["encoder"] == {"kind": "vector", "size": 6}
    assert "encoder" not in parts


def test_a_modality_needs_an_input():
    parts = {key: value for key, value in vector_modality().items() if key != "input"}
    with pytest.raises(UsageError, match="'ecg' has no input"):
        modality_spec("ecg", parts)


def test_a_model_refuses_a_misspelt_key_and_builds_the_right_one():
    good = {name: vector_modality() for name in ("ecg", "text")}
    assert isinstance(GaplessModel(GaplessConfig(good, 4)).specs["ecg"].input, VectorInput)  # the control
    bad = {**good, "text": vector_modality(encoder={"kind": "vector", "size": 6, "frozen": True})}
    with pytest.raises(UsageError, match="frozen"):
        GaplessModel(GaplessConfig(bad, 4))


def test_without_a_shared_space_a_head_must_be_named():
    parts = {key: value for key, value in vector_modality().items() if key != "head"}
    with pytest.raises(UsageError, match="head"):
        GaplessModel(GaplessConfig({"ecg": parts}, None))


def test_an_old_configuration_file_loads(tmp_path):
    model = GaplessModel(GaplessConfig({name: vector_modality() for name in ("ecg", "text")}, 4))
    model.save_pretrained(tmp_path)
    saved = json.loads((tmp_path / "config.json").read_text(encoding="utf-8"))
    assert saved["modalities"]["ecg"] == vector_modality()  # the file holds the same mappings as before
    assert GaplessModel.from_pretrained(tmp_path).specs == model.specs


@pytest.mark.parametrize("name", RECIPES)
def test_every_recipe_is_well_formed(name):
    described = {key: spec for key, spec in get_recipe(name).modalities.items() if key != OTHERS}
    kinds = {type(modality_spec(key, spec).input) for key, spec in described.items()}
    assert kinds <= {ImageInput, TextInput, VectorInput}
    assert LinearLayer(512).bias is False


@pytest.mark.parametrize(
    ("option", "near"),
    [("--modalities.image.input.sizes=96", "size"), ("--modalities.image.encoder.trainble=false", "trainable")],
)
def test_the_command_line_refuses_a_misspelt_key(option, near, tmp_path):
    done = gapless("train", "table-small", "--data", tmp_path, "--out", "run", option, cwd=tmp_path)
    assert done.returncode == 2
    assert f"did you mean '{near}'" in done.stderr
