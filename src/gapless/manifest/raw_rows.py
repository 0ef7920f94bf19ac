"""Raw rows, which readers yield, and the sources of their images.

A reader is a generator of `RawRow`; `build.py` verifies, counts and writes the rows of all readers.
"""

import hashlib
import os
import re
import stat
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any, Protocol

from gapless.images.pixels import ImageRefused, read_file
from gapless.manifest.image_paths import hint_for

# A longer name is refused, because a broken table would otherwise be quoted whole in a message.
MAX_NAME_LENGTH = 1024


class ImageSource(Protocol):
    """Where the bytes of an image are. It is small and picklable, because worker processes read them."""

    def read(self) -> bytes:
        """The encoded image. Raises ImageRefused when it is missing or must not be read."""
        ...

    def key(self) -> str:
        """A text that changes whenever the bytes may have changed; an interrupted build compares it.

        A name and a length are not enough: in Parquet all images may be called `image.png` and have one length.
        """
        ...


@dataclass(frozen=True)
class FileSource:
    """A file below `root`, named by the data; names that lead out of the root are refused."""

    root: Path
    name: str

    def read(self) -> bytes:
        return read_file(contained_path(self.root, self.name), self.name)

    def key(self) -> str:
        path = os.path.abspath(os.path.join(self.root, self.name))  # pathlib takes three times as long
        try:
            return f"{path}|{file_identity(path)}"
        except (OSError, ValueError):
            return f"{path}|missing"


@dataclass(frozen=True)
class BytesSource:
    """Bytes that the reader already holds (a Parquet cell)."""

    content: bytes
    name: str

    def read(self) -> bytes:
        return self.content

    @cached_property
    def sha256(self) -> str:
        """The checksum of the bytes, computed once and passed on to other processes."""
        return hashlib.sha256(self.content).hexdigest()

    def key(self) -> str:
        return f"{self.name}|{self.sha256}"


def file_identity(path: str | Path) -> str:
    """A text that changes when a file is replaced or written to, also when its size and its time are put back.

    The time of the last change of the inode (ctime) is set by the system alone.

    Raises:
        OSError: there is no such file.
    """
    status = os.stat(path)
    return f"{status.st_ino}-{status.st_size}-{status.st_mtime_ns}-{status.st_ctime_ns}"


@dataclass(frozen=True)
class RawRow:
    """One row of a source, not verified.

    Args:
        origin: its place in the source (`train.jsonl:17`), for messages.
        id: a unique name.
        image: where its image is; None where the source names none.
        image_name: the image's name below the image root.
        captions: one or more texts.
        split: any usual spelling ("dev", "val", ...); None is train, an empty text a cell that names no split.
        group: name of the article, patient or case; None groups the row with the rows of the same image only.
        labels: label column -> value, None where missing.
        licence: of the image, when known.
        signals: column of a further modality -> numbers.
        views: of a manifest with modalities, modality -> its views (`modality_cells.views_of`), without those that the
            row lacks; `image`, `captions` and `signals` are then not used.
        fault: (reason, detail) when the reader finds that the row cannot be used.
        expected: True when the user asked to leave such rows out (a licence that is not selected).
    """

    origin: str
    id: str
    image: ImageSource | None = None
    image_name: str = ""
    captions: Sequence[str] = ()
    split: str | None = None
    group: str | None = None
    labels: Mapping[str, str | None] = field(default_factory=dict)
    licence: str | None = None
    signals: Mapping[str, Sequence[float]] = field(default_factory=dict)
    views: Mapping[str, Sequence[Any]] | None = None
    fault: tuple[str, str] | None = None
    expected: bool = False


def select_licences(rows: Iterable[RawRow], licences: Sequence[str]) -> Iterator[RawRow]:
    """Mark rows under other licences as left out; an empty list selects all, and faulty rows stay as they are.

    "CC BY" and "cc-by" are one licence; "CC BY" and "CC BY-NC" are two.
    """
    wanted = {licence_key(licence) for licence in licences}
    for row in rows:
        if wanted and row.fault is None and licence_key(row.licence or "") not in wanted:
            fault = ("licence not selected", row.licence or "unknown")
            yield RawRow(row.origin, row.id, fault=fault, expected=True)
        else:
            yield row


def licence_key(licence: str) -> str:
    """A licence's name in one spelling."""
    return " ".join(re.split(r"[\s_-]+", licence.strip().upper()))


def faulty_row(origin: str, reason: str, detail: str = "", id: str = "") -> RawRow:
    """A row that is counted and listed as skipped."""
    return RawRow(origin=origin, id=id, fault=(reason, detail))


def contained_path(root: Path, name: str, folders: bool = False) -> Path:
    """The path `root / name` of a file (or, where `folders` are taken, a folder) that lies in the root, links resolved.

    `root` itself may be a link, because the user chooses it; the names come from the data.

    Raises:
        ImageRefused: a name that leads out of the root, by `..` or through a link; no such file; not a plain file.
    """
    if not name or len(name) > MAX_NAME_LENGTH or "\0" in name:
        raise ImageRefused("bad image name", repr(name[:80]))
    if ".." in name.replace("\\", "/").split("/"):
        raise ImageRefused("path outside the image root", name)
    real_root = _resolved(str(root))
    folder, file = os.path.split(os.path.join(real_root, name))
    path = os.path.join(_resolved(folder), file)
    try:
        status = os.lstat(path)
        if stat.S_ISLNK(status.st_mode):
            path = os.path.realpath(path, strict=True)
            status = os.stat(path)
    except OSError:
        hint = hint_for(Path(real_root), name)
        raise ImageRefused("missing image", f"{name}: {hint}" if hint else name) from None
    if not path.startswith(real_root.rstrip(os.sep) + os.sep):
        raise ImageRefused("path outside the image root", name)
    if not (stat.S_ISREG(status.st_mode) or (folders and stat.S_ISDIR(status.st_mode))):
        raise ImageRefused("not a file", f"{name} is a folder" if stat.S_ISDIR(status.st_mode) else name)
    return Path(path)


@lru_cache(maxsize=4096)
def _resolved(folder: str) -> str:
    """The folder with its links resolved; cached, because all images of a folder need it."""
    return os.path.realpath(folder)


def forget_links() -> None:
    """Clear the cache of resolved links, which may have changed since the last build in this process."""
    _resolved.cache_clear()
