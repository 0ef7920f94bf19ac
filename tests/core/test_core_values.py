"""One function says what a cell means, for every reader and file format."""

from datetime import date, datetime
from decimal import Decimal

import numpy as np
import pytest

from gapless.core.values import is_missing, name_of, text_of


@pytest.mark.parametrize(
    "value",
    [
        None,
        float("nan"),
        np.float32("nan"),
        np.datetime64("NaT"),
        "",
        "  ",
        "nan",
        "NaN",
        "None",
        "NA",
        "-",
        " - ",
        b"",
        [],
    ],
    ids=repr,
)
def test_a_missing_value_is_missing_in_every_type(value):
    assert is_missing(value)
    assert text_of(value) == ""
    assert name_of(value) == ""


@pytest.mark.parametrize(
    "value", [0, 0.0, False, "0", "none of these", "normal", "-1", "Nancy", np.int64(0), b"x"], ids=repr
)
def test_what_only_looks_empty_is_kept(value):
    assert not is_missing(value)
    assert text_of(value)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (1000.0, "1000"),
        (np.float64(1000.0), "1000"),
        (np.int32(7), "7"),
        (Decimal("7.00"), "7"),
        (0.5, "0.5"),
        (True, "true"),
        (np.True_, "true"),
        (b" left ", "left"),
        (["Edema", None, "Effusion"], "Edema; Effusion"),
        (np.array(["a", "b"]), "a; b"),
        (date(2020, 1, 2), "2020-01-02"),
        (datetime(2020, 1, 2), "2020-01-02"),
        (" left ", "left"),
        ("1000.0", "1000.0"),
    ],
)
def test_text_of_a_cell(value, text):
    assert text_of(value) == text


@pytest.mark.parametrize(
    ("value", "name"),
    [
        ("1000.0", "1000"),
        ("1000", "1000"),
        (1000, "1000"),
        (1000.0, "1000"),
        ("007", "007"),
        ("7", "7"),
        ("007.0", "007.0"),
        ("1.5", "1.5"),
        ("v2.0", "v2.0"),
        ("0.0", "0"),
    ],
)
def test_one_patient_has_one_name_in_every_format(value, name):
    assert name_of(value) == name


@pytest.mark.parametrize("value", [b"\xff\xfe", {"a": 1}], ids=repr)
def test_what_is_no_text_is_refused(value):
    with pytest.raises(ValueError, match="expected"):
        text_of(value)
