"""Measures a fixed sample of held-out pairs often and cheaply while a model trains: readiness, recall, gap."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset, Subset

from gapless.core.geometry import at_least_fp32
from gapless.embeddings.dataset import VectorPairs
from gapless.losses.closing_control import HeldOutFigures
from gapless.metrics.spectrum import effective_rank, spectrum

NEWTON_STEPS = 25
MAX_SCALE, START_SCALE = 200.0, 14.0
MIN_ROWS = 32
MAX_KEPT_BYTES = 64 * 2**20


def calibrated_losses(a: Tensor, b: Tensor) -> tuple[Tensor, float]:
    """Symmetric InfoNCE of each pair at the factor on the cosines that makes its mean least.

    The mean is convex in the factor, so that a few Newton steps find it; 0 is the worst that can come out, where the
    loss is log(pair). A model that is too sure of itself on its training pairs is not taken for one that knows nothing.

    Args:
        a, b: [pair, dim] unit-norm, row i of each is pair i.

    Returns:
        [2 * pair] losses of the queries of `a`, then of `b`; the factor, in [0, 200].
    """
    cosines = at_least_fp32(a) @ at_least_fp32(b).T
    true = cosines.diagonal()
    scale = START_SCALE
    for _ in range(NEWTON_STEPS):
        slope = curvature = 0.0
        for one in (cosines, cosines.T):
            chance = torch.softmax(scale * one, dim=1)
            mean = (chance * one).sum(dim=1)
            slope += float((mean - true).mean())
            curvature += float(((chance * one.square()).sum(dim=1) - mean.square()).mean())
        step = slope / max(curvature, 1e-12)
        step = min(max(step, -scale - 1.0), 0.9 * scale)  # at most doubled, at least a tenth
        scale = min(scale - step, MAX_SCALE)
        if abs(step) < 1e-3 * scale:
            break
    losses = [torch.logsumexp(scale * one, dim=1) - scale * true for one in (cosines, cosines.T)]
    return torch.cat(losses), scale


def reciprocal_ranks(a: Tensor, b: Tensor) -> Tensor:
    """[2 * pair] reciprocal ranks of the own pair among all, ties at the middle of their ranks."""
    cosines = at_least_fp32(a) @ at_least_fp32(b).T
    true = cosines.diagonal()
    ranks = []
    for one in (cosines, cosines.T):
        above = (one > true[:, None]).sum(dim=1)
        level = (one == true[:, None]).sum(dim=1) - 1
        ranks.append(1 + above + level / 2)
    return 1 / torch.cat(ranks)


def unbiased_gap(a: Tensor, b: Tensor) -> float:
    """The distance of the two modality means without its sampling bias, at least 0."""
    difference = at_least_fp32(a) - at_least_fp32(b)
    mean = difference.mean(dim=0)
    bias = (difference - mean).square().sum() / (len(a) * (len(a) - 1))
    return math.sqrt(max(0.0, float(mean.square().sum() - bias)))


def figures_of_pairs(rows: Mapping[str, Tensor], pairs: Sequence[tuple[str, str]]) -> HeldOutFigures | None:
    """The figures of held-out rows, all pairs of modalities together; the gap is the mean over them, the effective
    rank the least of them.

    Args:
        rows: modality -> [pair, dim] unit-norm rows, NaN where a row lacks it; each pair stands on the rows with both.
        pairs: those that the loss compares.

    Returns:
        None where no pair has `MIN_ROWS` rows with both modalities.
    """
    losses, ranks, gaps, dimensions = [], [], [], []
    for one, other in pairs:
        has_both = rows[one][:, 0].isfinite() & rows[other][:, 0].isfinite()
        a, b = rows[one][has_both], rows[other][has_both]
        if len(a) < MIN_ROWS:
            continue
        losses.append(calibrated_losses(a, b)[0] / math.log(len(a)))
        ranks.append(reciprocal_ranks(a, b))
        gaps.append(unbiased_gap(a, b))
        dimensions += [_rank_or_0(a), _rank_or_0(b)]
    if not losses:
        return None
    gap = sum(gaps) / len(gaps)
    return HeldOutFigures(torch.cat(losses).tolist(), torch.cat(ranks).tolist(), gap, min(dimensions))


def _rank_or_0(rows: Tensor) -> float:
    """The effective rank of [pair, dim] rows; 0 where they do not vary, which is less than any rank."""
    rank = effective_rank(spectrum(rows))
    return 0.0 if math.isnan(rank) else rank


class KeptSamples(Dataset[Any]):
    """A dataset whose samples are prepared once and then kept, as long as they fit in `MAX_KEPT_BYTES`."""

    def __init__(self, dataset: Dataset[Any]) -> None:
        self.dataset = dataset
        self.samples: dict[int, Any] = {}
        self.num_bytes = 0

    def __len__(self) -> int:
        return len(self.dataset)  # type: ignore[arg-type]

    def __getitem__(self, row: int) -> Any:
        if row in self.samples:
            return self.samples[row]
        sample = self.dataset[row]
        self.num_bytes += _num_bytes(sample)
        if self.num_bytes <= MAX_KEPT_BYTES:
            self.samples[row] = sample
        return sample


def _num_bytes(value: Any) -> int:
    if isinstance(value, Mapping):
        return sum(map(_num_bytes, value.values()))
    return int(getattr(value, "nbytes", 0))


def sample_of(dataset: Dataset[Any], num_rows: int) -> Dataset[Any]:
    """The same rows of a dataset each time, at most so many; samples that must be prepared are kept."""
    rows = np.random.default_rng(0).permutation(len(dataset))[:num_rows]  # type: ignore[arg-type]
    chosen = Subset(dataset, sorted(rows.tolist()))
    return chosen if isinstance(dataset, VectorPairs) else KeptSamples(chosen)
