"""The log-mean Gaussian kernel of two sets of rows: the plain formula, and the same by tiles in linear memory.

`log mean exp(-scale ||a_i - b_j||^2)` over all pairs, or over those that are no positives of each other. The exponent
is a product of rows with two more columns, `[2 scale a, -scale |a|^2, 1] . [b, 1, -scale |b|^2]`, so that the loops of
InfoNCE over tiles compute it, with the largest exponent taken out: a narrow kernel never gives log 0.
"""

import math
from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor

from gapless.core.geometry import (
    at_least_fp32,
    at_one_precision,
    blocks,
    is_transformed,
    num_pairs_apart,
    squared_distances,
)
from gapless.core.shapes import Embeddings, Positives, Scalar
from gapless.losses.engine.gathered import Ranks
from gapless.losses.engine.tile_loops import log_normalisers, num_tiles, softmax_products
from gapless.losses.engine.tiled import (
    KEPT_ELEMENTS,
    POSITIVES_TILE,
    Formula,
    default_tile,
    identity,
    needs_gradient,
    put_back,
    with_gradient,
)

BLOCK = 1024  # rows at a time in the plain formula


def log_mean_cross_kernel(a: Embeddings, b: Embeddings, scale: float, positives: Positives | None = None) -> Scalar:
    """`log mean_ij exp(-scale ||a_i - b_j||^2)`; at most 0, and 0 where all rows of both coincide.

    Args:
        a: [pair, dim].
        b: [pair, dim].
        scale: above 0.
        positives: [pair] integers; i and j that share one are left out, i = j among them. None: every pair counts.

    >>> two = torch.tensor([[1.0, 0.0], [-1.0, 0.0]])
    >>> log_mean_cross_kernel(two, two, 2.0, positives=torch.arange(2))
    tensor(-8.)
    """
    a, b = at_one_precision(a, b)
    num_pairs = _num_pairs(len(b), positives, b)
    per_row = []
    for rows in blocks(len(a), BLOCK):
        exponents = -scale * squared_distances(a[rows], b)
        if positives is not None:
            exponents = exponents.masked_fill(positives[rows, None] == positives[None, :], -math.inf)
        per_row.append(torch.logsumexp(exponents, dim=1))
    return torch.logsumexp(torch.cat(per_row), dim=0) - num_pairs.to(a).log()


def tiled_log_mean_cross_kernel(
    a: Embeddings, b: Embeddings, scale: float, positives: Positives | None = None, tile_size: int | None = None
) -> Scalar:
    """`log_mean_cross_kernel`; see there. Value and gradient take linear memory."""
    if is_transformed(a, b):
        return log_mean_cross_kernel(a, b, scale, positives)
    formula = partial(log_mean_cross_kernel, scale=scale, positives=positives)
    return cross_kernel_share(a, b, scale, positives, positives, tile_size, formula=formula)


def gathered_log_mean_cross_kernel(
    rows: Tensor, columns: Tensor, scale: float, positives: Tensor | None, own: slice, ranks: Ranks
) -> Tensor:
    """`log_mean_cross_kernel` over the batch of all ranks, of which each computes its own rows.

    Args:
        rows: [n of this rank, dim] of the first set; may have no row.
        columns: [n, dim], the second set on all ranks.
        positives: [n] integers of all ranks, or None.
        own: where this rank's rows are among the columns.
    """
    return cross_kernel_share(
        rows,
        columns,
        scale,
        None if positives is None else positives[own],
        positives,
        merge_logsumexp=ranks.merge_logsumexp,
        gradient_factor=ranks.num_ranks,
    )


def cross_kernel_share(
    rows: Tensor,
    columns: Tensor,
    scale: float,
    row_positives: Tensor | None,
    column_positives: Tensor | None,
    tile_size: int | None = None,
    merge_logsumexp: Callable[[Tensor], Tensor] = identity,
    gradient_factor: float = 1.0,
    formula: Formula | None = None,
) -> Tensor:
    """The log-mean kernel of a batch whose `rows` are shared out over ranks; arguments as in `tiled.info_nce_share`."""
    rows, columns = at_one_precision(at_least_fp32(rows), columns)
    needed = needs_gradient(rows, columns)
    tile = tile_size or default_tile(rows)
    with torch.no_grad(), torch.autocast(rows.device.type, enabled=False):
        queries, keys = _augmented(rows, columns, scale)
        whole = _kernel(queries, keys, None, None, tile, needed, merge_logsumexp)
        total, for_queries, for_keys = whole
        if row_positives is not None and column_positives is not None:
            tile = min(tile, POSITIVES_TILE)
            same = _kernel(queries, keys, row_positives, column_positives, tile, needed, merge_logsumexp)
            total = whole.total + torch.log1p(-(same.total - whole.total).exp())
            if needed:
                shares = (whole.total - total).exp(), (same.total - total).exp()
                for_queries = whole.for_queries * shares[0] - same.for_queries * shares[1]
                for_keys = whole.for_keys * shares[0] - same.for_keys * shares[1]
        value = total - _num_pairs(len(columns), column_positives, columns).to(total).log()
        if not needed:
            return value
        dim, factor = rows.shape[1], 2 * scale * gradient_factor
        for_rows = (for_queries[:, :dim] - rows * for_queries[:, dim, None]) * factor
        # the first columns of the queries hold 2 scale a already
        for_columns = for_keys[:, :dim] * gradient_factor - columns * for_keys[:, dim + 1, None] * factor
    return with_gradient(value, (rows, columns), (for_rows, for_columns), formula)


def _augmented(a: Tensor, b: Tensor, scale: float) -> tuple[Tensor, Tensor]:
    """Rows whose products are the exponents."""
    norms = [-scale * x.square().sum(dim=1, keepdim=True) for x in (a, b)]
    queries = torch.cat([2 * scale * a, norms[0], torch.ones_like(norms[0])], dim=1)
    return queries, torch.cat([b, torch.ones_like(norms[1]), norms[1]], dim=1)


class _Kernel(NamedTuple):
    """The log-sum of the kernel, and its gradient by the queries and the keys (or nothing)."""

    total: Tensor
    for_queries: Tensor
    for_keys: Tensor


def _kernel(
    queries: Tensor,
    keys: Tensor,
    query_positives: Tensor | None,
    key_positives: Tensor | None,
    tile: int,
    needed: bool,
    merge_logsumexp: Callable[[Tensor], Tensor],
) -> _Kernel:
    """The kernel over all pairs, or over those of positives alone."""
    orders = None
    if query_positives is not None and key_positives is not None:  # sorted, few tiles hold positives
        orders = query_positives.argsort(stable=True), key_positives.argsort(stable=True)
        query_positives, key_positives = query_positives[orders[0]], key_positives[orders[1]]
        queries, keys = queries[orders[0]], keys[orders[1]]
    may_keep = needed and orders is None
    num_kept = min(KEPT_ELEMENTS // tile**2, num_tiles(len(queries), len(keys), tile)) if may_keep else 0
    per_query, _, kept = log_normalisers(queries, keys, query_positives, key_positives, tile, num_kept)
    total = merge_logsumexp(torch.logsumexp(per_query, dim=0))
    if not needed:
        return _Kernel(total, kept, kept)
    everywhere = total.repeat(len(queries)), total.repeat(len(keys))
    gradients = softmax_products(queries, keys, *everywhere, query_positives, key_positives, tile, kept)
    if orders is not None:
        gradients = (put_back(gradients[0], orders[0]), put_back(gradients[1], orders[1]))
    return _Kernel(total, gradients[0] / 2, gradients[1] / 2)  # the loop adds the softmaxes by row and by column


def _num_pairs(num_columns: int, positives: Tensor | None, like: Tensor) -> Tensor:
    """How many pairs the mean is over."""
    if positives is not None:
        return num_pairs_apart(positives)
    return torch.full((), num_columns, device=like.device, dtype=torch.float64).square()
