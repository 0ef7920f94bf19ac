"""Captions: what nobody sees leaves no trace in a word, every space is one space, and "nan" is no caption."""

import sys
import unicodedata

import pytest
from data_samples import noise_image, write_jsonl

from gapless.manifest.clean_text import clean_captions, clean_text
from gapless.manifest.readers.table import read_table

CHARACTERS = [chr(code) for code in range(sys.maxunicode + 1) if not 0xD800 <= code <= 0xDFFF]
# Arabic, Syriac and Kaithi signs around a number: of class Cf, but drawn.
DRAWN = {*map(chr, (*range(0x600, 0x606), 0x6DD, 0x70F, 0x890, 0x891, 0x8E2, 0x110BD, 0x110CD))}


def of_class(*names):
    return [character for character in CHARACTERS if unicodedata.category(character) in names]


def test_no_character_that_nobody_sees_parts_a_word():
    invisible = [character for character in of_class("Cf") if character not in DRAWN]
    assert len(invisible) > 100
    assert {clean_text(f"oede{character}ma") for character in invisible} == {"oedema"}
    assert {clean_text(f"{character}left{character} lung{character}") for character in invisible} == {"left lung"}


def test_signs_that_are_drawn_stay():
    assert {clean_text(f"a{sign}1") for sign in DRAWN} == {f"a{sign}1" for sign in DRAWN}


def test_every_space_line_break_and_control_character_is_one_space():
    blanks = of_class("Zs", "Zl", "Zp", "Cc")
    assert len(blanks) > 80
    assert {clean_text(f"5{blank}mm") for blank in blanks} == {"5 mm"}
    assert {clean_text(f"5 {blank}{blank} mm{blank}") for blank in blanks} == {"5 mm"}


def test_letters_marks_and_signs_stay_as_they_are():
    for text in ("é µ 左", "Befund: 3,5 cm – unauffällig", "👩‍⚕️".replace("\u200d", ""), "e\u0301", "≥ 5 % (p<.05)"):
        assert clean_text(text) == text


@pytest.mark.parametrize(
    "text", ["nan", "None", "-", "N/A", " NULL ", "<NA>", "\u2014", "\u200b", "\ufeffnan", "\u00a0"]
)
def test_a_text_that_says_that_there_is_none_is_no_caption(tmp_path, text):
    assert clean_captions([text, "small effusion", text]) == ["small effusion"]
    for number in range(3):
        noise_image(number).save(tmp_path / f"{number}.png")
    captions = ["clear lungs", text, [text, "old fracture"]]
    rows = [{"image": f"{n}.png", "caption": caption} for n, caption in enumerate(captions)]
    manifest = read_table(write_jsonl(tmp_path / "rows.jsonl", rows), tmp_path / "m", max_bad=0.5)
    assert manifest.table["captions"].to_pylist() == [["clear lungs"], ["old fracture"]]
    assert manifest.info["skipped"] == {"empty caption": 1}


def test_words_that_only_hold_such_letters_stay():
    """The control."""
    captions = ["nanocolloid uptake", "None of the nodes is enlarged", "- no change", "NA 140 mmol/l"]
    assert clean_captions(captions) == captions
