"""An independent reading of the standard: one stored value at a time, in plain Python, without the code under test.

PS3.3 C.7.6.3 (pixels), C.11.1 (modality), C.11.2 (VOI), PS3.4 N.2 (the order of the steps).
"""

import math
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Lookup:
    """A table: `entries[0]` for `first` and everything below it, the last entry for everything above."""

    entries: tuple
    first: int
    bits: int

    def of(self, value):
        return self.entries[min(max(math.floor(value) - self.first, 0), len(self.entries) - 1)]


@dataclass(frozen=True)
class Display:
    """How stored values become grey; None is a step that the file does not have."""

    slope: float | None = None
    intercept: float | None = None
    modality: Lookup | None = None
    window: tuple | None = None  # centre, width, function
    voi: Lookup | None = None
    padding: tuple | None = None  # first and last padding value


def window_share(x, centre, width, function):
    """C.11.2.1.2.1, C.11.2.1.3.1 and C.11.2.1.3.2, with 0 and 1 as the output range."""
    if function == "SIGMOID":
        return 1 / (1 + math.exp(-4 * (x - centre) / width))
    if function == "LINEAR_EXACT":
        if x <= centre - width / 2:
            return 0.0
        return 1.0 if x > centre + width / 2 else (x - centre) / width + 0.5
    if x <= centre - 0.5 - (width - 1) / 2:
        return 0.0
    if x > centre - 0.5 + (width - 1) / 2:
        return 1.0
    return (x - (centre - 0.5)) / (width - 1) + 0.5


def to_byte(share):
    return math.floor(min(max(share, 0.0), 1.0) * 255 + 0.5)


def grey(stored, bits, display, inverted):
    """The picture of grey pixels.

    Without a window or VOI table: 1 bit is black and white, 8 unsigned bits stay, all else spans its own range.
    """
    measured = {value: measured_value(value, display) for value in np.unique(stored).tolist()}
    if display.voi:
        bytes_of = {v: to_byte(display.voi.of(m) / (2**display.voi.bits - 1)) for v, m in measured.items()}
    elif display.window:
        bytes_of = {v: to_byte(window_share(m, *display.window)) for v, m in measured.items()}
    elif stored.min() >= 0 and stored.dtype.kind == "u" and bits in (1, 8) and measured == {v: v for v in measured}:
        bytes_of = {v: v * 255 if bits == 1 else v for v in measured}
    else:
        first, last = display.padding or (1, 0)
        counted = [m for v, m in measured.items() if not first <= v <= last]
        low, high = min(counted), max(counted)
        bytes_of = {v: to_byte((m - low) / (high - low)) for v, m in measured.items()}
    picture = np.array([[bytes_of[value] for value in row] for row in stored.tolist()], np.uint8)
    return 255 - picture if inverted else picture


def measured_value(value, display):
    if display.modality:
        return display.modality.of(value)
    if display.slope is None and display.intercept is None:
        return value
    return value * display.slope + display.intercept


def rgb_of_ybr(y, b, r):
    """C.7.6.3.1.2, solved for red, green and blue."""
    red = y + 1.402 * (r - 128)
    blue = y + 1.772 * (b - 128)
    green = (y - 0.299 * red - 0.114 * blue) / 0.587
    return [min(max(math.floor(x + 0.5), 0), 255) for x in (red, green, blue)]
