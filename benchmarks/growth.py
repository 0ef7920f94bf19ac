"""The growth law of a step, `value = factor * size^power`, fitted over the sizes at which it was measured."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import stats

SMALLEST = 1e-3  # a clock says nothing about less, and 0 has no logarithm
LEVEL = 0.8  # of four sizes two degrees of freedom are left, whose range at 0.95 is 2.3 times as wide


@dataclass(frozen=True)
class Law:
    """Fitted by least squares of the logarithms.

    Args:
        factor, power: of `factor * size^power`.
        residual: the largest factor by which a measured value is off the law, 1 where all lie on it.
        num_sizes: how many measurements were fitted.
        deviation: standard deviation of the logarithms about the law, with num_sizes - 2 degrees of freedom.
        centre, spread: mean of the logarithms of the sizes, and the sum of their squared distances from it.
    """

    factor: float
    power: float
    residual: float
    num_sizes: int
    deviation: float
    centre: float
    spread: float

    def at(self, size: float) -> float:
        """The value that the law gives at a size."""
        return float(self.factor * size**self.power)

    def interval(self, size: float, level: float = LEVEL) -> tuple[float, float]:
        """The prediction interval of one more measurement at a size: of a line's regression, in logarithms.

        It takes for granted that the law goes on. Two sizes leave no degree of freedom, so that theirs is (0, inf).
        """
        if self.num_sizes < 3:
            return 0.0, float("inf")
        distance = float(np.log(size)) - self.centre
        variance = 1 + 1 / self.num_sizes + distance**2 / self.spread
        half = stats.t.ppf((1 + level) / 2, self.num_sizes - 2) * self.deviation * variance**0.5
        return float(self.at(size) * np.exp(-half)), float(self.at(size) * np.exp(half))

    def as_json(self) -> dict[str, Any]:
        """Power and residual."""
        return {"power": self.power, "residual": self.residual}


def fit(sizes: Sequence[float], values: Sequence[float]) -> Law:
    """Fit the law.

    Args:
        sizes: [measurement] positive, at least two different ones.
        values: [measurement] such as seconds; values below a thousandth count as a thousandth.

    Raises:
        ValueError: fewer than two sizes, a size that is not positive, or another number of values.
    """
    if len(sizes) != len(values) or len(set(sizes)) < 2 or min(sizes) <= 0:
        raise ValueError(f"expected values of at least two sizes above 0, got {list(sizes)} and {list(values)}")
    logs, heights = np.log(np.asarray(sizes, float)), np.log(np.maximum(np.asarray(values, float), SMALLEST))
    power, height = np.polyfit(logs, heights, 1)
    off = heights - (height + power * logs)
    freedom = max(len(sizes) - 2, 1)
    return Law(
        factor=float(np.exp(height)),
        power=float(power),
        residual=float(np.exp(np.abs(off).max())),
        num_sizes=len(sizes),
        deviation=float(np.sqrt((off**2).sum() / freedom)),
        centre=float(logs.mean()),
        spread=float(((logs - logs.mean()) ** 2).sum()),
    )
