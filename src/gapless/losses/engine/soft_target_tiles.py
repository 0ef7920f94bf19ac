"""How well rows agree with soft targets that follow from labels, in O(pair * (dim + label) + tile^2) memory.

The target of row i is a softmax over the labels of all rows. Its cross entropy is the InfoNCE of own pairs plus a part
that is linear in the similarities, `s (mean_i z_i.w_i - mean_i z_i.(Q w)_i)`; that part is computed here.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from gapless.core.geometry import at_one_precision, blocks
from gapless.losses.engine.tile_loops import as_tile, log_normalisers
from gapless.losses.engine.tiled import Formula, default_tile, identity, needs_gradient, with_gradient


@torch.library.custom_op("gapless::target_products", mutates_args=())
def target_products(
    row_labels: Tensor,
    column_labels: Tensor,
    per_row: Tensor,
    per_column: Tensor,
    rows: Tensor,
    columns: Tensor,
    tile: int,
) -> tuple[Tensor, Tensor]:
    """`Q @ columns` and `Q.T @ rows`, Q = 1/2 (exp(l - per_row) + exp(l - per_column)), l the products of labels.

    Rows and columns of an infinite normaliser have no share in it.
    """
    scratch, second_scratch = rows.new_empty(2, min(len(rows), tile) * min(len(columns), tile))
    for_rows, for_columns = torch.zeros_like(rows), torch.zeros_like(columns)
    for one in blocks(len(rows), tile):
        for other in blocks(len(columns), tile):
            targets, second = as_tile(scratch, one, other), as_tile(second_scratch, one, other)
            torch.mm(row_labels[one], column_labels[other].T, out=targets)
            torch.sub(targets, per_column[None, other], out=second).exp_()
            targets.sub_(per_row[one, None]).exp_().add_(second).mul_(0.5)
            for_rows[one].addmm_(targets, columns[other])
            for_columns[other].addmm_(targets.T, rows[one])
    return for_rows, for_columns


@target_products.register_fake
def _(
    row_labels: Tensor,
    column_labels: Tensor,
    per_row: Tensor,
    per_column: Tensor,
    rows: Tensor,
    columns: Tensor,
    tile: int,
) -> tuple[Tensor, Tensor]:
    return torch.empty_like(rows), torch.empty_like(columns)


def target_excess(
    rows: Tensor,
    columns: Tensor,
    row_labels: Tensor,
    column_labels: Tensor,
    own: slice,
    tile_size: int | None = None,
    merge_logsumexp: Callable[[Tensor], Tensor] = identity,
    add_up: Callable[[Tensor], Tensor] = identity,
    gradient_factor: float = 1.0,
    formula: Formula | None = None,
) -> Tensor:
    """How much more similar own pairs are than pairs drawn by the targets: `mean_i z_i.w_i - mean_i z_i.(Q w)_i`.

    Q is the mean of the targets of both directions. A row without labels has its own pair as its target.

    Args:
        rows: [row, dim], this rank's embeddings of one modality.
        columns: [column, dim], all ranks' embeddings of the other.
        row_labels: [row, label], divided by the temperature of the targets.
        column_labels: [column, label], as they are.
        own: the columns that this rank's rows belong to.

    Returns:
        In [-2, 2], over the whole batch. Further arguments as in `tiled.info_nce_share`.
    """
    rows, columns = at_one_precision(rows, columns)
    inputs = (rows, columns)
    needed = needs_gradient(*inputs)
    with torch.no_grad(), torch.autocast(rows.device.type, enabled=False):
        row_labels, column_labels = row_labels.to(rows), column_labels.to(rows)
        tile = tile_size or default_tile(rows)
        per_row, per_column, _ = log_normalisers(row_labels, column_labels, None, None, tile, 0)
        per_column = merge_logsumexp(per_column)
        row_alone, column_alone = (~labels.any(dim=1) for labels in (row_labels, column_labels))
        per_row = per_row.masked_fill(row_alone, torch.inf)
        per_column = per_column.masked_fill(column_alone, torch.inf)
        for_rows, for_columns = target_products(row_labels, column_labels, per_row, per_column, rows, columns, tile)
        # Own pairs: 1 for InfoNCE, less 1 as the target where a row has no labels. Both directions are alike here.
        weight = (~row_alone).to(rows)[:, None]
        for_rows = columns[own] * weight - for_rows
        for_columns = -for_columns
        for_columns[own] += rows * weight
        value = add_up((rows * for_rows).sum()) / len(columns)
        if not needed:
            return value
        for_rows.mul_(gradient_factor / len(columns))
        for_columns.mul_(gradient_factor / len(columns))
    return with_gradient(value, inputs, (for_rows, for_columns), formula)
