"""`gapless index` run again on data that has changed: what it leaves as it was is said, on stderr and in the JSON."""

import csv
import json
from pathlib import Path
from typing import Any

import pytest
from fakes import tiny_model
from small_service import pixels_of, png_of

from gapless.cli.main import main
from gapless.search.collection import Collection

AGES = ["7", "60", "", "100", "9", "61"]


class Place:
    """A folder with a table, a manifest, a model and a collection, and the commands on them."""

    def __init__(self, home: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self.home = home
        self.capsys = capsys
        (home / "images").mkdir()
        tiny_model().save_pretrained(home / "model")
        self.builds = 0

    def table(self, ages: list[str], **captions: str) -> None:
        """A new manifest of rows r0, r1, ... under the same name of source."""
        with (self.home / "table.csv").open("w", newline="") as stream:
            rows = csv.writer(stream)
            rows.writerow(["key", "image", "caption", "age"])
            for number, age in enumerate(ages):
                file = self.home / "images" / f"{number}.png"
                if not file.exists():
                    file.write_bytes(png_of(pixels_of(number)))
                rows.writerow([f"r{number}", file.name, captions.get(f"r{number}", f"finding {number}"), age])
        self.builds += 1
        keys = ["--id-key", "key", "--image-key", "image", "--caption-key", "caption", "--label-key", "age"]
        places = ["--image-root", str(self.home / "images"), "--out", str(self.manifest)]
        assert main(["data", "table", str(self.home / "table.csv"), *keys, *places]) == 0

    @property
    def manifest(self) -> Path:
        return self.home / f"manifest{self.builds}"

    def index(self, *options: str, code: int = 0) -> tuple[Any, str]:
        """The JSON of a run and its notes."""
        self.capsys.readouterr()
        words = ["index", str(self.home / "model"), "--data", str(self.manifest), "--out", str(self.home / "c")]
        assert main([*words, "--json", *options]) == code
        said = self.capsys.readouterr()
        notes = [line for line in said.err.splitlines() if line.startswith("gapless: ")]
        return (json.loads(said.out) if code == 0 else None), "\n".join(notes)

    def delete(self, where: str) -> None:
        assert main(["index", "delete", str(self.home / "c"), "--where", where]) == 0


@pytest.fixture
def place(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Place:
    return Place(tmp_path, capsys)


def test_a_first_run_and_the_same_again_have_nothing_to_say(place: Place) -> None:
    place.table(AGES)
    counts, notes = place.index()
    assert (counts["rows"], counts["added"], counts["labels"], notes) == (12, 6, {"age": "number"}, "")
    counts, notes = place.index()
    assert (counts["rows"], counts["unchanged"], counts["deleted"], counts["not_in_data"], notes) == (12, 6, 0, 0, "")


def test_deleted_rows_stay_out_and_are_named_until_they_are_restored(place: Place) -> None:
    place.table(AGES)
    place.index()
    place.delete("age > 60")
    counts, notes = place.index()
    assert (counts["rows"], counts["deleted"], counts["added"]) == (8, 2, 0)
    assert "2 samples have rows that were deleted" in notes
    assert "(r3, r5); --restore_deleted brings them back" in notes
    place.table(AGES, r3="another finding")
    counts, notes = place.index()
    assert (counts["rows"], counts["deleted"]) == (8, 2)
    assert "1 of them changed since" in notes
    counts, notes = place.index("--restore_deleted")
    assert (counts["rows"], counts["restored"], notes) == (12, 2, "")
    assert Collection.open(place.home / "c").get("r3/text").caption == "another finding"  # type: ignore[union-attr]


def test_samples_that_left_the_table_stay_and_are_named(place: Place) -> None:
    place.table(AGES)
    place.index()
    place.table(AGES[:4])
    counts, notes = place.index()
    assert (counts["rows"], counts["unchanged"], counts["not_in_data"]) == (12, 4, 2)
    assert "2 samples of the collection are no longer in its data and stay (r4, r5)" in notes


@pytest.mark.parametrize("change", ["caption", "age", "image"])
def test_what_changed_under_its_name_is_refused_until_update(place: Place, change: str) -> None:
    place.table(AGES)
    place.index()
    if change == "image":  # the same name, other bytes
        (place.home / "images" / "2.png").write_bytes(png_of(pixels_of(20)))
    place.table(
        ["7", "60", "8", *AGES[3:]] if change == "age" else AGES, **({"r2": "x"} if change == "caption" else {})
    )
    _, notes = place.index(code=3)
    assert "1 samples differ" in notes
    assert "(r2); --update replaces them" in notes
    counts, notes = place.index("--update")
    assert (counts["updated"], counts["rows"], notes) == (1, 12, "")


def test_words_for_a_label_of_numbers_are_refused_by_name(place: Place) -> None:
    place.table(AGES)
    place.index()
    place.table([*AGES, "unknown", "5"])
    _, notes = place.index(code=3)
    assert "the label 'age'" in notes
    assert "(r6: 'unknown')" in notes
    assert Collection.open(place.home / "c").count() == 12
    counts, _ = place.index("--text_labels", "age")
    assert (counts["rows"], counts["labels"]) == (16, {"age": "text"})


@pytest.mark.parametrize(
    ("first", "kind"), [([*AGES, "unknown"], "text"), (["007", "008"], "text"), (["", ""], "empty")]
)
def test_the_kind_of_a_label_is_reported(place: Place, first: list[str], kind: str) -> None:
    place.table(first)
    counts, notes = place.index()
    assert (counts["labels"], notes) == ({"age": kind}, "")
    place.table([*first, "5"])
    counts, _ = place.index()
    assert counts["labels"] == {"age": "number" if kind == "empty" else "text"}
