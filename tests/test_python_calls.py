"""Every verb as one Python call, on a few dozen rows: its result is what the command prints with `--json`."""

import doctest
import json
import shutil
from dataclasses import FrozenInstanceError, replace
from importlib import import_module

import numpy as np
import pytest
from fakes import tiny_model

import gapless
from gapless.captioning import CaptionSettings, GenerationSettings
from gapless.captioning import metrics as caption_metrics
from gapless.cli.main import main
from gapless.core.errors import DataRefused, UsageError
from gapless.core.files import strict_json
from gapless.embeddings import EmbeddingSet, read_embeddings
from gapless.manifest import Manifest
from gapless.manifest.readers.phantom import write_phantom
from gapless.study import measure_embeddings
from gapless.training.recipes import apply_method, phantom_small

EPOCH = {"num_train_epochs": 1, "per_device_train_batch_size": 16, "use_cpu": True}
TINY = [
    "--embedding_dim=16",
    "--vocab_size=400",
    *(f"--training.{key}={str(value).lower()}" for key, value in EPOCH.items()),
]
SMALL = ["--modalities.image.input.size=16"]
DECODER = {"hidden_size": 24, "num_attention_heads": 2, "num_hidden_layers": 1}


def recipe():
    """`phantom-small`, made tiny by what TINY says on the command line."""
    base = phantom_small()
    image = base.modalities["image"]
    small = {**base.modalities, "image": {**image, "input": {**image["input"], "size": 16}}}
    return replace(base, modalities=small, embedding_dim=16, vocab_size=400, training={**base.training, **EPOCH})


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """A manifest `m`, a model `model` and its embeddings `e`."""
    place = tmp_path_factory.mktemp("calls")
    write_phantom(place / "m", num_pairs=60, num_validation=8, num_test=20, image_size=16)
    tiny_model().save_pretrained(place / "model")
    gapless.embed(place / "model", data=place / "m", out=place / "e")
    return place


@pytest.fixture
def printed(capsys):
    """`printed(words)`: the object that the command prints with `--json`."""

    def call(*words):
        capsys.readouterr()
        assert main([*map(str, words), "--json"]) == 0
        return json.loads(capsys.readouterr().out)

    return call


def as_printed(result):
    """A result as `--json` writes it."""
    return json.loads(strict_json(result.as_json()))


def test_audit(home, printed):
    report = gapless.audit(home / "m", near_duplicates=False)
    assert as_printed(report) == printed("data", "audit", home / "m", "--near_duplicates", "false")
    assert report.leakage["group or image"]["test in train"]["rows"] == 0
    with pytest.raises(FrozenInstanceError):
        report.rows = {}


@pytest.fixture(scope="module")
def run(home):
    """A run of `clip` in `run`."""
    settings = apply_method(recipe(), "clip")
    return gapless.train("phantom-small", data=home / "m", out=home / "run", method="clip", settings=settings)


@pytest.fixture(scope="module")
def captioner(home):
    """A caption run in `captioner`."""
    settings = CaptionSettings(max_tokens=12, decoder={"model_type": "bert", **DECODER})
    settings = replace(settings, training={**settings.training, **EPOCH})
    return gapless.train_captioner(home / "model", data=home / "m", out=home / "captioner", settings=settings)


@pytest.fixture
def without_java(monkeypatch):
    """METEOR alone would take seconds."""
    monkeypatch.setattr(caption_metrics, "java", lambda: None)


def test_train_and_evaluate(home, run, printed, tmp_path):
    words = (
        "train",
        "phantom-small",
        "--data",
        home / "m",
        "--method",
        "clip",
        *SMALL,
        *TINY,
        "--out",
        tmp_path / "run",
    )
    assert printed(*words) == {**as_printed(run), "run": str(tmp_path / "run")}
    assert (run.run / "config.yaml").read_text() == (tmp_path / "run" / "config.yaml").read_text()

    evaluation = gapless.evaluate(run.run, data=Manifest.read(home / "m"), num_bootstrap=0)
    assert as_printed(evaluation) == json.loads((run.run / "results.json").read_text())
    assert as_printed(evaluation) == printed("evaluate", run.run, "--data", home / "m", "--num_bootstrap", 0)
    assert evaluation.n == evaluation.gallery_size == 20
    with pytest.raises(UsageError, match="in use"):
        gapless.train("phantom-small", data=home / "m", out=run.run, settings=recipe())


def test_compare_and_report(home, printed, tmp_path):
    options = {"methods": ["clip", "gapless"], "seeds": [0], "num_bootstrap": 0, "settings": recipe()}
    comparison = gapless.compare("phantom-small", data=home / "m", out=tmp_path / "c", **options)
    words = ("compare", "--data", home / "m", "--methods", "clip,gapless", "--seeds", 1, "--num_bootstrap", 0)
    assert as_printed(comparison) == printed(*words, *SMALL, *TINY, "--out", tmp_path / "c"), "finished runs are kept"
    assert as_printed(comparison) == json.loads((tmp_path / "c" / "compare.json").read_text())

    report = gapless.report(tmp_path / "c", out=tmp_path / "r.html")
    assert as_printed(report) == printed("report", tmp_path / "c", "--out", tmp_path / "r.html")
    assert report.report.read_text().startswith("<!")


def test_embed(home, printed, tmp_path):
    embedded = gapless.embed(home / "model", data=Manifest.read(home / "m"), out=tmp_path / "e", split="test")
    words = ("embed", home / "model", "--data", home / "m", "--split", "test", "--out", tmp_path / "e")
    assert as_printed(embedded) == printed(*words)
    assert (embedded.rows, embedded.finished) == (20, True)


def test_measure_embeddings(home, printed):
    measurement = measure_embeddings(home / "e", num_bootstrap=10)
    assert as_printed(measurement) == printed("measure", home / "e", "--num_bootstrap", 10)
    in_memory = measure_embeddings(read_embeddings(home / "e"), num_bootstrap=10)
    assert in_memory == measurement


def test_close(home, printed, tmp_path):
    closed = gapless.close(home / "e", method="center", out=tmp_path / "closed")
    words = ("close", home / "e", "--method", "center")
    by_command = printed(*words, "--out", tmp_path / "by-command")
    assert by_command == {**as_printed(closed), "model": str(tmp_path / "by-command")}
    assert closed.takes == "raw inputs"
    assert closed.model.encode("text", ["chest radiograph"]).shape == (1, 24)


def test_index_delete_and_search(home, printed, tmp_path):
    pytest.importorskip("lancedb", reason="needs the extra 'search'")
    from gapless.search import delete, search

    indexed = gapless.index(home / "model", data=home / "e", out=tmp_path / "c")
    words = ("index", home / "model", "--data", home / "e")
    assert printed(*words, "--out", tmp_path / "c2") == {**as_printed(indexed), "collection": str(tmp_path / "c2")}
    found = search(tmp_path / "c", "left mass", k=3, where="split = 'test'", modality="image")
    query = ("search", tmp_path / "c", "left mass", "--k", 3, "--where", "split = 'test'", "--modality", "image")
    assert as_printed(found) == printed(*query)
    assert {hit.modality for hit in found.hits} == {"image"}

    deleted = delete(tmp_path / "c", where="split = 'test'")
    assert as_printed(deleted) == printed("index", "delete", tmp_path / "c2", "--where", "split = 'test'")
    assert (deleted.deleted, deleted.rows) == (40, 80)


def test_captions(home, captioner, printed, tmp_path, without_java):
    words = ["caption", "train", home / "model", "--data", home / "m", "--max_tokens", 12, "--out", tmp_path / "again"]
    words += [*(f"--decoder.{key}={value}" for key, value in DECODER.items()), *TINY[2:]]
    assert printed(*words) == {**as_printed(captioner), "run": str(tmp_path / "again")}

    greedy = GenerationSettings(method="greedy")
    captions = gapless.caption(captioner.run, data=home / "m", settings=greedy)
    generate = ("caption", "generate", captioner.run, "--method", "greedy")
    assert as_printed(captions) == printed(*generate, "--data", home / "m")
    assert captions.captions == 20

    picture = next((home / "m" / "images").rglob("*.png"))
    shutil.copy(picture, tmp_path / "a.png")
    (tmp_path / "broken.png").write_bytes(b"no image")
    of_files = gapless.caption(captioner.run, images=[tmp_path / "a.png", tmp_path / "broken.png"], settings=greedy)
    assert (of_files.captions, list(of_files.unreadable)) == (1, [str(tmp_path / "broken.png")])
    with pytest.raises(DataRefused, match="1 of 2 images"):
        of_files.refuse_unreadable()

    scores = gapless.evaluate_captions(captioner.run, data=home / "m", num_bootstrap=0)
    evaluate = ("caption", "evaluate", captioner.run, "--data", home / "m", "--num_bootstrap", 0)
    assert as_printed(scores) == printed(*evaluate)
    assert as_printed(scores) == json.loads((captioner.run / "results.json").read_text())


def test_export(home, printed, tmp_path):
    closed = gapless.close(home / "e", method="center", out=tmp_path / "closed")
    exported = gapless.export(closed.path, to="hub", out=tmp_path / "hub", data=home / "m")
    words = ("export", closed.path, "--to", "hub", "--data", home / "m", "--name", "hub")
    assert printed(*words, "--out", tmp_path / "hub2") == {**as_printed(exported), "export": str(tmp_path / "hub2")}
    cards = [(tmp_path / name / "README.md").read_text() for name in ("hub", "hub2")]
    assert cards[0] == cards[1]
    with pytest.raises(UsageError, match="--to hub"):
        gapless.export(closed.path, to="onnx", out=tmp_path / "x", push_to="somebody/model")


@pytest.mark.parametrize("verb", ["audit", "close", "embed", "evaluate", "caption", "evaluate_captions", "export"])
def test_the_examples_of_the_calls_run(verb, examples_place, monkeypatch, without_java):
    check_example(getattr(gapless, verb), examples_place, monkeypatch)


def test_the_examples_of_a_collection_run(examples_place, monkeypatch):
    pytest.importorskip("lancedb", reason="needs the extra 'search'")
    from gapless.search import search

    check_example(gapless.index, examples_place, monkeypatch)
    check_example(search, examples_place, monkeypatch)


def test_the_example_of_measuring_files_runs(tmp_path, monkeypatch):
    check_example(measure_embeddings, tmp_path, monkeypatch)


@pytest.fixture(scope="module")
def examples_place(home, run, captioner, tmp_path_factory):
    """Where the examples run: `data`, a measured `run`, a `captioner` and `chest.png`."""
    place = tmp_path_factory.mktemp("examples")
    shutil.copytree(home / "m", place / "data")
    shutil.copytree(run.run, place / "run")
    shutil.copytree(captioner.run, place / "captioner", ignore=shutil.ignore_patterns("captions-*", "results.json"))
    shutil.copy(next((home / "m" / "images").rglob("*.png")), place / "chest.png")
    gapless.evaluate(place / "run", data=place / "data", num_bootstrap=0)
    return place


def check_example(function, place, monkeypatch):
    """Run the examples of one docstring in a directory, each of which must print what it says."""
    monkeypatch.chdir(place)
    module = import_module(function.__module__)
    (test,) = doctest.DocTestFinder(recurse=False).find(function, function.__name__, module, dict(vars(module)))
    assert test.examples
    said = []
    assert doctest.DocTestRunner().run(test, out=said.append).failed == 0, "".join(said)


def test_files_beside_rows_in_memory_are_refused():
    matrix = np.eye(4, dtype=np.float32)
    rows = EmbeddingSet(ids=list("abcd"), embeddings={"image": matrix, "text": matrix})
    with pytest.raises(UsageError, match="EmbeddingSet has its own"):
        measure_embeddings(rows, groups="groups.txt")
