"""Small tar shards on disk."""

import io
import tarfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from data_samples import noise_image


def image_bytes(seed: int, kind: str = "PNG") -> bytes:
    """An image that no other seed gives."""
    stream = io.BytesIO()
    noise_image(seed).save(stream, kind)
    return stream.getvalue()


def write_shard(path: Path, members: Iterable[tuple[str, Any]]) -> Path:
    """A tar of (name, content): bytes or text, or a `tarfile.TarInfo` for a member that is no plain file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as tar:
        for name, content in members:
            if isinstance(content, tarfile.TarInfo):
                content.name = name
                tar.addfile(content)
                continue
            data = content.encode() if isinstance(content, str) else content
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return path


def pair(name: str, seed: int) -> list[tuple[str, Any]]:
    """The two members of a sample: its image, and the caption `report <seed>`."""
    return [(f"{name}.png", image_bytes(seed)), (f"{name}.txt", f"report {seed}")]


def seeds_by_caption(manifest: Any) -> dict[str, bool]:
    """{caption: whether its image is the one of the seed that the caption names}."""
    return {
        row["captions"][0]: manifest.image_path(number).read_bytes() == image_bytes(int(row["captions"][0].split()[1]))
        for number, row in enumerate(manifest.table.to_pylist())
    }
