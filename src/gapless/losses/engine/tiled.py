"""The contrastive and the uniformity term in O(pair * dim + tile^2) memory, with their gradients.

Both terms are scalars, so the gradient is computed while the value is, tile by tile, and kept ([pair, dim]) until
`backward` multiplies it. Matrix products of size pair x pair x dim: 4 for the contrastive term (similarities, the
same again once the normalisers are known, two for the gradients; 3 as long as `KEPT_ELEMENTS` similarities are all of
them), 1.5 for uniformity (each symmetric tile once). A value without a gradient costs 1 and 0.5.

The loops over tiles are in `tile_loops`.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from gapless.core.geometry import (
    UNIFORMITY_SCALE,
    at_least_fp32,
    at_one_precision,
    is_transformed,
    log_mean_gaussian_kernel,
    num_pairs_apart,
    pairwise_cosine,
)
from gapless.core.shapes import Embeddings, Positives, Scalar
from gapless.losses.contrastive import symmetric_info_nce
from gapless.losses.engine.tile_loops import gaussian_kernel_sums, log_normalisers, num_tiles, softmax_products

Formula = Callable[..., Tensor]

CPU_TILE = 1024  # 4 MiB of fp32: stays in cache, and has few waits of the cores for each other
ACCELERATOR_TILE = 4096
POSITIVES_TILE = 256  # positives lie near the diagonal once rows are sorted by them: small tiles waste less
KEPT_ELEMENTS = 2**24  # similarities kept for the second pass: 64 MiB of fp32, all of them up to 4,096 pairs


def tiled_symmetric_info_nce(
    a: Embeddings,
    b: Embeddings,
    logit_scale: Scalar | float,
    positives: Positives | None = None,
    tile_size: int | None = None,
) -> Scalar:
    """`contrastive.symmetric_info_nce`; see there. Value and gradient take linear memory.

    A gradient of the gradient (`create_graph=True`), forward-mode differentiation and `torch.func` take the plain
    formula, which is exact too and holds all similarities at once.
    """
    if is_transformed(a, b, *([logit_scale] if isinstance(logit_scale, Tensor) else [])):
        return symmetric_info_nce(a, b, logit_scale, positives)
    formula = partial(symmetric_info_nce, positives=positives)
    return info_nce_share(a, b, logit_scale, positives, positives, 0, tile_size, formula=formula)


def tiled_log_mean_gaussian_kernel(
    points: Embeddings, positives: Positives | None = None, tile_size: int | None = None
) -> Scalar:
    """`geometry.log_mean_gaussian_kernel` for points of norm at most 1; memory as in `tiled_symmetric_info_nce`."""
    if is_transformed(points):
        return log_mean_gaussian_kernel(points, positives)
    formula = partial(log_mean_gaussian_kernel, positives=positives)
    return gaussian_kernel_share(points, positives, 0, 1, tile_size, formula=formula)


def identity(x: Tensor) -> Tensor:
    """The same tensor: the reduction over the ranks when there is one rank."""
    return x


def info_nce_share(
    rows: Embeddings,
    columns: Tensor,
    logit_scale: Scalar | float,
    row_positives: Tensor | None,
    column_positives: Tensor | None,
    first: int,
    tile_size: int | None = None,
    merge_logsumexp: Callable[[Tensor], Tensor] = identity,
    add_up: Callable[[Tensor], Tensor] = identity,
    gradient_factor: float = 1.0,
    formula: Formula | None = None,
) -> Scalar:
    """Symmetric InfoNCE of a batch whose `rows` are shared out over ranks; alone, a rank holds all of them.

    Args:
        rows: [row, dim], this rank's embeddings of one modality.
        columns: [column, dim], all ranks' embeddings of the anchor; row i belongs to column `first + i`.
        logit_scale: 1 / temperature.
        row_positives: [row] integers or None.
        column_positives: [column] integers or None.
        first: the column of row 0.
        tile_size: rows and columns per tile.
        merge_logsumexp: log-sum-exp over the ranks of a vector over the columns.
        add_up: sum over the ranks.
        gradient_factor: multiplies the gradient of `rows` and `columns` (not that of `logit_scale`, which is whole
            on every rank).
        formula: the same loss by the plain function of `rows, columns, logit_scale`, see `with_gradient`.

    Returns:
        The loss of the whole batch. The gradient of `columns` is this rank's part of it.
    """
    rows, columns = at_one_precision(rows, columns)
    scale = at_least_fp32(logit_scale) if isinstance(logit_scale, Tensor) else rows.new_full((), logit_scale)
    inputs = (rows, columns, scale)
    needed = needs_gradient(*inputs)
    tile = tile_size or default_tile(rows)
    with torch.no_grad(), torch.autocast(rows.device.type, enabled=False):
        queries, own = rows * scale, slice(first, first + len(rows))
        whole = _partition(queries, columns, tile, needed, merge_logsumexp)
        for_rows, for_columns = whole.for_queries, whole.for_keys
        if row_positives is None or column_positives is None:
            row_positive = column_positive = pairwise_cosine(queries, columns[own])
            if needed:
                for_rows.sub_(columns[own], alpha=2)
                for_columns[own].sub_(queries, alpha=2)
        else:
            within = _partition_of_positives(
                queries, columns, row_positives, column_positives, min(tile, POSITIVES_TILE), needed, merge_logsumexp
            )
            row_positive, column_positive = within.per_query, within.per_key[own]
            if needed:
                for_rows.sub_(within.for_queries)
                for_columns.sub_(within.for_keys)
        share = 1 / (2 * len(columns))
        excess = (whole.per_query - row_positive).sum() + (whole.per_key[own] - column_positive).sum()
        value = add_up(excess) * share
        if not needed:
            return value
        for_scale = add_up((for_rows * rows).sum()) * share
        for_rows.mul_(scale * (share * gradient_factor))
        for_columns.mul_(share * gradient_factor)
    return with_gradient(value, inputs, (for_rows, for_columns, for_scale), formula)


class Partition(NamedTuple):
    """Log-sum-exp of the logits per query and per key, and its gradient by the queries and the keys (or nothing)."""

    per_query: Tensor
    per_key: Tensor
    for_queries: Tensor
    for_keys: Tensor


def _partition(
    queries: Tensor, keys: Tensor, tile: int, needed: bool, merge_logsumexp: Callable[[Tensor], Tensor]
) -> Partition:
    """The partition over all keys and all queries."""
    num_kept = min(KEPT_ELEMENTS // tile**2, num_tiles(len(queries), len(keys), tile)) if needed else 0
    per_query, per_key, kept = log_normalisers(queries, keys, None, None, tile, num_kept)
    per_key = merge_logsumexp(per_key)
    if not needed:
        return Partition(per_query, per_key, kept, kept)
    return Partition(per_query, per_key, *softmax_products(queries, keys, per_query, per_key, None, None, tile, kept))


def _partition_of_positives(
    queries: Tensor,
    keys: Tensor,
    query_positives: Tensor,
    key_positives: Tensor,
    tile: int,
    needed: bool,
    merge_logsumexp: Callable[[Tensor], Tensor],
) -> Partition:
    """The partition over the positives of each query and each key; rows are sorted by them, so that few tiles count."""
    query_order, key_order = query_positives.argsort(stable=True), key_positives.argsort(stable=True)
    sorted_positives = query_positives[query_order], key_positives[key_order]
    queries, keys = queries[query_order], keys[key_order]
    per_query, per_key, kept = log_normalisers(queries, keys, *sorted_positives, tile, 0)
    per_key = merge_logsumexp(per_key)
    gradients = (kept, kept)
    if needed:
        gradients = softmax_products(queries, keys, per_query, per_key, *sorted_positives, tile, kept)
        gradients = (put_back(gradients[0], query_order), put_back(gradients[1], key_order))
    return Partition(put_back(per_query, query_order), put_back(per_key, key_order), *gradients)


def put_back(x: Tensor, order: Tensor) -> Tensor:
    """Undo `x = original[order]`."""
    return torch.empty_like(x).index_copy_(0, order, x)


def gaussian_kernel_share(
    points: Embeddings,
    positives: Tensor | None,
    rank: int,
    num_ranks: int,
    tile_size: int | None = None,
    add_up: Callable[[Tensor], Tensor] = identity,
    gradient_factor: float = 1.0,
    formula: Formula | None = None,
) -> Scalar:
    """Uniformity of points that every rank holds, with the tiles divided among the ranks.

    Args:
        points: [pair, dim], of all ranks.
        positives: [pair] integers or None.
        rank, num_ranks: this rank, and how many there are.

    Returns:
        The value over all ranks; its gradient is this rank's part times `gradient_factor`. Further arguments as in
        `info_nce_share`.
    """
    points = at_least_fp32(points)
    needed = needs_gradient(points)
    with torch.no_grad(), torch.autocast(points.device.type, enabled=False):
        tile = tile_size or default_tile(points)
        order, in_order = None, points
        every_pair = torch.full((), len(points) * (len(points) - 1), device=points.device)
        num_pairs = every_pair if positives is None else num_pairs_apart(positives)
        if positives is not None:
            order = positives.argsort(stable=True)
            positives, in_order = positives[order], points[order]
        kernel, kernel_sums, kernel_products = gaussian_kernel_sums(in_order, positives, rank, num_ranks, tile, needed)
        kernel = add_up(kernel)
        value = (kernel / num_pairs.to(points)).log()
        if not needed:
            return value
        # d/dx_i log sum_jk k_jk = 4 t / Z (sum_j k_ij x_j - x_i sum_j k_ij)
        gradient = kernel_products.addcmul_(in_order, kernel_sums[:, None], value=-1)
        gradient.mul_(4 * UNIFORMITY_SCALE * gradient_factor / kernel)
        if order is not None:
            gradient = put_back(gradient, order)
    return with_gradient(value, (points,), (gradient,), formula)


# --- a scalar that carries its gradient ---------------------------------------------------------------------------


class _WithGradient(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, value: Tensor, formula: Formula | None, *inputs_and_gradients: Tensor) -> Tensor:
        ctx.formula = formula
        ctx.save_for_backward(*inputs_and_gradients)
        return value.clone()

    @staticmethod
    def backward(ctx: Any, upstream: Tensor) -> Any:
        saved = ctx.saved_tensors  # read once, because activation checkpointing allows one read
        inputs, gradients = saved[: len(saved) // 2], saved[len(saved) // 2 :]
        if torch.is_grad_enabled():  # with create_graph=True the gradient is differentiated too
            input_gradients = _differentiable_gradients(ctx.formula, inputs, upstream)
        else:
            input_gradients = [upstream * gradient for gradient in gradients]
        return None, None, *input_gradients, *(None for _ in gradients)


def _differentiable_gradients(
    formula: Formula | None, inputs: Sequence[Tensor], upstream: Tensor
) -> list[Tensor | None]:
    """The gradients of `upstream * formula(*inputs)`, with a graph behind them."""
    if formula is None:
        raise RuntimeError(
            "over several ranks the loss can be differentiated once: call backward without create_graph, "
            "or make the loss with gather=False"
        )
    wanted = [x for x in inputs if x.requires_grad]
    with torch.autocast(inputs[0].device.type, enabled=False):
        gradients = iter(torch.autograd.grad(formula(*inputs), wanted, upstream, create_graph=True))
    return [next(gradients) if x.requires_grad else None for x in inputs]


class _WithCompiledGradient(torch.autograd.Function):
    """For `torch.compile`, which refuses a second derivative itself."""

    @staticmethod
    def forward(ctx: Any, value: Tensor, *inputs_and_gradients: Tensor) -> Tensor:
        ctx.save_for_backward(*inputs_and_gradients[len(inputs_and_gradients) // 2 :])
        return value.clone()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, upstream: Tensor) -> Any:
        gradients = ctx.saved_tensors
        return None, *(upstream * gradient for gradient in gradients), *(None for _ in gradients)


def with_gradient(
    value: Tensor, inputs: tuple[Tensor, ...], gradients: tuple[Tensor, ...], formula: Formula | None = None
) -> Tensor:
    """`value` with `gradients` as its derivative by `inputs`.

    Args:
        formula: computes `value` from `inputs` by operations of torch; it is called where the gradient itself is to be
            differentiated. Without it that is an error.
    """
    if torch.compiler.is_compiling():
        compiled: Tensor = _WithCompiledGradient.apply(value, *inputs, *gradients)
        return compiled
    result: Tensor = _WithGradient.apply(value, formula, *inputs, *gradients)
    return result


def needs_gradient(*tensors: Tensor) -> bool:
    """Whether a gradient by one of the tensors is recorded."""
    return torch.is_grad_enabled() and any(tensor.requires_grad for tensor in tensors)


def default_tile(x: Tensor) -> int:
    """Rows and columns of a tile on the device of a tensor."""
    return CPU_TILE if x.device.type == "cpu" else ACCELERATOR_TILE
