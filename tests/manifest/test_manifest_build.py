"""The shared pipeline: every row is kept or skipped with a reason, whatever the workers, interruptions and crashes."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass

import pytest
from data_samples import noise_image

from gapless.core import pool
from gapless.core.errors import DataRefused, UsageError
from gapless.images.pixels import ImageRefused, load_image
from gapless.manifest.build import build_manifest, stored_name
from gapless.manifest.clean_text import clean_text
from gapless.manifest.options import BuildOptions, ImageOptions
from gapless.manifest.raw_rows import BytesSource, FileSource, RawRow, contained_path, faulty_row, select_licences
from gapless.manifest.readers.table import read_table
from gapless.manifest.resume_journal import Journal
from gapless.manifest.verify import encode_png


def rows_in(folder, count, **changes):
    """Rows over image files, the third missing and the fifth truncated."""
    for number in range(count):
        name = f"{number}.png"
        path = folder / name
        if not path.exists() and number % 10 != 2:
            noise_image(number).save(path)
            if number % 10 == 4:
                path.write_bytes(path.read_bytes()[:-60])
        captions = [f"caption {number}"] if number % 10 != 7 else ["  "]
        yield RawRow(f"row {number}", f"id{number}", FileSource(folder, name), name, captions, **changes)


@pytest.mark.parametrize("num_workers", [1, 2, 3])
def test_rows_read_are_rows_kept_and_skipped_for_every_worker_count(tmp_path, num_workers):
    folder = tmp_path / "images"
    folder.mkdir()
    options = BuildOptions(source="s", images=ImageOptions(folder), max_bad=0.5, workers=num_workers)
    manifest = build_manifest(rows_in(folder, 100), tmp_path / "m", options)
    assert manifest.info["counts"] == {"read": 100, "kept": 70, "skipped": 30}
    assert manifest.info["skipped"] == {"empty caption": 10, "missing image": 10, "unreadable image": 10}
    assert manifest.table["id"].to_pylist() == [f"id{n}" for n in range(100) if n % 10 not in (2, 4, 7)]
    listed = [json.loads(line) for line in (manifest.path / "skipped.jsonl").read_text().splitlines()]
    assert [line["row"] for line in listed] == [f"row {n}" for n in range(100) if n % 10 in (2, 4, 7)]
    assert not list(tmp_path.glob(".*"))


def test_above_the_ceiling_nothing_is_written_but_the_list(tmp_path):
    folder = tmp_path / "images"
    folder.mkdir()
    options = BuildOptions(source="s", images=ImageOptions(folder), max_bad=0.29)
    with pytest.raises(DataRefused) as refusal:
        build_manifest(rows_in(folder, 100), tmp_path / "m", options)
    message = str(refusal.value)
    assert message.startswith("30 of 100 rows (30.0%) are bad, more than the 29.0% that --max-bad allows")
    assert "10 missing image" in message
    assert message.count("row ") == 10
    assert "row 2 (missing image: 2.png)" in message
    assert sorted(path.name for path in tmp_path.iterdir()) == ["images", "m.skipped.jsonl"]
    assert len((tmp_path / "m.skipped.jsonl").read_text().splitlines()) == 30
    build_manifest(
        rows_in(folder, 100), tmp_path / "m", BuildOptions(source="s", images=ImageOptions(folder), max_bad=0.3)
    )
    assert sorted(path.name for path in tmp_path.iterdir()) == ["images", "m"]


def test_the_ceiling_is_exact(tmp_path):
    rows = [RawRow(str(n), str(n), BytesSource(encode_png(load_image_of(n)), "x"), "x", ["c"]) for n in range(99)]
    options = BuildOptions(source="s", max_bad=0.01)
    assert len(build_manifest([*rows, faulty_row("bad", "odd")], tmp_path / "a", options)) == 99
    with pytest.raises(DataRefused):
        build_manifest([*rows[:98], faulty_row("bad", "odd")], tmp_path / "b", options)


def load_image_of(seed):
    import numpy as np

    return np.asarray(noise_image(seed))


def test_rows_left_out_by_wish_are_counted_but_are_not_bad(tmp_path):
    rows = [
        RawRow(str(n), str(n), BytesSource(encode_png(load_image_of(n)), "x"), "x", ["c"], licence=licence)
        for n, licence in enumerate(("CC BY", "CC BY-NC", "cc-by", None))
    ]
    options = BuildOptions(source="s", with_licence=True, max_bad=0.0)
    manifest = build_manifest(select_licences(rows, ["CC BY", "CC0"]), tmp_path / "m", options)
    assert manifest.table["licence"].to_pylist() == ["CC BY", "cc-by"]
    assert manifest.info["skipped"] == {"licence not selected": 2}
    with pytest.raises(DataRefused, match="none of 4 rows is selected"):
        build_manifest(select_licences(rows, ["CC0"]), tmp_path / "none", options)


@pytest.mark.parametrize("wrong", [{"max_bad": 1.5}, {"max_bad": float("nan")}, {"workers": 0}])
def test_options_out_of_range_are_usage_errors(tmp_path, wrong):
    with pytest.raises(UsageError, match=r"--(max-bad|workers)"):
        build_manifest([], tmp_path / "m", BuildOptions(source="s", **wrong))


def test_an_id_is_used_once(tmp_path):
    rows = [RawRow(str(n), "same", BytesSource(encode_png(load_image_of(n)), "x"), "x", ["c"]) for n in range(2)]
    manifest = build_manifest(rows, tmp_path / "m", BuildOptions(source="s", max_bad=0.5))
    assert manifest.info["skipped"] == {"duplicate id": 1}


def test_text_becomes_one_clean_line():
    assert clean_text("  a\tb\n\x00c\x1b[31m d\u2028e  ") == "a b c [31m d e"
    assert clean_text("é µ 左") == "é µ 左"


def test_a_row_that_is_not_unicode_is_skipped(tmp_path):
    rows = [RawRow(str(n), str(n), BytesSource(encode_png(load_image_of(n)), "x"), "x", ["c"]) for n in range(3)]
    odd = RawRow("odd", "odd", rows[0].image, "x", ["\udcff"])
    manifest = build_manifest([*rows, odd], tmp_path / "m", BuildOptions(source="s", max_bad=0.5))
    assert manifest.info["skipped"] == {"not UTF-8": 1}


def test_stored_names_are_safe_and_differ():
    assert stored_name("ROCO_00002").endswith("/ROCO_00002")
    for id in ("../../etc/passwd", "a/b", "", ".hidden", "x" * 500, "ä", "a\0b"):
        name = stored_name(id)
        folder, _, file = name.partition("/")
        assert len(folder) == 2
        assert file.isalnum()
    assert stored_name("a/b") != stored_name("a-b")


# ---- interruption ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class CountingSource:
    """An image whose readings are counted in a file, across processes."""

    folder: str
    number: int
    stop_at: int = -1

    def read(self):
        with open(f"{self.folder}/reads.txt", "a") as stream:
            stream.write(f"{self.number}\n")
        if self.number == self.stop_at:
            raise KeyboardInterrupt
        return encode_png(load_image_of(self.number))

    def key(self):
        return str(self.number)


def counting_rows(folder, count, stop_at=-1):
    for number in range(count):
        yield RawRow(str(number), f"id{number}", CountingSource(str(folder), number, stop_at), f"{number}", ["c"])


@pytest.mark.parametrize("num_workers", [1, 2])
def test_an_interrupted_run_continues_and_gives_the_same_manifest(tmp_path, num_workers):
    options = BuildOptions(source="s", workers=num_workers)
    with pytest.raises(KeyboardInterrupt):
        build_manifest(counting_rows(tmp_path, 200, stop_at=150), tmp_path / "m", options)
    assert not (tmp_path / "m").exists()
    assert (tmp_path / ".m.resume").is_dir()
    (tmp_path / "reads.txt").unlink()
    manifest = build_manifest(counting_rows(tmp_path, 200), tmp_path / "m", options)
    again = {int(line) for line in (tmp_path / "reads.txt").read_text().split()}
    assert len(again) <= 200 - 96
    whole = build_manifest(counting_rows(tmp_path, 200), tmp_path / "whole", options)
    assert manifest.table.equals(whole.table)
    assert manifest.fingerprint == whole.fingerprint
    assert not list(tmp_path.glob(".*"))


def interrupt(out, options, results):
    """Leave what a run leaves that was interrupted after these results."""
    with contextlib.suppress(KeyboardInterrupt), Journal.beside(out, options.images) as journal:
        journal.add(results)
        raise KeyboardInterrupt


def test_a_changed_file_is_verified_again_and_a_lost_copy_is_made_again(tmp_path, pairs):
    table = pairs(40)
    out = tmp_path / "m"
    sources = [FileSource(table.parent, f"images/{n}.png") for n in range(40)]
    found = {"image": None, "bytes": None, "width": 1, "height": 1, "sha256": "x"}
    interrupt(
        out,
        BuildOptions(source="s", images=ImageOptions(table.parent)),
        [{"name": stored_name(source.name), "key": source.key(), **found} for source in sources],
    )
    noise_image(99, (30, 30)).save(table.parent / "images/7.png")
    manifest = read_table(table, out)
    widths = manifest.table["width"].to_pylist()
    assert widths[7] == 30
    assert widths[:7] == [1] * 7


def test_a_journal_of_other_options_or_with_a_torn_line_is_no_danger(tmp_path):
    resume = tmp_path / ".m.resume"
    resume.mkdir()
    for content in ("{}\n", "", "not json", '{"version": 1}\n{"key": "0", "wid'):
        (resume / "journal.jsonl").write_text(content)
        manifest = build_manifest(counting_rows(tmp_path, 5), tmp_path / "m", BuildOptions(source="s"))
        assert len(manifest) == 5
        for path in sorted((tmp_path / "m").rglob("*"), reverse=True):
            path.unlink() if path.is_file() else path.rmdir()
        (tmp_path / "m").rmdir()
        resume.mkdir()


KILLED = """
import sys, time
from pathlib import Path
sys.path[:0] = {tests!r}
from gapless.manifest.build import build_manifest
from gapless.manifest.options import BuildOptions
from test_manifest_build import counting_rows
def slow():
    for row in counting_rows(Path({folder!r}), 400):
        time.sleep(0.004)
        yield row
build_manifest(slow(), {out!r}, BuildOptions(source="s", workers=1))
"""


def test_a_killed_run_leaves_no_manifest_and_continues(tmp_path):
    """SIGKILL at some moment; a naive writer, the control, would leave a directory that looks finished."""
    script = KILLED.format(
        tests=[os.path.dirname(__file__), os.path.dirname(os.path.dirname(__file__))],
        folder=str(tmp_path),
        out=str(tmp_path / "m"),
    )
    process = subprocess.Popen([sys.executable, "-c", script], stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 60
    while not (tmp_path / "reads.txt").exists() or len((tmp_path / "reads.txt").read_text().split()) < 100:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not (tmp_path / "m").exists()
    before = len((tmp_path / "reads.txt").read_text().split())
    manifest = build_manifest(counting_rows(tmp_path, 400), tmp_path / "m", BuildOptions(source="s", workers=1))
    reads = len((tmp_path / "reads.txt").read_text().split()) - before
    assert len(manifest) == 400
    assert reads <= 400 - 64
    assert not list(tmp_path.glob(".*"))


# ---- crashes --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class CrashingSource:
    """An image whose decoder takes its process down."""

    number: int

    def read(self):
        if self.number == 70:
            os._exit(139)
        return encode_png(load_image_of(self.number))

    def key(self):
        return str(self.number)


def test_a_decoder_that_crashes_costs_one_row(tmp_path):
    rows = (RawRow(str(n), f"id{n}", CrashingSource(n), "x", ["c"]) for n in range(130))
    manifest = build_manifest(rows, tmp_path / "m", BuildOptions(source="s", workers=2, max_bad=0.1))
    assert manifest.info["counts"] == {"read": 130, "kept": 129, "skipped": 1}
    assert manifest.info["skipped"] == {"decoder crashed": 1}


def test_no_more_rows_are_in_flight_than_the_workers_need(tmp_path, monkeypatch):
    """Memory is bounded: the reader is never far ahead of what has been written."""
    ahead = []

    def rows():
        for number in range(2000):
            ahead.append(number)
            yield RawRow(str(number), f"id{number}", BytesSource(PNG, str(number)), "x", ["c"])

    from gapless.manifest import build

    monkeypatch.setattr(build, "ROWS_PER_CHUNK", 8)
    written = []
    enter = build._Books.enter
    monkeypatch.setattr(build._Books, "enter", lambda self, row, result: (written.append(1), enter(self, row, result)))
    most = 0

    def watched():
        nonlocal most
        for row in rows():
            most = max(most, len(ahead) - len(written))
            yield row

    build_manifest(watched(), tmp_path / "m", BuildOptions(source="s", workers=2))
    assert most <= pool.MIN_IMAGES_FOR_WORKERS + 8 * (2 * pool.CHUNKS_AHEAD_PER_WORKER + 4)


PNG = encode_png(load_image_of(0))


# ---- paths ----------------------------------------------------------------------------------------------------------


LEAVING = ("../outside.png", "/etc/passwd", "a/../../outside.png", "..\\outside.png", "link.png", "linked/outside.png")


@pytest.mark.parametrize("name", LEAVING)
def test_names_that_leave_the_root_are_refused(tmp_path, name):
    root = tmp_path / "root"
    (root / "a").mkdir(parents=True)
    noise_image(0).save(tmp_path / "outside.png")
    (root / "link.png").symlink_to(tmp_path / "outside.png")
    (root / "linked").symlink_to(tmp_path)
    with pytest.raises(ImageRefused, match=r"path outside the image root|missing image"):
        contained_path(root, name)
    if not name.startswith("/") and "\\" not in name:
        assert load_image(root / name).size  # the control: a plain join would have read it


def test_names_that_stay_are_found_also_through_links(tmp_path):
    (tmp_path / "disk/deep").mkdir(parents=True)
    noise_image(0).save(tmp_path / "disk/deep/a.png")
    (tmp_path / "root").symlink_to(tmp_path / "disk")
    (tmp_path / "disk/b.png").symlink_to(tmp_path / "disk/deep/a.png")
    for name in ("deep/a.png", "b.png", "./deep/a.png", str((tmp_path / "disk/deep/a.png").resolve())):
        assert contained_path(tmp_path / "root", name).is_file()
    (tmp_path / "disk/loop").symlink_to(tmp_path / "disk/loop")
    for name in ("", "loop", "deep", "x" * 3000, "a\0b", "nothing.png"):
        with pytest.raises(ImageRefused):
            contained_path(tmp_path / "root", name)
