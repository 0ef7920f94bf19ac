"""Grey values of tissue and noise for each kind of imaging.

X-ray: Poisson counts. CT: coloured Gaussian noise and streaks of metal. MR: a bias field and Rician noise.
Ultrasound: a sector, attenuation with depth and multiplicative speckle. PET: coarse resolution and few counts.
"""

from collections.abc import Callable, Mapping

import numpy as np
from numpy.typing import NDArray

from gapless.phantom.anatomy import Canvas, Plane, draw_anatomy
from gapless.phantom.cases import Figure, Style
from gapless.phantom.findings import draw_finding

_NAMES = (
    "air", "lung", "fat", "soft", "organ", "fluid", "bone", "brain", "vessel", "lesion", "enhancing", "necrosis",
    "calcium", "callus", "cleft", "infiltrate", "metal",
)  # fmt: skip
_VALUES = {
    "x-ray": (0.04, 0.16, 0.30, 0.42, 0.48, 0.56, 0.80, 0.46, 0.50, 0.70, 0.72, 0.45, 0.95, 0.85, 0.12, 0.55, 1.0),
    "CT": (0.02, 0.10, 0.26, 0.45, 0.52, 0.34, 0.92, 0.48, 0.66, 0.64, 0.78, 0.36, 1.0, 0.80, 0.10, 0.56, 1.0),
    "T1": (0.02, 0.05, 0.85, 0.42, 0.50, 0.16, 0.22, 0.52, 0.08, 0.36, 0.75, 0.20, 0.03, 0.45, 0.02, 0.30, 0.0),
    "T2": (0.02, 0.06, 0.60, 0.30, 0.40, 0.95, 0.14, 0.48, 0.06, 0.72, 0.62, 0.92, 0.03, 0.65, 0.02, 0.78, 0.0),
    "ultrasound": (0.06, 0.14, 0.62, 0.46, 0.54, 0.05, 0.90, 0.40, 0.08, 0.26, 0.70, 0.12, 1.0, 0.80, 0.08, 0.74, 1.0),
    "PET": (0.01, 0.10, 0.10, 0.24, 0.40, 0.10, 0.20, 0.70, 0.22, 1.0, 0.95, 0.12, 0.12, 0.70, 0.20, 0.66, 0.02),
}
_WHITE = 1.0


def _tissue_values(figure: Figure) -> Mapping[str, float]:
    """How bright each tissue is, between 0 and 1."""
    table = figure.style.weighting if figure.modality_type == "MR" else figure.modality_type
    return dict(zip(_NAMES, _VALUES[table], strict=True))


def draw_figure(figure: Figure, size: int) -> NDArray[np.uint8]:
    """The image of a figure: uint8 [size, size]; the same for the same figure."""
    rng = np.random.default_rng(figure.seed)
    canvas = Canvas(size, _tissue_values(figure), rng)
    draw_anatomy(canvas, figure.region, figure.projection)
    _vary_tissue(canvas)
    places = draw_finding(canvas, figure)
    plane = _blurred(canvas.plane, figure.style.blur * size / 64)
    plane = _ACQUIRE[figure.modality_type](plane, figure.style, rng)
    plane = np.clip(plane, 0, 1) ** figure.style.gamma * figure.style.gain
    if figure.style.inverted and figure.modality_type == "x-ray":
        plane = figure.style.gain - plane
    plane = _annotated(plane, canvas, figure, places)
    return (np.clip(plane, 0, 1) * 255 + 0.5).astype(np.uint8)


def _vary_tissue(canvas: Canvas) -> None:
    """Multiply the canvas by a smooth random field of a few percent, so that no two bodies are equal."""
    coarse = canvas.rng.normal(0, 0.05, (5, 5)).astype(np.float32)
    canvas.plane *= 1 + _stretched(coarse, canvas.size)


def _stretched(coarse: Plane, size: int) -> Plane:
    """A small grid interpolated linearly to [size, size]."""
    weights = _linear_weights(len(coarse), size)
    return np.asarray(weights @ coarse @ weights.T, np.float32)


def _linear_weights(num_from: int, num_to: int) -> Plane:
    position = np.linspace(0, num_from - 1, num_to)[:, None]
    return np.asarray(np.clip(1 - np.abs(position - np.arange(num_from)[None, :]), 0, 1), np.float32)


def _blurred(plane: Plane, sigma: float) -> Plane:
    """Gaussian blur as two products with a band matrix: at this size faster than a filter."""
    if sigma < 0.2:
        return plane
    index = np.arange(len(plane))
    kernel = np.exp(-0.5 * ((index[:, None] - index[None, :]) / sigma) ** 2)
    kernel = (kernel / kernel.sum(axis=1, keepdims=True)).astype(np.float32)
    return np.asarray(kernel @ plane @ kernel.T, np.float32)


def _xray(plane: Plane, style: Style, rng: np.random.Generator) -> Plane:
    counts = 90 / style.noise**2
    return np.asarray(rng.poisson((_blurred(plane, 0.6) * 0.9 + 0.05) * counts) / counts, np.float32)


def _ct(plane: Plane, style: Style, rng: np.random.Generator) -> Plane:
    noise = _blurred(rng.standard_normal(plane.shape, dtype=np.float32), 0.7)
    streaks = (plane > 0.97).sum(axis=1, keepdims=True) / len(plane)
    return np.asarray(plane + 0.11 * style.noise * noise * (1 + 4 * streaks))


def _mr(plane: Plane, style: Style, rng: np.random.Generator) -> Plane:
    bias = 1 + _stretched(rng.normal(0, 0.16, (3, 3)).astype(np.float32), len(plane))
    real, imaginary = 0.07 * style.noise * rng.standard_normal((2, *plane.shape), dtype=np.float32)
    return np.asarray(np.sqrt((plane * bias + real) ** 2 + imaginary**2))


def _ultrasound(plane: Plane, style: Style, rng: np.random.Generator) -> Plane:
    size = len(plane)
    axis = np.linspace(-1, 1, size, dtype=np.float32)
    depth = (axis[:, None] + 1.25) / 2.25
    inside = (np.abs(axis[None, :]) < 0.25 + 0.85 * depth) & (axis[None, :] ** 2 + (axis[:, None] + 1) ** 2 < 4.1)
    real, imaginary = rng.standard_normal((2, size, size), dtype=np.float32)
    speckle = np.sqrt(_blurred(real, 0.6) ** 2 + _blurred(imaginary, 0.6) ** 2) * np.float32(1.6)
    edges = np.abs(np.diff(plane, axis=0, prepend=plane[:1]))
    echo = (0.8 * plane + 1.2 * edges) * (0.35 + 0.65 * speckle * style.noise**0.5) * (1.15 - 0.5 * depth)
    # Log compression, as ultrasound scanners display it.
    return np.where(inside, np.log1p(6 * echo) / np.float32(np.log(7.0)), 0).astype(np.float32)


def _pet(plane: Plane, style: Style, rng: np.random.Generator) -> Plane:
    counts = 40 / style.noise**2
    coarse = _blurred(plane, 1.8 * len(plane) / 64)
    return _blurred((rng.poisson(np.clip(coarse, 0, 2) * counts) / counts).astype(np.float32), 0.8)


_ACQUIRE: dict[str, Callable[[Plane, Style, np.random.Generator], Plane]] = {
    "x-ray": _xray,
    "CT": _ct,
    "MR": _mr,
    "ultrasound": _ultrasound,
    "PET": _pet,
}

_LETTERS = {
    "A": "010101111101101",
    "B": "110101110101110",
    "C": "011100100100011",
    "D": "110101101101110",
    "E": "111100110100111",
}


def _annotated(plane: Plane, canvas: Canvas, figure: Figure, places: list[tuple[float, float]]) -> Plane:
    """Add the annotations of a printed figure: an arrow, a letter, a white margin."""
    if figure.arrow:
        for x, y in places:
            side = 1.0 if x >= 0 else -1.0
            tail = canvas.line(x + side * 0.20, y - 0.20, x + side * 0.45, y - 0.45, 0.02)
            head = np.maximum(
                canvas.line(x + side * 0.20, y - 0.20, x + side * 0.20, y - 0.34, 0.02),
                canvas.line(x + side * 0.20, y - 0.20, x + side * 0.34, y - 0.20, 0.02),
            )
            plane = np.maximum(plane, np.maximum(tail, head) * _WHITE)
    if figure.letter:
        bits = np.array([int(bit) for bit in _LETTERS[figure.letter]], np.float32).reshape(5, 3)
        glyph = np.kron(bits, np.ones((max(1, len(plane) // 64),) * 2, np.float32))
        height, width = glyph.shape
        plane[2 : 2 + height, 2 : 2 + width] = glyph
    margin = int(figure.style.margin * len(plane))
    if margin:
        plane[:margin], plane[-margin:] = _WHITE, _WHITE
    return plane
