"""No manifest is finished whose images are not, at the end, those that were verified."""

import os
from pathlib import Path

import pytest
from data_samples import noise_image

from gapless.core.errors import DataRefused
from gapless.manifest.build import build_manifest
from gapless.manifest.options import BuildOptions, ImageOptions
from gapless.manifest.raw_rows import FileSource, RawRow
from gapless.manifest.readers.table import read_table
from gapless.manifest.split import split_manifest

COUNT = 12


def rows_of(folder: Path):
    """Rows over the files of a folder."""
    for number in range(COUNT):
        name = f"{number}.png"
        yield RawRow(name, name, FileSource(folder, name), name, [f"caption {number}"])


@pytest.fixture
def folder(tmp_path):
    path = tmp_path / "images"
    path.mkdir()
    for number in range(COUNT):
        noise_image(number).save(path / f"{number}.png")
    return path


def finish_after(act, monkeypatch):
    """Let something happen between the last verified row and the end."""
    from gapless.manifest.writer import ManifestWriter

    finish = ManifestWriter.finish
    monkeypatch.setattr(ManifestWriter, "finish", lambda *args, **more: (finish(*args, **more), act())[0])


def swap_bytes(path):
    """Other bytes of the same length under the same name and time."""
    before = path.stat()
    content = path.read_bytes()
    path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert path.stat().st_size == before.st_size


@pytest.mark.parametrize(
    ("harm", "said"),
    [(Path.unlink, r"'7\.png' \(7\.png is missing\)"), (swap_bytes, r"'7\.png' \(7\.png has changed\)")],
)
def test_a_file_that_is_lost_or_changed_before_the_end_refuses_the_manifest(tmp_path, folder, monkeypatch, harm, said):
    finish_after(lambda: harm(folder / "7.png"), monkeypatch)
    with pytest.raises(DataRefused, match=rf"1 of 12 images are no longer as they were verified: {said}"):
        build_manifest(rows_of(folder), tmp_path / "m", BuildOptions(source="s", images=ImageOptions(folder)))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["images"]


def test_of_many_files_that_are_lost_all_are_counted_and_three_are_named(tmp_path, folder, monkeypatch):
    finish_after(lambda: [path.unlink() for path in folder.iterdir()], monkeypatch)
    named = r"12 of 12 .*'0\.png' \(.*'1\.png' \(.*'2\.png' \(2\.png is missing\); \.\.\.; make sure"
    with pytest.raises(DataRefused, match=named):
        build_manifest(rows_of(folder), tmp_path / "m", BuildOptions(source="s", images=ImageOptions(folder)))


@pytest.mark.parametrize("harm", [Path.unlink, swap_bytes])
def test_a_copy_that_is_lost_or_damaged_before_the_end_refuses_the_manifest(tmp_path, folder, monkeypatch, harm):
    finish_after(lambda: harm(next(tmp_path.glob(".m.resume/images/*/*.png"))), monkeypatch)
    with pytest.raises(DataRefused, match="1 of 12 images are no longer as they were verified"):
        build_manifest(rows_of(folder), tmp_path / "m", BuildOptions(source="s"))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["images"]


@pytest.mark.parametrize("root", [True, False])
def test_a_file_that_is_only_touched_is_no_harm(tmp_path, folder, monkeypatch, root):
    """The control: the same bytes under another time are the same image."""
    finish_after(lambda: os.utime(folder / "7.png", ns=(1, 1)), monkeypatch)
    options = BuildOptions(source="s", images=ImageOptions(folder if root else None))
    assert len(build_manifest(rows_of(folder), tmp_path / "m", options)) == COUNT


def test_two_rows_whose_copies_are_one_file_are_noticed(tmp_path, folder, monkeypatch):
    """As where a file system takes two names for one."""
    monkeypatch.setattr(
        "gapless.manifest.build.stored_name", lambda id: f"aa/{'x' if id in ('3.png', '4.png') else id}"
    )
    with pytest.raises(DataRefused, match=r"'3\.png' \(images/aa/x\.png has changed\)"):
        build_manifest(rows_of(folder), tmp_path / "m", BuildOptions(source="s", workers=1))


def test_a_split_of_a_manifest_whose_images_are_gone_is_refused(tmp_path, pairs):
    table = pairs(10)
    manifest = read_table(table, tmp_path / "m")
    assert len(split_manifest(manifest, tmp_path / "s")) == 10
    (table.parent / "images/4.png").unlink()
    with pytest.raises(DataRefused, match=r"images/4\.png is missing"):
        split_manifest(manifest, tmp_path / "t")
    assert not (tmp_path / "t").exists()
