"""An infinity among the numbers of a table's field costs its row, and makes no field of words."""

import csv

import pytest

from gapless.core.errors import DataRefused
from gapless.manifest.readers.table import read_table


def written(path, ages):
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["id", "caption", "age"])
        writer.writerows([f"r{number}", f"text {number}", age] for number, age in enumerate(ages))
    return path


@pytest.mark.parametrize("infinity", ["inf", "-Infinity", "+INF", "1e999"])
def test_the_row_is_named_and_the_field_stays_one_of_numbers(tmp_path, infinity):
    table = written(tmp_path / "t.csv", ["30", "31", infinity, "33"])
    modalities = ["report=text:caption", "labs=table:age"]
    with pytest.raises(DataRefused, match=r"labs: not a number: field 'age' is"):
        read_table(table, tmp_path / "refused", modality=modalities)
    manifest = read_table(table, tmp_path / "m", modality=modalities, max_bad=0.5)
    assert len(manifest) == 3
    assert manifest.info["skipped"] == {"labs: not a number": 1}
    assert [cell[0]["age"] for cell in manifest.cells("labs")] == [30.0, 31.0, 33.0]


def test_words_still_make_a_field_of_categories(tmp_path):
    table = written(tmp_path / "t.csv", ["ward", "ward", "infirmary", "inf"])
    manifest = read_table(table, tmp_path / "m", modality=["report=text:caption", "labs=table:age"])
    assert [cell[0]["age"] for cell in manifest.cells("labs")] == ["ward", "ward", "infirmary", "inf"]
