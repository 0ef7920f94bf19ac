"""Draws the eight findings at the places that a figure names."""

import math
from collections.abc import Callable

import numpy as np

from gapless.phantom.anatomy import Canvas
from gapless.phantom.cases import NORMAL, Figure

RADII = {"small": 0.10, "medium": 0.17, "large": 0.27, "none": 0.0}

# Where findings lie: (x of a side, centre y, y step between zones, half width and half height of the compartment).
COMPARTMENTS = {
    ("head", "axial"): (0.30, 0.00, 0.34, 0.26, 0.60),
    ("head", "coronal"): (0.30, -0.20, 0.28, 0.26, 0.46),
    ("head", "sagittal"): (0.26, -0.20, 0.26, 0.50, 0.46),
    ("chest", "axial"): (0.42, 0.00, 0.20, 0.28, 0.42),
    ("chest", "coronal"): (0.42, -0.05, 0.34, 0.26, 0.60),
    ("chest", "sagittal"): (0.20, -0.05, 0.34, 0.42, 0.60),
    ("abdomen", "axial"): (0.44, -0.02, 0.20, 0.28, 0.42),
    ("abdomen", "coronal"): (0.38, 0.00, 0.38, 0.26, 0.66),
    ("abdomen", "sagittal"): (0.20, 0.00, 0.38, 0.38, 0.66),
    ("pelvis", "axial"): (0.48, 0.02, 0.20, 0.24, 0.40),
    ("pelvis", "coronal"): (0.46, 0.00, 0.34, 0.26, 0.52),
    ("pelvis", "sagittal"): (0.22, 0.00, 0.34, 0.40, 0.56),
    ("knee", "axial"): (0.26, 0.02, 0.22, 0.26, 0.40),
    ("knee", "coronal"): (0.22, 0.00, 0.46, 0.22, 0.40),
    ("knee", "sagittal"): (0.16, 0.00, 0.46, 0.30, 0.40),
    ("spine", "axial"): (0.34, 0.00, 0.22, 0.26, 0.40),
    ("spine", "coronal"): (0.24, 0.00, 0.48, 0.22, 0.60),
    ("spine", "sagittal"): (0.14, 0.00, 0.48, 0.26, 0.60),
}


def _finding_places(figure: Figure, jitter: tuple[float, float]) -> list[tuple[float, float]]:
    """The places of the finding, [(x, y)]: one, or one on each side."""
    x, y, step, _, _ = COMPARTMENTS[figure.region, figure.projection]
    row = y + step * {"upper": -1, "middle": 0, "lower": 1}[figure.zone] + jitter[1]
    # The patient's left is the image's right; from the side there is only front and back.
    signs = {"left": (1,), "right": (-1,), "bilateral": (-1, 1), "midline": (0,)}.get(figure.side, ())
    return [(sign * x + jitter[0], row) for sign in signs]


def draw_finding(canvas: Canvas, figure: Figure) -> list[tuple[float, float]]:
    """Draw the finding of a figure, and return its places as [(x, y)]."""
    jitter_x, jitter_y, scale = canvas.rng.normal(0, 1, 3)
    places = _finding_places(figure, (0.04 * jitter_x, 0.05 * jitter_y))
    if figure.finding == NORMAL:
        return places
    radius = RADII[figure.size] * float(np.exp(0.12 * scale))
    for x, y in places:
        _FINDINGS[figure.finding](canvas, figure, x, y, radius)
    return places


def _mass(c: Canvas, figure: Figure, x: float, y: float, r: float) -> None:
    phase = c.rng.uniform(0, 2 * math.pi, 2)
    dx, dy = c.x - np.float32(x), c.y - np.float32(y)
    angle = np.arctan2(dy, dx)
    edge = r * (1 + 0.18 * np.sin(3 * angle + phase[0]) + 0.12 * np.sin(7 * angle + phase[1]))
    c.paint("lesion", np.clip(0.5 + (edge - np.sqrt(dx * dx + dy * dy)) / c.pixel, 0, 1).astype(np.float32))


def _cyst(c: Canvas, figure: Figure, x: float, y: float, r: float) -> None:
    c.paint("lesion", c.disc(x, y, r * 1.15, r * 1.15), 0.7)
    c.paint("fluid", c.disc(x, y, r, r))


def _abscess(c: Canvas, figure: Figure, x: float, y: float, r: float) -> None:
    c.paint("enhancing", c.disc(x, y, r * 1.25, r * 1.1, 1.5))
    c.paint("necrosis", c.disc(x, y, r * 0.7, r * 0.6))


def _calcification(c: Canvas, figure: Figure, x: float, y: float, r: float) -> None:
    for _ in range(3 + int(18 * r)):
        dx, dy = c.rng.normal(0, 0.55 * r, 2)
        dot = 0.025 + 0.02 * c.rng.random()
        c.paint("calcium", c.disc(x + dx, y + dy, dot, dot))


def _fracture(c: Canvas, figure: Figure, x: float, y: float, r: float) -> None:
    tilt = c.rng.uniform(-0.5, 0.5)
    length = r + 0.10
    left, right = (x - length, y - tilt * length), (x + length, y + tilt * length)
    middle = (x + 0.1 * length, y + 0.35 * length)
    for start, end in ((left, middle), (middle, right)):
        c.paint("callus", c.line(*start, *end, 0.055), 0.9)
        c.paint("cleft", c.line(*start, *end, 0.022))


def _effusion(c: Canvas, figure: Figure, x: float, y: float, r: float) -> None:
    """Fluid that fills the bottom of the compartment up to a sloping meniscus."""
    _, centre, _, half_width, half_height = COMPARTMENTS[figure.region, figure.projection]
    level = centre + half_height * (0.95 - 4.2 * r)
    slope = 0.3 * np.abs(c.x - np.float32(x))
    filled = np.clip(0.5 + (c.y + slope - np.float32(level)) / (1.5 * c.pixel), 0, 1)
    c.paint("fluid", c.disc(x, centre, half_width, half_height) * filled, 0.95)


def _infiltrate(c: Canvas, figure: Figure, x: float, y: float, r: float) -> None:
    for _ in range(9):
        dx, dy = c.rng.normal(0, 0.8 * r, 2)
        blob = r * c.rng.uniform(0.35, 0.8)
        c.paint("infiltrate", c.disc(x + dx, y + dy, blob, blob, 5.0), 0.45)


def _device(c: Canvas, figure: Figure, x: float, y: float, r: float) -> None:
    """A catheter that comes in from the top and ends at the place, thicker for larger ones."""
    start = x + c.rng.uniform(-0.35, 0.35)
    bend = (0.5 * (x + start) + c.rng.uniform(-0.15, 0.15), 0.5 * (y - 0.9))
    width = 0.012 + 0.12 * r
    c.paint("metal", c.line(start, -1.1, *bend, width))
    c.paint("metal", c.line(*bend, x, y, width))
    c.paint("metal", c.disc(x, y, width * 1.8, width * 1.8))


_FINDINGS: dict[str, Callable[[Canvas, Figure, float, float, float], None]] = {
    "mass": _mass,
    "cyst": _cyst,
    "abscess": _abscess,
    "calcification": _calcification,
    "fracture": _fracture,
    "effusion": _effusion,
    "infiltrate": _infiltrate,
    "device": _device,
}
