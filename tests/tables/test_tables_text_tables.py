"""Tables of text as they come: separators, encodings, compression, leftovers of spreadsheets, shapes of JSON."""

import gzip
import io
import json
import logging
import zipfile

import pytest

from gapless.core.errors import DataRefused, UsageError
from gapless.manifest.readers.table import read_table

TEXTS = ["Pleuraerguß, links", "œdème; à droite", "plain"]


@pytest.fixture
def read(pairs, tmp_path):
    """`read(content, name, **options)` builds a manifest from a table beside three images."""
    pairs(3)
    numbers = iter(range(1000))

    def build(content, name="t.csv", **options):
        table = tmp_path / "source" / name
        table.write_bytes(content if isinstance(content, bytes) else content.encode())
        options = {"max_bad": 0.0, "workers": 1, **options}
        return read_table(table, tmp_path / f"m{next(numbers)}", **options)

    return build


def table_of(separator=",", end="\n", texts=TEXTS):
    quoted = [f'"{text}"' if separator in text else text for text in texts]
    rows = [f"images/{number}.png{separator}{text}" for number, text in enumerate(quoted)]
    return end.join([f"image{separator}caption", *rows, ""])


def captions(manifest):
    return [text for texts in manifest.table["captions"].to_pylist() for text in texts]


# ---- separators -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("separator", [",", ";", "\t", "|"])
@pytest.mark.parametrize("name", ["t.csv", "t.tsv"])
def test_the_header_shows_the_separator(read, separator, name):
    assert captions(read(table_of(separator), name)) == TEXTS


@pytest.mark.parametrize(("word", "separator"), [("tab", "\t"), ("semicolon", ";"), (";", ";"), ("~", "~")])
def test_a_separator_can_be_named(read, word, separator):
    assert captions(read(table_of(separator), separator=word)) == TEXTS


def test_a_header_with_two_separators_asks_for_the_option(read):
    text = "image;caption;remark, free\nimages/0.png;a;b\n"
    with pytest.raises(UsageError, match=r"no column 'image'.* name it by --separator"):
        read(text)
    assert captions(read(text, separator=";")) == ["a"]


@pytest.mark.parametrize("separator", ["", ",,", '"', "\n"])
def test_a_separator_is_one_character(read, separator):
    with pytest.raises(UsageError, match="--separator is one character"):
        read(table_of(), separator=separator)


@pytest.mark.parametrize("mark", ["", "\ufeff"])
def test_the_separator_line_of_excel_is_understood(read, mark):
    manifest = read(f"{mark}sep=;\r\n{table_of(';', chr(13) + chr(10))}")
    assert captions(manifest) == TEXTS
    assert manifest.info["lines"][0]["header"] == 2


# ---- encodings and containers ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-32"])
@pytest.mark.parametrize("name", ["t.csv", "t.jsonl"])
def test_encodings_that_mark_themselves_are_read(read, encoding, name):
    assert captions(read(content_of(name).encode(encoding), name)) == TEXTS


def content_of(name):
    rows = [{"image": f"images/{number}.png", "caption": text} for number, text in enumerate(TEXTS)]
    lines = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    return {"t.csv": table_of(), "t.jsonl": lines, "t.json": json.dumps(rows, ensure_ascii=False, indent=1)}[name]


@pytest.mark.parametrize("name", ["t.csv", "t.jsonl", "t.json"])
def test_a_windows_file_names_its_option(read, name, caplog):
    content = content_of(name)
    with caplog.at_level(logging.WARNING), pytest.raises(DataRefused, match=r"not UTF-8.*--encoding cp1252 reads it"):
        read(content.encode("cp1252"), name)
    assert captions(read(content.encode("cp1252"), name, encoding="cp1252")) == TEXTS


def test_one_row_that_is_not_utf8_is_lost_alone_and_said(read, caplog):
    content = table_of().encode().replace("œ".encode(), b"\x9c")
    with caplog.at_level(logging.WARNING):
        manifest = read(content, max_bad=0.5)
    assert captions(manifest) == [TEXTS[0], TEXTS[2]]
    assert "1 rows are not UTF-8" in caplog.text


def test_a_header_that_is_not_utf8_is_refused(read):
    with pytest.raises(UsageError, match=r"header, in line 1, is not UTF-8.*--encoding cp1252"):
        read("image,caption,größe\nimages/0.png,a,1\n".encode("cp1252"))


@pytest.mark.parametrize("encoding", ["utf-16-le", "utf-16-be"])
def test_utf16_without_a_mark_is_named(read, encoding):
    content = table_of().encode(encoding)
    with pytest.raises(UsageError, match=f"--encoding {encoding} reads it"):
        read(content)
    assert captions(read(content, encoding=encoding)) == TEXTS


def test_half_a_character_of_utf16_is_refused(read):
    with pytest.raises(DataRefused, match="is not the utf-16"):
        read(table_of().encode("utf-16")[:-1])


@pytest.mark.parametrize("encoding", ["klingon", "base64", ""])
def test_an_encoding_that_is_none_is_a_usage_error(read, encoding):
    with pytest.raises(UsageError, match="no encoding that Python knows"):
        read(table_of(), encoding=encoding)


@pytest.mark.parametrize("name", ["t.csv", "t.jsonl", "t.json"])
def test_gzip_is_read_under_either_name(read, name):
    packed = gzip.compress(content_of(name).encode())
    assert captions(read(packed, name)) == TEXTS
    assert captions(read(packed, f"{name}.gz")) == TEXTS


def test_a_damaged_gzip_is_refused_as_a_whole(read):
    packed = gzip.compress((table_of() + "images/0.png,again\n" * 3000).encode())
    for content in (packed[:-20], packed[:-8] + bytes(8)):
        with pytest.raises(DataRefused, match="damaged gzip"):
            read(content, max_bad=1.0)


def zipped(*names):
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        for name in names:
            archive.writestr(name, table_of())
    return stream.getvalue()


OTHERS = {
    "a zip archive": zipped("t.csv"),
    "an Excel workbook": zipped("[Content_Types].xml", "xl/workbook.xml"),
    "an OpenDocument file": zipped("content.xml"),
    "compressed by zstd": b"\x28\xb5\x2f\xfd" + bytes(20),
    "compressed by xz": b"\xfd7zXZ\0" + bytes(20),
    "an old Office file": b"\xd0\xcf\x11\xe0" + bytes(20),
    "a web page": b"\n<!DOCTYPE html><html><body>Please log in</body></html>",
    "a pointer of Git LFS": b"version https://git-lfs.github.com/spec/v1\noid sha256:00\n",
    "an Arrow file": b"ARROW1\0\0" + bytes(20),
}


@pytest.mark.parametrize("name", ["t.csv", "t.jsonl", "t.xlsx"])
@pytest.mark.parametrize("kind", OTHERS)
def test_what_is_no_text_is_named(read, kind, name):
    if name == "t.xlsx" and kind not in ("an Excel workbook", "a zip archive"):
        return
    with pytest.raises(UsageError, match=f"{name} is {kind}"):
        read(OTHERS[kind], name)


# ---- spreadsheets ---------------------------------------------------------------------------------------------------


def test_empty_columns_and_rows_of_a_spreadsheet_are_passed_over(read):
    text = ",,\n image , caption ,,\nimages/0.png, one ,,\n\n,,,\n , ,\nimages/1.png,two\nimages/2.png,three,,,,\n"
    manifest = read(text)
    assert captions(manifest) == ["one", "two", "three"]
    assert manifest.info["counts"] == {"read": 3, "kept": 3, "skipped": 0}
    assert manifest.info["lines"] == [{"file": "t.csv", "lines": 8, "header": 1, "rows": 3, "continued": 0, "blank": 4}]


def test_text_under_a_column_without_a_name_is_not_cut_off(read):
    """A caption with a comma spills into the empty columns: the first half alone would be another caption."""
    with pytest.raises(DataRefused, match="4 cells under 2 columns"):
        read("image,caption,,\nimages/0.png,Heart normal, lungs not,\n")


@pytest.mark.parametrize("name", ["", "Unnamed: 0", "\ufeff"])
def test_a_column_of_row_numbers_does_no_harm(read, name):
    assert captions(read(f"{name},image,caption\n0,images/0.png,one\n1,images/1.png,two\n")) == ["one", "two"]


@pytest.mark.parametrize("header", ["image,caption,caption", "image,caption,x,x", "image,caption, caption"])
def test_two_columns_of_one_name_are_refused(read, header):
    with pytest.raises(UsageError, match="more than once"):
        read(f"{header}\nimages/0.png,one,two,three\n")


def test_a_line_of_zeros_is_damage(read):
    manifest = read(
        f"image,caption\nimages/0.png,one\n{chr(0) * 9}\nimages/1.png,t\0wo\nimages/2.png,three", max_bad=0.5
    )
    assert captions(manifest) == ["one", "three"]


@pytest.mark.parametrize("content", [b"", b"\n\n", b",,\n;\n", b"\xef\xbb\xbf", gzip.compress(b"", mtime=0)])
def test_an_empty_file_says_so(read, content):
    with pytest.raises(DataRefused, match="is empty"):
        read(content)


# ---- JSON -----------------------------------------------------------------------------------------------------------

ROWS = [{"image": f"images/{number}.png", "caption": text} for number, text in enumerate(TEXTS)]


@pytest.mark.parametrize("name", ["t.jsonl", "t.json", "t.ndjson"])
@pytest.mark.parametrize("indent", [None, 2])
def test_an_array_is_read_under_any_name(read, name, indent):
    manifest = read(json.dumps(ROWS, indent=indent), name)
    assert captions(manifest) == TEXTS
    assert manifest.info["lines"][0]["rows"] == 3


def test_lines_may_be_called_json(read):
    assert captions(read("\n".join(map(json.dumps, ROWS)), "t.json")) == TEXTS


def test_bad_items_of_an_array_cost_only_themselves(read, tmp_path):
    manifest = read(json.dumps([ROWS[0], [1], "x", ROWS[1]]), "t.json", max_bad=0.5)
    assert captions(manifest) == TEXTS[:2]
    listed = [json.loads(line)["row"] for line in (manifest.path / "skipped.jsonl").read_text().splitlines()]
    assert listed == ["t.json[2]", "t.json[3]"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (json.dumps(ROWS)[:-9], "begins as a JSON array"),
        (json.dumps({"rows": ROWS}, indent=1), "holds no JSON object"),
        (table_of(), "holds no JSON object .*not JSON"),
        ("", "it is empty"),
        ("[]", "holds no JSON object"),
    ],
)
def test_json_that_holds_no_rows_is_refused(read, content, message):
    with pytest.raises(DataRefused, match=message):
        read(content, "t.json")


def test_json_called_csv_is_named(read):
    with pytest.raises(UsageError, match=r"looks like JSON: name it \.jsonl"):
        read("\n".join(map(json.dumps, ROWS)))


def test_two_values_under_one_key_are_a_bad_row(read):
    manifest = read(
        '{"image": "images/0.png", "caption": "a", "caption": "b"}\n' + json.dumps(ROWS[1]), "t.jsonl", max_bad=0.5
    )
    assert captions(manifest) == [TEXTS[1]]


@pytest.mark.parametrize(
    ("line", "detail"),
    [
        ('{"image": "images/0.png", "caption": "\\ud83d"}', "half of a surrogate pair"),
        ('{"image": "images/0.png", "caption": "c", "\\udc00": 1}', "half of a surrogate pair"),
        ("\ufeff" + json.dumps(ROWS[0]), "not JSON: Unexpected UTF-8 BOM"),
    ],
)
def test_a_line_that_another_program_damaged_is_a_bad_row(read, line, detail):
    escaped = '{"image": "images/2.png", "caption": "\\ud83d\\ude00 \\\\ud83d"}'
    manifest = read("\n".join((json.dumps(ROWS[1]), line, escaped)), "t.jsonl", max_bad=0.5)
    assert captions(manifest) == [TEXTS[1], "\U0001f600 \\ud83d"]
    assert detail in (manifest.path / "skipped.jsonl").read_text()


def test_parquet_is_parquet_under_any_name(read, tmp_path):
    import pyarrow as pa
    import pyarrow.parquet as pq

    pq.write_table(pa.Table.from_pylist(ROWS), tmp_path / "t.parquet")
    assert captions(read((tmp_path / "t.parquet").read_bytes(), "t.csv")) == TEXTS


# ---- cells ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("word", ["nan", "NaN", "None", "-", "--", "NULL", "null", "N/A", "<NA>", "  ", "\u2014"])
def test_words_for_nothing_are_no_captions(read, word):
    manifest = read(f"image,caption\nimages/0.png,{word}\nimages/1.png,{word} is a word\n", max_bad=0.5)
    assert captions(manifest) == [" ".join(f"{word} is a word".split())]
    rows = [{"image": "images/0.png", "caption": [word, "real"]}, {"image": word, "caption": "x"}]
    manifest = read("\n".join(map(json.dumps, rows)), "t.jsonl", max_bad=0.5)
    assert captions(manifest) == ["real"]
    assert manifest.info["skipped"] == {"missing image": 1}


@pytest.mark.parametrize("column", ["caption", "label", "image", "part", "who", "key"])
def test_a_mapping_in_a_cell_is_a_bad_row_that_names_its_column(read, column):
    good = {"image": "images/0.png", "caption": "c", "label": "l", "part": "train", "who": "p", "key": "k"}
    bad = {**good, "image": "images/1.png", "key": "j", column: {"en": "x"}}
    keys = {"label_keys": ("label",), "split_key": "part", "group_key": "who", "id_key": "key"}
    manifest = read(f"{json.dumps(good)}\n{json.dumps(bad)}\n", "t.jsonl", max_bad=0.5, **keys)
    assert len(manifest) == 1
    (line,) = map(json.loads, (manifest.path / "skipped.jsonl").read_text().splitlines())
    assert line["row"] == "t.jsonl:2"
    assert line["reason"] == "malformed row"
    assert f"column '{column}'" in line["detail"]
    assert "'en'" in line["detail"]


def test_list_labels_keep_their_items_and_lists_of_one_image_are_that_image(read):
    row = {"image": ["images/0.png"], "caption": "c", "label": ["Edema", None, "Effusion", 2.0]}
    manifest = read(json.dumps(row), "t.jsonl", label_keys=("label",))
    assert manifest.table["label"].to_pylist() == ["Edema; Effusion; 2"]
    assert manifest.table["image"].to_pylist() == ["images/0.png"]
