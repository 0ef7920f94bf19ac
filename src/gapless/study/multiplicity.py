"""How many differences a study tests at once, and what that does to the claim of each interval.

The intervals of `compare.json` are those of one figure of one method each. Here they are counted, over the columns of
the table; nothing is measured anew.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from statistics import NormalDist
from typing import Any

from gapless.study.table import SEEDS_FOR_A_CLAIM, Table, excludes_zero

LEVEL = 0.05  # one minus the confidence of an interval


@dataclass(frozen=True)
class Multiplicity:
    """The differences of one table.

    Args:
        num_methods: methods that are compared with the baseline.
        num_figures: columns of the table for which some method has an interval.
        num_intervals: differences that have an interval.
        num_apart: those whose interval excludes zero.
        num_corrected: those whose interval still excludes zero when it is widened by `widening`.
        widening: factor on both arms of an interval, at least 1.
        baseline: what the differences are taken from.
        num_seeds: of each method.
    """

    num_methods: int
    num_figures: int
    num_intervals: int
    num_apart: int
    num_corrected: int
    widening: float
    baseline: str
    num_seeds: int

    @property
    def sentences(self) -> list[str]:
        """What a reader must know before taking a star for a finding."""
        chance = LEVEL * self.num_intervals
        texts = [
            f"{self.num_intervals:,} differences to {self.baseline} have an interval: {self.num_methods:,} "
            f"method{'s' * (self.num_methods != 1)}, {self.num_figures:,} figure{'s' * (self.num_figures != 1)}. "
            f"{self.num_apart:,} of the intervals exclude zero.",
            "Each is a 95 % interval of its own and is not corrected for their number: if no method differed from "
            f"{self.baseline} in anything, about {chance:.1f} of {self.num_intervals:,} would exclude zero by chance.",
            f"Widened to the level of Bonferroni ({LEVEL:g} / {self.num_intervals:,}, arms times {self.widening:.2f}, "
            f"as if the bootstrap were normal), {self.num_corrected:,} still exclude zero. The figures of a table "
            "depend on each other, so this errs on the careful side.",
        ]
        if self.num_seeds < SEEDS_FOR_A_CLAIM:
            texts.append(
                f"With fewer than {SEEDS_FOR_A_CLAIM} seeds none of them is marked in the table: an interval resamples "
                "groups of rows, and does not hold what another training would have given."
            )
        return texts


def multiplicity_of(comparison: Mapping[str, Any], table: Table) -> Multiplicity | None:
    """The differences of a comparison in the columns of its table; None where none has an interval."""
    wanted = {column.key for column in table.columns if column.has_direction}
    tested = {
        (method, key): interval
        for method, of_method in (comparison.get("differences") or {}).items()
        if method in comparison["methods"]
        for key, interval in of_method.items()
        if key in wanted and _has_arms(interval)
    }
    if not tested:
        return None
    widening = widening_for(len(tested))
    return Multiplicity(
        num_methods=len({method for method, _ in tested}),
        num_figures=len({key for _, key in tested}),
        num_intervals=len(tested),
        num_apart=sum(map(excludes_zero, tested.values())),
        num_corrected=sum(excludes_zero(widened(interval, widening)) for interval in tested.values()),
        widening=widening,
        baseline=str(comparison.get("baseline", "the baseline")),
        num_seeds=len(comparison.get("seeds") or []),
    )


def _has_arms(interval: Any) -> bool:
    return isinstance(interval, Mapping) and all(interval.get(key) is not None for key in ("value", "low", "high"))


def widening_for(num_intervals: int) -> float:
    """By how much a normal 95 % interval widens when `num_intervals` of them hold together (Bonferroni).

    >>> widening_for(1), round(widening_for(10), 3)
    (1.0, 1.432)
    """
    normal = NormalDist()
    return normal.inv_cdf(1 - LEVEL / num_intervals / 2) / normal.inv_cdf(1 - LEVEL / 2)


def widened(interval: Mapping[str, float], factor: float) -> dict[str, float]:
    """An interval whose arms are `factor` times as long.

    >>> widened({"value": 2.0, "low": 1.0, "high": 4.0}, 2.0)
    {'value': 2.0, 'low': 0.0, 'high': 6.0}
    """
    value = interval["value"]
    low, high = (value + factor * (interval[end] - value) for end in ("low", "high"))
    return {"value": value, "low": low, "high": high}
