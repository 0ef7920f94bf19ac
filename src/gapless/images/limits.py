"""Limits that are checked before an image is decoded, and the exception for refused images."""

from gapless.core.errors import DataRefused

MAX_PIXELS = 64_000_000
MAX_BYTES = 1 << 30  # a sparse file can claim any size


class ImageRefused(DataRefused):
    """One image that cannot be used; `reason` is one of a few phrases to count by, `detail` is free text."""

    def __init__(self, reason: str, detail: str = "") -> None:
        self.reason = reason
        self.detail = detail
        super().__init__(f"{reason} ({detail})" if detail else reason)

    def __reduce__(self) -> tuple[type["ImageRefused"], tuple[str, str]]:
        return ImageRefused, (self.reason, self.detail)


def check_size(width: int, height: int) -> None:
    """Refuse an image that has no pixels, or more than `MAX_PIXELS`."""
    if width < 1 or height < 1:
        raise ImageRefused("empty image", f"{width} x {height}")
    if width * height > MAX_PIXELS:
        raise ImageRefused("too many pixels", f"{width} x {height} is above {MAX_PIXELS}")
