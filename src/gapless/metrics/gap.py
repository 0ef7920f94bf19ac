"""Figures of the modality gap: functions of validated unit-norm rows that return a Figure, which can be resampled."""

import math
from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor

from gapless.core.geometry import blocks
from gapless.metrics.uncertainty import Figure, GroupSums, remembered, share_figure

NUM_FOLDS = 5
ROWS_AT_ONCE = 8192


def centroid_distance(
    a: Tensor, b: Tensor, groups: GroupSums, population: int | None = None
) -> tuple[Figure, Figure, Figure]:
    """Norm of the difference of the modality means, and the same less its sampling bias; in [0, 2], 0 = closed.

    With d_i = a_i - b_i: `||mean d||`; `sqrt(max(0, ||mean d||^2 - sum ||d_i - mean d||^2 / (n (n - 1))))`, which takes
    pairs as independent; and `sqrt(max(0, ||mean d||^2 - G / (G - 1) sum_g ||sum_(i in g) (d_i - mean d)||^2 / n^2))`,
    which takes the G groups as independent (for one pair a group the same number; exact in expectation for groups of
    one size). A mean of n differences has length about sqrt(trace / n) even when nothing separates the modalities. A
    resample adds that length a second time, so its square is subtracted from the squared replicates.

    Args:
        population: how many rows these were drawn from; the first of the three is then that of all rows, whose own
            sampling bias is smaller. By default these are all.

    Reference: the cluster-robust variance of a mean (Liang and Zeger, Biometrika 1986).

    >>> groups = GroupSums(torch.arange(2), 2)
    >>> a, b = torch.tensor([[1.0, 0.0], [1.0, 0.0]]), torch.tensor([[0.0, 1.0], [0.0, 1.0]])
    >>> round(centroid_distance(a, b, groups)[0].value, 4)
    1.4142
    """
    difference = a - b
    num_rows = len(difference)
    mean = _mean(difference)
    squared = float(mean.square().sum())
    spread = _sum_squares(difference) - num_rows * squared
    bias = spread / (num_rows * (num_rows - 1))
    sums, sizes = groups.sum(difference), groups.sizes
    residual = sums.double() - sizes[:, None] * mean if groups.num_groups < num_rows else None
    group_bias = float(residual.square().sum()) / num_rows**2 if residual is not None else spread / num_rows**2

    scatter = group_bias * groups.num_groups / max(1, groups.num_groups - 1)

    @remembered
    def squared_replicates(draws: Tensor) -> Tensor:
        means = (draws.to(sums.dtype) @ sums).double() / (draws @ sizes)[:, None]
        return means.square().sum(dim=1) - group_bias

    def less(excess: float) -> Figure:
        return Figure(
            math.sqrt(max(0.0, squared - excess)),
            lambda draws: (squared_replicates(draws) - excess).clamp_min(0).sqrt(),
        )

    share = 1.0 if population is None else num_rows / population
    return less(bias * (1 - share)), less(bias), less(scatter)


def _mean(rows: Tensor) -> Tensor:
    return torch.stack([rows[part].double().sum(dim=0) for part in blocks(len(rows), ROWS_AT_ONCE)]).sum(dim=0) / len(
        rows
    )


def _sum_squares(rows: Tensor) -> float:
    return sum(float(rows[part].double().square().sum()) for part in blocks(len(rows), ROWS_AT_ONCE))


def off_diagonal_cosine(a: Tensor, b: Tensor, groups: GroupSums) -> Figure:
    """Mean cosine of a_i with b_j over i != j, from sums alone: `(sum a . sum b - sum a_i . b_i) / (n (n - 1))`.

    With a is b it is the cone of one modality (`within_cosine`, 1 = all one direction), else that of the non-pairs.
    """
    top, other, sizes = groups.sum(a), groups.sum(b), groups.sizes
    pairs = groups.sum((a * b).sum(dim=1).double())

    @remembered
    def replicates(draws: Tensor) -> Tensor:
        # pairs of a row with itself or with a drawn copy of itself are left out
        whole = (draws.to(top.dtype) @ top).double() * (draws.to(other.dtype) @ other).double()
        count = (draws @ sizes).square() - draws.square() @ sizes
        return (whole.sum(dim=1) - draws.square() @ pairs) / count

    num_rows = len(a)
    total = float((_mean(a) * _mean(b)).sum()) * num_rows**2 - float(pairs.sum())
    return Figure(total / (num_rows * (num_rows - 1)), replicates)


def uniformity(kernel_sums: Tensor, groups: GroupSums, gallery: int | None = None) -> Figure:
    """`log mean_{i != j} exp(-2 ||x_i - x_j||^2)` from the row sums of its kernel; in [-8, 0], 0 = all rows coincide.

    It is the log of a degree-2 U-statistic: each row is on both sides of its pairs, so the log-ratio of row sums is
    doubled in the replicates. Of Q sampled rows beside n, only the sampled side varies with the sample, and the
    variance is (1 - Q / n) + 4 Q / n times that of the mean.

    Args:
        kernel_sums: [row] sums over the other rows of the gallery.
        gallery: rows of the gallery; by default these rows are all of it.
    """
    num_rows, num_gallery = len(kernel_sums), gallery or len(kernel_sums)
    mean = float(kernel_sums.sum()) / (num_rows * (num_gallery - 1))
    share = num_rows / num_gallery
    factor = math.sqrt((1 - share) + 4 * share)
    sums, sizes = groups.sum(kernel_sums), groups.sizes

    def replicates(draws: Tensor) -> Tensor:
        ratio = (draws @ sums) / (draws @ sizes) / (num_gallery - 1) / mean
        return math.log(mean) + factor * ratio.log()

    return Figure(math.log(mean), replicates)


def wasserstein_uniformity(modalities: Sequence[Tensor]) -> Figure:
    """Minus the 2-Wasserstein distance of all rows, stacked, to the isotropic Gaussian N(0, I / dim); at most 0 = best.

    `-sqrt(||m||^2 + 1 + tr C - 2 / sqrt(dim) tr C^(1/2))` with the mean m and the covariance C of the rows.

    Reference: Fang et al., Rethinking the uniformity metric in self-supervised learning, ICLR 2024.
    """
    count = sum(len(rows) for rows in modalities)
    dim = modalities[0].shape[1]
    mean = torch.stack([_mean(rows) * len(rows) for rows in modalities]).sum(dim=0) / count
    covariance = torch.zeros(dim, dim, dtype=torch.float64, device=mean.device)
    for rows in modalities:
        for part in blocks(len(rows), ROWS_AT_ONCE):
            centred = rows[part] - mean.to(rows.dtype)
            covariance += (centred.T @ centred).double()
    return wasserstein_of(mean, covariance / count)


def wasserstein_of(mean: Tensor, covariance: Tensor) -> Figure:
    """The same, of the mean and the covariance of the rows."""
    dim = len(mean)
    spectrum = torch.linalg.eigvalsh(covariance).clamp_min(0)
    squared = mean.square().sum() + 1 + spectrum.sum() - 2 / math.sqrt(dim) * spectrum.sqrt().sum()
    return Figure(-math.sqrt(max(0.0, float(squared))))


def separability(a: Tensor, b: Tensor, groups: GroupSums, seed: int = 0) -> tuple[Figure, Figure]:
    """How well a linear probe tells the modalities apart: area under the ROC curve, and accuracy; 0.5 = closed.

    Ridge regression (penalty 1) on the modality in 5 folds; all rows of a group, image and text alike, are in one
    fold. The area is the mean over the folds; the accuracy is that of all rows, at the middle of the training rows,
    a score on the line counting half. The intervals resample the rows judged, not the probe.

    Raises:
        ValueError: fewer than 2 groups.
    """
    fold_of_row = group_folds(groups, seed)[groups.index]
    members = [(fold_of_row == fold).nonzero().flatten() for fold in range(int(fold_of_row.max()) + 1)]
    moments = [(*_moments(a, b, rows), len(rows)) for rows in members]
    return probed(a, b, groups, fold_of_row, moments)


def probed(
    a: Tensor, b: Tensor, groups: GroupSums, fold_of_row: Tensor, moments: Sequence[tuple[Tensor, Tensor, Tensor, int]]
) -> tuple[Figure, Figure]:
    """`separability` of rows that may be a sample, by probes that are fitted on the moments of all rows.

    Args:
        fold_of_row: [row] the fold that each row is judged in.
        moments: of each fold, the second moment of both modalities' rows together, the sum of each, and its pairs.
    """
    total = [torch.stack(parts).sum(dim=0) for parts in list(zip(*moments, strict=True))[:3]]
    num_pairs = sum(count for *_, count in moments)
    parts: list[Callable[[Tensor], Tensor]] = []
    correct = torch.empty(len(a), dtype=torch.float64)
    for fold, (*own, held) in enumerate(moments):
        rows = (fold_of_row == fold).nonzero().flatten()
        if not len(rows):
            continue
        gram, first, second = (whole - own_fold for whole, own_fold in zip(total, own, strict=True))
        count = 2 * (num_pairs - held)
        mean = (first + second) / count
        gram = gram - count * torch.outer(mean, mean) + torch.eye(len(mean), dtype=gram.dtype)
        direction = torch.linalg.solve(gram, second - first)
        scores = [one[rows] @ direction.to(a.dtype) for one in (a, b)]
        is_second = torch.arange(2).repeat_interleave(len(rows))
        parts.append(_auc(torch.cat(scores), is_second, groups.index[rows].repeat(2)))
        middle = float(direction @ mean)
        side = [torch.sign(score.double() - middle) for score in scores]
        correct[rows] = 0.5 + (side[1] - side[0]) / 4

    def replicates(draws: Tensor) -> Tensor:
        return torch.stack([part(draws) for part in parts]).nanmean(dim=0)

    area = float(replicates(torch.ones(1, groups.num_groups, dtype=torch.float64)))
    # Rows of two groups are a trial of the area, so that half as many trials are independent as there are groups.
    return Figure(area, replicates, trials=max(1, groups.num_groups // 2)), share_figure(correct, groups)


def _moments(a: Tensor, b: Tensor, rows: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Second moment of both modalities' rows together, and the sum of each; float64, from blocks."""
    dim = a.shape[1]
    gram = torch.zeros(dim, dim, dtype=torch.float64)
    sums = torch.zeros(2, dim, dtype=torch.float64)
    for part in blocks(len(rows), ROWS_AT_ONCE):
        for side, matrix in enumerate((a, b)):
            block = matrix[rows[part]]
            gram += (block.T @ block).double()
            sums[side] += block.double().sum(dim=0)
    return gram, sums[0], sums[1]


def group_folds(groups: GroupSums, seed: int, num_folds: int = NUM_FOLDS) -> Tensor:
    """The fold of each group, [group]: groups in random order are assigned to the folds in turn."""
    if groups.num_groups < 2:
        raise ValueError(f"a probe needs at least 2 groups to hold some out, got {groups.num_groups}")
    order = torch.from_numpy(np.random.default_rng(seed).permutation(groups.num_groups))
    folds = torch.empty(groups.num_groups, dtype=torch.int64)
    folds[order] = torch.arange(groups.num_groups) % min(num_folds, groups.num_groups)
    return folds


def _auc(score: Tensor, positive: Tensor, member: Tensor) -> Callable[[Tensor], Tensor]:
    """Weighted AUC under draws: the chance that a positive scores above a negative, ties half."""
    level = torch.unique(score, return_inverse=True)[1]
    num_levels = int(level.max()) + 1

    def replicates(draws: Tensor) -> Tensor:
        weight = draws[:, member]
        zeros = torch.zeros(len(draws), num_levels, dtype=torch.float64)
        good = zeros.index_add(1, level[positive == 1], weight[:, positive == 1])
        bad = zeros.index_add(1, level[positive == 0], weight[:, positive == 0])
        below = bad.cumsum(dim=1) - bad / 2
        return (good * below).sum(dim=1) / (good.sum(dim=1) * bad.sum(dim=1))

    return replicates


def angle_deg(a: Tensor, b: Tensor) -> Tensor:
    """Angle of each pair of unit-norm rows in degrees, `2 atan2(||a - b||, ||a + b||)`; in [0, 180], 0 = coinciding.

    An arc cosine would lose precision near 0 and 180 degrees.

    >>> angle_deg(torch.tensor([[1.0, 0.0]]), torch.tensor([[0.0, 1.0]]))
    tensor([90.], dtype=torch.float64)
    """
    difference, total = (a - b).double().norm(dim=1), (a + b).double().norm(dim=1)
    return torch.rad2deg(2 * torch.atan2(difference, total))
