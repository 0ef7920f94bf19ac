"""Means and variances of the similarities of true pairs and of all non-pairs, from sums over rows.

The mean square of `u_i . v_j` over all i and j is `tr(U^T U V^T V) / n^2`, so that no matrix of similarities is made:
time is rows * dim^2, memory a block of rows and two [dim, dim] matrices.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from gapless.core.geometry import blocks, unit_norm
from gapless.metrics.uncertainty import Figure, GroupSums, combine, mean_figure

ROWS_AT_ONCE = 2048
ROUNDING = 64  # steps of the precision: rows less their mean that are shorter are rounding errors, and count as 0
SMALLEST_VARIANCE = 1e-10  # below it all scores are one number up to rounding, and d' is not defined

Block = Callable[[slice], tuple[Tensor, Tensor]]


@dataclass(frozen=True)
class PairScores:
    """The scores `u_i . v_j` of rows of two modalities, by their moments.

    Args:
        num_rows: pairs. block: gives the rows u and v of a slice.
    """

    num_rows: int
    block: Block

    def margin(self, groups: GroupSums) -> Figure:
        """Mean score of true pairs less that of non-pairs."""

        def margin(moments: Sequence[Tensor]) -> Tensor:
            return moments[0] - moments[2]

        return self._figure(groups, margin)

    def d_prime(self, groups: GroupSums) -> Figure:
        """The margin in standard deviations, `(m+ - m-) / sqrt((v+ + v-) / 2)`; NaN where all scores are one number."""
        return self._figure(groups, _d_prime)

    def _figure(self, groups: GroupSums, formula: Callable[[Sequence[Tensor]], Tensor]) -> Figure:
        """A figure of the moments; what each row adds to them is computed when the figure is first resampled."""

        def replicates(draws: Tensor) -> Tensor:
            figure = combine([mean_figure(values, groups) for values in self._contributions], formula)
            assert figure.replicates is not None
            return figure.replicates(draws)

        return Figure(float(formula(self._moments)), replicates)

    @cached_property
    def _sums(self) -> tuple[Tensor, list[Tensor], list[Tensor]]:
        """The scores of the true pairs, [pair], and of both sides the sum of the rows and of their outer products."""
        width = self.block(slice(0, 1))[0].shape[1]
        true = torch.empty(self.num_rows, dtype=torch.float64)
        sums = [torch.zeros(width, dtype=torch.float64) for _ in range(2)]
        grams = [torch.zeros(width, width, dtype=torch.float64) for _ in range(2)]
        for part in blocks(self.num_rows, ROWS_AT_ONCE):
            sides = self.block(part)
            true[part] = (sides[0] * sides[1]).sum(dim=1).double()
            for side, rows in enumerate(sides):
                sums[side] += rows.sum(dim=0, dtype=torch.float64)
                grams[side] += (rows.T @ rows).double()
        return true, sums, grams

    @cached_property
    def _moments(self) -> list[Tensor]:
        """Mean and mean square of the scores of true pairs, then of non-pairs."""
        true, sums, grams = self._sums
        count = self.num_rows * (self.num_rows - 1)
        square = true.square()
        false = ((sums[0] * sums[1]).sum() - true.sum()) / count
        return [true.mean(), square.mean(), false, ((grams[0] * grams[1]).sum() - square.sum()) / count]

    @cached_property
    def _contributions(self) -> list[Tensor]:
        """[pair] what each row adds to the moments: their means are the moments.

        A row adds to the mean over non-pairs as query and as answer; under resampling that is right to first order
        (Hoeffding's projection).
        """
        true, sums, grams = self._sums
        mean, square = (torch.zeros(self.num_rows, dtype=torch.float64) for _ in range(2))
        for part in blocks(self.num_rows, ROWS_AT_ONCE):
            for side, rows in enumerate(self.block(part)):
                other = 1 - side
                mean[part] += (rows @ sums[other].to(rows.dtype)).double() - true[part]
                square[part] += ((rows @ grams[other].to(rows.dtype)) * rows).sum(dim=1).double() - true[part].square()
        false, false_square = (
            total / (self.num_rows - 1) - moment
            for total, moment in zip((mean, square), self._moments[2:], strict=True)
        )
        return [true, true.square(), false, false_square]


def _d_prime(moments: Sequence[Tensor]) -> Tensor:
    true, true_square, false, false_square = moments
    variance = ((true_square - true.square()) + (false_square - false.square())) / 2
    return (true - false) / torch.where(variance > SMALLEST_VARIANCE, variance, math.nan).sqrt()


def raw_scores(a: Tensor, b: Tensor) -> PairScores:
    """The cosines less the product of the modality means.

    `a_i . b_j - m . k = [a0, a0 . k, 1] . [b0, 1, m . b0]` with the means m, k and centred rows a0, b0: small numbers,
    so that variances in a narrow cone keep their digits in fp32. The constant changes neither margin nor d'.

    Args:
        a, b: [pair, dim] unit-norm rows.
    """
    mean_a, mean_b = _mean(a), _mean(b)

    def block(part: slice) -> tuple[Tensor, Tensor]:
        first, second = (a[part].double() - mean_a).to(a.dtype), (b[part].double() - mean_b).to(b.dtype)
        one = first.new_ones(len(first), 1)
        left = [first, (first @ mean_b.to(a.dtype))[:, None], one]
        right = [second, one, (second @ mean_a.to(b.dtype))[:, None]]
        return torch.cat(left, dim=1), torch.cat(right, dim=1)

    return PairScores(len(a), block)


def centred_scores(a: Tensor, b: Tensor, means: tuple[Tensor, Tensor] | None = None) -> PairScores:
    """The cosines after each modality's mean is removed and rows are scaled to norm 1 again.

    It is what `close --method center` gives. Without the new norm the margin would be the raw one: both means move
    true pairs and non-pairs by the same number. The means are held fixed under resampling.

    Args:
        means: of all rows, where these are some of them: the mean of n rows takes a part of each row off with it, which
            raises the margin by about the mean true score / n.
    """
    mean_a, mean_b = means or (_mean(a), _mean(b))

    def centred(rows: Tensor, mean: Tensor) -> Tensor:
        less = (rows.double() - mean).to(rows.dtype)
        is_zero = less.norm(dim=1, keepdim=True) < ROUNDING * torch.finfo(rows.dtype).eps
        return unit_norm(less.masked_fill(is_zero, 0.0))

    return PairScores(len(a), lambda part: (centred(a[part], mean_a), centred(b[part], mean_b)))


def _mean(rows: Tensor) -> Tensor:
    parts = [rows[part].sum(dim=0, dtype=torch.float64) for part in blocks(len(rows), ROWS_AT_ONCE)]
    return torch.stack(parts).sum(dim=0) / len(rows)
