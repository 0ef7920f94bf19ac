"""An interrupted run continues with the rows' own images, whatever they are called and however long they are.

Every reader is stopped in the middle and run again: on the same data, and on data of which nothing has changed but the
bytes. The controls know a row by the name and the length of its image, as a cache may be tempted to.
"""

import contextlib
import io
import os
import signal
import subprocess
import sys
import tarfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from unittest import mock

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from dicom_samples import dicom_bytes
from PIL import Image

from gapless.core.errors import DataRefused, NoRoom, UsageError
from gapless.core.locks import only_writer
from gapless.images.pixels import load_image
from gapless.manifest import build
from gapless.manifest.manifest import Manifest
from gapless.manifest.raw_rows import BytesSource, FileSource
from gapless.manifest.readers.dicom_folder import read_dicom
from gapless.manifest.readers.phantom import write_phantom
from gapless.manifest.readers.roco import read_roco
from gapless.manifest.readers.rocov2 import read_rocov2
from gapless.manifest.readers.shards import MemberSource, read_shards
from gapless.manifest.readers.table import read_table
from gapless.manifest.resume_journal import AGAIN_FILE, JOURNAL_FILE, Journal
from gapless.manifest.verify import check_images

COUNT, STOP_AT = 80, 70  # results are written down by chunks of 32 rows


def picture(number: int) -> np.ndarray:
    pixels = np.zeros((12, 16), np.uint8)
    pixels[:, :8], pixels[:, 8:] = number % 200, number // 200
    return pixels


def bitmap(number: int) -> bytes:
    """An image whose length is that of every other."""
    stream = io.BytesIO()
    Image.fromarray(picture(number)).save(stream, "BMP")
    return stream.getvalue()


def numbers_in(manifest: Manifest) -> list[int]:
    images = [load_image(manifest.image_path(row)) for row in range(len(manifest))]
    return [int(image[0, 0]) + 200 * int(image[0, -1]) for image in images]


def numbers_said(manifest: Manifest) -> list[int]:
    return [int(caption.split()[-1]) for caption in manifest.first_captions]


# ---- one small data set per reader, images `first` to `first + COUNT - 1` -------------------------------------------


def save_parquet(path: Path, first: int, count: int, name: str | None, **more: list[str]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    numbers = range(first, first + count)
    cells = pa.array(
        [{"bytes": bitmap(n), "path": name} for n in numbers], pa.struct({"bytes": "binary", "path": "string"})
    )
    table = pa.table({"image": cells, "caption": [f"number {n}" for n in numbers], **more})
    pq.write_table(table, path, compression="none", use_dictionary=False, write_statistics=False)


def parquet(folder: Path, first: int) -> None:
    save_parquet(folder / "rows.parquet", first, COUNT, "image.bmp")


def two_parquets(folder: Path, first: int) -> None:
    save_parquet(folder / "a/0.parquet", first, COUNT // 2, None)
    save_parquet(folder / "b/0.parquet", first + COUNT // 2, COUNT // 2, None)


def csv_and_files(folder: Path, first: int) -> None:
    (folder / "img").mkdir(parents=True, exist_ok=True)
    lines = [f"img/{n}.bmp,number {first + n}" for n in range(COUNT)]
    (folder / "rows.csv").write_text("\n".join(["image,caption", *lines]) + "\n")
    for n in range(COUNT):
        (folder / f"img/{n}.bmp").write_bytes(bitmap(first + n))


def shard(folder: Path, first: int) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    with tarfile.open(folder / "a.tar", "w") as tar:
        for n in range(COUNT):
            for suffix, content in (("bmp", bitmap(first + n)), ("txt", f"number {first + n:05d}".encode())):
                member = tarfile.TarInfo(f"{n:04d}.{suffix}")
                member.size = len(content)
                tar.addfile(member, io.BytesIO(content))


def dicom(folder: Path, first: int) -> None:
    (folder / "d").mkdir(parents=True, exist_ok=True)
    lines = [f"{n:03d}.dcm,number {first + n}" for n in range(COUNT)]
    (folder / "r.csv").write_text("\n".join(["image,report", *lines]) + "\n")
    for n in range(COUNT):
        with mock.patch("dicom_samples.generate_uid", return_value="1.2.3.4"):  # of one length
            content = dicom_bytes(picture(first + n), PatientID=f"P{n:05d}", SOPInstanceUID=f"1.2.{n + 1000}")
        (folder / f"d/{n:03d}.dcm").write_bytes(content)


def roco(folder: Path, first: int) -> None:
    part = folder / "data/train/radiology"
    (part / "images").mkdir(parents=True, exist_ok=True)
    ids = [f"ROCO_{n:05d}" for n in range(COUNT)]
    (part / "captions.txt").write_text("".join(f"{id}\tnumber {first + n}\n" for n, id in enumerate(ids)))
    (part / "licences.txt").write_text("".join(f"{id},PMC{n}_x.jpg,CC BY\n" for n, id in enumerate(ids)))
    for n, id in enumerate(ids):
        (part / f"images/{id}.jpg").write_bytes(bitmap(first + n))


def rocov2_parquet(folder: Path, first: int) -> None:
    ids = [f"R{n}" for n in range(COUNT)]
    save_parquet(folder / "train-0.parquet", first, COUNT, "image.png", image_id=ids)


def rocov2_files(folder: Path, first: int) -> None:
    (folder / "train").mkdir(parents=True, exist_ok=True)
    lines = [f"R{n},number {first + n}" for n in range(COUNT)]
    (folder / "train_captions.csv").write_text("\n".join(["ID,Caption", *lines]) + "\n")
    for n in range(COUNT):
        (folder / f"train/R{n}.jpg").write_bytes(bitmap(first + n))


@dataclass(frozen=True)
class Layout:
    """How a reader's data is written, and read into a manifest."""

    write: Callable[[Path, int], None]
    read: Callable[[Path, Path], Manifest]


LAYOUTS = {
    "parquet": Layout(parquet, lambda data, out: read_table(data / "rows.parquet", out, workers=1)),
    "two parquets": Layout(
        two_parquets, lambda data, out: read_table([data / "a/0.parquet", data / "b/0.parquet"], out, workers=1)
    ),
    "files": Layout(csv_and_files, lambda data, out: read_table(data / "rows.csv", out, workers=1)),
    "copied files": Layout(
        csv_and_files, lambda data, out: read_table(data / "rows.csv", out, workers=1, store_images=True)
    ),
    "shard": Layout(shard, lambda data, out: read_shards(data / "a.tar", out, workers=1)),
    "dicom": Layout(dicom, lambda data, out: read_dicom(data / "d", out, data / "r.csv", workers=1)),
    "roco": Layout(roco, lambda data, out: read_roco(data, out, workers=1)),
    "rocov2 parquet": Layout(rocov2_parquet, lambda data, out: read_rocov2(data, out, workers=1)),
    "rocov2 files": Layout(rocov2_files, lambda data, out: read_rocov2(data, out, workers=1)),
}
each_layout = pytest.mark.parametrize("layout", LAYOUTS.values(), ids=LAYOUTS.keys())


def stop_in_the_middle(read: Callable[[], Manifest], monkeypatch: pytest.MonkeyPatch) -> None:
    """Interrupt a run when `STOP_AT` rows are through the pipeline."""
    entered = iter(range(STOP_AT))
    enter = build._Books.enter

    def stopping(books, row, result):
        if next(entered, None) is None:
            raise KeyboardInterrupt
        enter(books, row, result)

    with monkeypatch.context() as patch:
        patch.setattr(build._Books, "enter", stopping)
        with pytest.raises(KeyboardInterrupt):
            read()


def sizes_and_times(folder: Path) -> dict[Path, tuple[int, int]]:
    files = [path for path in sorted(folder.rglob("*")) if path.is_file()]
    return {path: (path.stat().st_size, path.stat().st_mtime_ns) for path in files}


def write_again(layout: Layout, folder: Path, first: int) -> None:
    """Other images in the same files, whose sizes and times are those of before."""
    before = sizes_and_times(folder)
    layout.write(folder, first)
    for path, (size, time_ns) in before.items():
        assert path.stat().st_size == size, path
        os.utime(path, ns=(time_ns, time_ns))
    assert sizes_and_times(folder) == before


def know_by_name_and_length(monkeypatch: pytest.MonkeyPatch) -> None:
    """The control: a result is found for any image of the same name, length and time."""

    def bytes_key(source: BytesSource) -> str:
        return f"{source.name}|{len(source.content)}"

    def file_key(source: FileSource) -> str:
        status = (source.root / source.name).stat()
        return f"{source.name}|{status.st_size}|{status.st_mtime_ns}"

    def member_key(source: MemberSource) -> str:
        status = source.path.stat()
        return f"{source.name}|{source.offset}|{source.size}|{status.st_size}|{status.st_mtime_ns}"

    def find(journal: Journal, name: str, source, store):
        journal._read_until("")  # all lines
        return next((result for result in journal._waiting.values() if result.get("key") == source.key()), None)

    for kind, key in ((BytesSource, bytes_key), (FileSource, file_key), (MemberSource, member_key)):
        monkeypatch.setattr(kind, "key", key)
    monkeypatch.setattr(Journal, "find", find)


@each_layout
def test_a_continued_run_is_the_uninterrupted_one(layout, tmp_path, monkeypatch):
    layout.write(tmp_path / "data", 100)
    stop_in_the_middle(lambda: layout.read(tmp_path / "data", tmp_path / "m"), monkeypatch)
    verified = (tmp_path / ".m.resume" / JOURNAL_FILE).read_text().count("\n") - 1
    assert verified >= 64
    manifest = layout.read(tmp_path / "data", tmp_path / "m")
    whole = layout.read(tmp_path / "data", tmp_path / "whole")
    assert numbers_in(manifest) == numbers_said(manifest) == list(range(100, 100 + COUNT))
    assert manifest.table.equals(whole.table)
    assert {path.relative_to(manifest.path) for path in manifest.path.rglob("*")} == {
        path.relative_to(whole.path) for path in whole.path.rglob("*")
    }
    assert not list(tmp_path.glob(".*"))


@each_layout
def test_data_of_which_all_but_the_bytes_is_equal_is_verified_again(layout, tmp_path, monkeypatch):
    layout.write(tmp_path / "data", 100)
    stop_in_the_middle(lambda: layout.read(tmp_path / "data", tmp_path / "m"), monkeypatch)
    write_again(layout, tmp_path / "data", 300)
    manifest = layout.read(tmp_path / "data", tmp_path / "m")
    assert numbers_in(manifest) == numbers_said(manifest) == list(range(300, 300 + COUNT))
    assert manifest.table["sha256"].equals(layout.read(tmp_path / "data", tmp_path / "whole").table["sha256"])


@each_layout
def test_the_control_that_knows_images_by_name_and_length_is_wrong_or_refused(layout, tmp_path, monkeypatch):
    know_by_name_and_length(monkeypatch)
    layout.write(tmp_path / "data", 100)
    stop_in_the_middle(lambda: layout.read(tmp_path / "data", tmp_path / "m"), monkeypatch)
    write_again(layout, tmp_path / "data", 300)
    # Files in place are refused: their checksums are not those that were written down.
    with contextlib.suppress(DataRefused):
        manifest = layout.read(tmp_path / "data", tmp_path / "m")
        assert sum(np.array(numbers_in(manifest)) != numbers_said(manifest)) >= 60


def test_the_control_gives_rows_the_image_of_another_of_their_name(tmp_path, monkeypatch):
    know_by_name_and_length(monkeypatch)
    layout = LAYOUTS["parquet"]
    layout.write(tmp_path / "data", 100)
    monkeypatch.setattr(BytesSource, "key", lambda source: f"image.bmp|{len(source.content)}")
    stop_in_the_middle(lambda: layout.read(tmp_path / "data", tmp_path / "m"), monkeypatch)
    manifest = layout.read(tmp_path / "data", tmp_path / "m")
    assert sum(np.array(numbers_in(manifest)) != numbers_said(manifest)) == COUNT - 1


KILLED = """
import sys, time
from pathlib import Path
from gapless.manifest.resume_journal import Journal
from gapless.manifest.readers.table import read_table
add = Journal.add
def slow(journal, results):
    add(journal, results)
    time.sleep(0.05)
Journal.add = slow
read_table(sys.argv[1], sys.argv[2], workers=int(sys.argv[3]))
"""


@pytest.mark.parametrize("workers", [1, 2])
def test_a_run_that_is_killed_twice_continues_with_the_right_images(tmp_path, workers):
    table = tmp_path / "rows.parquet"
    save_parquet(table, 0, 1500, "image.bmp")
    journal = tmp_path / ".m.resume" / JOURNAL_FILE
    for wanted in (200, 700):
        command = [sys.executable, "-c", KILLED, table, tmp_path / "m", str(workers)]
        process = subprocess.Popen(command, stderr=subprocess.DEVNULL, start_new_session=True)
        deadline = time.monotonic() + 60
        while not journal.exists() or journal.read_bytes().count(b"\n") < wanted:
            assert process.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.01)
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    manifest = read_table(table, tmp_path / "m", workers=workers)
    assert numbers_in(manifest) == numbers_said(manifest) == list(range(1500))
    assert not list(tmp_path.glob(".*"))


# ---- what is not continued -------------------------------------------------------------------------------------------


def test_another_seed_of_the_phantom_is_drawn_anew(tmp_path, monkeypatch):
    stop_in_the_middle(lambda: write_phantom(tmp_path / "m", 100, seed=0, workers=1), monkeypatch)
    other = write_phantom(tmp_path / "m", 100, seed=1, workers=1)
    assert other.fingerprint == write_phantom(tmp_path / "fresh", 100, seed=1, workers=1).fingerprint


@pytest.mark.parametrize("change", ["version", "decoder", "options"])
def test_the_work_of_another_version_or_of_other_options_is_dropped_with_a_sentence(
    tmp_path, monkeypatch, caplog, change
):
    layout = LAYOUTS["copied files"]
    layout.write(tmp_path / "data", 100)
    with monkeypatch.context() as patch:
        if change == "version":
            patch.setattr("gapless.manifest.resume_journal.VERSION", 1)
        if change == "decoder":
            patch.setattr("gapless.manifest.resume_journal._version_of", lambda package: "0.0.1")
        read = LAYOUTS["files"].read if change == "options" else layout.read
        stop_in_the_middle(lambda: read(tmp_path / "data", tmp_path / "m"), patch)
    manifest = layout.read(tmp_path / "data", tmp_path / "m")
    assert "another version or with other options: it is dropped" in caplog.text
    assert "; differing: " in caplog.text
    assert numbers_in(manifest) == numbers_said(manifest)
    caplog.clear()
    stop_in_the_middle(lambda: layout.read(tmp_path / "data", tmp_path / "again"), monkeypatch)
    layout.read(tmp_path / "data", tmp_path / "again")
    assert not caplog.text  # the control: the same version and options are continued


def test_an_image_that_was_missing_before_the_interruption_is_looked_for_again(tmp_path, monkeypatch):
    layout = LAYOUTS["copied files"]
    layout.write(tmp_path / "data", 100)
    image = tmp_path / "data/img/3.bmp"
    content = image.read_bytes()
    image.write_bytes(content[:50])
    before = image.stat()
    stop_in_the_middle(lambda: layout.read(tmp_path / "data", tmp_path / "m"), monkeypatch)
    image.write_bytes(content)
    assert image.stat().st_ino == before.st_ino
    assert len(layout.read(tmp_path / "data", tmp_path / "m")) == COUNT


def interrupted_again_and_again(layout: Layout, data: Path, out: Path, monkeypatch, checks) -> Journal:
    """Interrupt a build that goes on from an interrupted one; `checks` sees what is verified. Returns its journal."""
    journals: list[Journal] = []
    beside = Journal.beside.__func__  # of a class method

    def remembered(kind, *words):
        journals.append(beside(kind, *words))
        return journals[-1]

    with monkeypatch.context() as patch:
        patch.setattr(Journal, "beside", classmethod(remembered))
        patch.setattr("gapless.manifest.workers.check_images", checks)
        stop_in_the_middle(lambda: layout.read(data, out), patch)
    return journals[-1]


def counting_checks(verified: list[str]):
    def check(work, options, store):
        verified.extend(name for _, name in work)
        return check_images(work, options, store)

    return check


def test_a_build_that_goes_on_reads_its_journal_in_step_with_the_rows(tmp_path, monkeypatch):
    layout = LAYOUTS["files"]
    layout.write(tmp_path / "data", 100)
    (tmp_path / "data/img/3.bmp").write_bytes(b"BM")
    verified: list[str] = []
    stop_in_the_middle(lambda: layout.read(tmp_path / "data", tmp_path / "m"), monkeypatch)
    journal = interrupted_again_and_again(
        layout, tmp_path / "data", tmp_path / "m", monkeypatch, counting_checks(verified)
    )
    assert journal._waiting == {}  # no line waits in memory, also behind a refused row
    assert len(verified) <= COUNT - 64 + 1
    assert '"reason"' in (tmp_path / ".m.resume" / JOURNAL_FILE).read_text()
    assert "img/3.bmp" not in (tmp_path / ".m.resume" / JOURNAL_FILE).read_text()  # no words of a refusal


def test_rows_in_another_order_are_not_verified_again(tmp_path, monkeypatch):
    layout = LAYOUTS["files"]
    layout.write(tmp_path / "data", 100)
    stop_in_the_middle(lambda: layout.read(tmp_path / "data", tmp_path / "m"), monkeypatch)
    table = tmp_path / "data/rows.csv"
    head, *lines = table.read_text().splitlines()
    table.write_text("\n".join([head, *reversed(lines)]) + "\n")
    verified: list[str] = []
    interrupted_again_and_again(layout, tmp_path / "data", tmp_path / "m", monkeypatch, counting_checks(verified))
    assert len(verified) <= COUNT - 64
    manifest = layout.read(tmp_path / "data", tmp_path / "m")
    assert numbers_in(manifest) == numbers_said(manifest) == list(reversed(range(100, 100 + COUNT)))


def test_images_that_have_changed_are_verified_again_once(tmp_path, monkeypatch):
    """The third build finds the results of the second, which are newer than those of the first."""
    layout = LAYOUTS["files"]
    layout.write(tmp_path / "data", 100)
    stop_in_the_middle(lambda: layout.read(tmp_path / "data", tmp_path / "m"), monkeypatch)
    write_again(layout, tmp_path / "data", 300)
    counts = []
    for _ in range(2):
        verified: list[str] = []
        interrupted_again_and_again(layout, tmp_path / "data", tmp_path / "m", monkeypatch, counting_checks(verified))
        counts.append(len(verified))
    assert counts[0] == COUNT
    assert counts[1] <= COUNT - 64
    manifest = layout.read(tmp_path / "data", tmp_path / "m")
    assert numbers_in(manifest) == numbers_said(manifest) == list(range(300, 300 + COUNT))


def test_images_that_were_missing_at_first_are_verified_once_when_they_are_there(tmp_path, monkeypatch):
    """As on a share that was not mounted: the third build does not repeat what the second did."""
    layout = LAYOUTS["files"]
    layout.write(tmp_path / "data", 100)
    (tmp_path / "data/img").rename(tmp_path / "elsewhere")
    stop_in_the_middle(lambda: layout.read(tmp_path / "data", tmp_path / "m"), monkeypatch)
    (tmp_path / "elsewhere").rename(tmp_path / "data/img")
    counts = []
    for _ in range(2):
        verified: list[str] = []
        journal = interrupted_again_and_again(
            layout, tmp_path / "data", tmp_path / "m", monkeypatch, counting_checks(verified)
        )
        counts.append(len(verified))
        assert journal._waiting == {}
        assert journal._to_repeat <= set(verified)
    assert counts[0] == COUNT
    assert counts[1] <= COUNT - 64


def test_images_that_change_and_change_back_have_the_copies_of_the_last(tmp_path, monkeypatch):
    """One length and one name, so that a copy of the second build cannot be told from one of the first."""
    layout = LAYOUTS["parquet"]
    for first in (100, 300, 100):
        layout.write(tmp_path / "data", first)
        stop_in_the_middle(lambda: layout.read(tmp_path / "data", tmp_path / "m"), monkeypatch)
    manifest = layout.read(tmp_path / "data", tmp_path / "m")
    assert numbers_in(manifest) == numbers_said(manifest) == list(range(100, 100 + COUNT))


def test_a_journal_cut_short_in_either_file_loses_its_last_row_alone(tmp_path, monkeypatch):
    layout = LAYOUTS["files"]
    layout.write(tmp_path / "data", 100)
    stop_in_the_middle(lambda: layout.read(tmp_path / "data", tmp_path / "m"), monkeypatch)
    write_again(layout, tmp_path / "data", 300)
    stop_in_the_middle(lambda: layout.read(tmp_path / "data", tmp_path / "m"), monkeypatch)
    for name in (JOURNAL_FILE, AGAIN_FILE):
        file = tmp_path / ".m.resume" / name
        assert file.read_bytes().count(b"\n") >= 64
        file.write_bytes(file.read_bytes()[:-7])
    verified: list[str] = []
    interrupted_again_and_again(layout, tmp_path / "data", tmp_path / "m", monkeypatch, counting_checks(verified))
    assert len(verified) <= COUNT - 64 + 2
    manifest = layout.read(tmp_path / "data", tmp_path / "m")
    assert numbers_in(manifest) == numbers_said(manifest) == list(range(300, 300 + COUNT))


def test_a_full_folder_of_temporary_files_keeps_what_was_verified(tmp_path, monkeypatch):
    layout = LAYOUTS["files"]
    layout.write(tmp_path / "data", 100)

    def full(books, row, result):
        raise NoRoom("full")

    with monkeypatch.context() as patch:
        patch.setattr(build._Books, "enter", full)
        with pytest.raises(NoRoom):
            layout.read(tmp_path / "data", tmp_path / "m")
    assert (tmp_path / ".m.resume" / JOURNAL_FILE).read_bytes().count(b"\n") > 1
    assert len(layout.read(tmp_path / "data", tmp_path / "m")) == COUNT
    assert not list(tmp_path.glob(".*"))


def test_copies_of_rows_that_are_left_out_the_second_time_do_not_stay(tmp_path, monkeypatch):
    layout = LAYOUTS["copied files"]
    layout.write(tmp_path / "data", 100)
    stop_in_the_middle(lambda: layout.read(tmp_path / "data", tmp_path / "m"), monkeypatch)
    table = tmp_path / "data/rows.csv"
    table.write_text("".join(table.read_text().splitlines(keepends=True)[:11]))
    assert len(list((tmp_path / ".m.resume/images").rglob("*.bmp"))) > 10  # what would stay
    manifest = layout.read(tmp_path / "data", tmp_path / "m")
    assert len(manifest) == len(list(manifest.path.rglob("*.bmp"))) == 10


def test_two_builds_do_not_write_one_manifest_at_the_same_time(tmp_path):
    layout = LAYOUTS["files"]
    layout.write(tmp_path / "data", 100)
    with only_writer(tmp_path / ".m.resume"), pytest.raises(UsageError, match="another process is writing"):
        layout.read(tmp_path / "data", tmp_path / "m")
    assert len(layout.read(tmp_path / "data", tmp_path / "m")) == COUNT


def test_a_link_that_leads_elsewhere_in_the_second_build_is_followed_anew(tmp_path):
    """In one process: where folders lead is remembered within a build, and not from one to the next."""
    layout = LAYOUTS["files"]
    for name, first in (("one", 100), ("two", 300)):
        layout.write(tmp_path / name, first)
    for name, first in (("one", 100), ("two", 300)):
        (tmp_path / "link").unlink(missing_ok=True)
        (tmp_path / "link").symlink_to(tmp_path / name)
        manifest = layout.read(tmp_path / "link", tmp_path / f"m-{name}")
        assert numbers_in(manifest) == numbers_said(manifest) == list(range(first, first + COUNT))
