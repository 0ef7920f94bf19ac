"""Missing groups are refused and missing labels are missing, in whatever form a column comes."""

import numpy as np
import pytest
import torch

from gapless.core.errors import DataRefused
from gapless.metrics.inputs import group_index
from gapless.metrics.labels import described_label, label_codes, telling_label
from gapless.metrics.measure import measure

NAN = float("nan")


def pair(n=12, dim=4):
    random = np.random.default_rng(1)
    image = random.normal(size=(n, dim)).astype(np.float32)
    return {"image": image, "text": image + 0.3 * random.normal(size=(n, dim)).astype(np.float32)}


@pytest.mark.parametrize(
    "groups",
    [
        ["a", None, "b", None],
        ["a", "", "b", "  "],
        ["a", "nan", "b", "-"],
        np.array([1.0, NAN, 2.0, NAN]),
        torch.tensor([1.0, NAN, 2.0, NAN]),
        np.array(["2020-01-01", "NaT", "2021-01-01", "NaT"], "M8[ns]"),
        np.ma.array([1, 2, 3, 4], mask=[0, 1, 0, 1]),
    ],
)
def test_rows_without_a_group_are_counted_and_refused(groups):
    with pytest.raises(DataRefused, match=r"2 of 4 rows have no group \(row 1, 3\)"):
        group_index(groups, 4)


def test_measure_refuses_them_and_takes_the_same_groups_whole():
    groups = [f"p{row // 2}" for row in range(12)]
    assert measure(pair(), groups=groups, include=("gap",))["n"] == 12
    with pytest.raises(DataRefused, match="1 of 12 rows have no group"):
        measure(pair(), groups=[*groups[:-1], None], include=("gap",))


def test_groups_are_names():
    assert len(set(group_index([1000.0, "1000", "1000.0", 1000, np.float32(1000)], 5).tolist())) == 1
    assert len(set(group_index(["007", "7", 7], 3).tolist())) == 2
    assert group_index(np.array([10, 2, 10]), 3).tolist() == [1, 0, 1]  # numbers in their order


def test_cells_that_name_nothing_are_refused_in_a_sentence():
    with pytest.raises(DataRefused, match="groups: row 1 holds a list"):
        group_index(["a", ["b"]], 2)
    with pytest.raises(DataRefused, match="groups: row 0 holds a mapping"):
        group_index([{"bytes": b"x"}, "a"], 2)
    with pytest.raises(DataRefused, match="finding: row 0"):
        label_codes("finding", [b"\xff\xfe", "a"], 2)
    with pytest.raises(ValueError, match=r"one value per row, got shape \(2, 2\)"):
        group_index(np.zeros((2, 2)), 2)


def test_missing_labels_are_no_class():
    values = np.array([0.0, NAN, 1.0, 0.0, NAN, 1.0])
    assert label_codes("x", values, 6).tolist() == [0, -1, 1, 0, -1, 1]
    assert label_codes("x", [1, "1.0", 1.0, "nan", None, "2", 2], 7).tolist() == [0, 0, 0, -1, -1, 1, 1]


def test_a_label_whose_every_value_differs_is_no_class():
    with pytest.raises(DataRefused, match="path: each of the 3 labels occurs once"):
        label_codes("path", ["a.png", "b.png", "c.png", None], 4)
    assert label_codes("path", ["a.png", "b.png", "a.png", None], 4).tolist() == [0, 1, 0, -1]


def test_the_automatic_choice_passes_over_what_is_no_class():
    modality = ["CT", "MR"] * 6
    columns = {
        "findings": [["a"], ["b"]] * 6,
        "picture": [{"path": "x"}] * 12,
        "thumbnail": [b"\x00", b"\x01"] * 6,
        "one": ["CT"] * 12,
        "path": [f"{row}.png" for row in range(12)],
        "patient": [f"p{min(row, 9)}" for row in range(12)],
        "age": [50, 60, 50, 60, *[None] * 8],
    }
    assert telling_label(columns) == "age"  # known for few rows, but there is no other
    assert telling_label({**columns, "modality": modality}) == "modality"
    assert telling_label({"modality": modality}, groups=["p"] * 12) is None  # nothing could be held out
    assert "'age' (2 classes, 4 of 12 rows)" in str(described_label("age", columns))
    assert "no column can be classes" in str(described_label(None, {"one": ["CT"] * 12}))
