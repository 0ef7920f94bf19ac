"""The sigmoid loss of SigLIP: every pair of rows is judged on its own, as a match or as none."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import logsigmoid

from gapless.losses.base import Method


@dataclass(frozen=True)
class SigmoidSettings:
    """The settings of the sigmoid loss.

    Args:
        sharpness: start value of the factor on the cosines.
        bias: start value of what is added to them; negative, as most pairs are no match.
    """

    sharpness: float = 10.0
    bias: float = -5.0


class SigmoidTerms(NamedTuple):
    total: Tensor
    match: Tensor
    mismatch: Tensor


class SigmoidLoss(nn.Module):
    """`-log sigmoid(y (s cos + b))`, y 1 for a match and -1 otherwise (Zhai et al., arXiv 2303.15343)."""

    def __init__(self, settings: SigmoidSettings, anchor: str) -> None:
        super().__init__()
        self.anchor = anchor
        self.logit_scale = nn.Parameter(torch.tensor(math.log(settings.sharpness)))
        self.logit_bias = nn.Parameter(torch.tensor(settings.bias))

    def forward(self, embeddings: Mapping[str, Tensor], *, positives: Tensor | None = None) -> SigmoidTerms:
        anchor = embeddings[self.anchor]
        others = [rows for name, rows in embeddings.items() if name != self.anchor]
        items = torch.arange(len(anchor), device=anchor.device) if positives is None else positives
        is_match = items[:, None] == items[None, :]
        logits = torch.stack([self.logit_scale.exp() * rows @ anchor.T + self.logit_bias for rows in others])
        match = -logsigmoid(logits).masked_fill(~is_match, 0).sum(-1).mean()
        mismatch = -logsigmoid(-logits).masked_fill(is_match, 0).sum(-1).mean()
        return SigmoidTerms(match + mismatch, match, mismatch)


METHOD = Method(
    name="outside-sigmoid",
    summary="the sigmoid loss of SigLIP",
    settings=SigmoidSettings(),
    build=SigmoidLoss,
    source="Zhai et al., arXiv 2303.15343",
)
