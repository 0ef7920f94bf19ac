"""Detects images that may have text burned into them; an image without the flag may still have text.

Letters of a scanner are bright strokes on a darker ground, of one height, on one line, close together.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from gapless.images.pixels import Pixels

MIN_GLYPHS = 4
MIN_HEIGHT = 6
MAX_HEIGHT_SHARE = 0.08  # of the image
BRIGHT = 0.35  # between the local ground and white
MAX_GROUND = 160
STROKE = 5  # pixels, in an image of up to 500
MAX_MARKS = 4000


def suspects_text(pixels: Pixels) -> bool:
    """Whether at least 4 marks are placed on a line like letters.

    Args:
        pixels: uint8, [height, width] or [height, width, 3].
    """
    grey = pixels if pixels.ndim == 2 else pixels.mean(axis=2).astype(np.uint8)
    return _has_line(_glyph_boxes(grey)) or _has_line(_glyph_boxes(255 - grey))


def _glyph_boxes(grey: NDArray[Any]) -> NDArray[np.int64]:
    """Boxes [mark, (top, bottom, left, right)] of bright strokes that have the size and the sparseness of a letter."""
    from scipy import ndimage

    # A morphological opening removes strokes, which are thin, and leaves bones, which are as bright.
    thickness = STROKE + 2 * (max(grey.shape) // 500)
    ground = ndimage.maximum_filter(ndimage.minimum_filter(grey, thickness), thickness).astype(np.int16)
    bright = (grey - ground > BRIGHT * (255 - ground)) & (ground < MAX_GROUND)
    marks, count = ndimage.label(bright, np.ones((3, 3)))
    if not MIN_GLYPHS <= count <= MAX_MARKS:
        return np.empty((0, 4), np.int64)
    boxes = np.array([(y.start, y.stop, x.start, x.stop) for y, x in ndimage.find_objects(marks)])
    areas = np.bincount(marks.ravel())[1:]
    height, width = boxes[:, 1] - boxes[:, 0], boxes[:, 3] - boxes[:, 2]
    fits = (height >= MIN_HEIGHT) & (height <= max(24, MAX_HEIGHT_SHARE * grey.shape[0]))
    fits &= (width >= 1) & (width <= 1.3 * height) & (areas < 0.8 * height * width + 4)
    return np.asarray(boxes[fits])


def _has_line(boxes: NDArray[np.int64]) -> bool:
    """Whether enough boxes share their foot and height and follow each other closely."""
    for top, bottom, _, _ in boxes:
        height = bottom - top
        same_height = np.abs(boxes[:, 1] - boxes[:, 0] - height) <= max(1, 0.15 * height)
        line = boxes[same_height & (np.abs(boxes[:, 1] - bottom) <= max(1, 0.1 * height))]
        if len(line) < MIN_GLYPHS:
            continue
        line = line[np.argsort(line[:, 2])]
        close = line[1:, 2] - line[:-1, 3] <= 0.9 * height
        run = 0
        for is_close in close:
            run = run + 1 if is_close else 0
            if run >= MIN_GLYPHS - 1:
                return True
    return False
