"""The limits of files of signals and volumes, checked before anything of that size is allocated, and their refusal."""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

from gapless.core.errors import DataRefused

MAX_FILE_BYTES = 2 << 30
MAX_HEADER_BYTES = 1 << 20  # of a text header, and of what a NIfTI file holds before its voxels
MAX_CHANNELS = 1024
MAX_VALUES = 1 << 27  # channels times samples, or voxels, that are read at once: 512 MiB as float32
MAX_FILES = 4096  # of one recording or one series
MAX_RATE = 10_000_000.0  # samples a second
# What is kept after resampling and cropping: channels times samples, or voxels of the grid.
MAX_PREPARED = 1 << 25
_lowered: ContextVar[int | None] = ContextVar("max_values", default=None)


def max_values() -> int:
    """How many values may be read at once here: `MAX_VALUES`, or less inside `reading_at_most`."""
    lowered = _lowered.get()
    return MAX_VALUES if lowered is None else min(lowered, MAX_VALUES)


@contextmanager
def reading_at_most(values: int) -> Iterator[None]:
    """Lower the limit of values in the block: a stranger's file of a few kilobytes may inflate to gigabytes."""
    token = _lowered.set(values)
    try:
        yield
    finally:
        _lowered.reset(token)


class FileRefused(DataRefused):
    """One file that cannot be used; `reason` is one of a few phrases to count by, `detail` is free text.

    Neither holds a value of the file's header that could name a person or a date.
    """

    def __init__(self, reason: str, detail: str = "") -> None:
        self.reason = reason
        self.detail = detail
        super().__init__(f"{reason} ({detail})" if detail else reason)

    def __reduce__(self) -> tuple[type["FileRefused"], tuple[str, str]]:
        return FileRefused, (self.reason, self.detail)


def check_counts(channels: int, samples: int) -> None:
    """Refuse a signal without a value, or of more channels or values than the limits."""
    if channels < 1 or samples < 1:
        raise FileRefused("empty signal", f"{channels} channels of {samples} samples")
    if channels > MAX_CHANNELS:
        raise FileRefused("signal too large", f"{channels} channels are above {MAX_CHANNELS}")
    if channels * samples > max_values():
        raise FileRefused(
            "signal too large",
            f"{channels} channels of {samples} samples are above {max_values()} values; name channels",
        )
