"""`data table`: CSV, TSV, JSONL, Parquet; columns, splits, messy input."""

import csv
import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from data_samples import noise_image, shared, write_jsonl

from gapless.core.errors import DataRefused, UsageError
from gapless.manifest.readers.table import read_table


def rows_of(table):
    return [json.loads(line) for line in table.read_text().splitlines()]


def without_place(manifest):
    return manifest.table.drop(["image"]).to_pylist()


def test_every_format_gives_the_same_manifest(pairs, tmp_path):
    jsonl = pairs(5)
    rows = rows_of(jsonl)
    for suffix, delimiter in ((".csv", ","), (".tsv", "\t")):
        with jsonl.with_suffix(suffix).open("w", newline="", encoding="utf-8-sig") as stream:
            writer = csv.DictWriter(stream, list(rows[0]), delimiter=delimiter)
            writer.writeheader()
            writer.writerows(rows)
    pq.write_table(pa.Table.from_pylist(rows), jsonl.with_suffix(".parquet"))
    manifests = [
        read_table(jsonl.with_suffix(suffix), tmp_path / suffix[1:], group_key="case", label_keys=("region",))
        for suffix in (".jsonl", ".csv", ".tsv", ".parquet")
    ]
    for manifest in manifests[1:]:
        assert without_place(manifest) == without_place(manifests[0])
    assert len({manifest.fingerprint for manifest in manifests}) == 1


def test_several_captions_come_from_columns_and_from_lists(pairs, tmp_path):
    table = pairs(2)
    rows = rows_of(table)
    rows[0]["more"] = ["second", "  third\nline ", ""]
    write_jsonl(table, rows)
    manifest = read_table(table, tmp_path / "m", caption_key=("caption", "more"))
    assert manifest.table["captions"].to_pylist() == [["finding 0", "second", "third line"], ["finding 1"]]


def test_splits_come_from_the_column_before_the_source(pairs, tmp_path):
    table = pairs(4)
    rows = rows_of(table)
    for row, split in zip(rows, ("TRAIN", "val", "test", "holdout"), strict=True):
        row["part"] = split
    write_jsonl(table, rows)
    manifest = read_table(table, tmp_path / "m", split_key="part", max_bad=0.3)
    assert manifest.table["split"].to_pylist() == ["train", "validation", "test"]
    assert manifest.info["skipped"] == {"unknown split": 1}


def test_an_image_used_twice_keeps_one_group_and_gets_two_ids(pairs, tmp_path):
    table = pairs(2)
    rows = rows_of(table)
    write_jsonl(table, [*rows, {**rows[0], "caption": "again"}])
    manifest = read_table(table, tmp_path / "m")
    assert manifest.table["id"].to_pylist() == ["images/0.png", "images/1.png", "images/0.png#2"]
    groups = manifest.table["group"].to_pylist()
    assert groups[0] == groups[2] != groups[1]


def test_images_inside_parquet_are_copied_in(tmp_path):
    cells = []
    for number in range(3):
        noise_image(number).save(tmp_path / "x.png")
        cells.append({"bytes": (tmp_path / "x.png").read_bytes(), "path": f"{number}.png"})
    rows = [{"image": cell, "caption": f"caption {number}"} for number, cell in enumerate(cells)]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "rows.parquet")
    manifest = read_table(tmp_path / "rows.parquet", tmp_path / "m")
    assert manifest.info["image_root"] == "."
    assert [manifest.image_path(row).read_bytes() for row in range(3)] == [cell["bytes"] for cell in cells]
    assert manifest.image_path(0).is_relative_to(manifest.path)


def test_odd_lines_cost_only_themselves(pairs, tmp_path):
    table = pairs(3)
    good = table.read_text().splitlines()
    odd = [b"{broken", b"[1, 2]", b'{"image": "images/0.png", "caption": "\xff"}', b"", b'{"image": "images/1.png"}']
    table.write_bytes(b"\n".join([good[0].encode(), *odd, *(line.encode() for line in good[1:])]))
    manifest = read_table(table, tmp_path / "m", max_bad=0.9)
    assert manifest.info["counts"] == {"read": 7, "kept": 3, "skipped": 4}
    assert manifest.info["skipped"] == {"empty caption": 1, "malformed row": 3}
    listed = [json.loads(line) for line in (manifest.path / "skipped.jsonl").read_text().splitlines()]
    assert [line["row"] for line in listed] == [f"rows.jsonl:{number}" for number in (2, 3, 4, 6)]


def test_odd_csv_rows_cost_only_themselves(pairs, tmp_path):
    pairs(4)
    table = tmp_path / "source/rows.csv"
    table.write_bytes(
        b'image,caption\nimages/0.png,"a, quoted ""caption""\nof two lines"\nimages/1.png\nimages/2.png,\xe9\n'
        b"images/3.png,last\n"
    )
    manifest = read_table(table, tmp_path / "m", max_bad=0.9)
    assert manifest.table["captions"].to_pylist() == [['a, quoted "caption" of two lines'], ["last"]]
    assert manifest.info["skipped"] == {"malformed row": 2}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"caption_key": "text"}, r"no column 'text'; it has 'image', 'caption', 'case', 'region'"),
        ({"group_key": "patient"}, "no column 'patient'"),
        ({"label_keys": ("age",)}, "no column 'age'"),
        ({"image_root": "/nowhere/at/all"}, "is not a directory"),
    ],
)
def test_wrong_names_are_usage_errors_that_leave_nothing(pairs, tmp_path, change, message):
    table = pairs(2)
    with pytest.raises(UsageError, match=message):
        read_table(table, tmp_path / "m", **change)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["source"]


def test_sources_that_are_not_tables(tmp_path):
    with pytest.raises(UsageError, match="does not exist"):
        read_table(tmp_path / "none.csv", tmp_path / "m")
    (tmp_path / "rows.pkl").write_bytes(b"cos\nsystem\n(S'true'\ntR.")
    with pytest.raises(UsageError, match="is no table format"):
        read_table(tmp_path / "rows.pkl", tmp_path / "m")
    with pytest.raises(UsageError, match="'tset' is no split"):
        read_table(f"tset={tmp_path / 'rows.csv'}", tmp_path / "m")
    (tmp_path / "rows.parquet").write_bytes(b"PAR1 but not really")
    with pytest.raises(DataRefused, match="not a readable Parquet file"):
        read_table(tmp_path / "rows.parquet", tmp_path / "m")


def test_an_empty_table_is_refused(tmp_path):
    (tmp_path / "rows.csv").write_text("image,caption\n")
    with pytest.raises(DataRefused, match="not a single row"):
        read_table(tmp_path / "rows.csv", tmp_path / "m")
    assert not (tmp_path / "m").exists()


def test_medpix_is_read_whole(tmp_path):
    folder = shared("medpix")
    manifest = read_table(f"dev={folder / 'dev.jsonl'}", tmp_path / "m", group_key="case", label_keys=("plane",))
    assert manifest.info["counts"] == {"read": 197, "kept": 197, "skipped": 0}
    assert manifest.rows_per_split() == {"validation": 197}


def test_a_column_that_stands_twice_is_refused_by_name(tmp_path):
    (tmp_path / "t.csv").write_text("image,caption,caption\nx.png,a,b\n")
    with pytest.raises(UsageError, match="'caption' more than once"):
        read_table(tmp_path / "t.csv", tmp_path / "out")


def test_a_table_without_rows_leaves_nothing_behind(tmp_path):
    (tmp_path / "t.csv").write_text("image,caption\n")
    with pytest.raises(DataRefused, match="not a single row"):
        read_table(tmp_path / "t.csv", tmp_path / "out")
    assert [path.name for path in tmp_path.iterdir()] == ["t.csv"]
