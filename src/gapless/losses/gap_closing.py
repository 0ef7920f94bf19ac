"""The loss of "Closing the gap in multimodal medical representation alignment": three terms, one module.

loss = GapClosingLoss(anchor="text")
terms = loss({"image": z, "text": w})       # unit-norm [pair, dim]
terms.total.backward()
...                                         # optimizer.step()
loss.clamp_logit_scale()
"""

import math
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from typing import NamedTuple

import torch
from torch import Tensor, nn

from gapless.geometry import at_least_fp32, log_mean_gaussian_kernel, pair_centroids, pairwise_squared_distance
from gapless.losses.contrastive import symmetric_info_nce
from gapless.losses.schedules import Schedule, weight_at
from gapless.shapes import Embeddings, Groups, Scalar

MAX_LOGIT_SCALE = 100.0


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
    embeddings: Sequence[Embeddings], groups: Groups | None = None, normalise_centroids: bool = True
) -> Scalar:
    """L_CU: how evenly the centroids of the pairs spread over the sphere.

    `log mean_{i != j} exp(-2 ||mu_i - mu_j||^2)`, mu_i the mean of pair i over the modalities.

    Args:
        embeddings: one [pair, dim] unit-norm matrix per modality.
        groups: [pair] integers; pairs of centroids of one group are left out.
        normalise_centroids: True is the authors' published code, False the paper's text. The text also writes
            `1/N sum_i sum_{j != i}` instead of the mean over pairs: that is this value plus log(N - 1), a constant
            with no gradient.

    Returns:
        In [-8, 0]; lower is more uniform, 0 when all centroids coincide.

    Reference: Grassucci et al., arXiv 2602.20046; Wang and Isola, arXiv 2005.10242.
    """
    return log_mean_gaussian_kernel(
        pair_centroids([at_least_fp32(rows) for rows in embeddings], normalise=normalise_centroids), groups
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
    ) -> None:
        super().__init__()
        lowest = 1 / MAX_LOGIT_SCALE if learn_temperature else 0.0
        if not (math.isfinite(temperature) and temperature > 0 and temperature >= lowest):
            raise ValueError(f"the temperature must be above 0 (at least 0.01 when it is learned), got {temperature}")
        self.anchor = anchor
        self.alignment_weight = alignment_weight
        self.uniformity_weight = uniformity_weight
        self.normalise_centroids = normalise_centroids
        log_scale = torch.tensor(-math.log(temperature), dtype=torch.float32)
        if learn_temperature:
            self.logit_scale = nn.Parameter(log_scale)
        else:
            self.register_buffer("logit_scale", log_scale)
        self.set_progress(0.0)

    def set_progress(self, progress: float) -> None:
        """Say how much of the training is done, from 0 to 1; it moves the scheduled weights."""
        self.progress = progress
        self._alignment_weight = weight_at(self.alignment_weight, progress)
        self._uniformity_weight = weight_at(self.uniformity_weight, progress)

    @torch.no_grad()
    def clamp_logit_scale(self) -> None:
        """Keep a learned temperature at or above 0.01; to be called after each optimizer step."""
        if isinstance(self.logit_scale, nn.Parameter):
            self.logit_scale.clamp_(max=math.log(MAX_LOGIT_SCALE))

    def forward(self, embeddings: Mapping[str, Tensor], groups: Tensor | None = None) -> GapLossTerms:
        """The terms of one batch.

        Args:
            embeddings: at least two modalities by name, each a unit-norm [pair, dim] matrix, rows aligned.
            groups: [pair] integers; rows that share one (same caption, same image) are positives of each other and
                are not pushed apart. None: every row is its own group.

        Raises:
            ValueError: one modality, no anchor, shapes that differ, fewer than 2 rows or groups; on the CPU also
                rows that are not finite. (On an accelerator that check would wait for the device: the total is NaN.)
        """
        check_batch(embeddings, self.anchor, groups)
        with torch.autocast(next(iter(embeddings.values())).device.type, enabled=False):
            anchor = embeddings[self.anchor]
            others = [rows for name, rows in embeddings.items() if name != self.anchor]
            scale = self.logit_scale.exp()
            contrastive = mean_of([symmetric_info_nce(rows, anchor, scale, groups) for rows in others])
            alignment = only_with_gradient_if(
                self._alignment_weight != 0, lambda: mean_of([align_true_pairs(rows, anchor) for rows in others])
            )
            uniformity = only_with_gradient_if(
                self._uniformity_weight != 0,
                lambda: centroid_uniformity(list(embeddings.values()), groups, self.normalise_centroids),
            )
            total = contrastive
            if self._alignment_weight != 0:
                total = total + self._alignment_weight * alignment
            if self._uniformity_weight != 0:
                total = total + self._uniformity_weight * uniformity
        return GapLossTerms(total, contrastive, alignment, uniformity)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> "GapClosingLoss":
        # model.half() and model.bfloat16() come through here; a temperature in half precision moves in steps of 0.8 %.
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
    return torch.stack(list(terms)).mean()


def only_with_gradient_if(needed: bool, term: Callable[[], Tensor]) -> Tensor:
    """A term of weight 0 is still reported, at the price of its forward pass alone."""
    with nullcontext() if needed else torch.no_grad():
        return term()


def check_batch(embeddings: Mapping[str, Tensor], anchor: str, groups: Tensor | None) -> None:
    """Refuse what the loss cannot use, with a sentence that shows what arrived."""
    shapes = {name: tuple(rows.shape) for name, rows in embeddings.items()}
    if len(shapes) < 2:
        raise ValueError(f"expected at least two modalities, got {sorted(shapes)}")
    if anchor not in shapes:
        raise ValueError(f"the anchor {anchor!r} is not among the modalities {sorted(shapes)}")
    if len(set(shapes.values())) > 1 or len(shapes[anchor]) != 2:
        raise ValueError(f"expected [pair, dim] matrices of one shape, got {shapes}")
    num_rows = shapes[anchor][0]
    if num_rows < 2:
        raise ValueError(f"the loss compares pairs with each other and needs at least 2, got {num_rows}")
    if groups is not None and (tuple(groups.shape) != (num_rows,) or groups.is_floating_point()):
        raise ValueError(f"expected {num_rows} integer groups, got {groups.dtype} {tuple(groups.shape)}")
    if torch.compiler.is_compiling() or embeddings[anchor].device.type != "cpu":
        return  # the checks below read values, which would make the host wait for the device
    for name, rows in embeddings.items():
        finite = rows.detach().sum(dim=1).isfinite()
        if not finite.all():
            bad = (~finite).nonzero().flatten().tolist()
            raise ValueError(f"{len(bad)} row(s) of {name!r} are not finite, the first is row {bad[0]} of the batch")
    if groups is not None and bool((groups == groups[0]).all()):
        raise ValueError(f"all {num_rows} rows belong to one group ({int(groups[0])}): nothing to tell apart")
