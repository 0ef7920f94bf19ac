"""The extractor of findings: sentences worked by hand, marked lines, and what must not change it."""

import random
import sys
from pathlib import Path

import pytest

from gapless.captioning.finding_terms import vocabulary
from gapless.captioning.findings import Mention, findings_of, numbers_of
from gapless.core.errors import UsageError

sys.path.insert(0, str(Path(__file__).parents[2] / "examples"))
from check_findings import counts_of, read_gold

HERE = Path(__file__).parent
STATUS = "findings with their status"


def statuses(text):
    return {name: one.status for name, one in findings_of(text, vocabulary()).items()}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("No effusion, pneumothorax, or mass.", {"effusion": "denied", "pneumothorax": "denied", "mass": "denied"}),
        ("No effusion, mild edema.", {"effusion": "denied", "edema": "present"}),
        ("No change in the effusion.", {"effusion": "present"}),
        ("Not without effusion.", {"effusion": "present"}),
        ("Cannot exclude a fracture.", {"fracture": "uncertain"}),
        ("A fracture can't be excluded.", {"fracture": "uncertain"}),
        ("No findings suggestive of appendicitis.", {"appendicitis": "denied"}),
        ("Effusion and mass are not seen.", {"effusion": "denied", "mass": "denied"}),
        ("Left effusion, pneumothorax is not seen.", {"effusion": "present", "pneumothorax": "denied"}),
        ("The heart is not enlarged.", {"cardiomegaly": "denied"}),
        ("No pericardial effusion.", {"pericardial effusion": "denied"}),
        ("Small effusion. No effusion on the right.", {"effusion": "present"}),
        ("Kein Pneumothorax links, kleiner Erguss.", {"pneumothorax": "present"}),  # English only: the docs say so
        ("", {}),
        (". , ; ?? !!", {}),
    ],
)
def test_named_denied_and_uncertain(text, expected):
    assert statuses(text) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Left effusion and right pneumothorax.", {"effusion": "left", "pneumothorax": "right"}),
        ("Effusions in both lungs, larger on the left.", {"effusion": "both"}),
        ("RUL mass.", {"mass": "right"}),
        ("Left effusion. Right effusion.", {"effusion": "both"}),
        ("Effusion.", {"effusion": None}),
        ("Midline shift to the left.", {"mass effect": "left"}),
    ],
)
def test_sides(text, expected):
    assert {name: one.side for name, one in findings_of(text, vocabulary()).items()} == expected


def test_mirrored_texts_have_mirrored_sides():
    mirror = {"left": "right", "right": "left", None: None, "both": "both"}
    for text in (line[0].lower() for line in read_gold(HERE / "findings_tune.tsv")):
        if any(word in text for word in ("lul", "rul", "lll", "rll")):
            continue
        swapped = " right ".join(part.replace("right", "left") for part in text.split("left"))
        expected = {name: (one.status, mirror[one.side]) for name, one in findings_of(text, vocabulary()).items()}
        found = findings_of(swapped, vocabulary())
        assert {name: (one.status, one.side) for name, one in found.items()} == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("A 2 x 3.5 cm mass", {(20, "mm"), (35, "mm")}),
        ("a 45-year-old, 3 days", {(45, "year"), (3, "day")}),
        ("L4-L5, T2 image", set()),
        ("25 % in 2009", {(25, "%"), (2009, "")}),
        ("12mm", {(12, "mm")}),
        ("none", set()),
    ],
)
def test_numbers(text, expected):
    assert numbers_of(text) == expected


@pytest.mark.parametrize(("part", "least"), [("tune", 0.98), ("check", 0.95)])
def test_the_marked_lines(part, least):
    """The figures of docs/captioning.md; the control: texts in another order than their marks agree far less."""
    lines = read_gold(HERE / f"findings_{part}.tsv")
    assert len(lines) == 100
    count = counts_of(lines)[STATUS]
    assert min(count["right"] / count["said"], count["right"] / count["marked"]) >= least
    texts = [line[0] for line in lines]
    random.Random(0).shuffle(texts)
    shuffled = counts_of([(text, *line[1:]) for text, line in zip(texts, lines, strict=True)])[STATUS]
    assert shuffled["right"] / shuffled["said"] < 0.2


def test_the_parts_share_no_line():
    parts = [{line[0] for line in read_gold(HERE / f"findings_{part}.tsv")} for part in ("tune", "check")]
    assert parts[0].isdisjoint(parts[1])


def test_a_list_of_ones_own_adds_findings_and_forms(tmp_path):
    file = tmp_path / "own.tsv"
    file.write_text("# mine\nzebra sign\tzebra sign|striped .. pattern\neffusion\twater lung\n", encoding="utf-8")
    own = vocabulary(file)
    text = "No zebra signs. Striped cortical pattern on the left. Water lung."
    found = findings_of(text, own)
    assert found == {"zebra sign": Mention("present", "left"), "effusion": Mention("present")}
    assert findings_of(text, vocabulary()) == {}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("zebra", "line 1 is not a finding"),
        ("zebra\t|", "line 1 is not a finding"),
        ("# only a comment\n", "names no finding"),
        ("zebra\t.. sign", "line 1 is not a finding"),
        ("zebra\tsign ..", "line 1 is not a finding"),
    ],
)
def test_a_list_of_another_form_is_refused(tmp_path, text, message):
    file = tmp_path / "own.tsv"
    file.write_text(text, encoding="utf-8")
    with pytest.raises(UsageError, match=message):
        vocabulary(file)
    with pytest.raises(UsageError, match="cannot be read"):
        vocabulary(tmp_path / "none.tsv")
    assert not statuses("zebra")


def test_ten_thousand_words_are_read():
    text = " ".join(["no effusion,", "a left mass;"] * 2500)
    assert statuses(text) == {"effusion": "denied", "mass": "present"}
    listed = "no " + ", ".join(["effusion"] * 10_000)
    assert statuses(f"{listed} or mass") == {"effusion": "denied", "mass": "denied"}
