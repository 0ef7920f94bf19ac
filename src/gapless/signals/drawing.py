"""Draws the curves of a signal as a JPEG without a word in it."""

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from gapless.images.thumbnails import thumbnail_of_pixels

WIDTH, HEIGHT = 480, 320
MAX_CURVES = 12
_PAPER, _INK = 255, 30


def draw_curves(values: NDArray[np.float32]) -> bytes:
    """A JPEG of the first channels below each other, each in its own range; NaN is a gap.

    Args:
        values: [channel, time].
    """
    image = Image.new("L", (WIDTH, HEIGHT), _PAPER)
    pen = ImageDraw.Draw(image)
    curves = values[:MAX_CURVES]
    height = HEIGHT / len(curves)
    for row, curve in enumerate(curves):
        low, high = _range_of_columns(curve)
        span = np.nanmax([*high, -np.inf]) - np.nanmin([*low, np.inf])
        scale = 0.8 * height / span if np.isfinite(span) and span > 0 else 0.0
        middle = (np.nanmax(high) + np.nanmin(low)) / 2 if np.isfinite(span) else 0.0
        centre = (row + 0.5) * height
        before = None
        for column, (bottom, top) in enumerate(zip(low, high, strict=True)):
            if np.isnan(bottom):
                before = None
                continue
            ends = (centre - (top - middle) * scale, centre - (bottom - middle) * scale)
            pen.line([(column, ends[0]), (column, ends[1])], fill=_INK)
            if before is not None:  # without this, steep curves fall apart into dashes
                pen.line([(column - 1, sum(before) / 2), (column, sum(ends) / 2)], fill=_INK)
            before = ends
    return thumbnail_of_pixels(np.asarray(image), side=WIDTH)


def _range_of_columns(curve: NDArray[np.float32]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """The lowest and highest value under each column of the picture, [WIDTH]; NaN where there is none."""
    edges = np.linspace(0, len(curve), min(WIDTH, len(curve)) + 1).astype(int)
    there = ~np.isnan(curve)
    low = np.minimum.reduceat(np.where(there, curve, np.inf), edges[:-1])
    high = np.maximum.reduceat(np.where(there, curve, -np.inf), edges[:-1])
    empty = low > high
    low[empty] = high[empty] = np.nan
    if len(low) == WIDTH:
        return low, high
    columns = np.linspace(0, len(low) - 1, WIDTH)  # a short curve is stretched
    places = np.rint(columns).astype(int)
    return low[places], high[places]
