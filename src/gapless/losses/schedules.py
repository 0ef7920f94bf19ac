"""Weights that change while training: piecewise linear in training progress, from 0 (start) to 1 (end)."""

import math
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Schedule:
    """A piecewise-linear weight, constant before its first and after its last point.

    Args:
        points: (progress, value) pairs in increasing progress, progress in [0, 1].

    >>> Schedule(((0.0, 1.0), (1.0, 2.0)))(0.25)
    1.25
    """

    points: tuple[tuple[float, float], ...]

    def __post_init__(self) -> None:
        points = tuple((float(progress), float(value)) for progress, value in self.points)
        positions = [progress for progress, _ in points]
        if not points or positions != sorted(set(positions)) or positions[0] < 0 or positions[-1] > 1:
            raise ValueError(f"a schedule needs points of increasing progress in [0, 1], got {self.points}")
        for _, value in points:
            _check_weight(value)
        object.__setattr__(self, "points", points)  # lists, as YAML gives them, become hashable

    def __call__(self, progress: float) -> float:
        """The weight at `progress`."""
        before = [point for point in self.points if point[0] <= progress]
        after = [point for point in self.points if point[0] > progress]
        if not before or not after:
            return (before[-1] if before else after[0])[1]
        (start, low), (end, high) = before[-1], after[0]
        return low + (high - low) * (progress - start) / (end - start)

    @classmethod
    def linear(cls, start: float, end: float) -> "Schedule":
        """From `start` at the beginning of training to `end` at its end."""
        return cls(((0.0, start), (1.0, end)))


def _check_weight(value: float) -> float:
    """The value itself. Raises ValueError for one that is negative or not finite."""
    if not (math.isfinite(value) and value >= 0):
        raise ValueError(f"a loss weight must be finite and at least 0, got {value}")
    return value


def weight_at(weight: float | Schedule, progress: float) -> float:
    """The number that a weight, constant or scheduled, has at `progress`."""
    return weight(progress) if isinstance(weight, Schedule) else _check_weight(float(weight))


def as_weight(value: Any) -> Any:
    """A weight as files hold it, where a list of [progress, weight] points is a schedule; all else stays as it is."""
    return Schedule(tuple((point[0], point[1]) for point in value)) if isinstance(value, list) else value


# The one schedule that the authors' code ships; it goes with a temperature that is fixed at 0.1.
PUBLISHED_ALIGNMENT = Schedule(((0.0, 1.0), (0.5, 1.0), (1.0, 2.0)))
PUBLISHED_UNIFORMITY = Schedule(((0.0, 1.0), (0.2, 1.0), (0.7, 0.0)))
PUBLISHED_TEMPERATURE = 0.1
