"""The loss of "Closing the gap in multimodal medical representation alignment": three terms, one module.

loss = GapClosingLoss(anchor="text")
terms = loss({"image": z, "text": w})       # unit-norm [pair, dim]
terms.total.backward()
...                                         # optimizer.step()
loss.clamp_logit_scale()
"""

import math
import warnings
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from typing import NamedTuple

import torch
from torch import Tensor, nn

from gapless.core.geometry import (
    at_least_fp32,
    at_one_precision,
    log_mean_gaussian_kernel,
    pair_centroids,
    pairwise_squared_distance,
)
from gapless.core.shapes import Embeddings, Positives, Scalar
from gapless.losses.checks import check_batch, check_enough
from gapless.losses.contrastive import symmetric_info_nce
from gapless.losses.engine.gathered import Ranks, gathered_centroid_uniformity, gathered_symmetric_info_nce
from gapless.losses.engine.tiled import tiled_log_mean_gaussian_kernel, tiled_symmetric_info_nce
from gapless.losses.schedules import Schedule, weight_at

MAX_LOGIT_SCALE = 100.0
# Batches up to this size take the plain functions: as fast there (docs/performance.md), and fewer kernels to launch.
PLAIN_ON_CPU = 256
PLAIN_ON_ACCELERATOR = 4096


class GapLossTerms(NamedTuple):
    """The weighted total, and the terms without their weights."""

    total: Tensor
    contrastive: Tensor
    alignment: Tensor
    uniformity: Tensor


def align_true_pairs(a: Embeddings, b: Embeddings) -> Scalar:
    """L_ATP of two modalities: the mean squared distance of true pairs.

    `1/N sum_i ||a_i - b_i||^2`

    Args:
        a: [pair, dim], unit-norm.
        b: [pair, dim], unit-norm; row i is the partner of row i of `a`.

    Returns:
        In [0, 4]; 0 when every pair coincides.

    Reference: Grassucci et al., arXiv 2602.20046.
    """
    return pairwise_squared_distance(at_least_fp32(a), at_least_fp32(b)).mean()


def centroid_uniformity(
    embeddings: Sequence[Embeddings], positives: Positives | None = None, normalise_centroids: bool = True
) -> Scalar:
    """L_CU: how evenly the centroids of the pairs spread over the sphere.

    `log mean_{i != j} exp(-2 ||mu_i - mu_j||^2)`, mu_i the mean of pair i over the modalities.

    Args:
        embeddings: one [pair, dim] unit-norm matrix per modality.
        positives: [pair] integers; pairs of centroids that share one are left out.
        normalise_centroids: True is the authors' published code, False the paper's text. The text also writes
            `1/N sum_i sum_{j != i}` instead of the mean over pairs: that is this value plus log(N - 1), a constant
            with no gradient.

    Returns:
        In [-8, 0]; lower is more uniform, 0 when all centroids coincide.

    Reference: Grassucci et al., arXiv 2602.20046; Wang and Isola, arXiv 2005.10242.
    """
    return log_mean_gaussian_kernel(
        pair_centroids([at_least_fp32(rows) for rows in embeddings], normalise=normalise_centroids), positives
    )


class GapClosingLoss(nn.Module):
    """contrastive + alignment_weight * L_ATP + uniformity_weight * L_CU over any number of named modalities.

    Contrastive (`symmetric_info_nce`) and L_ATP (`align_true_pairs`) are means over the pairs (modality, anchor);
    L_CU (`centroid_uniformity`) is over all modalities together.

    Args:
        anchor: the modality that every other one is compared with.
        temperature: the initial, or fixed, temperature.
        learn_temperature: whether `logit_scale` is a parameter; call `clamp_logit_scale` after each optimizer step
            and give it no weight decay.
        alignment_weight: a number or a `Schedule`; 0 leaves the term out of the total and of the gradient.
        uniformity_weight: likewise.
        normalise_centroids: see `centroid_uniformity`.
        gather: with `torch.distributed` running, whether the batch is that of all ranks together (exact gradients, see
            `losses.engine.gathered`) or of each rank alone.

    Attributes:
        logit_scale: log(1 / temperature) in fp32, as in open_clip.
    """

    logit_scale: Tensor

    def __init__(
        self,
        anchor: str = "text",
        temperature: float = 0.07,
        learn_temperature: bool = True,
        alignment_weight: float | Schedule = 1.0,
        uniformity_weight: float | Schedule = 1.0,
        normalise_centroids: bool = True,
        gather: bool = True,
    ) -> None:
        super().__init__()
        lowest = 1 / MAX_LOGIT_SCALE if learn_temperature else 0.0
        if not (math.isfinite(temperature) and temperature > 0 and temperature >= lowest):
            raise ValueError(f"the temperature must be above 0 (at least 0.01 when it is learned), got {temperature}")
        self.anchor = anchor
        self.alignment_weight = alignment_weight
        self.uniformity_weight = uniformity_weight
        self.normalise_centroids = normalise_centroids
        self.gather = gather
        log_scale = torch.tensor(-math.log(temperature), dtype=torch.float32)
        if learn_temperature:
            self.logit_scale = nn.Parameter(log_scale)
        else:
            self.register_buffer("logit_scale", log_scale)
        self.set_progress(0.0)

    def set_progress(self, progress: float) -> None:
        """Set the share of the training that is done, from 0 to 1, which decides the scheduled weights."""
        self.progress = progress
        self._alignment_weight = weight_at(self.alignment_weight, progress)
        self._uniformity_weight = weight_at(self.uniformity_weight, progress)

    @torch.no_grad()
    def clamp_logit_scale(self) -> None:
        """Keep a learned temperature at or above 0.01; to be called after each optimizer step."""
        if isinstance(self.logit_scale, nn.Parameter):
            self.logit_scale.clamp_(max=math.log(MAX_LOGIT_SCALE))

    def after_step(self) -> None:
        """Clamp the temperature; the trainer calls this after each optimizer step."""
        self.clamp_logit_scale()

    def forward(
        self, embeddings: Mapping[str, Tensor], *, positives: Tensor | None = None, groups: Tensor | None = None
    ) -> GapLossTerms:
        """The terms of one batch.

        Args:
            embeddings: at least two modalities by name, each a unit-norm [pair, dim] matrix, rows aligned. Precisions
                may differ: the terms are in float64 where one modality is, otherwise in fp32.
            positives: [pair] integers; rows that share one (same caption, same image) are positives of each other and
                are not pushed apart. None: no row has another positive than its own.
            groups: the former name of `positives`; it still works, and warns.

        Raises:
            ValueError: one modality, no anchor, shapes or devices that differ, no floating-point tensors, positives
                that are not one integer a row, fewer than 2 rows; on the CPU also rows that are not finite or far from
                norm 1 (rows of zeros pass), and rows that are all positives of each other. (On an accelerator those
                three would wait for the device.)
        """
        if groups is not None:
            positives = _renamed(positives, groups)
        check_batch(embeddings, self.anchor, positives)
        positives = None if positives is None else positives.long()  # torch cannot sort every kind of integer
        ranks = Ranks.current() if self.gather else None
        check_enough(embeddings[self.anchor], positives, ranks)
        with torch.autocast(embeddings[self.anchor].device.type, enabled=False):
            embeddings = dict(zip(embeddings, at_one_precision(*embeddings.values()), strict=True))
            contrastive = self._contrastive(embeddings, positives, ranks)
            with nullcontext() if self._alignment_weight != 0 else torch.no_grad():
                alignment = self._alignment(embeddings, ranks)
            with nullcontext() if self._uniformity_weight != 0 else torch.no_grad():
                uniformity = self._uniformity(embeddings, positives, ranks)
            # A term of weight 0 is reported without a gradient, at the cost of its forward pass.
            total = contrastive
            if self._alignment_weight != 0:
                total = total + self._alignment_weight * alignment
            if self._uniformity_weight != 0:
                total = total + self._uniformity_weight * uniformity
        return GapLossTerms(total, contrastive, alignment, uniformity)

    def _others(self, embeddings: Mapping[str, Tensor]) -> list[Tensor]:
        return [rows for name, rows in embeddings.items() if name != self.anchor]

    def _contrastive(self, embeddings: Mapping[str, Tensor], positives: Tensor | None, ranks: Ranks | None) -> Tensor:
        anchor, others, scale = embeddings[self.anchor], self._others(embeddings), self.logit_scale.exp()
        if ranks is not None:
            return mean_of(gathered_symmetric_info_nce(others, anchor, scale, positives, ranks))
        info_nce = symmetric_info_nce if _is_small(anchor) else tiled_symmetric_info_nce
        return mean_of([info_nce(rows, anchor, scale, positives) for rows in others])

    def _alignment(self, embeddings: Mapping[str, Tensor], ranks: Ranks | None) -> Tensor:
        alignment = mean_of([align_true_pairs(rows, embeddings[self.anchor]) for rows in self._others(embeddings)])
        return alignment if ranks is None else ranks.average(alignment)

    def _uniformity(self, embeddings: Mapping[str, Tensor], positives: Tensor | None, ranks: Ranks | None) -> Tensor:
        modalities = list(embeddings.values())
        if ranks is not None:
            return gathered_centroid_uniformity(modalities, positives, self.normalise_centroids, ranks)
        if _is_small(modalities[0]):
            return centroid_uniformity(modalities, positives, self.normalise_centroids)
        centroids = pair_centroids([at_least_fp32(rows) for rows in modalities], self.normalise_centroids)
        return tiled_log_mean_gaussian_kernel(centroids, positives)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> "GapClosingLoss":
        # Keeps `logit_scale` in fp32 in model.half() and model.bfloat16(): in bf16 it would change in steps of 0.8 %.
        log_scale = self.logit_scale.detach().clone()
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        if self.logit_scale.dtype in (torch.float16, torch.bfloat16):
            self.logit_scale.data = log_scale.to(self.logit_scale.device)
        return self

    def extra_repr(self) -> str:
        return (
            f"anchor={self.anchor!r}, alignment_weight={self.alignment_weight}, "
            f"uniformity_weight={self.uniformity_weight}, normalise_centroids={self.normalise_centroids}"
        )


def mean_of(terms: Sequence[Tensor]) -> Tensor:
    """The mean of scalar tensors."""
    return torch.stack(list(terms)).mean()


def _renamed(positives: Tensor | None, groups: Tensor) -> Tensor:
    if positives is not None:
        raise TypeError("the loss was given positives= and groups=, which is the former name of positives=")
    warnings.warn(
        "groups= of the loss is called positives= now: rows that count as the same. "
        "What must not be split (patients, articles) is no business of the loss; it goes to measure(groups=...)",
        FutureWarning,
        stacklevel=5,  # past the two calls of nn.Module
    )
    return groups


def _is_small(rows: Tensor) -> bool:
    return len(rows) <= (PLAIN_ON_CPU if rows.device.type == "cpu" else PLAIN_ON_ACCELERATOR)
