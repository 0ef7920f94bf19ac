"""Draws six body regions in three projections, as soft shapes of tissue on a small canvas.

Coordinates run from -1 to 1, x to the right and y down. As in radiology the patient's left is on the image's right.
"""

import math
from collections.abc import Callable, Mapping

import numpy as np
from numpy.typing import NDArray

Plane = NDArray[np.float32]


class Canvas:
    """A plane of tissue values with soft-edged shapes, all moved, scaled and turned by one small random transform."""

    def __init__(self, size: int, tissues: Mapping[str, float], rng: np.random.Generator) -> None:
        self.size = size
        self.tissues = tissues
        self.rng = rng
        self.pixel = np.float32(2.0 / size)
        axis = np.linspace(-1 + 1 / size, 1 - 1 / size, size, dtype=np.float32)
        turn = rng.normal(0, 0.06)
        scale = np.exp(rng.normal(0, 0.07))
        shift_x, shift_y = rng.normal(0, 0.05, 2)
        x, y = (axis[None, :] - shift_x) / scale, (axis[:, None] - shift_y) / scale
        self.x: Plane = (x * math.cos(turn) + y * math.sin(turn)).astype(np.float32)
        self.y: Plane = (y * math.cos(turn) - x * math.sin(turn)).astype(np.float32)
        self.plane: Plane = np.full((size, size), tissues["air"], np.float32)

    def paint(self, tissue: str, coverage: Plane, strength: float = 1.0) -> None:
        """Blend a tissue into the plane by `coverage * strength`, in [0, 1]."""
        self.plane += (coverage * np.float32(strength)) * (np.float32(self.tissues[tissue]) - self.plane)

    def disc(self, cx: float, cy: float, rx: float, ry: float, softness: float = 1.0) -> Plane:
        """Coverage of an ellipse, 1 inside and 0 outside, over an edge `softness` pixels wide."""
        u = (self.x - np.float32(cx)) * np.float32(1 / rx)
        v = (self.y - np.float32(cy)) * np.float32(1 / ry)
        distance = (np.sqrt(u * u + v * v) - 1) * np.float32(min(rx, ry) / (self.pixel * softness))
        return np.asarray(np.clip(np.float32(0.5) - distance, 0, 1))

    def box(self, cx: float, cy: float, rx: float, ry: float) -> Plane:
        """Coverage of a rectangle of half width `rx` and half height `ry`."""
        distance = np.maximum(np.abs(self.x - np.float32(cx)) - rx, np.abs(self.y - np.float32(cy)) - ry)
        return np.asarray(np.clip(np.float32(0.5) - distance / self.pixel, 0, 1))

    def line(self, x0: float, y0: float, x1: float, y1: float, width: float) -> Plane:
        """A segment with round ends, `width` being its half thickness."""
        dx, dy = x1 - x0, y1 - y0
        along = np.clip(((self.x - x0) * dx + (self.y - y0) * dy) / np.float32(dx * dx + dy * dy + 1e-9), 0, 1)
        distance = np.sqrt((self.x - x0 - along * dx) ** 2 + (self.y - y0 - along * dy) ** 2)
        return np.asarray(np.clip(np.float32(0.5) + (np.float32(width) - distance) / self.pixel, 0, 1))

    def ellipse(self, tissue: str, cx: float, cy: float, rx: float, ry: float, strength: float = 1.0) -> None:
        """Paint an ellipse of one tissue."""
        self.paint(tissue, self.disc(cx, cy, rx, ry), strength)

    def pair(self, tissue: str, cx: float, cy: float, rx: float, ry: float, strength: float = 1.0) -> None:
        """The same ellipse on both sides."""
        self.ellipse(tissue, -cx, cy, rx, ry, strength)
        self.ellipse(tissue, cx, cy, rx, ry, strength)

    def shell(self, outer: str, inner: str, cx: float, cy: float, rx: float, ry: float, wall: float) -> None:
        """An ellipse of one tissue inside a wall of another."""
        self.ellipse(outer, cx, cy, rx, ry)
        self.ellipse(inner, cx, cy, rx - wall, ry - wall)


def draw_anatomy(canvas: Canvas, region: str, projection: str) -> None:
    """Draw a body region of `cases.REGIONS` in an axial, coronal or sagittal projection."""
    _REGIONS[region](canvas, projection)


def _head(c: Canvas, projection: str) -> None:
    if projection == "axial":
        c.ellipse("fat", 0, 0, 0.72, 0.90)
        c.shell("bone", "brain", 0, 0, 0.69, 0.87, 0.08)
        c.paint("fluid", c.line(0, -0.75, 0, 0.75, 0.005), 0.5)
        c.pair("fluid", 0.11, -0.08, 0.06, 0.24)
        return
    if projection == "coronal":
        c.ellipse("soft", 0, 0.62, 0.40, 0.36)
        c.ellipse("fat", 0, -0.16, 0.72, 0.74)
        c.shell("bone", "brain", 0, -0.18, 0.69, 0.70, 0.08)
        c.pair("air", 0.26, 0.40, 0.13, 0.10)
        c.pair("bone", 0.2, 0.78, 0.12, 0.06)
        c.pair("fluid", 0.12, -0.15, 0.07, 0.13)
        return
    c.ellipse("soft", -0.42, 0.42, 0.36, 0.42)
    c.paint("soft", c.box(0.12, 0.75, 0.25, 0.3))
    c.shell("bone", "brain", 0.06, -0.16, 0.80, 0.70, 0.08)
    c.ellipse("organ", 0.45, 0.30, 0.22, 0.16)
    c.ellipse("fluid", 0.0, -0.12, 0.24, 0.07)
    c.paint("bone", c.line(-0.7, 0.62, -0.25, 0.70, 0.05))


def _chest(c: Canvas, projection: str) -> None:
    if projection == "axial":
        c.ellipse("fat", 0, 0, 0.95, 0.68)
        c.ellipse("soft", 0, 0, 0.88, 0.61)
        c.pair("lung", 0.44, 0.0, 0.34, 0.46)
        c.ellipse("organ", 0.10, -0.10, 0.26, 0.28)
        c.ellipse("bone", 0, 0.42, 0.13, 0.12)
        c.ellipse("vessel", 0.16, 0.28, 0.07, 0.07)
        c.ellipse("bone", 0, -0.52, 0.09, 0.04)
        return
    if projection == "coronal":
        c.paint("soft", c.box(0, 0.2, 0.86, 0.95))
        c.pair("lung", 0.42, -0.05, 0.33, 0.70)
        c.paint("bone", c.box(0, 0, 0.07, 1.0), 0.6)
        c.ellipse("organ", 0.14, 0.25, 0.32, 0.30)
        for rib in range(5):
            for side in (-1, 1):
                y = -0.62 + 0.26 * rib
                c.paint("bone", c.line(side * 0.12, y, side * 0.76, y + 0.16, 0.022), 0.45)
        c.paint("bone", c.line(-0.75, -0.80, 0.75, -0.80, 0.04), 0.6)
        c.ellipse("organ", -0.42, 0.78, 0.46, 0.24)
        return
    c.ellipse("soft", 0, 0.1, 0.72, 1.05)
    c.ellipse("lung", 0.02, -0.05, 0.52, 0.72)
    c.ellipse("organ", -0.24, 0.26, 0.28, 0.30)
    for vertebra in range(7):
        c.paint("bone", c.box(0.56, -0.85 + 0.28 * vertebra, 0.10, 0.10), 0.8)
    c.paint("bone", c.line(-0.55, -0.6, -0.62, 0.3, 0.04), 0.7)


def _abdomen(c: Canvas, projection: str) -> None:
    if projection == "axial":
        c.ellipse("fat", 0, 0, 0.95, 0.72)
        c.ellipse("soft", 0, 0, 0.86, 0.63)
        c.ellipse("fat", 0, -0.02, 0.76, 0.54, 0.6)
        c.ellipse("organ", -0.44, -0.10, 0.36, 0.38)
        c.ellipse("organ", 0.56, 0.05, 0.18, 0.26)
        c.pair("organ", 0.36, 0.30, 0.14, 0.14)
        c.ellipse("bone", 0, 0.36, 0.16, 0.14)
        c.ellipse("vessel", 0.05, 0.16, 0.07, 0.07)
        c.ellipse("air", 0.22, -0.34, 0.16, 0.09)
        return
    if projection == "coronal":
        c.paint("fat", c.box(0, 0, 0.82, 1.1))
        c.paint("soft", c.box(0, 0, 0.74, 1.1))
        c.ellipse("organ", -0.36, -0.55, 0.38, 0.32)
        c.ellipse("organ", 0.52, -0.55, 0.18, 0.24)
        c.pair("organ", 0.40, 0.02, 0.13, 0.24)
        for vertebra in range(6):
            c.paint("bone", c.box(0, -0.85 + 0.34 * vertebra, 0.12, 0.12), 0.7)
        c.pair("air", 0.34, 0.62, 0.15, 0.08)
        c.ellipse("air", 0.05, 0.45, 0.12, 0.07)
        return
    c.paint("fat", c.box(0.0, 0, 0.72, 1.1))
    c.paint("soft", c.box(0.06, 0, 0.58, 1.1))
    c.ellipse("organ", -0.16, -0.52, 0.34, 0.36)
    c.paint("vessel", c.line(0.28, -1, 0.24, 0.7, 0.06))
    for vertebra in range(6):
        c.paint("bone", c.box(0.50, -0.85 + 0.34 * vertebra, 0.12, 0.12), 0.8)
    c.ellipse("air", -0.18, 0.30, 0.18, 0.10)


def _pelvis(c: Canvas, projection: str) -> None:
    if projection == "axial":
        c.ellipse("fat", 0, 0, 0.96, 0.66)
        c.ellipse("soft", 0, 0.02, 0.86, 0.56)
        c.pair("bone", 0.60, -0.02, 0.13, 0.22)
        c.ellipse("fluid", 0, -0.14, 0.26, 0.20)
        c.ellipse("soft", 0, 0.18, 0.12, 0.10)
        c.paint("bone", c.line(-0.2, 0.44, 0.2, 0.44, 0.07))
        return
    if projection == "coronal":
        c.paint("fat", c.box(0, 0.1, 0.9, 1.0))
        c.paint("soft", c.box(0, 0.1, 0.82, 1.0))
        for side in (-1, 1):
            c.shell("bone", "soft", side * 0.48, -0.36, 0.34, 0.36, 0.10)
            c.shell("bone", "soft", side * 0.24, 0.52, 0.18, 0.16, 0.07)
            c.ellipse("bone", side * 0.58, 0.26, 0.15, 0.15)
            c.paint("bone", c.line(side * 0.62, 0.34, side * 0.72, 0.95, 0.09))
        c.ellipse("bone", 0, -0.30, 0.15, 0.30)
        c.ellipse("fluid", 0, 0.22, 0.20, 0.13, 0.6)
        return
    c.ellipse("fat", 0, 0, 0.74, 1.05)
    c.ellipse("soft", 0.02, 0, 0.62, 0.95)
    c.ellipse("fluid", -0.22, 0.18, 0.26, 0.22)
    c.ellipse("organ", 0.06, -0.05, 0.18, 0.26)
    c.paint("bone", c.line(0.42, -0.7, 0.58, 0.1, 0.10))
    c.paint("bone", c.line(0.58, 0.1, 0.40, 0.55, 0.06))
    c.ellipse("bone", -0.44, 0.50, 0.10, 0.14)


def _knee(c: Canvas, projection: str) -> None:
    if projection == "axial":
        c.ellipse("fat", 0, 0.05, 0.72, 0.78)
        c.ellipse("soft", 0, 0.05, 0.62, 0.68)
        c.pair("bone", 0.24, 0.14, 0.28, 0.30)
        c.ellipse("bone", 0, -0.46, 0.26, 0.11)
        c.ellipse("vessel", 0.04, 0.58, 0.07, 0.07)
        return
    if projection == "coronal":
        c.paint("soft", c.box(0, 0, 0.52, 1.2))
        c.paint("bone", c.box(0, -0.72, 0.17, 0.45))
        c.pair("bone", 0.22, -0.28, 0.24, 0.24)
        c.ellipse("bone", 0, 0.24, 0.46, 0.14)
        c.paint("bone", c.line(0, 0.3, 0, 1.1, 0.17))
        c.paint("bone", c.line(0.38, 0.40, 0.36, 1.1, 0.05))
        return
    c.paint("soft", c.box(0.05, 0, 0.48, 1.2))
    c.paint("bone", c.line(0.08, -1.1, 0.08, -0.3, 0.15))
    c.ellipse("bone", 0.06, -0.22, 0.30, 0.24)
    c.ellipse("bone", -0.42, -0.24, 0.09, 0.19)
    c.ellipse("bone", 0.08, 0.26, 0.32, 0.14)
    c.paint("bone", c.line(0.06, 0.3, 0.06, 1.1, 0.15))


def _spine(c: Canvas, projection: str) -> None:
    if projection == "axial":
        c.ellipse("fat", 0, 0, 0.92, 0.85)
        c.pair("soft", 0.44, 0.30, 0.34, 0.34)
        c.ellipse("bone", 0, -0.18, 0.34, 0.28)
        c.shell("bone", "fluid", 0, 0.22, 0.18, 0.16, 0.05)
        c.paint("bone", c.line(0, 0.35, 0, 0.72, 0.05))
        c.paint("bone", c.line(-0.55, 0.18, 0.55, 0.18, 0.045), 0.8)
        c.ellipse("fluid", 0, 0.22, 0.11, 0.09)
        return
    if projection == "coronal":
        c.paint("soft", c.box(0, 0, 0.72, 1.2))
        c.pair("organ", 0.44, 0.1, 0.18, 0.62, 0.5)
        for vertebra in range(7):
            y = -0.90 + 0.30 * vertebra
            c.paint("bone", c.box(0, y, 0.20, 0.115))
            c.pair("soft", 0.12, y, 0.05, 0.05, 0.6)
            c.paint("bone", c.line(-0.36, y, 0.36, y, 0.025), 0.7)
        return
    c.paint("fat", c.box(0.1, 0, 0.66, 1.2))
    c.paint("soft", c.box(-0.25, 0, 0.3, 1.2))
    for vertebra in range(7):
        y = -0.90 + 0.30 * vertebra
        bend = 0.08 * math.sin(1.7 * y)
        c.paint("bone", c.box(bend - 0.02, y, 0.19, 0.115))
        c.paint("bone", c.line(bend + 0.46, y + 0.04, bend + 0.66, y + 0.14, 0.05), 0.8)
    c.paint("fluid", c.line(0.26, -1.1, 0.30, 1.1, 0.07))
    c.paint("soft", c.line(0.27, -1.1, 0.30, 0.3, 0.03))


_REGIONS: dict[str, Callable[[Canvas, str], None]] = {
    "head": _head,
    "chest": _chest,
    "abdomen": _abdomen,
    "pelvis": _pelvis,
    "knee": _knee,
    "spine": _spine,
}
