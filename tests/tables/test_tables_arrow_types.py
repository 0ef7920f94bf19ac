"""Parquet of every Arrow type: images and texts are read, or the column is refused by its name and type."""

import datetime
import io
import json
from decimal import Decimal

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from data_samples import noise_image

from gapless.core.errors import DataRefused, UsageError
from gapless.images.pixels import load_image
from gapless.manifest.readers.table import read_table
from gapless.tables.tables import holds_bytes

CAPTIONS = ["first", "second", "third"]


def encoded(number):
    stream = io.BytesIO()
    noise_image(number).save(stream, "BMP")
    return stream.getvalue()


IMAGES = [encoded(number) for number in range(3)]
SIZE = len(IMAGES[0])
STRUCTS = [{"bytes": image, "path": "same.bmp"} for image in IMAGES]
BYTES_COLUMNS = {
    "binary": pa.array(IMAGES),
    "large binary": pa.array(IMAGES, pa.large_binary()),
    "binary view": pa.array(IMAGES, pa.binary_view()),
    "fixed size": pa.array(IMAGES, pa.binary(SIZE)),
    "dictionary": pa.array(IMAGES).dictionary_encode(),
    "dictionary of fixed size": pa.array(IMAGES, pa.binary(SIZE)).dictionary_encode(),
    "struct": pa.array(STRUCTS),
    "struct of views": pa.array(STRUCTS, pa.struct({"bytes": pa.binary_view(), "path": pa.string_view()})),
    "list of one": pa.array([[image] for image in IMAGES]),
    "list of one struct": pa.array([[struct] for struct in STRUCTS], pa.large_list(pa.array(STRUCTS).type)),
}


def written(path, **columns):
    pq.write_table(pa.table(columns), path)
    return path


def skipped(manifest):
    return [json.loads(line) for line in (manifest.path / "skipped.jsonl").read_text().splitlines()]


@pytest.mark.parametrize("column", BYTES_COLUMNS.values(), ids=BYTES_COLUMNS.keys())
def test_images_of_every_type_of_bytes_are_stored_and_load(column, tmp_path):
    table = written(tmp_path / "t.parquet", image=column, caption=CAPTIONS)
    assert holds_bytes(table, "image")
    manifest = read_table(table, tmp_path / "m", workers=1)
    assert len(manifest) == 3
    for row in range(3):
        assert manifest.image_path(row).is_relative_to(manifest.path)
        assert np.array_equal(load_image(manifest.image_path(row)), np.asarray(noise_image(row)))


TEXT_TYPES = [pa.string(), pa.large_string(), pa.string_view(), pa.binary(), pa.large_binary(), pa.binary_view()]


@pytest.mark.parametrize("kind", TEXT_TYPES, ids=str)
@pytest.mark.parametrize("is_dictionary", [False, True])
def test_text_of_every_type_names_images_captions_groups_splits_and_ids(kind, is_dictionary, pairs, tmp_path):
    pairs(3)
    is_view = kind in (pa.string_view(), pa.binary_view())

    def column(texts):
        array = pa.array(texts).cast(kind) if not is_view else pa.array(texts, pa.string()).cast(kind)
        return array.dictionary_encode() if is_dictionary and not is_view else array

    names = [f"images/{number}.png" for number in range(3)]
    table = written(
        tmp_path / "source/t.parquet",
        image=column(names),
        caption=column(CAPTIONS),
        patient=column(["a", "a", "b"]),
        part=column(["test", "test", "val"]),
        key=column(["x", "y", "z"]),
        view=column(["PA", "nan", "AP"]),
    )
    manifest = read_table(
        table, tmp_path / "m", group_key="patient", split_key="part", id_key="key", label_keys=("view",), workers=1
    )
    found = manifest.table.select(["id", "group", "split", "captions", "view"]).to_pylist()
    assert [row["captions"] for row in found] == [[text] for text in CAPTIONS]
    assert [row["group"] for row in found] == ["a", "a", "b"]
    assert [row["split"] for row in found] == ["test", "test", "validation"]
    assert [row["id"] for row in found] == ["x", "y", "z"]
    assert [row["view"] for row in found] == ["PA", None, "AP"]


LISTS = [
    pa.list_(pa.string()),
    pa.large_list(pa.large_string()),
    pa.list_view(pa.string_view()),
    pa.large_list_view(pa.string()),
    pa.list_(pa.string(), 2),
    pa.list_(pa.binary()),
]


@pytest.mark.parametrize("kind", LISTS, ids=str)
def test_lists_of_every_type_are_captions_and_labels(kind, pairs, tmp_path):
    pairs(3)
    items = [["Edema", "Effusion"], ["Normal", "Mass"], ["Nodule", "Fracture"]]
    names = [f"images/{number}.png" for number in range(3)]
    column = pa.array(items, kind)
    table = written(tmp_path / "source/t.parquet", image=names, caption=column, finding=column)
    manifest = read_table(table, tmp_path / "m", label_keys=("finding",), workers=1)
    assert manifest.table["captions"].to_pylist() == items
    assert manifest.table["finding"].to_pylist() == ["; ".join(texts) for texts in items]


VALUES = {
    "booleans": (pa.array([True, None, False]), ["true", None, "false"]),
    "decimals": (pa.array([Decimal("1.50"), Decimal("2.00"), None]), ["1.50", "2", None]),
    "dates": (pa.array([datetime.date(2020, 2, 3), None, None]), ["2020-02-03", None, None]),
    "floats": (pa.array([1.0, 2.5, float("nan")]), ["1", "2.5", None]),
    "halves": (pa.array(np.array([1, 2.5, np.nan], np.float16)), ["1", "2.5", None]),
    "empty lists": (pa.array([[], None, ["a"]], pa.list_(pa.string())), [None, None, "a"]),
    "lists of numbers": (pa.array([[1, 2], [3], None]), ["1; 2", "3", None]),
    "nulls": (pa.nulls(3), [None] * 3),
}


@pytest.mark.parametrize(("column", "labels"), VALUES.values(), ids=VALUES.keys())
def test_values_that_are_no_text_become_text(column, labels, pairs, tmp_path):
    pairs(3)
    names = [f"images/{number}.png" for number in range(3)]
    table = written(tmp_path / "source/t.parquet", image=names, caption=CAPTIONS, label=column)
    manifest = read_table(table, tmp_path / "m", label_keys=("label",), workers=1)
    assert manifest.table["label"].to_pylist() == labels


REFUSED = {
    "a list of numbers for an image": {"image": pa.array([[1, 2]] * 3, pa.list_(pa.uint8()))},
    "a number for an image": {"image": pa.array([1.0, 2.0, 3.0])},
    "a struct without an image": {"image": pa.array([{"url": "x"}] * 3)},
    "a struct with bytes as numbers": {"image": pa.array([{"bytes": [1, 2], "path": "x"}] * 3)},
    "a struct for a caption": {"caption": pa.array([{"en": "x"}] * 3)},
    "a list of structs for a caption": {"caption": pa.array([[{"en": "x"}]] * 3)},
    "a map for a caption": {"caption": pa.array([[("en", "x")]] * 3, pa.map_(pa.string(), pa.string()))},
    "a struct for a label": {"label": pa.array([{"a": 1}] * 3)},
}


@pytest.mark.parametrize("change", REFUSED.values(), ids=REFUSED.keys())
def test_other_types_are_refused_by_column_and_type(change, tmp_path):
    columns = {"image": pa.array(IMAGES), "caption": CAPTIONS, "label": CAPTIONS, **change}
    table = written(tmp_path / "t.parquet", **columns)
    (name,) = change
    with pytest.raises(UsageError, match=f"the column '{name}' is ") as caught:
        read_table(table, tmp_path / "m", label_keys=("label",))
    assert str(pq.read_schema(table).field(name).type) in str(caught.value)
    assert not (tmp_path / "m").exists()
    # The same column is no obstacle where nobody asks for it.
    if name == "label":
        assert len(read_table(table, tmp_path / "m", workers=1)) == 3


def test_a_value_without_a_python_form_costs_its_row_alone(tmp_path):
    late = pa.array([0, 10**13, 1], pa.timestamp("s"))
    table = written(tmp_path / "t.parquet", image=pa.array(IMAGES), caption=CAPTIONS, taken=late)
    manifest = read_table(table, tmp_path / "m", label_keys=("taken",), max_bad=0.5, workers=1)
    assert manifest.table["captions"].to_pylist() == [["first"], ["third"]]
    assert [line["row"] for line in skipped(manifest)] == ["t.parquet:2"]
    latin = pa.array(["first", "second", "third"]).cast(pa.binary())
    broken = pa.Array.from_buffers(pa.string(), 3, pa.array([b"a", b"\xff", b"c"]).buffers())
    for number, column in enumerate((broken, pa.array([b"a", b"\xff", b"c"]))):
        table = written(tmp_path / f"{number}.parquet", image=pa.array(IMAGES), caption=column, name=latin)
        manifest = read_table(table, tmp_path / f"m{number}", max_bad=0.5, workers=1)
        assert manifest.table["captions"].to_pylist() == [["a"], ["c"]]
        assert skipped(manifest)[0]["reason"] == "malformed row"


def test_several_images_in_a_cell_are_a_bad_row(tmp_path):
    table = written(tmp_path / "t.parquet", image=pa.array([IMAGES[:2], IMAGES[2:], []]), caption=CAPTIONS)
    manifest = read_table(table, tmp_path / "m", max_bad=0.9, workers=1)
    assert manifest.table["captions"].to_pylist() == [["second"]]
    assert [line["reason"] for line in skipped(manifest)] == ["malformed row", "missing image"]
    assert "column 'image': 2 images in one cell" in skipped(manifest)[0]["detail"]


def test_a_damaged_file_is_refused_with_the_row_that_was_reached(tmp_path):
    words = [f"{number} {'x' * (number * 7919 % 97)}" for number in range(400)]
    path = tmp_path / "t.parquet"
    table = pa.table({"image": words, "caption": words})
    pq.write_table(table, path, row_group_size=100, use_dictionary=False, compression="gzip")
    content = bytearray(path.read_bytes())
    start = pq.ParquetFile(path).metadata.row_group(2).column(0).data_page_offset
    content[start + 40 : start + 400] = bytes(360)
    path.write_bytes(content)
    with pytest.raises(DataRefused, match=r"t\.parquet is damaged after row \d+"):
        read_table(path, tmp_path / "m", max_bad=1.0, workers=1)
