"""The report's section on captions: numbers as the files hold them, what may be compared, what is refused."""

import json
import re

import pytest
from fake_captions import figures, results, sample, write_captions
from fake_comparison import write_comparison
from page_reader import Page

from gapless.captioning.names import OWN_ENCODERS
from gapless.core.errors import DataRefused
from gapless.study.caption_table import caption_table
from gapless.study.captions import caption_section
from gapless.study.report import write_report

EVIL = '<img src=x onerror=alert(1)>"&'


def page_of(directory, *paths) -> str:
    out = directory / "report.html"
    write_report(list(paths), out)
    return out.read_text(encoding="utf-8")


def row_of(table, name):
    return {column.key: entry for column, entry in zip(table.columns, table.rows[name], strict=True)}


def test_numbers_are_those_of_the_files_with_baselines_below():
    table = caption_table({"a": results(0.3), "b": results(0.4)})
    assert list(table.rows) == ["a", "b", "constant caption", "random train caption", "nearest train caption"]
    a, b, nearest = (row_of(table, name) for name in ("a", "b", "nearest train caption"))
    assert (a["caption/CIDEr"].text, nearest["caption/CIDEr"].text) == ("0.300 ±0.020", "0.170 ±0.020")
    assert a["caption/METEOR"].text == "8.1 ±2.0", "rates are percent"
    assert a["caption/unique"].text == "50.0"
    assert b["caption/CIDEr"].is_best
    assert not a["caption/CIDEr"].is_best


def test_a_baseline_is_never_the_best():
    table = caption_table({"a": results(0.01), "b": results(0.02)})
    assert row_of(table, "b")["caption/CIDEr"].is_best
    assert not any(entry.is_best for name, row in table.rows.items() if "caption" in name for entry in row)


@pytest.mark.parametrize(
    ("second", "said"),
    [
        ({}, None),
        ({"split": "validation"}, "The rows differ in split"),
        ({"n": 41}, "The rows differ in n"),
        ({"tokenizer": "words"}, "The rows differ in tokenizer"),
        ({"data": {**results()["data"], "fingerprint": "other"}}, "The rows differ in data"),
        ({"judge": OWN_ENCODERS}, "compare it only where one --judge was given"),
        ({"figures": {**figures(0.3), "caption/empty": 0.25}}, "b: 25.0% of the captions are empty"),
    ],
)
def test_what_does_not_compare_is_said(second, said):
    notes = " ".join(caption_table({"a": results(), "b": results(**second)}).notes)
    sentences = ("differ in", "compare it only", "are empty")
    assert (said in notes) if said else not any(sentence in notes for sentence in sentences)
    assert "not for diagnosis" in notes


def test_without_java_the_page_says_what_is_missing(tmp_path):
    without = {key: value for key, value in figures(0.3).items() if key != "caption/METEOR"}
    missing = {"caption/METEOR": "needs Java"}
    path = write_captions(tmp_path / "a", tokenizer="words", missing=missing, figures=without)
    section = caption_section([path])
    assert row_of(section["table"], "a")["caption/METEOR"].text == "–", "never 0"
    told = {note.topic: note for note in section["notes"]}
    assert told["Tokenizer"].state == "warn"
    assert "Not the PTB tokenizer" in told["Tokenizer"].text
    assert told["Missing"].text == "caption/METEOR needs Java."
    assert "METEOR" not in [headline["name"] for headline in section["headlines"]]
    page = page_of(tmp_path, path)
    assert "do not compare with published scores" in page


@pytest.mark.parametrize(("cider", "state"), [(0.3, "good"), (0.2, "warn"), (0.1, "warn")])
def test_a_captioner_is_held_against_the_best_baseline(tmp_path, cider, state):
    """The best one is at 0.17, both within 0.02: 0.2 touches it."""
    section = caption_section([write_captions(tmp_path / "a", cider=cider)])
    note = next(note for note in section["notes"] if note.topic == "Baselines")
    assert note.state == state
    assert "nearest train caption" in note.text


def test_without_intervals_nothing_is_claimed(tmp_path):
    """`--num_bootstrap 0`: far above the baseline as it may be. The control is the test above."""

    def plain(found):
        return {key: figure["value"] if isinstance(figure, dict) else figure for key, figure in found.items()}

    baselines = {name: plain(found) for name, found in results()["baselines"].items()}
    path = write_captions(tmp_path / "a", figures=plain(figures(0.9)), baselines=baselines)
    section = caption_section([path])
    note = next(note for note in section["notes"] if note.topic == "Baselines")
    assert (note.state, "without intervals" in note.text) == ("unknown", True)
    assert "±" not in section["markdown"]
    assert "±" in caption_section([write_captions(tmp_path / "b")])["markdown"]


def test_how_captions_were_generated_is_told(tmp_path):
    path = write_captions(tmp_path / "a", generation={"settings": {"method": "greedy"}, "model": "f"})
    assert (
        dict(caption_section([path])["facts"])["Captioners"] == "a: mode text, aligner runs/clip, seed 0, method greedy"
    )


def test_no_baselines_is_said_and_not_praised(tmp_path):
    section = caption_section([write_captions(tmp_path / "a", baselines={})])
    assert [note.state for note in section["notes"] if note.topic == "Baselines"] == ["unknown"]


def test_the_grid_puts_the_captions_of_one_image_beside_each_other(tmp_path):
    first = write_captions(tmp_path / "clip", [sample("x", "a lung"), sample("y", ""), sample("z", "c", image=None)])
    second = write_captions(tmp_path / "gapless", [sample("y", "a heart", score=None), sample("x", "two lungs")])
    grid = caption_section([first, second])["grid"]
    assert [entry["id"] for entry in grid] == ["x", "y", "z"]
    assert grid[0]["captions"] == [("clip", "a lung", "−1.25"), ("gapless", "two lungs", "−1.25")]
    assert grid[1]["captions"][1] == ("gapless", "a heart", "")
    assert [name for name, _, _ in grid[2]["captions"]] == ["clip"], "the second has no such row"
    page = page_of(tmp_path, first, second)
    assert page.count("data:image/jpeg;base64,") == 2
    assert "the image cannot be read" in page
    assert "(empty)" in page
    for text in ("true x", "a lung", "two lungs", "a heart"):
        assert text in page


def test_the_grid_shows_no_captions_of_other_data(tmp_path):
    """Two data sets may have the same ids; the control above has the same data."""
    first = write_captions(tmp_path / "a", [sample("x", "a lung")])
    other = write_captions(tmp_path / "b", [sample("x", "a heart")], data={"source": "fake", "fingerprint": "other"})
    grid = caption_section([first, other])["grid"]
    assert [name for name, _, _ in grid[0]["captions"]] == ["a"]


def test_the_page_escapes_and_loads_nothing(tmp_path):
    path = write_captions(
        tmp_path / "a",
        [sample(f"id {EVIL}", f"caption {EVIL}", references=[f"true {EVIL}"], image=f"{EVIL}")],
        aligner=EVIL,
        data={"source": EVIL},
    )
    text = page_of(tmp_path, path)
    page = Page(text)
    assert EVIL not in text
    assert all(address.startswith(("data:image/jpeg;base64,", "#")) for address in page.addresses)
    assert not page.tags & {"script", "iframe", "object", "embed", "link", "base", "form"}
    assert len(re.findall("not for diagnosis", text)) >= 3, "of the page, of the grid, of the table"


def test_captions_stand_beside_a_comparison_and_go_to_files(tmp_path):
    comparison = tmp_path / "fake"
    comparison.mkdir()
    write_comparison(comparison)
    one, same = (write_captions(tmp_path / place / "run", [sample("x", "a lung")]) for place in ("one", "two"))
    out = tmp_path / "report.html"
    write_report([comparison, one, same], out, figures=tmp_path / "files")
    text = out.read_text(encoding="utf-8")
    assert "2 studies" in text
    assert str(one) in text, "directories of one name are told apart by their paths"
    names = {path.name for path in (tmp_path / "files").iterdir()}
    assert {"captions-table.md", "captions-table.tex"} <= names
    assert "nearest train caption" in (tmp_path / "files" / "captions-table.md").read_text()
    assert r"\label{tab:captions}" in (tmp_path / "files" / "captions-table.tex").read_text()


DAMAGE = {
    "figures a list": {"figures": []},
    "a figure a text": {"figures": {"caption/CIDEr": "high"}},
    "a bound a text": {"figures": {"caption/CIDEr": {"value": 0.1, "low": "a", "high": 0.2}}},
    "figures of a baseline a list": {"baselines": {"constant caption": []}},
    "baselines a list": {"baselines": []},
    "data a text": {"data": "x"},
    "leakage a text": {"data": {"leakage": {"test_groups_in_train_share": "all"}}},
    "rows a list": {"data": {"rows": [3]}},
    "missing a list": {"missing": ["x"]},
    "n a text": {"n": "x"},
    "judge a list": {"judge": []},
    "generation a text": {"generation": "x"},
    "settings a text": {"generation": {"settings": "x"}},
    "versions a list": {"versions": ["x"]},
}


@pytest.mark.parametrize("fault", DAMAGE)
def test_entries_of_another_form_are_named(tmp_path, fault):
    change = DAMAGE[fault]
    path = write_captions(tmp_path / "a", **change)
    with pytest.raises(DataRefused, match=f"results.json is damaged: {next(iter(change))} of another form"):
        write_report([path, write_captions(tmp_path / "b")], tmp_path / "report.html")
    assert not (tmp_path / "report.html").exists()


def test_what_older_files_do_not_have_is_not_needed(tmp_path):
    path = write_captions(tmp_path / "a", data=None, missing=None, versions=None, judge=None)
    assert "captions" in page_of(tmp_path, path)


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("results.json", {"kind": "captions", "n": 3}, "no figures and no baselines and no split and no tokenizer"),
        ("results.json", '{"kind": "captions"', "not valid JSON"),
        ("samples.json", {"notice": "none"}, "holds no samples with id, references, caption, image"),
        ("samples.json", {"samples": [{"id": "x"}]}, "holds no samples with"),
        ("samples.json", {"samples": [sample(["x"], "a")]}, "holds no samples with"),
        ("samples.json", {"samples": [sample("x", "a", references="true")]}, "holds no samples with"),
        ("samples.json", {"samples": [sample("x", ["a"])]}, "holds no samples with"),
        ("samples.json", {"samples": [sample("x", "a", image=3)]}, "holds no samples with"),
        ("samples.json", ["x"], "holds no samples with"),
        ("samples.json", "[", "not valid JSON"),
    ],
)
def test_damaged_files_are_refused_by_name(tmp_path, name, content, said):
    path = write_captions(tmp_path / "a", [sample("x", "a")])
    page_of(tmp_path, path)
    (path / name).write_text(content if isinstance(content, str) else json.dumps(content))
    with pytest.raises(DataRefused, match=said) as refused:
        write_report([path], tmp_path / "other.html")
    assert name in str(refused.value)
    assert not (tmp_path / "other.html").exists()
