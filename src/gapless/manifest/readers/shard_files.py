"""Finds the shards that patterns name, gives them distinct names, and refuses files that are no plain tar."""

import glob
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from braceexpand import braceexpand

from gapless.core.errors import UsageError
from gapless.manifest.readers.table import TableFile

# How a file begins -> what it is, and what makes a tar of it.
_OTHER_FORMATS = {
    b"\x1f\x8b": ("compressed with gzip", "unpack it first: gunzip, or `gzip -dc FILE > shard.tar`"),
    b"BZh": ("compressed with bzip2", "unpack it first: bunzip2"),
    b"\xfd7zXZ": ("compressed with xz", "unpack it first: unxz"),
    b"\x28\xb5\x2f\xfd": ("compressed with zstd", "unpack it first: `zstd -d FILE -o shard.tar`"),
    b"\x04\x22\x4d\x18": ("compressed with lz4", "unpack it first: lz4 -d"),
    b"\x1f\x9d": ("compressed with compress", "unpack it first: uncompress"),
    b"PK": ("a zip archive", "unpack it and pack a tar: `unzip FILE -d DIR && tar -cf shard.tar -C DIR .`"),
    b"7z\xbc\xaf\x27\x1c": ("a 7z archive", "unpack it and pack a tar: tar -cf shard.tar -C DIR ."),
    b"Rar!": ("a rar archive", "unpack it and pack a tar: tar -cf shard.tar -C DIR ."),
    b"PAR1": ("a Parquet file", "read it with `gapless data table`"),
    b"version https://git-lfs": ("a pointer of Git LFS", "get the file itself: git lfs pull"),
    b"<": ("a page of the web or XML", "get the file again"),
}
_HEAD_BYTES = 32


@dataclass(frozen=True)
class Shard:
    """One tar file.

    Args:
        split: of its rows, unless a key says so.
        name: the shortest end of its path that no other shard has, without the suffix.
    """

    path: Path
    split: str | None
    name: str


def find_shards(sources: Sequence[str | Path]) -> list[Shard]:
    """The shards that `FILE` or `SPLIT=FILE` name; a FILE may hold braces (`{000..127}`) and `*`.

    Raises:
        UsageError: a file that is missing, named twice or no plain tar; a `pipe:` or an address.
    """
    if not sources:
        raise UsageError("name at least one shard: FILE or SPLIT=FILE")
    files: list[tuple[Path, str | None]] = []
    for source in sources:
        table = TableFile.parse(source)
        files += [(path, table.split) for path in _expanded(table.path)]
    seen: dict[Path, Path] = {}
    for path, _ in files:
        _check_shard(path)
        if (earlier := seen.setdefault(path.resolve(), path)) is not path:
            twice = f"{path} is named twice" if earlier == path else f"{earlier} and {path} are one file"
            raise UsageError(f"{twice}: name each shard once")
    names = distinct_names([path for path, _ in files])
    return [Shard(path, split, name) for (path, split), name in zip(files, names, strict=True)]


def distinct_names(paths: Sequence[Path]) -> list[str]:
    """The shortest ends of the paths that tell all of them apart, of one depth; without suffixes where these do."""
    whole = [Path(os.path.abspath(path)) for path in paths]
    for ends in ([path.with_suffix("").parts for path in whole], [path.parts for path in whole]):
        for depth in range(1, max(map(len, ends), default=0) + 1):
            names = ["/".join(parts[-depth:]).removeprefix("//") for parts in ends]
            if len(set(names)) == len(names):
                return names
    raise UsageError("a shard is named twice")


def _expanded(path: Path) -> list[Path]:
    """The files that a pattern names: a shell expands neither `train=*.tar` nor braces in quotes."""
    text = str(path)
    if path.exists() or not any(sign in text for sign in "{*?["):
        return [path]
    try:
        words = list(braceexpand(text)) if "{" in text else [text]
    except ValueError:
        raise UsageError(f"{text} has braces that do not match") from None
    files: list[Path] = []
    for word in words:
        is_pattern = any(sign in word for sign in "*?[") and not Path(word).exists()
        files += map(Path, sorted(glob.glob(word, recursive=True))) if is_pattern else [Path(word)]
    if not files:
        raise UsageError(f"no file has a name like {text}")
    return files


def _check_shard(path: Path) -> None:
    """Only local tar files: what WebDataset would run or fetch is refused by its name, other formats by their head."""
    scheme, colon, _ = str(path).partition(":")
    if colon and scheme.isalnum() and not path.exists():
        raise UsageError(f"{path}: shards are plain local tar files; nothing is run or fetched")
    if path.is_dir():
        raise UsageError(f"{path} is a folder: name the tar files in it, as in '{path}/*.tar'")
    if not path.exists():
        raise UsageError(f"{path} does not exist")
    if not path.is_file():
        raise UsageError(f"{path} is not a plain file")
    try:
        with path.open("rb") as stream:
            head = stream.read(_HEAD_BYTES)
    except OSError as error:
        raise UsageError(f"{path} cannot be read ({error.strerror})") from None
    if not head:
        raise UsageError(f"{path} is empty: a tar without members has at least 1,024 bytes; get it again")
    for start, (what, remedy) in _OTHER_FORMATS.items():
        if head.startswith(start):
            raise UsageError(f"{path} is {what}, not a plain tar: {remedy}")
