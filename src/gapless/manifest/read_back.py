"""Checks, before a manifest is finished, that each row still has the image that was verified.

Copies are read again and their checksums compared. Files that stay in place are compared by their identity (inode and
times), and read again only where that has changed.
"""

import array
import stat
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from tqdm import tqdm

from gapless.core import files
from gapless.core.errors import DataRefused
from gapless.core.pool import available_cores
from gapless.manifest.manifest import TABLE_FILE
from gapless.manifest.raw_rows import file_identity

NUM_NAMED = 3
FILES_AT_ONCE = 64


class Identities:
    """The identity with which each row's image was verified, in 8 bytes a row."""

    def __init__(self) -> None:
        self._hashes = array.array("q")

    def add(self, result: Mapping[str, Any]) -> None:
        """Add the identity in a result of `check_images`; rows are numbered in the order of the calls."""
        self._hashes.append(hash(str(result["key"]).rpartition("|")[2]))

    def has(self, row: int, path: Path) -> bool:
        """Whether a file still has the identity of that row."""
        return self._hashes[row] == hash(file_identity(path))


def check_copies(directory: Path) -> None:
    """Read every image that a manifest holds, compare its checksum, and remove those of rows that were left out.

    Raises:
        DataRefused: a copy is missing or has other bytes.
    """

    def is_whole(row: int, path: Path, sha256: str) -> bool:
        return files.sha256_of(path) == sha256

    names = _check(directory, directory, is_whole)
    for path in files.entries_below(directory):
        is_image = path.is_file() and path.parent != directory
        if is_image and path.relative_to(directory).as_posix() not in names:
            path.unlink()


def check_files(directory: Path, image_root: Path, identities: Identities) -> None:
    """Check that the files which a manifest names are those that were verified.

    Raises:
        DataRefused: one is missing, or has changed since it was read.
    """

    def is_unchanged(row: int, path: Path, sha256: str) -> bool:
        # A file whose times have changed may still hold the same bytes.
        return identities.has(row, path) or files.sha256_of(path) == sha256

    _check(directory, image_root, is_unchanged)


def check_present(table: pa.Table, image_root: Path) -> None:
    """Check that every image of a manifest's rows is a file, without reading it.

    Raises:
        DataRefused: one is missing.
    """
    _judge(table, image_root, lambda row, path, sha256: stat.S_ISREG(path.stat().st_mode))


def _check(directory: Path, image_root: Path, holds: Callable[[int, Path, str], bool]) -> set[str]:
    table = pq.read_table(directory / TABLE_FILE, columns=["id", "image", "sha256"])
    return _judge(table, image_root, holds)


def _judge(table: pa.Table, image_root: Path, holds: Callable[[int, Path, str], bool]) -> set[str]:
    """The names of all images; DataRefused when one of them is missing or has changed."""

    def fault(row: int, name: str, sha256: str) -> str | None:
        try:
            return None if holds(row, image_root / name, sha256) else f"{ids[row]!r} ({name} has changed)"
        except OSError:
            return f"{ids[row]!r} ({name} is missing)"

    def faults_of(chunk: Sequence[tuple[int, str, str]]) -> tuple[int, list[str]]:
        return len(chunk), [message for entry in chunk if (message := fault(*entry))]

    names: list[str] = table["image"].to_pylist()
    ids: list[str] = table["id"].to_pylist()
    entries = list(zip(range(len(names)), names, table["sha256"].to_pylist(), strict=True))
    faults = []
    with (
        ThreadPoolExecutor(available_cores()) as pool,
        tqdm(desc="reading images back", unit="image", total=len(names), disable=None, mininterval=0.5) as progress,
    ):
        for count, chunk_faults in pool.map(faults_of, _chunks(entries)):
            faults += chunk_faults
            progress.update(count)
    if faults:
        more = "; ..." if len(faults) > NUM_NAMED else ""
        raise DataRefused(
            f"{len(faults)} of {len(names)} images are no longer as they were verified: "
            f"{'; '.join(faults[:NUM_NAMED])}{more}; make sure that nothing else writes there, and start again"
        )
    return set(names)


def _chunks(entries: Sequence[tuple[int, str, str]]) -> Iterator[Sequence[tuple[int, str, str]]]:
    for start in range(0, len(entries), FILES_AT_ONCE):
        yield entries[start : start + FILES_AT_ONCE]
