"""InfoNCE between two modalities, with every row of one group counted as a positive. Plain torch: the reference."""

import math

import torch
from torch import Tensor

from gapless.geometry import at_least_fp32
from gapless.shapes import Embeddings, Groups, Scalar


def info_nce(
    queries: Embeddings, keys: Embeddings, logit_scale: Scalar | float, groups: Groups | None = None
) -> Scalar:
    """Cross entropy of finding each query's own key among all keys.

    `mean_i [ logsumexp_j(s q_i.k_j) - logsumexp_{j in group(i)}(s q_i.k_j) ]`, s = `logit_scale`. Without groups this
    is the InfoNCE of CLIP. With them, k copies of one pair cost 0, where one-hot targets leave a floor of log k.

    Args:
        queries: [pair, dim], unit-norm.
        keys: [pair, dim], unit-norm; row i belongs to query i.
        logit_scale: 1 / temperature.
        groups: [pair] integers; rows of one group are positives of each other.

    Returns:
        At least 0, lower is better; log(pair) when nothing is told apart.

    Reference: van den Oord et al., arXiv 1807.03748; Radford et al., arXiv 2103.00020.
    """
    return _cross_entropy(logit_scale * (at_least_fp32(queries) @ at_least_fp32(keys).T), groups)


def symmetric_info_nce(
    a: Embeddings, b: Embeddings, logit_scale: Scalar | float, groups: Groups | None = None
) -> Scalar:
    """`1/2 (L^(a->b) + L^(b->a))`, the loss of CLIP; see `info_nce`."""
    logits = logit_scale * (at_least_fp32(a) @ at_least_fp32(b).T)
    return (_cross_entropy(logits, groups) + _cross_entropy(logits.T, groups)) / 2


def _cross_entropy(logits: Tensor, groups: Tensor | None) -> Tensor:
    if groups is None:
        positives = logits.diagonal()
    else:
        other_group = groups[:, None] != groups[None, :]
        positives = torch.logsumexp(logits.masked_fill(other_group, -math.inf), dim=1)
    return (torch.logsumexp(logits, dim=1) - positives).mean()
