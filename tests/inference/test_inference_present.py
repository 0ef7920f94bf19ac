"""Rows of a manifest that lack modalities: what a sample, a batch and an embedding of them are."""

import numpy as np
import pytest
import torch
from absent_rows import NAMES, three_modalities, without
from fakes import tiny_model

from gapless.core.captions import caption_number
from gapless.core.errors import DataRefused
from gapless.inference.embed import Collator, embed_dataset, evaluation_dataset, prepared_batches, preprocessors_of
from gapless.inference.pairs import PairDataset
from gapless.inference.presence import comparable_part, complete_rows, hidden_modalities, missing_in
from gapless.manifest.readers.phantom import write_phantom
from gapless.modalities.text import TextInput, TextModality
from gapless.modalities.vector import VectorInput, VectorModality

ABSENT = {"image": [0, 5], "text": [1, 5], "waveform": [2, 3, 5, 7]}


@pytest.fixture(scope="module")
def manifest(tmp_path_factory):
    folder = tmp_path_factory.mktemp("phantom") / "data"
    return without(write_phantom(folder, num_pairs=12, num_validation=0, num_test=0, image_size=16), ABSENT)


@pytest.fixture(scope="module")
def model():
    return tiny_model(modalities=three_modalities()).eval()


def test_presence_is_read_from_the_cells(manifest):
    present = manifest.presence(NAMES)
    assert {name: np.flatnonzero(~mask).tolist() for name, mask in present.items()} == ABSENT
    assert missing_in(present) == {"image": 2, "text": 2, "waveform": 4}
    assert len(complete_rows(manifest, NAMES)) == 12 - 6
    assert len(comparable_part(manifest, NAMES)) == 11  # row 5 has nothing
    assert len(comparable_part(manifest, ("image", "text"))) == 9
    assert len(comparable_part(manifest, ("waveform",))) == 8


def test_a_sample_has_none_where_its_row_has_nothing(manifest, model):
    rows = PairDataset(manifest, preprocessors_of(model))
    for row in range(12):
        sample = rows[row]
        assert {name for name in NAMES if sample[name] is None} == {n for n, gone in ABSENT.items() if row in gone}
    assert rows[1]["caption"] is None
    assert rows.lacks_modalities
    assert not PairDataset(complete_rows(manifest, NAMES), preprocessors_of(model)).lacks_modalities


def test_a_batch_holds_what_is_there_and_says_where(manifest, model):
    rows = PairDataset(manifest, preprocessors_of(model))
    collate = Collator(preprocessors_of(model), mask_duplicates=True)
    inputs = collate([rows[row] for row in (1, 2, 4)])
    assert {name: mask.tolist() for name, mask in inputs["present"].items()} == {
        "image": [True, True, True],
        "text": [False, True, True],
        "waveform": [True, False, True],
    }
    assert {name: len(next(iter(x.values()))) for name, x in inputs["batch"].items()} == {
        "image": 3,
        "text": 2,
        "waveform": 2,
    }
    torch.testing.assert_close(inputs["batch"]["waveform"]["values"][1], torch.from_numpy(rows[4]["waveform"]))
    assert len(set(inputs["positives"].tolist())) == 3  # a row without a caption equals no other
    assert "waveform" not in collate([rows[2], rows[3]])["batch"]
    assert "present" not in collate([rows[4], rows[6]])
    always = Collator(preprocessors_of(model), with_presence=True)
    assert all(mask.all() for mask in always([rows[4], rows[6]])["present"].values())


def test_several_texts_are_positives_by_modality_and_drawn_like_captions(manifest):
    table = manifest.table.append_column("history", [[["fever", "cough"], ["Fever."], None, *[["cough"]] * 9]])
    several = type(manifest)(manifest.path, manifest.info, table)
    kinds = {"text": TextModality(TextInput()), "history": TextModality(TextInput())}
    rows = PairDataset(several, kinds)
    assert (rows[0]["history"], rows[2]["history"], rows[4]["texts"]["history"]) == ("fever", None, "cough")
    inputs = Collator({}, mask_duplicates=True)([rows[0], rows[1], rows[2]])
    assert inputs["positives"]["history"].tolist()[:2] == [caption_number("fever", "")] * 2
    assert len(set(inputs["positives"]["history"].tolist())) == 2
    assert inputs["positives"].keys() == {"text", "history"}
    drawn = {PairDataset(several, kinds, training_seed=1)[epoch, 0]["history"] for epoch in range(20)}
    assert drawn == {"fever", "cough"}


def test_absent_rows_are_nan_among_the_embeddings(manifest, model):
    rows = embed_dataset(model, evaluation_dataset(model, manifest), batch_size=5)
    complete = complete_rows(manifest, NAMES)
    expected = embed_dataset(model, evaluation_dataset(model, complete))
    ids = manifest.table["id"].to_pylist()
    places = [ids.index(one) for one in complete.table["id"].to_pylist()]
    for name in NAMES:
        assert rows[name].shape == (12, 24)
        assert torch.isnan(rows[name]).all(dim=1).nonzero().flatten().tolist() == ABSENT[name]
        torch.testing.assert_close(rows[name][places], expected[name], atol=1e-5, rtol=1e-5)


def test_what_needs_an_input_of_every_row_names_those_without(manifest, model):
    images = {"image": model.preprocessor("image")}
    with pytest.raises(DataRefused, match="rows without 'image' cannot be used here, such as"):
        list(prepared_batches(model, PairDataset(manifest, images), images))


def test_hidden_modalities_are_the_share_of_the_rows_and_two_stay():
    names, shares = ("a", "b", "c", "d"), {"b": 0.3, "c": 0.9, "d": 0.9}
    drawn = [hidden_modalities(names, shares, 7, epoch, f"row {row}") for epoch in range(4) for row in range(1000)]
    assert all(len(hidden) <= 2 and "a" not in hidden for hidden in drawn)
    counted = {name: sum(name in hidden for hidden in drawn) / len(drawn) for name in names}
    only_b = [hidden_modalities(names, {"b": 0.3}, 7, 0, f"row {row}") for row in range(4000)]
    assert sum("b" in hidden for hidden in only_b) / 4000 == pytest.approx(0.3, abs=0.03)
    assert counted["c"] == pytest.approx(counted["d"], abs=0.03)
    assert counted["c"] > 0.8
    assert drawn[:1000] == [hidden_modalities(names, shares, 7, 0, f"row {row}") for row in range(1000)]
    assert drawn[:1000] != drawn[1000:2000]
    assert not any(hidden_modalities(("c", "d"), shares, 7, epoch, "row") for epoch in range(50))


def test_training_hides_modalities_by_epoch_and_evaluation_does_not(manifest, model):
    shares = {"image": 0.5, "waveform": 0.5}
    training = PairDataset(manifest, preprocessors_of(model), training_seed=0, modality_dropout=shares)
    has = {name for name in NAMES if training[0, 4][name] is not None}
    seen = [frozenset(n for n in NAMES if training[epoch, 4][n] is not None) for epoch in range(30)]
    assert len(set(seen)) == 3
    assert min(map(len, seen)) == 2
    assert has == seen[0]
    assert all(training[epoch, 1]["image"] is not None for epoch in range(10))  # row 1 has two modalities alone
    evaluated = PairDataset(manifest, preprocessors_of(model), modality_dropout=shares)
    assert all(evaluated[epoch, 4][name] is not None for epoch in range(10) for name in NAMES)


def test_a_vector_of_nan_is_refused_and_not_taken_for_absent():
    with pytest.raises(DataRefused, match="finite numbers"):
        VectorModality(VectorInput(3)).prepare([1.0, float("nan"), 2.0])
