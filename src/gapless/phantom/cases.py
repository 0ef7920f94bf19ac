"""Draws the content of phantom figures at random: articles of 1 to 5 figures that share a case, a style and wording."""

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TypeVar

T = TypeVar("T")

MODALITY_TYPES = ("x-ray", "CT", "MR", "ultrasound", "PET")
REGIONS = ("head", "chest", "abdomen", "pelvis", "knee", "spine")
FINDINGS = ("mass", "cyst", "abscess", "calcification", "fracture", "effusion", "infiltrate", "device")
NORMAL = "normal"
SIDES = ("left", "right", "bilateral", "midline")
SIZES = ("small", "medium", "large")
ZONES = ("upper", "middle", "lower")
VIEWS = {
    "x-ray": ("frontal", "lateral"),
    "CT": ("axial", "coronal", "sagittal"),
    "MR": ("axial", "coronal", "sagittal"),
    "ultrasound": ("transverse", "longitudinal"),
    "PET": ("axial", "coronal"),
}
# Which of three projections each view draws.
PROJECTIONS = {
    "frontal": "coronal",
    "lateral": "sagittal",
    "transverse": "axial",
    "longitudinal": "sagittal",
    "axial": "axial",
    "coronal": "coronal",
    "sagittal": "sagittal",
}
LABELS = ("examination", "modality_type", "region", "finding", "side", "view", "size")

_MODALITY_SHARES = (0.3, 0.28, 0.2, 0.14, 0.08)
_FIGURES_SHARES = (0.3, 0.25, 0.2, 0.15, 0.1)
_SIDE_SHARES = (0.43, 0.43, 0.14)
_NORMAL_SHARE = 0.08
_SAME_REGION_SHARE = 0.75
_SAME_FINDING_SHARE = 0.6
_SAME_MODALITY_SHARE = 0.6
_REPEATED_SHARE = 0.05


@dataclass(frozen=True)
class Style:
    """Properties that the figures of one article share besides the case."""

    seed: int
    gamma: float
    gain: float
    noise: float
    blur: float
    inverted: bool
    weighting: str  # of MR: T1 or T2
    margin: float
    letters: bool
    verbosity: float


@dataclass(frozen=True)
class Figure:
    """One figure: everything that its image, its caption and its waveform are made from."""

    number: int
    seed: int
    group: str
    style: Style
    modality_type: str
    region: str
    finding: str
    side: str
    view: str
    size: str
    zone: str
    arrow: bool
    letter: str
    caption_seed: int

    @property
    def projection(self) -> str:
        """The projection that the view draws: axial, coronal or sagittal."""
        return PROJECTIONS[self.view]

    @property
    def examination(self) -> str:
        """The examination ("CT chest"), which is the main label, of 30 classes."""
        return f"{self.modality_type} {self.region}"

    def labels(self) -> dict[str, str]:
        """Label column -> value."""
        return {name: getattr(self, name) for name in LABELS}


def pick(rng: random.Random, options: Sequence[T], shares: Sequence[float] | None = None) -> T:
    """One of the options; only `rng.random()` is used, whose stream every Python version keeps."""
    draw = rng.random()
    if shares is None:
        return options[int(draw * len(options))]
    for option, share in zip(options, shares, strict=True):
        draw -= share
        if draw < 0:
            return option
    return options[-1]


def articles(seed: int, prefix: str = "") -> Iterator[list[Figure]]:
    """Articles without end, each a list of figures; the same for the same seed."""
    number = 0
    index = 0
    while True:
        rng = random.Random(f"phantom/{seed}/{prefix}/{index}")
        group = f"{prefix}{index:05d}"
        figures = list(_figures(rng, group, number))
        yield figures
        number += len(figures)
        index += 1


def _style(rng: random.Random) -> Style:
    return Style(
        seed=int(rng.random() * 2**32),
        gamma=0.7 + 0.75 * rng.random(),
        gain=0.75 + 0.35 * rng.random(),
        noise=0.5 + 1.2 * rng.random(),
        blur=1.1 * rng.random() ** 2,
        inverted=rng.random() < 0.06,
        weighting=pick(rng, ("T1", "T2")),
        margin=0.12 * rng.random() if rng.random() < 0.25 else 0.0,
        letters=rng.random() < 0.3,
        verbosity=0.6 + 0.9 * rng.random(),
    )


def _figures(rng: random.Random, group: str, number: int) -> Iterator[Figure]:
    style = _style(rng)
    case_modality = pick(rng, MODALITY_TYPES, _MODALITY_SHARES)
    case_region = pick(rng, REGIONS)
    case_finding = NORMAL if rng.random() < _NORMAL_SHARE else pick(rng, FINDINGS)
    previous: Figure | None = None
    for position in range(pick(rng, (1, 2, 3, 4, 5), _FIGURES_SHARES)):
        modality = case_modality if rng.random() < _SAME_MODALITY_SHARE else pick(rng, MODALITY_TYPES, _MODALITY_SHARES)
        region = case_region if rng.random() < _SAME_REGION_SHARE else pick(rng, REGIONS)
        finding = case_finding if rng.random() < _SAME_FINDING_SHARE else pick(rng, FINDINGS)
        view = pick(rng, VIEWS[modality])
        side = _side(rng, finding, view)
        size = "none" if finding == NORMAL else pick(rng, SIZES)
        figure = Figure(
            number=number + position,
            seed=int(rng.random() * 2**32),
            group=group,
            style=style,
            modality_type=modality,
            region=region,
            finding=finding,
            side=side,
            view=view,
            size=size,
            zone=pick(rng, ZONES),
            arrow=finding != NORMAL and rng.random() < 0.4,
            letter="ABCDE"[position] if style.letters else "",
            caption_seed=int(rng.random() * 2**32),
        )
        if previous is not None and rng.random() < _REPEATED_SHARE:
            figure = _next_slice(previous, figure)
        yield figure
        previous = figure


def _side(rng: random.Random, finding: str, view: str) -> str:
    drawn = pick(rng, ("left", "right", "bilateral"), _SIDE_SHARES)
    if finding == NORMAL:
        return "none"
    # In a sagittal view left and right coincide, so the caption must not name a side.
    return "midline" if PROJECTIONS[view] == "sagittal" else drawn


def _next_slice(previous: Figure, figure: Figure) -> Figure:
    """The same view again, as articles print neighbouring slices under one caption."""
    return Figure(**{**vars(previous), "number": figure.number, "seed": figure.seed})
