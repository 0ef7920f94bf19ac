"""The sigmoid loss of all pairs of rows in O(pair * dim + tile^2) memory, with its gradients.

`softplus(-y l) = softplus(l) - [y = 1] l`: the tiles are over all pairs alike, and what positives add is linear in the
rows (sums of the rows that share a number), so that no tile looks at positives. Matrix products of size
pair x pair x dim: 3 with a gradient, 1 without.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from gapless.core.geometry import at_least_fp32, at_one_precision, blocks
from gapless.losses.engine.tile_loops import as_tile
from gapless.losses.engine.tiled import Formula, default_tile, identity, needs_gradient, with_gradient


@torch.library.custom_op("gapless::softplus_sums", mutates_args=())
def softplus_sums(
    queries: Tensor, keys: Tensor, bias: Tensor, tile: int, with_products: bool
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The sums of softplus(l) and of s, `s @ keys` and `s.T @ queries`, l = queries @ keys.T + bias, s = sigmoid(l)."""
    num_rows, num_columns = len(queries), len(keys)
    size = min(num_rows, tile) * min(num_columns, tile)
    scratch, second_scratch = queries.new_empty(2, size)
    value, sigmoids = queries.new_zeros(()), queries.new_zeros(())
    for_queries = torch.zeros_like(queries) if with_products else queries.new_empty(0)
    for_keys = torch.zeros_like(keys) if with_products else keys.new_empty(0)
    for rows in blocks(num_rows, tile):
        for columns in blocks(num_columns, tile):
            logits, second = as_tile(scratch, rows, columns), as_tile(second_scratch, rows, columns)
            torch.mm(queries[rows], keys[columns].T, out=logits)
            logits.add_(bias)
            # max(l, 0) + log(1 + exp(-|l|)), exact at both ends
            value += torch.clamp(logits, min=0.0, out=second).sum()
            value += torch.abs(logits, out=second).neg_().exp_().log1p_().sum()
            if with_products:
                logits.sigmoid_()
                sigmoids += logits.sum()
                for_queries[rows].addmm_(logits, keys[columns])
                for_keys[columns].addmm_(logits.T, queries[rows])
    return value, sigmoids, for_queries, for_keys


@softplus_sums.register_fake
def _(
    queries: Tensor, keys: Tensor, bias: Tensor, tile: int, with_products: bool
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    shapes = (queries.shape, keys.shape) if with_products else ((0,), (0,))
    return queries.new_empty(()), queries.new_empty(()), queries.new_empty(shapes[0]), keys.new_empty(shapes[1])


def sigmoid_share(
    rows: Tensor,
    columns: Tensor,
    logit_scale: Tensor,
    logit_bias: Tensor,
    positives: Tensor | None,
    own: slice,
    tile_size: int | None = None,
    add_up: Callable[[Tensor], Tensor] = identity,
    gradient_factor: float = 1.0,
    formula: Formula | None = None,
) -> Tensor:
    """The sigmoid loss of a batch whose `rows` are shared out over ranks; alone, a rank holds all of them.

    Args:
        rows: [row, dim], this rank's embeddings of one modality.
        columns: [column, dim], all ranks' embeddings of the other.
        logit_scale, logit_bias: scalars.
        positives: [column] integers or None.
        own: the columns that this rank's rows belong to.

    Returns:
        The loss of the whole batch. Further arguments as in `tiled.info_nce_share`; the gradients of `logit_scale` and
        `logit_bias` are whole on every rank.
    """
    rows, columns = at_one_precision(rows, columns)
    inputs = (rows, columns, at_least_fp32(logit_scale).to(rows), at_least_fp32(logit_bias).to(rows))
    scale, bias = inputs[2], inputs[3]
    needed = needs_gradient(*inputs)
    with torch.no_grad(), torch.autocast(rows.device.type, enabled=False):
        queries = rows * scale
        softplus, sigmoids, for_rows, for_columns = softplus_sums(
            queries, columns, bias, tile_size or default_tile(rows), needed
        )
        numbers = torch.arange(len(columns), device=rows.device) if positives is None else _numbered(positives)
        partners = _sums_by_number(columns, numbers, len(columns))[numbers[own]]
        sizes = _sums_by_number(columns.new_ones(len(columns)), numbers, len(columns))
        num_positives = sizes[numbers[own]].sum()
        share = 1 / len(columns)
        value = add_up(softplus - (queries * partners).sum() - bias * num_positives) * share
        if not needed:
            return value
        for_rows.sub_(partners)
        for_columns.sub_(_sums_by_number(queries, numbers[own], len(columns))[numbers])
        for_scale = add_up((for_rows * rows).sum()) * share
        for_bias = add_up(sigmoids - num_positives) * share
        for_rows.mul_(scale * (share * gradient_factor))
        for_columns.mul_(share * gradient_factor)
    return with_gradient(value, inputs, (for_rows, for_columns, for_scale, for_bias), formula)


def _numbered(positives: Tensor) -> Tensor:
    """The same rows with equal numbers, counted from 0."""
    numbers: Tensor = positives.unique(return_inverse=True)[1]
    return numbers


def _sums_by_number(rows: Tensor, numbers: Tensor, size: int) -> Tensor:
    """[size, ...] the sum of the rows of each number."""
    return rows.new_zeros(size, *rows.shape[1:]).index_add_(0, numbers, rows)
