"""What shows a cell of a manifest: the preview that its kind makes, or why there is none."""

from dataclasses import dataclass
from typing import Any

from gapless.core.errors import GaplessError
from gapless.manifest.manifest import Manifest
from gapless.modalities.base import Modality

JPEG_START = b"\xff\xd8"


@dataclass(frozen=True)
class Preview:
    """A preview of one cell.

    Args:
        shown: a JPEG without metadata, or a text; None where the row lacks the modality, or nothing can be shown.
        refusal: why nothing can be shown; "" where there is no fault.
    """

    shown: bytes | str | None = None
    refusal: str = ""


def preview_of(rows: Manifest, name: str, row: int, kind: Modality[Any] | None, *, whole_text: bool = False) -> Preview:
    """The preview of the first view of a modality in one row.

    A preview is not worth the run that asks for it, so that whatever its kind raises becomes the refusal. The message
    of an error that is not one of ours may quote the file, and is left out.

    Args:
        kind: makes the preview; None for a kind that is not installed.
        whole_text: give a text as it is; kinds of texts may shorten it.
    """
    try:
        views = rows.views(name, row)
        if not views:
            return Preview()
        if whole_text and isinstance(views[0], str):
            return Preview(views[0])
        if kind is None:
            return Preview(refusal="its kind is not installed")
        shown = kind.preview(views[0])
    except GaplessError as error:
        return Preview(refusal=str(error))
    except Exception as error:
        return Preview(refusal=f"the preview failed ({type(error).__name__})")
    if isinstance(shown, bytes) and shown and not shown.startswith(JPEG_START):
        return Preview(refusal="the preview is no JPEG")
    return Preview(shown)
