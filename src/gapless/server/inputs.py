"""The inputs of a request, modality -> source, and how they are decoded. Nothing in a request is ever a path."""

from typing import Any

import numpy as np

from gapless.core.errors import DataRefused, UsageError
from gapless.images.pixels import ImageRefused
from gapless.modalities.base import FILES, TEXTS, Modality
from gapless.modalities.image import ImageModality
from gapless.signals.limits import reading_at_most

MAX_ASPECT = 20  # resizing the short side of a longer image for a centre crop would take gigabytes
MAX_DECODED = 1 << 25  # values of a signal or volume out of an upload: 128 MiB, and a few times that while it is read
MAX_WORDS = 10_000  # characters of a text among the parts


def request_source(modality: str, kind: Modality[Any], value: Any) -> Any:
    """What a request gives for a modality, as `parse_query` of its kind takes it.

    A kind of files gets bytes or numbers, never text, which it would take for a path on this computer.

    Args:
        modality: its name, for messages.
        kind: of the model.
        value: the bytes of a file, or of several, or what the JSON holds.

    Raises:
        UsageError: a text or an object for a kind of files; an empty file; a text that is too long or no UTF-8.
    """
    if value == b"" or (isinstance(value, list) and b"" in value):
        raise UsageError("the file is empty")
    if isinstance(value, list) and value and isinstance(value[0], bytes) and not kind.takes_folders:
        raise UsageError(f"{modality} takes one file, and {len(value)} came; send a format that is a single file")
    if kind.manifest_form == FILES and not isinstance(value, bytes | list):
        raise UsageError(
            f"{modality} is a file: send it as the part {modality!r} of a form to /api/search/upload, or its numbers"
        )
    if kind.manifest_form == TEXTS and isinstance(value, bytes):
        return _text_of(modality, value)
    return value


def prepared_input(kind: Modality[Any], source: Any) -> Any:
    """A source decoded and prepared: a small value of fixed form, whatever the size of the file.

    Raises:
        UsageError: it cannot be used; the sentence is that of its reader.
    """
    try:
        with reading_at_most(MAX_DECODED):
            raw = kind.read(source)
        if isinstance(kind, ImageModality):
            _check_aspect(raw)
        return kind.prepare(raw)
    except DataRefused as error:  # the query's data, not the collection's
        raise UsageError(str(error)) from None


def named_refusal(modality: str, error: UsageError, count: int) -> UsageError:
    """The refusal of one of `count` inputs; its modality stands before it where there are others."""
    return error if count == 1 else UsageError(f"{modality}: {error}")


def _text_of(modality: str, content: bytes) -> str:
    try:
        text = content.decode("utf-8")
    except UnicodeDecodeError:
        raise UsageError(f"{modality} is a text, and the file is none in UTF-8") from None
    if len(text) > MAX_WORDS:
        raise UsageError(f"{modality} has {len(text)} characters; {MAX_WORDS} are the most")
    return text


def _check_aspect(pixels: np.ndarray) -> None:
    """Raise ImageRefused for an image that is a strip."""
    height, width = pixels.shape[:2]
    if max(height, width) > MAX_ASPECT * min(height, width):
        raise ImageRefused("unusable image", f"{width} x {height}: one side is more than {MAX_ASPECT} times the other")
