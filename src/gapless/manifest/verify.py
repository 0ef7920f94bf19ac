"""Verifies an image: reads, decodes and hashes it, and stores a copy when the manifest holds its images."""

import hashlib
import io
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from PIL import Image

from gapless.images.burned_in import suspects_text
from gapless.images.pixels import ImageRefused, Pixels, is_dicom, load_image
from gapless.manifest.options import ImageOptions
from gapless.manifest.raw_rows import BytesSource, ImageSource
from gapless.modalities.image import ImageModality


class RowSource(Protocol):
    """The sources of all modalities of a row, which check themselves (`verify_views.RowViews`)."""

    def key(self) -> str:
        """As `ImageSource.key`."""
        ...

    def check(self, name: str, options: ImageOptions, store: Path | None) -> dict[str, Any]:
        """`views` of the row, or `reason` and `detail` of a refusal."""
        ...


Source = ImageSource | RowSource

_SUFFIXES = {
    b"\xff\xd8": ".jpg",
    b"\x89PNG": ".png",
    b"GIF8": ".gif",
    b"BM": ".bmp",
    b"II": ".tif",
    b"MM": ".tif",
    b"RIFF": ".webp",
    b"\x00\x00\x00\x0cjP": ".jp2",
    b"\xffO\xffQ": ".j2k",
    b"P": ".pnm",
}


def check_image(source: ImageSource, name: str, options: ImageOptions, store: Path | None) -> dict[str, Any]:
    """Verify one image.

    Args:
        source: where its bytes are.
        name: of its copy, without a suffix.
        options: how it is read.
        store: where copies of the images go; None leaves them where they are.

    Returns:
        `image` (the stored copy's name) and `bytes` (its length), both None when none is stored, `width`, `height`,
        `sha256`; or `reason` and `detail` of a refusal.
    """
    try:
        content = original = source.read()
        text_suspicion = {}
        if store is not None and is_dicom(content):
            pixels = load_image(content, frame=options.frame)
            content = encode_png(pixels)
            text_suspicion = {"text": suspects_text(pixels)} if options.find_text else {}
        facts = ImageModality.check(content, {"frame": options.frame})
        stored = None
        if store is not None:
            stored = name + _suffix(content)
            store_bytes(store / stored, content)
    except ImageRefused as error:
        return {"reason": error.reason, "detail": error.detail}
    except MemoryError:
        return {"reason": "too many pixels", "detail": "not enough memory to decode"}
    if isinstance(source, BytesSource) and content is original:
        digest = source.sha256
    else:
        digest = hashlib.sha256(content).hexdigest()
    length = None if stored is None else len(content)
    return {"image": stored, "bytes": length, **facts, "sha256": digest, **text_suspicion}


def check_images(work: Sequence[tuple[Source, str]], options: ImageOptions, store: Path | None) -> list[dict[str, Any]]:
    """Verify a chunk; each result also has the `name` and `key` by which an interrupted build finds it.

    The key is computed before the image is read, so that a file which changes in between is verified again.
    """
    return [{"name": name, "key": source.key(), **_checked(source, name, options, store)} for source, name in work]


def _checked(source: Source, name: str, options: ImageOptions, store: Path | None) -> dict[str, Any]:
    # isinstance of a protocol takes a tenth of the time of a small image
    if hasattr(source, "check"):
        return source.check(name, options, store)
    return check_image(source, name, options, store)


def is_stored(result: Mapping[str, Any], store: Path | None) -> bool:
    """Whether the copy of a result, if it has one, still exists with the same length."""
    if store is None:
        return True
    if "views" in result:
        return all(_is_copy(store, view) for views in result["views"].values() for view in views if "file" in view)
    try:
        return (store / str(result["image"])).stat().st_size == int(result["bytes"])
    except OSError:
        return False


def _is_copy(store: Path, view: Mapping[str, Any]) -> bool:
    """Whether the copy of a view exists with the same length; of a folder, whether it exists."""
    try:
        return (store / str(view["stored"])).stat().st_size == int(view["bytes"] or 0) or view["bytes"] is None
    except OSError:
        return False


def encode_png(pixels: Pixels) -> bytes:
    """The pixels as a PNG file without metadata."""
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "PNG", compress_level=3)
    return stream.getvalue()


def _suffix(content: bytes) -> str:
    return next((suffix for magic, suffix in _SUFFIXES.items() if content.startswith(magic)), ".img")


def store_bytes(path: Path, content: bytes) -> None:
    """Write a copy, whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    # Renaming keeps a killed run from leaving a partial copy; new_directory syncs the files at the end.
    partial = path.with_name(path.name + ".partial")
    partial.write_bytes(content)
    os.replace(partial, path)
