"""CLIP-Refine (Yamaguchi et al.): post-training that draws both modalities to random rows and keeps the old model.

It is for a model whose modalities are aligned already, such as a pretrained CLIP, or frozen embeddings of one: the
distillation keeps what the model knew before, and one that starts from fresh weights knew nothing.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from gapless.core.errors import UsageError
from gapless.core.geometry import at_least_fp32
from gapless.core.shapes import Embeddings, Scalar
from gapless.losses.anchored import ComparedBatch, ContrastiveLoss, ContrastiveSettings, total_of, weighted
from gapless.losses.base import METHODS, Method
from gapless.losses.batch import open_batch
from gapless.losses.engine.gathered import Ranks
from gapless.losses.engine.row_blocks import in_row_blocks
from gapless.losses.present import GivenPositives
from gapless.losses.step_draws import StepDraws


@dataclass(frozen=True)
class ClipRefineSettings(ContrastiveSettings):
    """The settings of CLIP-Refine, with the weights of the authors' configuration.

    Args:
        temperature: of the contrastive term.
        learn_temperature: train `logit_scale` (fp32, clamped to 100, no weight decay).
        mask_duplicates: pairs whose captions are the same are not negatives of each other.
        contrastive_weight: of CLIP's loss.
        random_weight: of the term that draws the rows of a pair to one random row.
        distillation_weight: of the term that keeps the similarities of the model that training started from.
        blending: the share of the true pair in the target of the distillation, the rest is the old model, in [0, 1].
        logit_factor: on the products of rows in the distillation. The rows are not normalised: those of CLIP have a
            norm of about 10, so that 1 is a factor of about 100 on the cosines.
    """

    temperature: float = 0.01
    learn_temperature: bool = False
    contrastive_weight: float = 0.0
    random_weight: float = 1.0
    distillation_weight: float = 1.0
    blending: float = 0.5
    logit_factor: float = 1.0

    def __post_init__(self) -> None:
        if not 0 <= self.blending <= 1:
            raise UsageError(f"blending must be in [0, 1], got {self.blending}")
        if not 0 < self.logit_factor < math.inf:
            raise UsageError(f"logit_factor must be above 0, got {self.logit_factor}")


class ClipRefineTerms(NamedTuple):
    """The weighted total, and the terms without their weights."""

    total: Tensor
    contrastive: Tensor
    random: Tensor
    distillation: Tensor


class ClipRefineLoss(ContrastiveLoss):
    """`random_weight R + distillation_weight H + contrastive_weight C` on rows that are not normalised.

    R is the sum over the modalities of `mean (x - r)^2`, the mean over rows and entries, with one r ~ N(0, I) a pair,
    drawn anew at each step from the seed and the step. H is the mean over the modalities beside the anchor of
    `refined_distillation`. C is CLIP's loss on the normalised rows.

    The gradient of R in expectation is that of `mean x^2`, the expectation over r of the rest is a constant: R is a
    penalty on the norm with noise that both rows of a pair share. Rows of norm 1 have R = (1 / dim + 1) a modality in
    expectation, whatever they are.

    It holds [block, pair] similarities of a block of rows at a time, of the model and of the old one. Every batch goes
    through the encoders of both, so that a step takes about a third more time, and the old weights stay in memory.

    Reference: Yamaguchi et al., arXiv 2504.12717, with the means and weights of the authors' code.
    """

    takes_reference = True

    def __init__(self, settings: ClipRefineSettings, anchor: str, gather: bool = True) -> None:
        super().__init__(settings, anchor, gather)
        self.draws = StepDraws("clip-refine")

    def begin_step(self, seed: int, step: int) -> None:
        """Set the seed of the run and the number of the step, from which the random rows are drawn."""
        self.draws.begin(seed, step)

    def forward(
        self,
        embeddings: Mapping[str, Tensor],
        *,
        positives: GivenPositives = None,
        raw: Mapping[str, Tensor] | None = None,
        reference: Mapping[str, Tensor] | None = None,
    ) -> ClipRefineTerms:
        """The terms of one batch; `embeddings` and `positives` as in `GapClosingLoss.forward`.

        Args:
            raw: modality -> [pair, dim], the embeddings before they were normalised.
            reference: the same of the model that training started from, without a gradient.

        Raises:
            UsageError: `raw` or `reference` is missing.
        """
        if raw is None or reference is None:
            raise UsageError(
                "clip-refine compares with the model that training starts from, and there is none; "
                "gapless train and close keep it (GaplessModel.keep_reference)"
            )
        opened = open_batch(embeddings, self.anchor, positives, None, self.gather)
        chosen, ranks = self.settings, opened.ranks
        with torch.autocast(next(iter(raw.values())).device.type, enabled=False):
            contrastive = weighted(
                chosen.contrastive_weight, ComparedBatch(opened, self.anchor, self.logit_scale).contrastive
            )
            random = weighted(chosen.random_weight, lambda: self._random(raw, ranks))
            distillation = weighted(chosen.distillation_weight, lambda: self._distillation(raw, reference, ranks))
            total = total_of(
                random.new_zeros(()),
                (chosen.contrastive_weight, contrastive),
                (chosen.random_weight, random),
                (chosen.distillation_weight, distillation),
            )
        return ClipRefineTerms(total, contrastive, random, distillation)

    def _random(self, raw: Mapping[str, Tensor], ranks: Ranks | None) -> Tensor:
        rows = {name: at_least_fp32(x) for name, x in raw.items()}
        first = next(iter(rows.values()))
        num_rows, begin = (len(first), 0) if ranks is None else (len(first) * ranks.num_ranks, len(first) * ranks.rank)
        targets = self.draws.normal(num_rows, first.shape[1])[begin : begin + len(first)].to(first)
        added = torch.stack([(x - targets).square().sum() for x in rows.values()]).sum()
        return (added if ranks is None else ranks.total(added)) / (num_rows * first.shape[1])

    def _distillation(self, raw: Mapping[str, Tensor], reference: Mapping[str, Tensor], ranks: Ranks | None) -> Tensor:
        new, old = (
            {name: at_least_fp32(x) for name, x in rows.items()}
            for rows in (raw, {name: x.detach() for name, x in reference.items()})
        )
        terms = [
            refined_distillation(
                (new[name], new[self.anchor]),
                (old[name], old[self.anchor]),
                self.settings.blending,
                self.settings.logit_factor,
                ranks,
            )
            for name in new
            if name != self.anchor
        ]
        return torch.stack(terms).mean()


def refined_distillation(
    rows: tuple[Embeddings, Embeddings],
    old: tuple[Embeddings, Embeddings],
    blending: float,
    logit_factor: float = 1.0,
    ranks: Ranks | None = None,
) -> Scalar:
    """`1/2n sum_i KL(q_i || p_i)` over the rows of both modalities, p_i the softmax of the products with the others.

    The target is `q_i = blending e_i + (1 - blending) softmax_j(f old_i . old_j)`.

    Args:
        rows: two [pair, dim] matrices, not normalised; row i of each is pair i.
        old: the same of the model that training started from.
        blending: the share of the true pair.
        logit_factor: f, on all products.
        ranks: who shares the batch; None for one process.

    Returns:
        At least 0; 0 where the model gives the target itself.
    """
    num_own = len(rows[0])
    first = 0 if ranks is None else ranks.rank * num_own
    everyone = [x if ranks is None else ranks.gather(x) for x in rows]
    old_everyone = [x if ranks is None else ranks.gather(x) for x in old]

    def divergence(part: slice, which: int) -> Tensor:
        log_shares = torch.log_softmax(logit_factor * rows[which][part] @ everyone[1 - which].T, dim=1)
        with torch.no_grad():
            target = (1 - blending) * torch.softmax(logit_factor * old[which][part] @ old_everyone[1 - which].T, dim=1)
            own = torch.arange(first + part.start, first + part.stop, device=target.device)
            target[torch.arange(len(own), device=target.device), own] += blending
        return torch.nn.functional.kl_div(log_shares, target, reduction="sum")

    def block(part: slice) -> Tensor:
        return divergence(part, 0) + divergence(part, 1)

    added = torch.stack(in_row_blocks(block, num_own, len(everyone[0]))).sum()
    return (added if ranks is None else ranks.total(added)) / (2 * len(everyone[0]))


METHODS.add(
    "clip-refine",
    Method(
        "clip-refine",
        "post-training of a pretrained model: rows drawn to shared random ones, old similarities kept",
        ClipRefineSettings(),
        ClipRefineLoss,
        "Yamaguchi et al., arXiv 2504.12717",
        frozen_settings=ClipRefineSettings(logit_factor=100.0),
    ),
)
