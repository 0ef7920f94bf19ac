"""Intervals by a bootstrap that resamples groups (article, patient, case) and keeps the gallery fixed.

A figure is a function of how often each group was drawn: sums over groups, weighted by the draws. A replicate costs
groups x dim at most and never compares rows again.

The interval of a share (a recall, an accuracy, an area under the ROC curve) is Wilson's, with as many independent
trials as explain the variance of the replicates. The replicates of a share without a single failure are all equal, so
that their percentiles would say that a failure is impossible; those of a share with few failures are too narrow. Where
the percentiles reach further they count: one misplaced row moves an area under the curve by more than a trial.
"""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

CONFIDENCE = 0.95
DRAWS_AT_ONCE = 32
ROUNDING = 1e-24  # of a variance, as part of the largest possible one: of values alike, resampled in float64
UNDEFINED_SHARE = 0.05  # of the replicates; above it there is no interval, as the defined draws are a selection

Interval = dict[str, float | None]


@dataclass(frozen=True)
class Figure:
    """A number and, where it can be resampled, its value under [replicate, group] draw counts.

    Args:
        trials: of a share in [0, 1], how many groups it rests on, each of which counts as an independent trial; None
            where it is no share.
    """

    value: float
    replicates: Callable[[Tensor], Tensor] | None = None
    trials: int | None = None


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


def share_figure(values: Tensor, groups: GroupSums) -> Figure:
    """The mean over rows of values in [0, 1], such as hits; every group that has rows is a trial.

    >>> figure = share_figure(torch.tensor([1.0, 0.0, 1.0, 1.0]), GroupSums(torch.tensor([0, 0, 1, 2]), 3))
    >>> figure.value, figure.trials
    (0.75, 3)
    """
    return share_of_sums(values, torch.ones_like(values), groups)


def share_of_sums(numerator: Tensor, denominator: Tensor, groups: GroupSums) -> Figure:
    """`ratio_figure` of counts and what they are a part of; every group that has some of it is a trial.

    >>> named, said = torch.tensor([1.0, 2.0, 0.0]), torch.tensor([1.0, 2.0, 0.0])
    >>> share_of_sums(named, said, GroupSums(torch.arange(3), 3)).trials
    2
    """
    return replace(
        ratio_figure(numerator, denominator, groups), trials=len(torch.unique(groups.index[denominator > 0]))
    )


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
    trials = [figure.trials for figure in figures if figure.trials is not None]
    is_share = how is None and len(trials) == len(figures)
    return Figure(
        value,
        lambda draws: together([function(draws) for function in functions]),
        min(trials) if is_share else None,
    )


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
    """95 % intervals of all figures that can be resampled, under the same draws; the same for the same seed.

    They are percentiles of the replicates; of shares they hold Wilson's interval too (`share_bounds`).

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
        low, high = _bounds(resampled[key], torch.cat(parts).numpy(), num_groups)
        result[key] = {"value": resampled[key].value, "low": low, "high": high}
    return result


def _bounds(figure: Figure, replicates: np.ndarray, num_groups: int) -> tuple[float | None, float | None]:
    if num_groups < 2:
        return None, None
    low, high = _percentiles(replicates)
    if low is None or figure.trials is None:
        return low, high
    assert high is not None
    variance = float(np.nanvar(replicates, ddof=1)) if len(replicates) > 1 else 0.0
    wilson = share_bounds(figure.value, variance, figure.trials)
    return min(low, wilson[0]), max(high, wilson[1])


def percentile_interval(values: np.ndarray) -> Interval:
    """The 95 % percentile interval of a figure that was resampled elsewhere.

    Args:
        values: [1 + replicate]: the figure, then its value under each draw of groups.

    >>> percentile_interval(np.array([0.5, 0.4, 0.5, 0.6]))["value"]
    0.5
    """
    low, high = _percentiles(values[1:]) if len(values) > 1 else (None, None)
    return {"value": float(values[0]), "low": low, "high": high}


def share_bounds(share: float, variance: float, trials: int) -> tuple[float, float]:
    """Wilson's 95 % interval of a share that was measured on groups.

    With the effective number of trials `n = share (1 - share) / variance` and the quantile t of Student's distribution
    it holds every p with `(share - p)^2 <= t^2 p (1 - p) / n`. Where all values are alike the variance says nothing,
    and n is `trials`; at a share of 0 or 1, where they must be, the other bound is then `t^2 / (n + t^2)` away.

    Args:
        share: in [0, 1].
        variance: of the share under resampling of groups.
        trials: independent ones, at least; less 1, the degrees of freedom of t.

    Reference: Wilson, JASA 22, 1927; with an effective number of trials Korn and Graubard, Survey Methodology 24, 1998,
    and Franco, Little, Louis and Slud, Journal of Survey Statistics and Methodology 7, 2019. Newcombe, Statistics in
    Medicine 25, 2006 has intervals of this form for the area under the ROC curve.

    >>> [round(bound, 4) for bound in share_bounds(0.5, 0.0025, trials=10**9)]
    [0.4038, 0.5962]
    >>> [round(bound, 4) for bound in share_bounds(1.0, 0.0, trials=100)]
    [0.9621, 1.0]
    """
    from scipy.special import stdtrit

    spread = share * (1 - share)
    n = spread / variance if variance > ROUNDING * spread > 0 else float(trials)
    square = float(stdtrit(max(1, trials - 1), 0.975)) ** 2  # of Student's distribution
    middle = (share + square / (2 * n)) / (1 + square / n)
    half = math.sqrt(square * (spread / n + square / (4 * n * n))) / (1 + square / n)
    return max(0.0, min(share, middle - half)), min(1.0, max(share, middle + half))


def _percentiles(replicates: np.ndarray) -> tuple[float | None, float | None]:
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
