"""Losses that compare all rows by a formula of their own, in blocks of rows that a backward pass computes again.

The loops over tiles know products of rows. A volume, an area or a weighted cosine of every row with every other is
computed here by operations of torch, a block of rows at a time under `torch.utils.checkpoint`: the memory is that of
one block, `BLOCK_ELEMENTS` numbers for each intermediate matrix, and the price is one more forward pass.
"""

import math
from collections.abc import Callable
from functools import partial
from typing import TypeVar

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from gapless.core.geometry import blocks
from gapless.losses.engine.gathered import Ranks

BLOCK_ELEMENTS = 2**22  # 16 MiB of fp32 a matrix

LogitsOf = Callable[[slice], Tensor]
Block = TypeVar("Block")


def in_row_blocks(of_block: Callable[[slice], Block], num_rows: int, num_columns: int) -> list[Block]:
    """`of_block` of consecutive blocks of rows; without a row, of one block that has none.

    Args:
        of_block: computes what is asked of some rows by operations of torch.
        num_rows: of this rank.
        num_columns: how many numbers a row of its intermediate matrices has.
    """
    size = max(1, BLOCK_ELEMENTS // max(1, num_columns))
    parts = list(blocks(num_rows, size)) or [slice(0, 0)]
    if len(parts) == 1:
        return [of_block(parts[0])]
    return [checkpoint(of_block, rows, use_reentrant=False, preserve_rng_state=False) for rows in parts]


def same_items(positives: Tensor | None, rows: slice, num_columns: int, first: int, device: torch.device) -> Tensor:
    """[rows, column] bool, whether a row and a column are positives of each other; every row is of its own column.

    Args:
        positives: [column] integers of all ranks, or None.
        rows: of this rank; row i is that of column `first + i`.
    """
    everyone = torch.arange(num_columns, device=device) if positives is None else positives
    return everyone[first + rows.start : first + rows.stop, None] == everyone[None, :]


def two_way_cross_entropy(
    logits_of: LogitsOf,
    num_rows: int,
    num_columns: int,
    device: torch.device,
    positives: Tensor | None = None,
    label_smoothing: float = 0.0,
    first: int = 0,
    ranks: Ranks | None = None,
) -> Tensor:
    """The mean of the cross entropies of each row among the columns, and of each column among the rows.

    With p the share of `label_smoothing`: `logsumexp_j(l_ij) - (1 - p) logsumexp_{j in P(i)}(l_ij) - p mean_j(l_ij)`,
    P(i) the positives of row i, its own column alone where none are given.

    Args:
        logits_of: rows of this rank -> their logits, [rows, column].
        num_rows: of this rank.
        num_columns: of all ranks.
        positives: [column] integers of all ranks, or None.
        first: the column of row 0.
        ranks: who shares the rows; None for one process.
    """

    def block(rows: slice) -> tuple[Tensor, Tensor, Tensor]:
        return _block_of(logits_of(rows), same_items(positives, rows, num_columns, first, device), label_smoothing)

    by_rows, per_column, within_column = zip(*in_row_blocks(block, num_rows, num_columns), strict=True)
    by_row = torch.stack(by_rows).sum()
    columns = [torch.logsumexp(torch.stack(parts), dim=0) for parts in (per_column, within_column)]
    if ranks is not None:
        by_row, columns = ranks.total(by_row), [ranks.total_logsumexp(part) for part in columns]
    by_column = (columns[0] - (1 - label_smoothing) * columns[1]).sum()
    return (by_row + by_column) / (2 * num_columns)


def _block_of(logits: Tensor, is_same: Tensor, label_smoothing: float) -> tuple[Tensor, Tensor, Tensor]:
    """What the rows of a block add: the sum over rows, and over each column all and the positives, as log-sum-exp."""
    within = logits.masked_fill(~is_same, -math.inf)
    excess = torch.logsumexp(logits, dim=1) - (1 - label_smoothing) * torch.logsumexp(within, dim=1)
    smoothed = 2 * label_smoothing / logits.shape[1] * logits.sum()  # of the rows and of the columns
    return excess.sum() - smoothed, torch.logsumexp(logits, dim=0), torch.logsumexp(within, dim=0)


def row_cross_entropy(
    logits_of: Callable[[slice], tuple[Tensor, Tensor]],
    num_rows: int,
    num_logits: int,
    num_everyone: int,
    ranks: Ranks | None = None,
) -> Tensor:
    """The mean over the rows of `logsumexp_j(l_ij) - l_i`, l_i the logit of what belongs to row i.

    Args:
        logits_of: rows of this rank -> their logits, [rows, num_logits], -inf where a column is left out, and those of
            what belongs to them, [rows].
        num_rows: of this rank.
        num_logits: of a row.
        num_everyone: rows of all ranks.
        ranks: who shares the rows; None for one process.
    """
    total = torch.stack(in_row_blocks(partial(_row_excess, logits_of), num_rows, num_logits)).sum() / num_everyone
    return total if ranks is None else ranks.total(total)


def _row_excess(logits_of: Callable[[slice], tuple[Tensor, Tensor]], rows: slice) -> Tensor:
    logits, own = logits_of(rows)
    return (torch.logsumexp(logits, dim=1) - own).sum()
