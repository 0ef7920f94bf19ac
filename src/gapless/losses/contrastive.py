"""InfoNCE between two modalities, where rows that count as the same are positives. Plain torch: the reference."""

import math

import torch
from torch import Tensor

from gapless.core.geometry import at_one_precision
from gapless.core.shapes import Embeddings, Positives, Scalar


def info_nce(
    queries: Embeddings, keys: Embeddings, logit_scale: Scalar | float, positives: Positives | None = None
) -> Scalar:
    """Cross entropy of finding each query's own key among all keys.

    `mean_i [ logsumexp_j(s q_i.k_j) - logsumexp_{j in P(i)}(s q_i.k_j) ]`, s = `logit_scale`, P(i) the rows whose
    `positives` equal that of row i. Without positives this is the InfoNCE of CLIP. With them, k
    copies of one pair cost 0, where one-hot targets leave a floor of log k.

    Args:
        queries: [pair, dim], unit-norm.
        keys: [pair, dim], unit-norm; row i belongs to query i.
        logit_scale: 1 / temperature.
        positives: [pair] integers; rows that share one are positives of each other.

    Returns:
        At least 0, lower is better; log(pair) when nothing is told apart.

    Reference: van den Oord et al., arXiv 1807.03748; Radford et al., arXiv 2103.00020.
    """
    queries, keys = at_one_precision(queries, keys)
    return _cross_entropy(logit_scale * (queries @ keys.T), positives)


def symmetric_info_nce(
    a: Embeddings, b: Embeddings, logit_scale: Scalar | float, positives: Positives | None = None
) -> Scalar:
    """`1/2 (L^(a->b) + L^(b->a))`, the loss of CLIP; see `info_nce`."""
    a, b = at_one_precision(a, b)
    logits = logit_scale * (a @ b.T)
    return (_cross_entropy(logits, positives) + _cross_entropy(logits.T, positives)) / 2


def _cross_entropy(logits: Tensor, positives: Tensor | None) -> Tensor:
    if positives is None:
        of_positives = logits.diagonal()
    else:
        is_negative = positives[:, None] != positives[None, :]
        of_positives = torch.logsumexp(logits.masked_fill(is_negative, -math.inf), dim=1)
    return (torch.logsumexp(logits, dim=1) - of_positives).mean()
