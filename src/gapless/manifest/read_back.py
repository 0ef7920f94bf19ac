"""Checks, before a manifest is finished, that each row still has the image (and other files) that were verified.

Copies are read again and their checksums compared. Files that stay in place are compared by their identity (inode and
times), and read again only where that has changed.
"""

import array
import itertools
import stat
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from gapless.core import files
from gapless.core.errors import DataRefused
from gapless.core.name_counts import NameCounts
from gapless.core.pool import available_cores
from gapless.core.progress import progress_bar
from gapless.manifest.manifest import TABLE_FILE
from gapless.manifest.modality_columns import CONTENT, file_columns
from gapless.manifest.modality_spec import ModalitySpec
from gapless.manifest.raw_rows import file_identity
from gapless.manifest.verify_views import digest_of, identity_of
from gapless.modalities.base import FILES

NUM_NAMED = 3
FILES_AT_ONCE = 64
ROWS_AT_ONCE = 8192
COPY_DEPTH = 3  # folders and file of the name of a copy


class Identities:
    """The identity with which each row's files were verified, in 8 bytes a file."""

    def __init__(self) -> None:
        self._hashes = array.array("q")

    def add(self, result: Mapping[str, Any]) -> None:
        """Add the identities in a result of `check_images`; files are numbered in the order of the calls."""
        if "views" not in result:
            self._hashes.append(hash(str(result["key"]).rpartition("|")[2]))
            return
        for views in result["views"].values():
            self._hashes.extend(hash(view["identity"]) for view in views if "file" in view)

    def has(self, number: int, identity: str) -> bool:
        """Whether the file of that number still has its identity."""
        return self._hashes[number] == hash(identity)


class _File(NamedTuple):
    """An item of a manifest that lies in files: which row has it, its name, its checksum, and its kind."""

    number: int
    id: str
    name: str
    sha256: str
    kind: str


def check_copies(directory: Path, specs: Sequence[ModalitySpec] = ()) -> None:
    """Read every file that a manifest holds, compare its checksum, and remove those of rows that were left out.

    Raises:
        DataRefused: a copy is missing or has other bytes.
    """

    def is_whole(file: _File) -> bool:
        return digest_of(file.kind, directory / file.name) == file.sha256

    _check(directory, is_whole, specs)
    with NameCounts() as copies:
        for file in _files_of(directory, specs):
            copies.add(_copy_name(file.name))
        for path in files.entries_below(directory):
            is_copy = path.is_file() and path.parent != directory
            if is_copy and _copy_name(path.relative_to(directory).as_posix()) not in copies:
                path.unlink()


def _copy_name(file: str) -> str:
    """The name of the copy that a file belongs to: `images/xx/name`, a file or a folder with the files of one item."""
    return "/".join(PurePosixPath(file).parts[:COPY_DEPTH])


def check_files(directory: Path, image_root: Path, identities: Identities, specs: Sequence[ModalitySpec] = ()) -> None:
    """Check that the files which a manifest names are those that were verified.

    Raises:
        DataRefused: one is missing, or has changed since it was read.
    """

    def is_unchanged(file: _File) -> bool:
        # A file whose times have changed may still hold the same bytes.
        path = image_root / file.name
        identity = file_identity(path) if file.kind == "image" else identity_of(file.kind, path)
        return identities.has(file.number, identity) or digest_of(file.kind, path) == file.sha256

    _check(directory, is_unchanged, specs)


def check_present(table: pa.Table, image_root: Path, specs: Sequence[ModalitySpec] = ()) -> None:
    """Check that every image (and every other item in files) of a manifest's rows is there, without reading it.

    Raises:
        DataRefused: one is missing.
    """

    def is_there(file: _File) -> bool:
        mode = (image_root / file.name).stat().st_mode
        return stat.S_ISREG(mode) or (file.kind != "image" and stat.S_ISDIR(mode))

    if columns := _columns(specs):
        batches = table.select(columns).to_batches(ROWS_AT_ONCE)
        _refuse_faults(_files_in(batches, specs), is_there, of="files" if specs else "images")


def _check(directory: Path, holds: Callable[[_File], bool], specs: Sequence[ModalitySpec]) -> None:
    if _columns(specs):
        _refuse_faults(_files_of(directory, specs), holds, of="files" if specs else "images")


def _files_of(directory: Path, specs: Sequence[ModalitySpec]) -> Iterator[_File]:
    """Every file that a manifest on disk names, a few rows in memory at a time."""
    if columns := _columns(specs):
        with pq.ParquetFile(directory / TABLE_FILE) as table:
            yield from _files_in(table.iter_batches(ROWS_AT_ONCE, columns=columns), specs)


def _columns(specs: Sequence[ModalitySpec]) -> list[str]:
    """The columns that name files and their checksums, with the id; none where no modality lies in files."""
    if not specs:
        return ["id", "image", "sha256"]
    return ["id", *file_columns(specs), CONTENT] if file_columns(specs) else []


def _files_in(batches: Iterable[pa.RecordBatch], specs: Sequence[ModalitySpec]) -> Iterator[_File]:
    """Every file of the rows, in the order in which `Identities` numbers them."""
    numbers = itertools.count()
    for row in (row for batch in batches for row in batch.to_pylist()):
        if not specs:
            yield _File(next(numbers), row["id"], row["image"], row["sha256"], "image")
            continue
        for spec in specs:
            if spec.form == FILES and row[spec.name] is not None:
                for name, sha256 in zip(row[spec.name], row[CONTENT][spec.name], strict=True):
                    yield _File(next(numbers), row["id"], name, sha256, spec.kind)


def _refuse_faults(all_files: Iterator[_File], holds: Callable[[_File], bool], of: str) -> None:
    """DataRefused when a file is missing or has changed; `of` is what the message calls the files."""

    def fault(file: _File) -> str | None:
        try:
            return None if holds(file) else f"{file.id!r} ({file.name} has changed)"
        except OSError:
            return f"{file.id!r} ({file.name} is missing)"

    def faults_of(chunk: Sequence[_File]) -> list[str]:
        return [message for file in chunk if (message := fault(file))]

    named: list[str] = []  # the first faults
    num_faults = num_files = 0
    with (
        ThreadPoolExecutor(available_cores()) as pool,
        progress_bar(what="reading images back", unit="image") as shown,
    ):
        while entries := list(itertools.islice(all_files, ROWS_AT_ONCE)):
            for chunk_faults in pool.map(faults_of, _chunks(entries)):
                named += chunk_faults[: NUM_NAMED - len(named)]
                num_faults += len(chunk_faults)
            num_files += len(entries)
            shown.update(len(entries))
    if num_faults:
        more = "; ..." if num_faults > NUM_NAMED else ""
        raise DataRefused(
            f"{num_faults} of {num_files} {of} are no longer as they were verified: "
            f"{'; '.join(named)}{more}; make sure that nothing else writes there, and start again"
        )


def _chunks(entries: Sequence[_File]) -> Iterator[Sequence[_File]]:
    for start in range(0, len(entries), FILES_AT_ONCE):
        yield entries[start : start + FILES_AT_ONCE]
