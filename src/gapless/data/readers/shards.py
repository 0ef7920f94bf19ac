"""`gapless data shards`: tar shards in the WebDataset convention.

Neighbouring members that share a name up to the first dot of its last part are one sample: `0001.jpg`, `0001.txt`
(the caption), `0001.json` (caption, group, labels, split). Only plain local tar files are opened: no `pipe:`, no
address, no pickle, no link, no name that climbs.
"""

import json
import tarfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

from gapless.data.build import MAX_BAD, BuildOptions, build_manifest
from gapless.data.manifest import Manifest
from gapless.data.pixels import ImageRefused
from gapless.data.readers.table import TableFile
from gapless.data.rows import ImageSource, RawRow, faulty_row, file_identity
from gapless.data.tables import text_of, texts_of
from gapless.errors import DataRefused, UsageError

IMAGE_SUFFIXES = ("jpg", "jpeg", "png", "webp", "tif", "tiff", "bmp", "gif", "jp2", "dcm")
PICKLE_SUFFIXES = ("pyd", "pkl", "pickle", "pth", "pt", "npy", "npz", "joblib")
CAPTION_SUFFIXES = ("txt", "caption")
MAX_TEXT_BYTES = 1 << 20
MAX_IMAGE_BYTES = 1 << 30
BLOCK = 512
COMPRESSED = (b"\x1f\x8b", b"BZh", b"\xfd7zXZ", b"\x28\xb5\x2f\xfd")


@dataclass(frozen=True)
class MemberSource:
    """A stretch of a tar file, read where it lies by whichever process needs it."""

    path: Path
    name: str
    offset: int
    size: int

    def read(self) -> bytes:
        with self.path.open("rb") as stream:
            stream.seek(self.offset)
            content = stream.read(self.size)
        if len(content) != self.size:
            raise ImageRefused("unreadable image", f"{self.name}: the shard ends inside it")
        return content

    def key(self) -> str:
        return f"{self.path.absolute()}|{file_identity(self.path)}|{self.name}|{self.offset}|{self.size}"


@dataclass
class _Sample:
    """The members of one sample while they are collected."""

    prefix: str
    origin: str
    image: ImageSource | None = None
    captions: list[str] = field(default_factory=list)
    cells: Mapping[str, Any] = field(default_factory=dict)
    fault: tuple[str, str] | None = None


def read_shards(
    sources: str | Path | Sequence[str | Path],
    out: str | Path,
    caption_key: str = "caption",
    group_key: str | None = None,
    label_keys: Sequence[str] = (),
    split_key: str | None = None,
    licence_key: str | None = None,
    licence: str | None = None,
    max_bad: float = MAX_BAD,
    workers: int | None = None,
) -> Manifest:
    """Build a manifest from tar shards; the images are copied into it.

    Args:
        sources: `FILE` or `SPLIT=FILE`, uncompressed tar files.
        out: the manifest's directory; must be new.
        caption_key: key of the caption in a sample's JSON, used when it has no .txt member.
        group_key, label_keys, split_key, licence_key: keys in a sample's JSON, as in `read_table`.
        licence: of the whole data set.
        max_bad: the largest share of bad rows.
        workers: processes that verify; None uses all cores.

    Raises:
        UsageError: a missing file, a `pipe:` or an address, `out` in use.
        DataRefused: a damaged shard, or too many bad rows.
    """
    names = [sources] if isinstance(sources, str | Path) else list(sources)
    if not names:
        raise UsageError("name at least one shard: FILE or SPLIT=FILE")
    shards = [TableFile.parse(name) for name in names]
    for shard in shards:
        check_shard_name(shard.path)
    keys = _Keys(caption_key, group_key, tuple(label_keys), split_key, licence_key)
    options = BuildOptions(
        source=", ".join(shard.path.name for shard in shards),
        labels=keys.labels,
        licence=licence,
        with_licence=licence_key is not None,
        max_bad=max_bad,
        workers=workers,
    )
    return build_manifest(_rows(shards, keys), out, options)


@dataclass(frozen=True)
class _Keys:
    caption: str
    group: str | None
    labels: tuple[str, ...]
    split: str | None
    licence: str | None


def check_shard_name(path: Path) -> None:
    """Only local tar files: what WebDataset would run or fetch is refused by its name."""
    scheme, colon, _ = str(path).partition(":")
    if colon and scheme.isalpha() and not path.exists():
        raise UsageError(f"{path}: shards are plain local tar files; nothing is run or fetched")
    if not path.is_file():
        raise UsageError(f"{path} does not exist")
    with path.open("rb") as stream:
        if stream.read(6).startswith(COMPRESSED):
            raise UsageError(f"{path} is compressed, and images are read where they lie in it: unpack it first")


def _rows(shards: Sequence[TableFile], keys: _Keys) -> Iterator[RawRow]:
    for shard in shards:
        for sample in _samples(shard.path):
            yield _row(sample, keys, shard)


def _row(sample: _Sample, keys: _Keys, shard: TableFile) -> RawRow:
    id = f"{shard.path.stem}/{sample.prefix}"
    if sample.fault is not None:
        return faulty_row(sample.origin, *sample.fault, id=id)
    cells = sample.cells
    return RawRow(
        origin=sample.origin,
        id=id,
        image=sample.image,
        image_name=id,
        captions=sample.captions or texts_of(cells.get(keys.caption)),
        split=(text_of(cells.get(keys.split)) if keys.split else "") or shard.split,
        group=text_of(cells.get(keys.group)) if keys.group else None,
        labels={key: text_of(cells.get(key)) or None for key in keys.labels},
        licence=(text_of(cells.get(keys.licence)) or None) if keys.licence else None,
    )


def _samples(path: Path) -> Iterator[_Sample]:
    """The samples of one shard; a shard that ends or breaks in the middle is refused as a whole."""
    sample: _Sample | None = None
    number = 0
    try:
        with tarfile.open(path, "r:") as tar:
            for member in tar:
                if member.isdir():
                    continue
                prefix, suffix = _split_name(member.name)
                if sample is None or sample.prefix != prefix:
                    if sample is not None:
                        yield sample
                    number += 1
                    sample = _Sample(prefix, f"{path.name}:{number} ({prefix[:80]})")
                _add(sample, tar, member, suffix, path)
            _check_end(tar)
    except (tarfile.TarError, EOFError, OSError) as error:
        raise DataRefused(f"the shard {path} is damaged after {number} samples ({error}); get it again") from None
    if sample is not None:
        yield sample


def _split_name(name: str) -> tuple[str, str]:
    """("folder/0001", "seg.png") of "folder/0001.seg.png"."""
    folder, slash, last = name.rpartition("/")
    stem, _, suffix = last.partition(".")
    return f"{folder}{slash}{stem}", suffix.lower()


def _add(sample: _Sample, tar: tarfile.TarFile, member: tarfile.TarInfo, suffix: str, path: Path) -> None:
    if fault := member_fault(member, suffix):
        sample.fault = sample.fault or fault
    elif suffix in IMAGE_SUFFIXES:
        sample.image = MemberSource(path, member.name, member.offset_data, member.size)
    elif suffix in CAPTION_SUFFIXES or suffix == "json":
        stream = tar.extractfile(member)
        assert stream is not None
        try:
            text = stream.read().decode("utf-8")
            if suffix in CAPTION_SUFFIXES:
                sample.captions.append(text)
            else:
                sample.cells = json.loads(text)
                if not isinstance(sample.cells, dict):
                    raise ValueError("not an object")
        except (ValueError, RecursionError) as error:
            sample.fault = sample.fault or ("malformed row", f"{member.name[:80]}: {error}"[:200])


def member_fault(member: tarfile.TarInfo, suffix: str) -> tuple[str, str] | None:
    """Why a member must not be read."""
    name = member.name[:200]
    parts = PurePosixPath(member.name.replace("\\", "/"))
    if parts.is_absolute() or ".." in parts.parts or "\0" in member.name:
        return "unsafe tar member", f"{name} leads out of the shard"
    if not member.isreg():
        return "unsafe tar member", f"{name} is not a plain file"
    if suffix.rsplit(".", 1)[-1] in PICKLE_SUFFIXES:
        return "unsafe tar member", f"{name} may hold code"
    limit = MAX_IMAGE_BYTES if suffix in IMAGE_SUFFIXES else MAX_TEXT_BYTES
    if (suffix in IMAGE_SUFFIXES or suffix in (*CAPTION_SUFFIXES, "json")) and member.size > limit:
        return "unsafe tar member", f"{name} has {member.size} bytes"
    return None


def _check_end(tar: tarfile.TarFile) -> None:
    """tarfile takes a broken header in the middle for the end: samples would be lost without a reason."""
    stream = tar.fileobj
    assert stream is not None
    stream.seek(tar.offset)
    mark = stream.read(BLOCK)
    rest_is_empty = not any(block.strip(b"\0") for block in iter(lambda: stream.read(1 << 20), b""))
    if mark != bytes(BLOCK) or not rest_is_empty:
        raise tarfile.ReadError("a header is broken or the end is missing")
