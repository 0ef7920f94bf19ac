"""Quotation marks in tables: none takes other rows into its cell, and every line of a file is accounted for."""

import csv
import io
import random

import pandas as pd
import pytest

from gapless.core.errors import DataRefused
from gapless.manifest.readers.table import read_table
from gapless.tables.table_format import LineCount
from gapless.tables.tables import check_columns, read_lines

KEYS = {
    "files": "scans/{:03d}.dcm",
    "patients": "P{:03d}",
    "numbers": "{}",
    "words and numbers": "case {}",
    "ids": "study_{:06d}",
}
WORDS = ("Heart", "lungs", "clear", "normal", "effusion.", "5", "x-ray", "(a", "b)")


def read(path, text):
    """(rows, faults by line) of a table, after the count of its lines was checked against the file."""
    path.write_bytes(text.encode())
    count = LineCount(path.name)
    rows, faults = [], {}
    for origin, cells, fault in read_lines(path, count=count):
        if cells is None:
            faults[int(origin.rpartition(":")[2])] = fault
        else:
            rows.append(dict(cells))
    assert count.lines == len(text.splitlines())
    assert count.rows == len(rows) + len(faults)
    return rows, faults


def keys_of(rows):
    return [row["key"] for row in rows]


DAMAGED = {
    "never closed": 'key,text\na.png,one\nb.png,"two\nc.png,three\nd.png,four\n',
    "closed inside a later cell": 'key,text\na.png,one\nb.png,"two\nc.png,3" wide\nd.png,four\n',
    "closed at the end of a later line": 'key,text\na.png,one\nb.png,"two\nc.png,three\nd.png,wide: 4"\n',
    "closed at the end of the next line": 'key,text\na.png,one\nb.png,"two\nc.png,three"\nd.png,four\n',
    "closed by the next cell that is quoted": 'key,text\na.png,one\nb.png,"two\nc.png,"three"\nd.png,four\n',
    "in a table that quotes all": '"key","text"\n"a.png","one"\n"b.png","two\n"c.png","three"\n"d.png","four"\n',
    "one mark too many": '"key","text"\n"a.png","one"\n"b.png","two""\n"c.png","three"\n"d.png","four"\n',
    "Windows line ends": 'key,text\r\na.png,one\r\nb.png,"two\r\nc.png,three\r\nd.png,four',
    "old Macintosh line ends": 'key,text\ra.png,one\rb.png,"two\rc.png,three\rd.png,four\r',
    "before empty quoted cells": 'key,text\na.png,one\nb.png,"two\nc.png,""\nd.png,""\n',
}


@pytest.mark.parametrize("text", DAMAGED.values(), ids=DAMAGED.keys())
def test_a_stray_mark_costs_its_own_line_alone(text, tmp_path):
    rows, faults = read(tmp_path / "t.csv", text)
    assert keys_of(rows) == ["a.png", "c.png", "d.png"]
    assert list(faults) == [3]
    assert "quotation mark" in faults[3]


def test_the_parser_alone_loses_rows_of_these_tables():
    lost = {name: 5 - len(list(csv.reader(io.StringIO(text, newline=None)))) for name, text in DAMAGED.items()}
    assert lost["never closed"] == 2
    assert lost["closed at the end of a later line"] == 2
    assert sum(lost.values()) >= 12


def test_the_mark_may_stand_in_any_column(tmp_path):
    first = 'text,key\none,a.png\n"two,b.png\nthree,c.png\n4 inch",d.png\nfive,e.png\n'
    middle = 'key,text,who\na.png,one,P1\nb.png,"two,P2\nc.png,three,P3\nd.png,4 inch",P4\n'
    for text, kept in ((first, ["a.png", "c.png", "d.png", "e.png"]), (middle, ["a.png", "c.png", "d.png"])):
        rows, faults = read(tmp_path / "t.csv", text)
        assert keys_of(rows) == kept
        assert list(faults) == [3]


LEGITIMATE = [
    "Heart normal, lungs clear\nNormal, no effusion",
    'He said "clear",\n\nand "normal"',
    "T2, bright\nL4, fractured",
    "one, two, 57\nthree, four, 60",
    "\nbegins and ends with a line break\n",
    'a 3" tube',
    "  ",
]


@pytest.mark.parametrize("separator", [",", ";", "\t", "|"])
@pytest.mark.parametrize("quoting", [csv.QUOTE_MINIMAL, csv.QUOTE_ALL, csv.QUOTE_NONNUMERIC])
def test_reports_over_several_lines_are_read_as_pandas_reads_them(separator, quoting, tmp_path):
    path = tmp_path / "t.csv"
    frame = pd.DataFrame({"key": [f"P{n:03d}" for n in range(7)], "text": LEGITIMATE, "age": [57] * 7})
    frame.to_csv(path, sep=separator, quoting=quoting, index=False)
    rows, faults = read(path, path.read_bytes().decode())
    assert faults == {}
    assert [row["text"] for row in rows] == LEGITIMATE
    assert [row["key"] for row in rows] == list(frame["key"])


@pytest.mark.parametrize("style", KEYS)
@pytest.mark.parametrize("separator", [",", ";", "|", "\t"])
def test_a_pair_of_stray_marks_swallows_nothing(style, separator, tmp_path):
    """Tables in which one cell begins with a mark and a later one ends with a mark: hard to tell from a quote."""
    rng = random.Random(f"{style}{separator}")
    for _ in range(25):
        names = [KEYS[style].format(1000 + n) for n in range(rng.randint(4, 12))]
        texts = [" ".join(rng.choices(WORDS, k=rng.randint(1, 8))) for _ in names]
        first, second = sorted(rng.sample(range(len(names)), 2))
        texts[first], texts[second] = f'"{texts[first]}', f'{texts[second]}"'
        kinds = [rng.choice(("Normal", "No finding")) for _ in names]
        lines = [separator.join(row) for row in zip(names, texts, kinds, strict=True)]
        text = "\n".join([separator.join(("key", "text", "kind")), *lines, ""])
        rows, faults = read(tmp_path / "t.csv", text)
        assert sorted(keys_of(rows) + [names[line - 2] for line in faults]) == sorted(names)
        assert len(faults) == (separator != "\t")
        assert all("\n" not in row["text"] for row in rows)


def test_tables_between_tabs_may_use_marks_as_letters(tmp_path):
    texts = ['"Tree" pattern', 'said "clear"', '3" tube', '"open', "plain", '"a" and "b"', 'ends"', '"']
    text = "key\ttext\n" + "".join(f"{n}.png\t{words}\n" for n, words in enumerate(texts))
    rows, faults = read(tmp_path / "t.tsv", text)
    assert faults == {}
    assert [row["text"] for row in rows] == texts
    # An open mark before a line that is no row is the begin of a broken cell, not a letter.
    rows, faults = read(tmp_path / "t.tsv", 'key\ttext\na.png\t"open\nmore "of" it\nc.png\tx\n')
    assert keys_of(rows) == ["c.png"]
    assert list(faults) == [2, 3]


def test_marks_inside_a_line_stay_what_they_are(tmp_path):
    rows, faults = read(tmp_path / "t.csv", 'key,text\na,3" tube\nb,"3"" tube"\nc,"clear" today\nd,"x, y" z\n')
    assert [row["text"] for row in rows] == ['3" tube', '3" tube', '"clear" today']
    assert list(faults) == [5]


def test_a_header_does_not_swallow_rows_either(tmp_path):
    path = tmp_path / "t.csv"
    path.write_text('key,text,"note\na.png,x,y\nb.png,z,w"\nc.png,d,e\n')
    with pytest.raises(DataRefused, match="header, in line 1, closes in line 3"):
        check_columns(path, ["key"])
    path.write_text('key,text,"note\n(free)"\na.png,x,y\n')
    check_columns(path, ["key", "text"])
    path.write_text('key,text,"note\na.png,x,y\n')
    with pytest.raises(DataRefused, match="never closed"):
        check_columns(path, ["key"])


def test_random_damage_never_breaks_the_count(tmp_path):
    """400 tables with bytes changed, removed or repeated: each line is a row, a fault, blank or part of a row."""
    rng = random.Random(0)
    whole = b'key,text,n\na.png,"one, two",1\nb.png,"three\nfour",2\n,,\nc.png,said ""x"",3\n' * 3
    readable = 0
    for _ in range(400):
        data = bytearray(whole)
        for _ in range(rng.randint(1, 5)):
            at = rng.randrange(11, len(data))
            data[at : at + rng.randint(0, 2)] = rng.choice((b'"', b"\n", b"\r", b",", b"", b"\xff", b"\0", b'""'))
        path = tmp_path / "t.csv"
        path.write_bytes(data)
        count = LineCount("t.csv")
        rows = list(read_lines(path, count=count))
        assert count.lines == len(io.StringIO(data.decode("latin-1"), newline=None).readlines())
        assert count.rows == len(rows)
        readable += sum(cells is not None for _, cells, _ in rows)
    assert readable > 400  # most rows of most tables survive


def test_the_manifest_says_where_every_line_went(pairs, tmp_path):
    pairs(3)
    table = tmp_path / "source/t.csv"
    table.write_text('image,caption\nimages/0.png,"two\nlines"\n\n,\nimages/1.png,"open\nimages/2.png,x\n')
    manifest = read_table(table, tmp_path / "m", max_bad=0.5)
    assert manifest.info["lines"] == [{"file": "t.csv", "lines": 7, "header": 1, "rows": 3, "continued": 1, "blank": 2}]
    assert manifest.info["counts"] == {"read": 3, "kept": 2, "skipped": 1}
    with pytest.raises(DataRefused, match=r"t\.csv:6 \(malformed row: a quotation mark opens a cell here"):
        read_table(table, tmp_path / "n")


def test_a_lost_line_would_be_noticed():
    with pytest.raises(AssertionError, match="5 lines, but 4"):
        LineCount("t.csv", lines=5, header=1, rows=3).check()
