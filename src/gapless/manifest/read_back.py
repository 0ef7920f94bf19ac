"""Checks, before a manifest is finished, that each row still has the image (and other files) that were verified.

Copies are read again and their checksums compared. Files that stay in place are compared by their identity (inode and
times), and read again only where that has changed.
"""

import array
import stat
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from gapless.core import files
from gapless.core.errors import DataRefused
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
    row: int
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

    # A copy is `images/xx/name`: a file, or a folder with the files of one item.
    names = {PurePosixPath(name).parts[:COPY_DEPTH] for name in _check(directory, directory, is_whole, specs)}
    for path in files.entries_below(directory):
        is_copy = path.is_file() and path.parent != directory
        if is_copy and path.relative_to(directory).parts[:COPY_DEPTH] not in names:
            path.unlink()


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

    _check(directory, image_root, is_unchanged, specs)


def check_present(table: pa.Table, image_root: Path, specs: Sequence[ModalitySpec] = ()) -> None:
    """Check that every image (and every other item in files) of a manifest's rows is there, without reading it.

    Raises:
        DataRefused: one is missing.
    """

    def is_there(file: _File) -> bool:
        mode = (image_root / file.name).stat().st_mode
        return stat.S_ISREG(mode) or (file.kind != "image" and stat.S_ISDIR(mode))

    _judge(table, image_root, is_there, specs)


def _check(
    directory: Path, image_root: Path, holds: Callable[[_File], bool], specs: Sequence[ModalitySpec]
) -> set[str]:
    if specs and not file_columns(specs):
        return set()
    columns = ["id", *file_columns(specs), CONTENT] if specs else ["id", "image", "sha256"]
    return _judge(pq.read_table(directory / TABLE_FILE, columns=columns), image_root, holds, specs)


def _files_in(table: pa.Table, specs: Sequence[ModalitySpec]) -> Iterator[_File]:
    """Every file of the rows, in the order in which `Identities` numbers them."""
    if not specs:
        for row, (name, sha256) in enumerate(zip(table["image"].to_pylist(), table["sha256"].to_pylist(), strict=True)):
            yield _File(row, row, name, sha256, "image")
        return
    number = 0
    for row, cells in enumerate(table.select([*file_columns(specs), CONTENT]).to_pylist()):
        for spec in specs:
            if spec.form == FILES and cells[spec.name] is not None:
                for name, sha256 in zip(cells[spec.name], cells[CONTENT][spec.name], strict=True):
                    yield _File(number, row, name, sha256, spec.kind)
                    number += 1


def _judge(
    table: pa.Table, image_root: Path, holds: Callable[[_File], bool], specs: Sequence[ModalitySpec]
) -> set[str]:
    """The names of all files; DataRefused when one of them is missing or has changed."""
    if specs and not file_columns(specs):
        return set()
    ids: list[str] = table["id"].to_pylist()

    def fault(file: _File) -> str | None:
        try:
            return None if holds(file) else f"{ids[file.row]!r} ({file.name} has changed)"
        except OSError:
            return f"{ids[file.row]!r} ({file.name} is missing)"

    def faults_of(chunk: Sequence[_File]) -> tuple[int, list[str]]:
        return len(chunk), [message for file in chunk if (message := fault(file))]

    entries = list(_files_in(table, specs))
    faults = []
    with (
        ThreadPoolExecutor(available_cores()) as pool,
        progress_bar(what="reading images back", unit="image", total=len(entries)) as shown,
    ):
        for count, chunk_faults in pool.map(faults_of, _chunks(entries)):
            faults += chunk_faults
            shown.update(count)
    if faults:
        more = "; ..." if len(faults) > NUM_NAMED else ""
        raise DataRefused(
            f"{len(faults)} of {len(entries)} {'files' if specs else 'images'} are no longer as they were verified: "
            f"{'; '.join(faults[:NUM_NAMED])}{more}; make sure that nothing else writes there, and start again"
        )
    return {file.name for file in entries}


def _chunks(entries: Sequence[_File]) -> Iterator[Sequence[_File]]:
    for start in range(0, len(entries), FILES_AT_ONCE):
        yield entries[start : start + FILES_AT_ONCE]
