"""The contrastive and the uniformity term in O(pair * dim + tile^2) memory, with their gradients.

Both terms are scalars, so the gradient is computed while the value is, tile by tile, and kept ([pair, dim]) until
`backward` multiplies it: nothing of size [pair, pair] ever exists and nothing is recomputed twice. Matrix products
of size pair x pair x dim: 4 for the contrastive term (similarities, the same again once the normalisers are known,
two for the gradients), 1.5 for uniformity (each symmetric tile once). A value without a gradient costs 1 and 0.5.

The heavy loops are opaque operators (`torch.library`), which `torch.compile` keeps whole instead of unrolling.
"""

import math
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from gapless.geometry import UNIFORMITY_SCALE, at_least_fp32, blocks, num_pairs_apart, pairwise_cosine
from gapless.shapes import Embeddings, Groups, Scalar

CPU_TILE = 512  # 1 MiB of fp32: a tile stays in cache from the similarities to the products of its gradient
ACCELERATOR_TILE = 4096
POSITIVES_TILE = 256  # positives lie near the diagonal once rows are sorted by group: small tiles waste less
KEPT_ELEMENTS = 2**24  # similarities kept for the second pass: 64 MiB of fp32, all of them up to 4,096 pairs
# |logit| <= scale for unit-norm rows. Up to this bound neither exp nor a sum of 10^7 of them leaves the normal range.
EXP_NEEDS_NO_SHIFT = {torch.float32: 64.0, torch.float64: 600.0}


def tiled_symmetric_info_nce(
    a: Embeddings,
    b: Embeddings,
    logit_scale: Scalar | float,
    groups: Groups | None = None,
    tile_size: int | None = None,
) -> Scalar:
    """`contrastive.symmetric_info_nce` in linear memory; see there. Differentiable once."""
    return info_nce_share(a, b, logit_scale, groups, groups, 0, tile_size)


def tiled_log_mean_gaussian_kernel(
    points: Embeddings, groups: Groups | None = None, tile_size: int | None = None
) -> Scalar:
    """`geometry.log_mean_gaussian_kernel` in linear memory, for points of norm at most 1. Differentiable once."""
    return gaussian_kernel_share(points, groups, 0, 1, tile_size)


def identity(x: Tensor) -> Tensor:
    return x


def info_nce_share(
    rows: Embeddings,
    columns: Tensor,
    logit_scale: Scalar | float,
    row_groups: Tensor | None,
    column_groups: Tensor | None,
    first: int,
    tile_size: int | None = None,
    merge_logsumexp: Callable[[Tensor], Tensor] = identity,
    add_up: Callable[[Tensor], Tensor] = identity,
    gradient_factor: float = 1.0,
) -> Scalar:
    """Symmetric InfoNCE of a batch whose `rows` are shared out over ranks; alone, a rank holds all of them.

    Args:
        rows: [row, dim], this rank's embeddings of one modality.
        columns: [column, dim], all ranks' embeddings of the anchor; row i belongs to column `first + i`.
        logit_scale: 1 / temperature.
        row_groups: [row] integers or None.
        column_groups: [column] integers or None.
        first: the column of row 0.
        tile_size: rows and columns per tile.
        merge_logsumexp: log-sum-exp over the ranks of a vector over the columns.
        add_up: sum over the ranks.
        gradient_factor: multiplies the gradient of `rows` and `columns` (not that of `logit_scale`, which is whole
            on every rank).

    Returns:
        The loss of the whole batch. The gradient of `columns` is this rank's part of it.
    """
    scale = logit_scale if isinstance(logit_scale, Tensor) else torch.tensor(logit_scale, device=rows.device)
    rows, columns, scale = at_least_fp32(rows), at_least_fp32(columns), at_least_fp32(scale)
    inputs = (rows, columns, scale)
    needed = needs_gradient(*inputs)
    with torch.no_grad(), torch.autocast(rows.device.type, enabled=False):
        queries = rows * scale
        own = slice(first, first + len(rows))
        tile = tile_size or default_tile(rows)
        num_kept = min(KEPT_ELEMENTS // tile**2, num_tiles(len(rows), len(columns), tile)) if needed else 0
        per_row, per_column, kept = log_normalisers(queries, columns, None, None, tile, num_kept)
        per_column = merge_logsumexp(per_column)
        if row_groups is None or column_groups is None:
            row_positive = column_positive = pairwise_cosine(queries, columns[own])
        else:
            row_order, column_order = row_groups.argsort(), column_groups.argsort()
            in_order = (
                queries[row_order],
                columns[column_order],
                row_groups[row_order],
                column_groups[column_order],
                min(tile, POSITIVES_TILE),
            )
            sorted_row_positive, sorted_column_positive, none_kept = log_normalisers(*in_order, 0)
            sorted_column_positive = merge_logsumexp(sorted_column_positive)
            row_positive = torch.empty_like(per_row).index_copy_(0, row_order, sorted_row_positive)
            column_positive = torch.empty_like(per_column).index_copy_(0, column_order, sorted_column_positive)[own]
        excess = (per_row - row_positive).sum() + (per_column[own] - column_positive).sum()
        share = 1 / (2 * len(columns))
        value = add_up(excess) * share
        if not needed:
            return value
        for_rows, for_columns = softmax_products(queries, columns, per_row, per_column, None, None, tile, kept)
        if row_groups is None or column_groups is None:
            for_rows.sub_(columns[own], alpha=2)
            for_columns[own].sub_(queries, alpha=2)
        else:
            positive_for_rows, positive_for_columns = softmax_products(
                *in_order[:2], sorted_row_positive, sorted_column_positive, *in_order[2:], none_kept
            )
            for_rows.index_add_(0, row_order, positive_for_rows, alpha=-1)
            for_columns.index_add_(0, column_order, positive_for_columns, alpha=-1)
        for_scale = add_up((for_rows * rows).sum()) * share
        for_rows.mul_(scale * (share * gradient_factor))
        for_columns.mul_(share * gradient_factor)
    return with_gradient(value, inputs, (for_rows, for_columns, for_scale))


def gaussian_kernel_share(
    points: Embeddings,
    groups: Tensor | None,
    rank: int,
    num_ranks: int,
    tile_size: int | None = None,
    add_up: Callable[[Tensor], Tensor] = identity,
    gradient_factor: float = 1.0,
) -> Scalar:
    """Uniformity of `points`, which every rank holds, with the tiles shared out over the ranks.

    The gradient is this rank's part of it, times `gradient_factor`; see `info_nce_share` for the rest.
    """
    points = at_least_fp32(points)
    needed = needs_gradient(points)
    with torch.no_grad(), torch.autocast(points.device.type, enabled=False):
        tile = tile_size or default_tile(points)
        order, in_order = None, points
        num_pairs = torch.tensor(len(points) * (len(points) - 1)) if groups is None else num_pairs_apart(groups)
        if groups is not None:
            order = groups.argsort()
            groups, in_order = groups[order], points[order]
        kernel, kernel_sums, kernel_products = gaussian_kernel_sums(in_order, groups, rank, num_ranks, tile, needed)
        kernel = add_up(kernel)
        value = (kernel / num_pairs.to(points)).log()
        if not needed:
            return value
        # d/dx_i log sum_jk k_jk = 4 t / Z (sum_j k_ij x_j - x_i sum_j k_ij)
        gradient = kernel_products.sub_(in_order * kernel_sums[:, None])
        gradient.mul_(4 * UNIFORMITY_SCALE * gradient_factor / kernel)
        if order is not None:
            gradient = torch.empty_like(gradient).index_copy_(0, order, gradient)
    return with_gradient(value, (points,), (gradient,))


# --- a scalar that carries its gradient ---------------------------------------------------------------------------


class _WithGradient(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, value: Tensor, *inputs_and_gradients: Tensor) -> Tensor:
        ctx.save_for_backward(*inputs_and_gradients[len(inputs_and_gradients) // 2 :])
        return value.clone()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, upstream: Tensor) -> Any:
        gradients = ctx.saved_tensors
        return None, *(upstream * gradient for gradient in gradients), *(None for _ in gradients)


def with_gradient(value: Tensor, inputs: tuple[Tensor, ...], gradients: tuple[Tensor, ...]) -> Tensor:
    """`value`, whose derivative by `inputs` is already known to be `gradients`."""
    result: Tensor = _WithGradient.apply(value, *inputs, *gradients)
    return result


def needs_gradient(*tensors: Tensor) -> bool:
    return torch.is_grad_enabled() and any(tensor.requires_grad for tensor in tensors)


def default_tile(x: Tensor) -> int:
    return CPU_TILE if x.device.type == "cpu" else ACCELERATOR_TILE


# --- the loops over tiles -----------------------------------------------------------------------------------------


def tiles_of(
    num_rows: int, num_columns: int, row_groups: Tensor | None, column_groups: Tensor | None, tile: int
) -> Iterator[tuple[slice, slice, Tensor | None]]:
    """Tiles (rows, columns, same group): all of them without groups, else those that may hold a pair of one group.

    Groups arrive sorted, so on the CPU the first and last group of a tile's rows and columns tell. On an accelerator
    looking would make the host wait: every tile is taken.
    """
    for rows in blocks(num_rows, tile):
        for columns in blocks(num_columns, tile):
            if row_groups is None or column_groups is None:
                yield rows, columns, None
            elif share_a_group(row_groups[rows], column_groups[columns]):
                yield rows, columns, row_groups[rows, None] == column_groups[None, columns]


def share_a_group(one: Tensor, other: Tensor) -> bool:
    """Whether two sorted stretches of groups may overlap."""
    return one.device.type != "cpu" or bool((one[0] <= other[-1]) & (other[0] <= one[-1]))


def num_tiles(num_rows: int, num_columns: int, tile: int) -> int:
    return -(-num_rows // tile) * -(-num_columns // tile)


def tile_buffers(count: int, like: Tensor, num_rows: int, num_columns: int, tile: int) -> Tensor:
    """Reused memory: a fresh 4 MiB allocation per tile costs page faults worth a tenth of its product."""
    return like.new_empty(count, min(num_rows, tile) * min(num_columns, tile))


def as_tile(buffer: Tensor, rows: slice, columns: slice) -> Tensor:
    num_rows, num_columns = rows.stop - rows.start, columns.stop - columns.start
    return buffer[: num_rows * num_columns].view(num_rows, num_columns)


def exp_needs_no_shift(queries: Tensor, keys: Tensor) -> bool:
    """Whether Cauchy-Schwarz bounds every logit so that exp(logit) is safe as it is (read on the CPU only)."""
    if queries.device.type != "cpu":
        return False
    largest = torch.linalg.vector_norm(queries, dim=1).max() * torch.linalg.vector_norm(keys, dim=1).max()
    return bool(largest <= EXP_NEEDS_NO_SHIFT[queries.dtype])


@torch.library.custom_op("gapless::log_normalisers", mutates_args=())
def log_normalisers(
    queries: Tensor, keys: Tensor, query_groups: Tensor | None, key_groups: Tensor | None, tile: int, num_kept: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Log-sum-exp of `queries @ keys.T` over each row and over each column; with groups, within the group.

    Also the first `num_kept` tiles, for `softmax_products`: logits, or their exponentials where they need no shift.
    """
    num_rows, num_columns = len(queries), len(keys)
    kept = tile_buffers(num_kept, queries, num_rows, num_columns, tile)
    scratch = tile_buffers(1, queries, num_rows, num_columns, tile)[0]
    no_shift = exp_needs_no_shift(queries, keys)
    nothing = 0.0 if no_shift else -math.inf
    per_row, per_column = queries.new_full((num_rows,), nothing), queries.new_full((num_columns,), nothing)
    for index, (rows, columns, same) in enumerate(tiles_of(num_rows, num_columns, query_groups, key_groups, tile)):
        logits = as_tile(kept[index] if index < num_kept else scratch, rows, columns)
        torch.mm(queries[rows], keys[columns].T, out=logits)
        if no_shift:
            logits.exp_()
        if same is not None:
            logits.masked_fill_(~same, nothing)
        if no_shift:
            per_row[rows] += logits.sum(dim=1)
            per_column[columns] += logits.sum(dim=0)
        else:
            per_row[rows] = torch.logaddexp(per_row[rows], torch.logsumexp(logits, dim=1))
            per_column[columns] = torch.logaddexp(per_column[columns], torch.logsumexp(logits, dim=0))
    return (per_row.log_(), per_column.log_(), kept) if no_shift else (per_row, per_column, kept)


@log_normalisers.register_fake
def _(
    queries: Tensor, keys: Tensor, query_groups: Tensor | None, key_groups: Tensor | None, tile: int, num_kept: int
) -> tuple[Tensor, Tensor, Tensor]:
    num_rows, num_columns = len(queries), len(keys)
    kept = tile_buffers(num_kept, queries, num_rows, num_columns, tile)
    return queries.new_empty(num_rows), queries.new_empty(num_columns), kept


@torch.library.custom_op("gapless::softmax_products", mutates_args=("kept",))
def softmax_products(
    queries: Tensor,
    keys: Tensor,
    per_row: Tensor,
    per_column: Tensor,
    query_groups: Tensor | None,
    key_groups: Tensor | None,
    tile: int,
    kept: Tensor,
) -> tuple[Tensor, Tensor]:
    """`P @ keys` and `P.T @ queries`, P = exp(logits - per_row) + exp(logits - per_column), both softmaxes at once.

    Uses up the tiles that `log_normalisers` kept.
    """
    num_rows, num_columns = len(queries), len(keys)
    scratch, second_scratch = tile_buffers(2, queries, num_rows, num_columns, tile)
    no_shift = exp_needs_no_shift(queries, keys)
    for_queries, for_keys = torch.zeros_like(queries), torch.zeros_like(keys)
    row_factors, column_factors = torch.exp(-per_row), torch.exp(-per_column)
    for index, (rows, columns, same) in enumerate(tiles_of(num_rows, num_columns, query_groups, key_groups, tile)):
        is_kept = index < len(kept)
        softmaxes = as_tile(kept[index] if is_kept else scratch, rows, columns)
        second = as_tile(second_scratch, rows, columns)
        if not is_kept:
            torch.mm(queries[rows], keys[columns].T, out=softmaxes)
        if no_shift:
            torch.add(row_factors[rows, None], column_factors[None, columns], out=second)
            (softmaxes if is_kept else softmaxes.exp_()).mul_(second)
        else:
            torch.sub(softmaxes, per_column[None, columns], out=second).exp_()
            softmaxes.sub_(per_row[rows, None]).exp_().add_(second)
        if same is not None:
            softmaxes.masked_fill_(~same, 0.0)
        for_queries[rows].addmm_(softmaxes, keys[columns])
        for_keys[columns].addmm_(softmaxes.T, queries[rows])
    return for_queries, for_keys


@softmax_products.register_fake
def _(
    queries: Tensor,
    keys: Tensor,
    per_row: Tensor,
    per_column: Tensor,
    query_groups: Tensor | None,
    key_groups: Tensor | None,
    tile: int,
    kept: Tensor,
) -> tuple[Tensor, Tensor]:
    return torch.empty_like(queries), torch.empty_like(keys)


@torch.library.custom_op("gapless::gaussian_kernel_sums", mutates_args=())
def gaussian_kernel_sums(
    points: Tensor, groups: Tensor | None, rank: int, num_ranks: int, tile: int, with_products: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """With k_ij = exp(-2 ||x_i - x_j||^2) for i, j of different groups, else 0, over this rank's share of the tiles:

    sum_ij k_ij, sum_j k_ij, and sum_j k_ij x_j. Distances are at most 2, so exp needs no shift.
    """
    num_rows = len(points)
    kernel_sums = points.new_zeros(num_rows)
    products = torch.zeros_like(points) if with_products else points.new_empty(0)
    scratch = tile_buffers(1, points, num_rows, num_rows, tile)[0]
    bias = points.square().sum(dim=1).mul_(-UNIFORMITY_SCALE)
    scaled = points * (2 * UNIFORMITY_SCALE)
    upper = [(rows, columns) for rows in blocks(num_rows, tile) for columns in blocks(num_rows, tile)]
    upper = [(rows, columns) for rows, columns in upper if rows.start <= columns.start][rank::num_ranks]
    for rows, columns in upper:
        kernel = torch.mm(scaled[rows], points[columns].T, out=as_tile(scratch, rows, columns))
        kernel.add_(bias[None, columns]).add_(bias[rows, None]).clamp_max_(0.0).exp_()
        if groups is None:
            if rows == columns:
                kernel.fill_diagonal_(0.0)
        elif share_a_group(groups[rows], groups[columns]):
            kernel.masked_fill_(groups[rows, None] == groups[None, columns], 0.0)
        kernel_sums[rows] += kernel.sum(dim=1)
        if with_products:
            products[rows].addmm_(kernel, points[columns])
        if rows != columns:
            kernel_sums[columns] += kernel.sum(dim=0)
            if with_products:
                products[columns].addmm_(kernel.T, points[rows])
    return kernel_sums.sum(), kernel_sums, products


@gaussian_kernel_sums.register_fake
def _(
    points: Tensor, groups: Tensor | None, rank: int, num_ranks: int, tile: int, with_products: bool
) -> tuple[Tensor, Tensor, Tensor]:
    num_rows = len(points)
    return points.new_empty(()), points.new_empty(num_rows), points.new_empty(points.shape if with_products else (0,))
