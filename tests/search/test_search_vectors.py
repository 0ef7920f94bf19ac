"""A model of images, texts and vectors of another encoder, over a manifest of version 1 whose rows lack vectors."""

from pathlib import Path

import numpy as np
import pytest
from absent_rows import three_modalities, without
from fakes import tiny_model

import gapless
from gapless.cli.main import main
from gapless.core.errors import UsageError
from gapless.manifest.manifest import Manifest
from gapless.manifest.readers.phantom import write_phantom
from gapless.search.queries import search
from gapless.search.searcher import Searcher

LACKING = (0, 3, 4)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("vectors")
    tiny_model(modalities=three_modalities()).save_pretrained(place / "model")
    write_phantom(place / "data", num_pairs=24, num_validation=4, num_test=4, image_size=16)
    manifest = without(Manifest.read(place / "data"), {"waveform": LACKING})
    indexed = gapless.index(place / "model", data=manifest, out=place / "c")
    assert indexed.modalities == {"image": 24, "text": 24, "waveform": 24 - len(LACKING)}
    assert (indexed.rows, indexed.added, indexed.notes) == (69, 24, ())
    return place


@pytest.fixture(scope="module")
def row(place: Path) -> tuple[str, list[float]]:
    """The id of a sample, and its waveform."""
    table = Manifest.read(place / "data").table
    return table["id"][7].as_py(), table["waveform"][7].as_py()


def test_numbers_are_a_query_of_vectors(place, row, tmp_path, capsys):
    sample, numbers = row
    for given in (numbers, np.array(numbers), str(numbers)):
        found = search(place / "c", query={"waveform": given}, k=1)
        assert (found.hits[0].id, found.hits[0].modality) == (sample, "waveform")
        assert found.hits[0].similarity == pytest.approx(1, abs=1e-5)
    np.save(tmp_path / "row.npy", np.array(numbers))
    assert main(["search", str(place / "c"), "--query", f"waveform={tmp_path / 'row.npy'}", "--k", "1"]) == 0
    assert sample in capsys.readouterr().out


@pytest.mark.parametrize("value", ["left mass", "/etc/passwd", b"\x93NUMPY", Path("nowhere.npy"), 3.0, [], ["a"], None])
def test_vectors_are_asked_for_with_numbers_alone(place, value):
    searcher = Searcher.open(place / "c")
    with pytest.raises(UsageError, match=r"waveform: it takes vectors of another encoder.*give the 64 numbers"):
        searcher.parts({"waveform": value})
    with pytest.raises(UsageError, match="waveform: a vector must be 64 finite numbers, got 3"):
        searcher.parts({"waveform": [1.0, 2.0, 3.0]})
    with pytest.raises(UsageError, match="finite numbers"):
        searcher.parts({"waveform": [float("nan")] * 64})
    assert searcher.query_modalities == ["image", "text"], "the page has no control for it"


def test_words_images_and_parts_mix(place, row):
    sample, numbers = row
    manifest = Manifest.read(place / "data")
    image = manifest.image_path(7)
    both = {"query": {"waveform": numbers}, "weights": {"text": 0, "image": 1, "waveform": 1}}
    searcher = Searcher.open(place / "c")
    vectors = [searcher.collection.vector_of(f"{sample}/{name}") for name in ("image", "waveform")]
    mean = sum(vectors) / np.linalg.norm(sum(vectors))
    expected = searcher.collection.search(mean.astype(np.float32), k=5)
    found = search(place / "c", "left mass", image=image, **both, raw=True, k=5)
    assert [hit.row for hit in found.hits] == [hit.row for hit in expected]
    np.testing.assert_allclose([hit.score for hit in found.hits], [hit.score for hit in expected], atol=1e-5)
    words = search(place / "c", "left mass", k=5, raw=True).hits
    named = search(place / "c", query={"text": "left mass"}, k=5, raw=True).hits
    assert words == named
    long = search(place / "c", query={"text": "mass " * 200}, k=1)
    assert long.cut.tokens > long.cut.read
    assert any("tokens" in note for note in long.notes)


def test_vectors_that_arrive_later_are_an_update_of_their_samples(place, tmp_path):
    """A row of version 1 is compared as a whole, so that the other rows of the sample count as changed."""
    whole = Manifest.read(place / "data")
    gapless.index(place / "model", data=without(whole, {"waveform": LACKING}), out=tmp_path / "c")
    done = gapless.index(place / "model", data=whole, out=tmp_path / "c", update=True)
    assert (done.updated, done.unchanged, done.rows) == (len(LACKING), 24 - len(LACKING), 72)
