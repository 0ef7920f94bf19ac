"""A figure of the report, with what its page shows and what can be downloaded."""

import base64
import re
from dataclasses import dataclass
from functools import cached_property

from matplotlib.figure import Figure

from gapless.study.drawing import FORMATS, image_bytes

MEDIA_TYPES = {"svg": "image/svg+xml", "pdf": "application/pdf", "png": "image/png"}


@dataclass(frozen=True)
class Picture:
    """A figure of the report: small drawings that reflow in the page, and one figure to download."""

    name: str
    heading: str
    caption: str
    drawings: list[str]
    legend: list[tuple[str, str, str]]
    whole: Figure

    @cached_property
    def files(self) -> dict[str, bytes]:
        """The whole figure by file name."""
        return {f"{self.name}.{kind}": image_bytes(self.whole, kind) for kind in FORMATS}

    def downloads(self) -> list[tuple[str, str]]:
        """File names and data addresses of the whole figure."""
        return [
            (name, f"data:{MEDIA_TYPES[name.rpartition('.')[2]]};base64,{base64.b64encode(content).decode()}")
            for name, content in self.files.items()
        ]


def file_name(title: str) -> str:
    """A title as a part of a file name."""
    return re.sub(r"[^A-Za-z0-9._-]+", "-", title).strip("-.") or "study"
