"""The sigmoid loss of SigLIP: each pair of rows is judged on its own, as a match or as none.

It needs no softmax over the batch, takes any number of positives a row, and starts from few false alarms by its bias.
It ranks pairs and does not close the gap by itself: where every match scores above every mismatch the loss can reach
zero with the modalities still apart (arXiv 2509.18552).
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn.functional import logsigmoid

from gapless.core.geometry import at_one_precision, is_transformed
from gapless.core.shapes import Embeddings, Positives, Scalar
from gapless.losses.base import METHODS, Method, ParameterRule
from gapless.losses.engine.gathered import Ranks, refuse_transforms
from gapless.losses.engine.sigmoid_tiles import sigmoid_share
from gapless.losses.gap_closing import is_small
from gapless.losses.learned_temperature import MAX_LOGIT_SCALE
from gapless.losses.pairs import ANCHOR, Pairs, checked_pairs, checked_weights
from gapless.losses.pairwise import PairwiseLoss


@dataclass(frozen=True)
class SigmoidSettings:
    """The settings of the sigmoid loss; the defaults are the paper's.

    Args:
        temperature: start value; the factor on the cosines is learned and at most 100, without weight decay.
        bias: start value of what is added to the scaled cosines, learned without weight decay; negative, because most
            pairs are no match.
        mask_duplicates: pairs whose captions are the same are matches of each other.
        pairs: the pairs of modalities that are compared: anchor (each with the anchor), all (each with each), or a list
            of two names each.
        modality_weights: weight of a modality ("ecg") or of a pair ("ecg+text"), 1 by default; only ratios matter.
    """

    temperature: float = 0.1
    bias: float = -10.0
    mask_duplicates: bool = False
    pairs: Pairs = ANCHOR
    modality_weights: Mapping[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        object.__setattr__(self, "pairs", checked_pairs(self.pairs))
        checked_weights(self.modality_weights)


def sigmoid_loss(
    a: Embeddings,
    b: Embeddings,
    logit_scale: Scalar | float,
    logit_bias: Scalar | float,
    positives: Positives | None = None,
) -> Scalar:
    """`1/N sum_ij log(1 + exp(-y_ij (s a_i.b_j + bias)))`, y_ij = 1 for a match and -1 for none.

    Args:
        a: [pair, dim], unit-norm.
        b: [pair, dim], unit-norm; row i belongs to row i of `a`.
        logit_scale: 1 / temperature.
        logit_bias: added to the scaled cosines.
        positives: [pair] integers; rows that share one are matches of each other. None: row i matches row i alone.

    Returns:
        At least 0, lower is better. All N x N pairs are held at once; `engine.sigmoid_tiles` has the same in tiles.

    Reference: Zhai et al., arXiv 2303.15343, equation 1.

    >>> import torch
    >>> round(float(sigmoid_loss(torch.eye(8)[:1].expand(8, 8), torch.eye(8)[1:2].expand(8, 8), 10.0, -10.0)), 4)
    10.0004
    """
    a, b = at_one_precision(a, b)
    logits = logit_scale * (a @ b.T) + logit_bias
    numbers = torch.arange(len(a), device=a.device) if positives is None else positives
    is_match = numbers[:, None] == numbers[None, :]
    return -logsigmoid(torch.where(is_match, logits, -logits)).sum() / len(a)


class SigmoidLoss(PairwiseLoss):
    """`sigmoid_loss` of each pair of modalities, its scale and bias learned.

    Args:
        settings: see there.
        anchor, gather: as in `PairwiseLoss`.

    Attributes:
        logit_scale: log(1 / temperature), fp32.
        logit_bias: fp32.
    """

    parameter_rules: ClassVar[Mapping[str, ParameterRule]] = {
        "logit_scale": ParameterRule(),
        "logit_bias": ParameterRule(),
    }

    def __init__(self, settings: SigmoidSettings, anchor: str, gather: bool = True) -> None:
        super().__init__(anchor, settings.pairs, settings.modality_weights, gather)
        if not 1 / MAX_LOGIT_SCALE <= settings.temperature < math.inf:
            raise ValueError(f"the temperature must be at least 0.01, got {settings.temperature}")
        if not math.isfinite(settings.bias):
            raise ValueError(f"the bias must be finite, got {settings.bias}")
        self.logit_scale = nn.Parameter(torch.tensor(-math.log(settings.temperature), dtype=torch.float32))
        self.logit_bias = nn.Parameter(torch.tensor(settings.bias, dtype=torch.float32))

    def of_pair(
        self, rows: Tensor, columns: Tensor, positives: Tensor | None, own: slice, ranks: Ranks | None
    ) -> Tensor:
        scale, bias = self.logit_scale.exp(), self.logit_bias
        if ranks is not None:
            refuse_transforms(rows, columns)
            add_up, factor = ranks.add_up, ranks.num_ranks
            return sigmoid_share(rows, columns, scale, bias, positives, own, add_up=add_up, gradient_factor=factor)
        if is_small(rows) or is_transformed(rows, columns, scale, bias):
            return sigmoid_loss(rows, columns, scale, bias, positives)
        formula = partial(sigmoid_loss, positives=positives)
        return sigmoid_share(rows, columns, scale, bias, positives, own, formula=formula)

    @torch.no_grad()
    def after_step(self) -> None:
        """Keep the temperature at or above 0.01."""
        self.logit_scale.clamp_(max=math.log(MAX_LOGIT_SCALE))


METHODS.add(
    "siglip",
    Method(
        "siglip",
        "the sigmoid loss of SigLIP: every pair judged on its own, scale and bias learned",
        SigmoidSettings(),
        SigmoidLoss,
        "Zhai et al., arXiv 2303.15343, equation 1",
    ),
)
