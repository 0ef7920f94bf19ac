"""A query as parts: what the shorthands mean, how weights count, and all rows of one sample."""

from pathlib import Path

import numpy as np
import pytest
from small_cases import SOURCES, ecg_of, labs_of, open_cases, raws_of

from gapless.core.errors import UsageError
from gapless.search.arguments import inputs_of
from gapless.search.searcher import Searcher, asked_with, weighted_mean


@pytest.fixture(scope="module")
def searcher(tmp_path_factory: pytest.TempPathFactory) -> Searcher:
    return open_cases(tmp_path_factory.mktemp("parts"))


def test_the_shorthands_are_inputs_and_weights() -> None:
    assert inputs_of("cyst", None, 0.5) == ({"text": "cyst"}, {})
    assert inputs_of("cyst", b"x", 0.3) == ({"text": "cyst", "image": b"x"}, {"text": 0.7, "image": 0.3})
    assert inputs_of("cyst", b"x", 0.3, {}, {"text": 2}) == ({"text": "cyst", "image": b"x"}, {"text": 2})
    assert inputs_of("cyst", None, 0.5, {"labs": "a=1"}, words_as="report")[0] == {"report": "cyst", "labs": "a=1"}
    _, weights = inputs_of("cyst", b"x", 0.5, {"labs": "a=1"})
    assert weights == {"text": 1.0, "image": 1.0}, "even with each other, and with the labs, which weigh 1"
    for given in ((None, None, 0.5), (None, None, 0.5, {}), ("x", None, 1.5), ("x", None, 0.5, {"text": "y"})):
        with pytest.raises(UsageError):
            inputs_of(*given)


def test_parts_are_checked_by_their_kinds(searcher: Searcher) -> None:
    parts = searcher.parts({"labs": "age=34", "ecg": ecg_of(2), "text": "knee"}, {"ecg": 0.5, "text": 0})
    assert [(part.modality, part.weight) for part in parts] == [("labs", 1.0), ("ecg", 0.5)]
    assert parts[0].raw == {"age": 34.0, "hb": None, "ward": None}
    assert asked_with(parts) == {"labs": pytest.approx(2 / 3), "ecg": pytest.approx(1 / 3)}
    for inputs, weights, sentence in (
        ({"lab": "age=3"}, {}, "lab"),
        ({"labs": "age=x"}, {}, "'age' is one of numbers"),
        ({"labs": "age=3"}, {"lab": 1}, "labs"),
        ({"labs": "age=3"}, {"labs": 0}, "a weight above 0"),
        ({"labs": "age=3"}, {"labs": -1}, "the weight of labs"),
        ({"labs": "age=3"}, {"labs": float("nan")}, "the weight of labs"),
        ({"labs": "age=3"}, {"labs": True}, "the weight of labs"),
        ({"text": "x", "labs": "age=3"}, {"text": 0, "labs": "1"}, "the weight of labs"),
        ({"ecg": "x\0"}, {}, "names no file"),
    ):
        with pytest.raises(UsageError, match=sentence):
            searcher.parts(inputs, weights)


def test_a_file_is_named_by_its_path(searcher: Searcher, tmp_path: Path) -> None:
    np.save(tmp_path / "ecg.npy", ecg_of(5))
    (part,) = searcher.parts({"ecg": str(tmp_path / "ecg.npy")})
    vector = searcher.encode("ecg", [part.raw])[0]
    assert searcher.collection.search(vector, k=1, modality="ecg")[0].row == "case 5/ecg"


def test_the_mean_of_parts_is_that_of_their_weights(searcher: Searcher) -> None:
    parts = searcher.parts({"labs": labs_of(2), "ecg": ecg_of(2)}, {"labs": 3.0, "ecg": 1.0})
    vectors = [searcher.encode(part.modality, [part.raw])[0] for part in parts]
    expected = 3 * vectors[0].astype(float) + vectors[1]
    np.testing.assert_allclose(weighted_mean(vectors, parts), expected / np.linalg.norm(expected), rtol=1e-5)
    with pytest.raises(UsageError, match="opposite directions"):
        weighted_mean([vectors[0], -vectors[0]], searcher.parts({"labs": labs_of(2), "ecg": ecg_of(2)}))


def test_prepared_inputs_give_the_same_rows(searcher: Searcher) -> None:
    for name in SOURCES:
        kind, raws = searcher.model.preprocessor(name), list(raws_of(name).values())
        rows = searcher.encode_prepared(name, [kind.prepare(raw) for raw in raws])
        np.testing.assert_array_equal(rows, searcher.encode(name, raws))


def test_the_rows_of_a_sample_are_all_that_it_has(searcher: Searcher) -> None:
    rows = searcher.collection.rows_of("case 7")
    assert [row.modality for row in rows] == [
        name for name in searcher.collection.info["modalities"] if SOURCES[name][1](7)
    ]
    assert {(row.id, row.score) for row in rows} == {("case 7", 1.0)}
    assert [row.preview is not None for row in rows] == [row.modality in ("labs", "history") for row in rows]
    assert searcher.collection.rows_of("case 7/ecg") == searcher.collection.rows_of("nowhere") == []
    with pytest.raises(UsageError, match="a row is named by its key"):
        searcher.collection.rows_of(3)  # type: ignore[arg-type]
