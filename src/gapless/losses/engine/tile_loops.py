"""The loops over tiles behind `tiled`, as operators (`torch.library`) that `torch.compile` keeps whole.

Similarities are fp32 at least, whatever the embeddings were. A tile is worked on in place, while it is in cache.
"""

import math
from collections.abc import Iterator

import torch
from torch import Tensor

from gapless.core.geometry import UNIFORMITY_SCALE, blocks

# |logit| <= scale for unit-norm rows. Up to this bound neither exp nor a sum of 10^7 of them leaves the normal range.
EXP_NEEDS_NO_SHIFT = {torch.float32: 64.0, torch.float64: 600.0}


def _tiles_of(
    num_rows: int, num_columns: int, row_positives: Tensor | None, column_positives: Tensor | None, tile: int
) -> Iterator[tuple[slice, slice, Tensor | None]]:
    """Tiles (rows, columns, which are positives): all of them without positives, else those that may hold some.

    Positives arrive sorted, so on the CPU the first and last one of a tile's rows and columns tell. On an accelerator
    looking would make the host wait: every tile is taken.
    """
    for rows in blocks(num_rows, tile):
        for columns in blocks(num_columns, tile):
            if row_positives is None or column_positives is None:
                yield rows, columns, None
            elif _may_share_positives(row_positives[rows], column_positives[columns]):
                yield rows, columns, row_positives[rows, None] == column_positives[None, columns]


def _may_share_positives(one: Tensor, other: Tensor) -> bool:
    """Whether two sorted stretches of positives may overlap."""
    return one.device.type != "cpu" or bool((one[0] <= other[-1]) & (other[0] <= one[-1]))


def num_tiles(num_rows: int, num_columns: int, tile: int) -> int:
    """How many tiles cover a matrix of this shape."""
    return -(-num_rows // tile) * -(-num_columns // tile)


def _tile_buffers(count: int, like: Tensor, num_rows: int, num_columns: int, tile: int) -> Tensor:
    """Memory for tiles, allocated once: fresh pages for every tile would be faulted in every time."""
    return like.new_empty(count, min(num_rows, tile) * min(num_columns, tile))


def as_tile(buffer: Tensor, rows: slice, columns: slice) -> Tensor:
    """The buffer as a matrix of the shape of a tile."""
    num_rows, num_columns = rows.stop - rows.start, columns.stop - columns.start
    return buffer[: num_rows * num_columns].view(num_rows, num_columns)


def _exp_needs_no_shift(queries: Tensor, keys: Tensor) -> bool:
    """Whether Cauchy-Schwarz bounds every logit so that exp(logit) is safe as it is (read on the CPU only)."""
    if queries.device.type != "cpu":
        return False
    if not len(queries):  # a rank of which no row has the pair's modalities
        return True
    largest = torch.linalg.vector_norm(queries, dim=1).max() * torch.linalg.vector_norm(keys, dim=1).max()
    return bool(largest <= EXP_NEEDS_NO_SHIFT[queries.dtype])


@torch.library.custom_op("gapless::log_normalisers", mutates_args=())
def log_normalisers(
    queries: Tensor,
    keys: Tensor,
    query_positives: Tensor | None,
    key_positives: Tensor | None,
    tile: int,
    num_kept: int,
) -> tuple[Tensor, Tensor, Tensor]:
    """Log-sum-exp of `queries @ keys.T` over each row and over each column; with positives, over those alone.

    Also the first `num_kept` tiles, for `softmax_products`: logits, or their exponentials where they need no shift.
    """
    num_rows, num_columns = len(queries), len(keys)
    kept = _tile_buffers(num_kept, queries, num_rows, num_columns, tile)
    scratch = _tile_buffers(1, queries, num_rows, num_columns, tile)[0]
    no_shift = _exp_needs_no_shift(queries, keys)
    nothing = 0.0 if no_shift else -math.inf
    per_row, per_column = queries.new_full((num_rows,), nothing), queries.new_full((num_columns,), nothing)
    tiles = _tiles_of(num_rows, num_columns, query_positives, key_positives, tile)
    for index, (rows, columns, same) in enumerate(tiles):
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
    queries: Tensor,
    keys: Tensor,
    query_positives: Tensor | None,
    key_positives: Tensor | None,
    tile: int,
    num_kept: int,
) -> tuple[Tensor, Tensor, Tensor]:
    num_rows, num_columns = len(queries), len(keys)
    kept = _tile_buffers(num_kept, queries, num_rows, num_columns, tile)
    return queries.new_empty(num_rows), queries.new_empty(num_columns), kept


@torch.library.custom_op("gapless::softmax_products", mutates_args=("kept",))
def softmax_products(
    queries: Tensor,
    keys: Tensor,
    per_row: Tensor,
    per_column: Tensor,
    query_positives: Tensor | None,
    key_positives: Tensor | None,
    tile: int,
    kept: Tensor,
) -> tuple[Tensor, Tensor]:
    """`P @ keys` and `P.T @ queries`, P = exp(logits - per_row) + exp(logits - per_column), both softmaxes at once.

    Uses up the tiles that `log_normalisers` kept.
    """
    num_rows, num_columns = len(queries), len(keys)
    scratch, second_scratch = _tile_buffers(2, queries, num_rows, num_columns, tile)
    no_shift = _exp_needs_no_shift(queries, keys)
    for_queries, for_keys = torch.zeros_like(queries), torch.zeros_like(keys)
    row_factors, column_factors = torch.exp(-per_row), torch.exp(-per_column)
    tiles = _tiles_of(num_rows, num_columns, query_positives, key_positives, tile)
    for index, (rows, columns, same) in enumerate(tiles):
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
    query_positives: Tensor | None,
    key_positives: Tensor | None,
    tile: int,
    kept: Tensor,
) -> tuple[Tensor, Tensor]:
    return torch.empty_like(queries), torch.empty_like(keys)


@torch.library.custom_op("gapless::gaussian_kernel_sums", mutates_args=())
def gaussian_kernel_sums(
    points: Tensor, positives: Tensor | None, rank: int, num_ranks: int, tile: int, with_products: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """With k_ij = exp(-2 ||x_i - x_j||^2) where i and j are no positives of each other, else 0, over this rank's share:

    sum_ij k_ij, sum_j k_ij, and sum_j k_ij x_j. Distances are at most 2, so exp needs no shift.
    """
    num_rows = len(points)
    kernel_sums = points.new_zeros(num_rows)
    products = torch.zeros_like(points) if with_products else points.new_empty(0)
    scratch = _tile_buffers(1, points, num_rows, num_rows, tile)[0]
    bias = points.square().sum(dim=1).mul_(-UNIFORMITY_SCALE)
    upper = [(rows, columns) for rows in blocks(num_rows, tile) for columns in blocks(num_rows, tile)]
    upper = [(rows, columns) for rows, columns in upper if rows.start <= columns.start][rank::num_ranks]
    for rows, columns in upper:
        kernel = as_tile(scratch, rows, columns)
        torch.addmm(bias[columns], points[rows], points[columns].T, alpha=2 * UNIFORMITY_SCALE, out=kernel)
        kernel.add_(bias[rows, None]).clamp_max_(0.0).exp_()
        if positives is None:
            if rows == columns:
                kernel.fill_diagonal_(0.0)
        elif _may_share_positives(positives[rows], positives[columns]):
            kernel.masked_fill_(positives[rows, None] == positives[None, columns], 0.0)
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
    points: Tensor, positives: Tensor | None, rank: int, num_ranks: int, tile: int, with_products: bool
) -> tuple[Tensor, Tensor, Tensor]:
    num_rows = len(points)
    return points.new_empty(()), points.new_empty(num_rows), points.new_empty(points.shape if with_products else (0,))
