"""Intervals by a bootstrap that resamples groups (article, patient, case) and keeps the gallery fixed.

A figure is a function of how often each group was drawn: sums over groups, weighted by the draws. A replicate costs
groups x dim at most and never compares rows again.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

CONFIDENCE = 0.95
DRAWS_AT_ONCE = 32
UNDEFINED_SHARE = 0.05  # of the replicates; above it there is no interval, as the defined draws are a selection

Interval = dict[str, float | None]


@dataclass(frozen=True)
class Figure:
    """A number and, where it can be resampled, its value under [replicate, group] draw counts."""

    value: float
    replicates: Callable[[Tensor], Tensor] | None = None


@dataclass(frozen=True)
class GroupSums:
    """Sums by group: `index` is [pair] integers in 0..num_groups-1."""

    index: Tensor
    num_groups: int

    @property
    def sizes(self) -> Tensor:
        return self.sum(torch.ones(len(self.index), dtype=torch.float64, device=self.index.device))

    def sum(self, values: Tensor) -> Tensor:
        """[pair] or [pair, dim] summed to [group] or [group, dim]."""
        if torch.equal(self.index, torch.arange(self.num_groups)):  # every row its own group: no copy
            return values
        return values.new_zeros(self.num_groups, *values.shape[1:]).index_add_(0, self.index, values)


def remembered(replicates: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
    """The same function, which gives its last result again for the same draws: several figures rest on one."""
    last: list[Tensor] = []

    def result(draws: Tensor) -> Tensor:
        if not last or last[0] is not draws:
            last[:] = [draws, replicates(draws)]
        return last[1]

    return result


def mean_figure(values: Tensor, groups: GroupSums) -> Figure:
    """The mean over rows.

    >>> mean_figure(torch.tensor([1.0, 2.0, 6.0]), GroupSums(torch.tensor([0, 0, 1]), 2)).value
    3.0
    """
    return ratio_figure(values, torch.ones_like(values), groups)


def ratio_figure(numerator: Tensor, denominator: Tensor, groups: GroupSums) -> Figure:
    """Sum over rows by sum over rows."""
    numerator, denominator = numerator.double(), denominator.double()
    top, bottom = groups.sum(numerator), groups.sum(denominator)
    return Figure(float(numerator.sum() / denominator.sum()), lambda draws: (draws @ top) / (draws @ bottom))


def median_figure(values: Tensor, groups: GroupSums) -> Figure:
    """The median over rows, the mean of the middle two when their number is even."""
    ordered, order = values.double().sort()
    member = groups.index[order]

    def replicates(draws: Tensor) -> Tensor:
        reached = draws[:, member].cumsum(dim=1)
        half = reached[:, -1:] / 2
        lower = torch.searchsorted(reached, half, right=False)
        upper = torch.searchsorted(reached, half, right=True).clamp_max(len(ordered) - 1)
        return (ordered[lower] + ordered[upper]).squeeze(1) / 2

    return Figure(float(replicates(values.new_ones(1, groups.num_groups, dtype=torch.float64))), replicates)


def combine(figures: Sequence[Figure], how: Callable[[Sequence[Tensor]], Tensor] | None = None) -> Figure:
    """The mean of figures, or `how` of them, under the same draws."""

    def mean(parts: Sequence[Tensor]) -> Tensor:
        return torch.stack(list(parts)).mean(dim=0)

    together = how or mean
    value = float(together([torch.tensor(figure.value, dtype=torch.float64) for figure in figures]))
    functions = [figure.replicates for figure in figures if figure.replicates is not None]
    if len(functions) < len(figures):
        return Figure(value)
    return Figure(value, lambda draws: together([function(draws) for function in functions]))


def draw_counts(num_groups: int, num_bootstrap: int, seed: int) -> Iterator[Tensor]:
    """[replicate, group] float64: how often each group is drawn when `num_groups` are drawn with replacement.

    >>> counts = next(draw_counts(num_groups=4, num_bootstrap=2, seed=0))
    >>> counts.shape, counts.sum(dim=1)
    (torch.Size([2, 4]), tensor([4., 4.], dtype=torch.float64))
    """
    generator = np.random.default_rng(seed)
    for start in range(0, num_bootstrap, DRAWS_AT_ONCE):
        count = min(DRAWS_AT_ONCE, num_bootstrap - start)
        drawn = generator.integers(num_groups, size=(count, num_groups))
        drawn += np.arange(count)[:, None] * num_groups
        counts = np.bincount(drawn.ravel(), minlength=count * num_groups).reshape(count, num_groups)
        yield torch.from_numpy(counts.astype(np.float64))


def bootstrap(
    figures: Mapping[str, Figure], num_groups: int, num_bootstrap: int = 1000, seed: int = 0
) -> dict[str, Interval]:
    """95 % percentile intervals of all figures that can be resampled, under the same draws; the same for the same seed.

    Returns:
        key -> {"value", "low", "high"}; the bounds are None where no interval exists: with a single group, or where
        more than one draw in twenty leaves the figure undefined (a draw of one row alone has no pair of rows).
    """
    resampled = {key: figure for key, figure in figures.items() if figure.replicates is not None}
    collected: dict[str, list[Tensor]] = {key: [] for key in resampled}
    for draws in draw_counts(num_groups, num_bootstrap, seed):
        for key, figure in resampled.items():
            assert figure.replicates is not None
            collected[key].append(figure.replicates(draws))
    result: dict[str, Interval] = {}
    for key, parts in collected.items():
        low, high = _bounds(torch.cat(parts).numpy()) if num_groups > 1 else (None, None)
        result[key] = {"value": resampled[key].value, "low": low, "high": high}
    return result


def percentile_interval(values: np.ndarray) -> Interval:
    """The 95 % percentile interval of a figure that was resampled elsewhere.

    Args:
        values: [1 + replicate]: the figure, then its value under each draw of groups.

    >>> percentile_interval(np.array([0.5, 0.4, 0.5, 0.6]))["value"]
    0.5
    """
    low, high = _bounds(values[1:]) if len(values) > 1 else (None, None)
    return {"value": float(values[0]), "low": low, "high": high}


def _bounds(replicates: np.ndarray) -> tuple[float | None, float | None]:
    defined = replicates[np.isfinite(replicates)]
    if len(defined) < (1 - UNDEFINED_SHARE) * len(replicates):
        return None, None
    tail = (1 - CONFIDENCE) / 2
    low, high = np.quantile(defined, [tail, 1 - tail])
    return float(low), float(high)


def bootstrap_difference(
    figures: Mapping[str, Figure],
    baseline: Mapping[str, Figure],
    num_groups: int,
    num_bootstrap: int = 1000,
    seed: int = 0,
) -> dict[str, Interval]:
    """Intervals of figure minus baseline, paired: both see the same draws of the same groups."""

    def minus(parts: Sequence[Tensor]) -> Tensor:
        return parts[0] - parts[1]

    shared = {key: combine([figures[key], baseline[key]], minus) for key in figures if key in baseline}
    return bootstrap(shared, num_groups, num_bootstrap, seed)
