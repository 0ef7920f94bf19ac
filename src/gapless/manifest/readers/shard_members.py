"""Reads the members of a sample of a shard: its JSON, its texts, and where the bytes of the others are."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gapless.images.pixels import ImageRefused
from gapless.manifest.raw_rows import file_identity
from gapless.manifest.readers.tar_samples import Member, Sample

CAPTION_SUFFIXES = ("txt", "text", "caption")


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


class BadSample(Exception):
    """A sample that cannot be a row; its arguments are (reason, detail)."""


def text_member(sample: Sample, key: str) -> str | None:
    """The suffix of the text member that a caption key names: "txt", or "report" for `0001.report.txt`."""
    named = (suffix for suffix in (key.lower(), f"{key.lower()}.txt") if suffix in sample.members)
    return next((suffix for suffix in named if suffix.rpartition(".")[2] in CAPTION_SUFFIXES), None)


def cells_of_sample(sample: Sample, stream: Any) -> Mapping[str, Any]:
    """The object of a sample's JSON member; empty without one. Raises BadSample."""
    member = sample.members.get("json")
    if member is None or sample.fault is not None:
        return {}
    text = text_of_member(member, stream)
    try:
        cells = json.loads(text, object_pairs_hook=_unique)
        if not isinstance(cells, dict):
            raise ValueError(f"expected a JSON object, got {type(cells).__name__}")
    except (ValueError, RecursionError) as error:
        raise BadSample("malformed row", f"{member.name[:80]}: {error}"[:200]) from None
    return cells


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """The object of pairs. Raises ValueError for a repeated key, of which Python would keep the last value."""
    cells = dict(pairs)
    if len(cells) < len(pairs):
        keys = [key for key, _ in pairs]
        raise ValueError(f"the key {next(key for key in keys if keys.count(key) > 1)!r} is there twice")
    return cells


def text_of_member(member: Member, stream: Any) -> str:
    stream.seek(member.offset)
    content = stream.read(member.size)
    try:
        return str(content.decode("utf-8-sig"))
    except UnicodeDecodeError as error:
        raise BadSample("malformed row", f"{member.name[:80]}: not UTF-8 ({error.reason})") from None
