"""The manifest directory: what it promises, and what it refuses."""

import json

import pyarrow.parquet as pq
import pytest

from gapless.core.errors import DataRefused, UsageError
from gapless.manifest.build import build_manifest
from gapless.manifest.manifest import Manifest
from gapless.manifest.options import BuildOptions
from gapless.manifest.readers.table import read_table
from gapless.manifest.writer import ManifestWriter, manifest_schema


@pytest.fixture
def manifest(pairs, tmp_path):
    return read_table(pairs(6), tmp_path / "m", group_key="case", label_keys=("region",))


def test_it_holds_the_columns_of_the_design(manifest):
    names = manifest.table.column_names
    assert names == ["id", "group", "split", "image", "captions", "region", "width", "height", "sha256"]
    assert manifest.labels == ("region",)
    assert manifest.modalities == ("image", "text")
    assert manifest.image_path(3).read_bytes()[:4] == b"\x89PNG"
    info = json.loads((manifest.path / "manifest.json").read_text())
    assert info["counts"] == {"read": 6, "kept": 6, "skipped": 0}
    assert {"source", "licence", "image_root", "labels", "modalities", "skipped"} <= set(info)
    assert (manifest.path / "skipped.jsonl").read_text() == ""


def test_a_selection_keeps_order_paths_and_fingerprint(pairs, tmp_path):
    table = pairs(6)
    lines = table.read_text().splitlines(keepends=True)
    (table.parent / "a.jsonl").write_text("".join(lines[:4]))
    (table.parent / "b.jsonl").write_text("".join(lines[4:]))
    manifest = read_table([f"train={table.parent / 'a.jsonl'}", f"dev={table.parent / 'b.jsonl'}"], tmp_path / "m")
    held_out = manifest.select("validation")
    assert len(held_out) == 2
    assert held_out.image_path(0).name == "4.png"
    assert held_out.fingerprint == manifest.fingerprint
    assert manifest.rows_per_split() == {"train": 4, "validation": 2}
    with pytest.raises(UsageError, match=r"no rows in split 'test', only train, validation"):
        manifest.select("test")


def test_the_fingerprint_follows_the_content_and_not_the_place(pairs, tmp_path):
    table = pairs(4)
    first = read_table(table, tmp_path / "a")
    moved = tmp_path / "moved"
    table.parent.rename(moved)
    assert read_table(moved / "rows.jsonl", tmp_path / "b").fingerprint == first.fingerprint
    (moved / "rows.jsonl").write_text((moved / "rows.jsonl").read_text().replace("finding 3", "finding three"))
    assert read_table(moved / "rows.jsonl", tmp_path / "c").fingerprint != first.fingerprint


def test_a_changed_pixel_changes_the_fingerprint(pairs, tmp_path):
    table = pairs(4)
    first = read_table(table, tmp_path / "a")
    image = table.parent / "images/2.png"
    image.write_bytes(image.read_bytes().replace(b"IEND", b"IEND"))
    assert read_table(table, tmp_path / "b").fingerprint == first.fingerprint
    image.write_bytes((table.parent / "images/1.png").read_bytes())
    assert read_table(table, tmp_path / "c").fingerprint != first.fingerprint


def test_foreign_directories_are_a_usage_error(tmp_path):
    with pytest.raises(UsageError, match="does not exist"):
        Manifest.read(tmp_path / "nowhere")
    (tmp_path / "empty").mkdir()
    with pytest.raises(UsageError, match="is no manifest"):
        Manifest.read(tmp_path / "empty")
    (tmp_path / "empty/manifest.json").write_text('{"format": "something else"}')
    with pytest.raises(UsageError, match="does not describe a manifest"):
        Manifest.read(tmp_path / "empty")


def test_a_manifest_of_a_later_version_is_named(manifest):
    info = json.loads((manifest.path / "manifest.json").read_text())
    (manifest.path / "manifest.json").write_text(json.dumps({**info, "version": 99}))
    with pytest.raises(UsageError, match="version 99"):
        Manifest.read(manifest.path)


def test_a_flipped_bit_is_refused_where_parquet_alone_reads_on(manifest):
    file = manifest.path / "manifest.parquet"
    content = bytearray(file.read_bytes())
    position = content.rindex(b"ARROW:schema") - 200
    content[position] ^= 1
    file.write_bytes(content)
    with pytest.raises(DataRefused, match="damaged"):
        Manifest.read(manifest.path)
    file.unlink()
    with pytest.raises(DataRefused, match=r"manifest\.parquet is missing"):
        Manifest.read(manifest.path)


def test_a_label_may_not_take_the_name_of_a_fixed_column():
    with pytest.raises(UsageError, match="'split' is taken"):
        manifest_schema(("split",), (), False)


def test_rows_are_written_a_few_at_a_time(tmp_path, monkeypatch):
    monkeypatch.setattr("gapless.manifest.writer.ROWS_PER_WRITE", 10)
    row = {"group": "g", "split": "train", "image": "x", "captions": ["c"], "width": 1, "height": 1, "sha256": "0"}
    with ManifestWriter(tmp_path) as writer:
        writer.keep_all({**row, "id": str(number)} for number in range(25))
        assert len(writer._pending) == 5
        writer.finish(source="s", image_root=".", licence=None)
    assert pq.read_metadata(tmp_path / "manifest.parquet").num_row_groups == 3
    assert len(Manifest.read(tmp_path)) == 25


def test_an_output_directory_in_use_is_left_alone(manifest, pairs):
    before = sorted(path.name for path in manifest.path.iterdir())
    with pytest.raises(UsageError, match="is in use"):
        build_manifest([], manifest.path, BuildOptions(source="s"))
    assert sorted(path.name for path in manifest.path.iterdir()) == before


def test_an_image_may_be_named_by_another_way_to_its_root_but_not_outside(manifest, tmp_path):
    def named(name):
        column = manifest.table.column_names.index("image")
        table = manifest.table.set_column(column, "image", [[name] * len(manifest)])
        return Manifest(manifest.path, manifest.info, table)

    inside = manifest.image_path(3)
    (tmp_path / "other").symlink_to(manifest.image_root)
    assert named(str(tmp_path / "other" / inside.relative_to(manifest.image_root))).image_path(0).samefile(inside)
    assert named(str(inside)).image_path(0) == inside
    (manifest.image_root.parent / "secret.png").write_bytes(inside.read_bytes())
    for name in ("../secret.png", str(manifest.image_root.parent / "secret.png"), "a/../../secret.png", "a\0b"):
        with pytest.raises(DataRefused, match="outside the image root"):
            named(name).image_path(0)
