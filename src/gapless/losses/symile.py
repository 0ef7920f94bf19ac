"""Symile: contrast by the product of all modalities, which sees what no two of them tell (Saporta et al.)."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from gapless.core.errors import unknown_name
from gapless.core.shapes import Rows
from gapless.losses.anchored import ContrastiveSettings
from gapless.losses.base import METHODS, Method
from gapless.losses.engine.row_blocks import row_cross_entropy
from gapless.losses.whole_rows import WholeRowLoss, WholeRows, check_count

SHUFFLED, ALL = "n", "n_squared"


@dataclass(frozen=True)
class SymileSettings(ContrastiveSettings):
    """The settings of Symile.

    Args:
        temperature: start value, or the fixed value.
        learn_temperature: train `logit_scale` (fp32, clamped to 100, no weight decay).
        mask_duplicates: rows whose captions are the same are not negatives of each other.
        negatives: n, the other modalities shuffled, each by an order of its own; or n_squared, every pair of rows of
            the two other modalities (three modalities exactly).
    """

    negatives: str = SHUFFLED

    def __post_init__(self) -> None:
        if self.negatives not in (SHUFFLED, ALL):
            raise unknown_name("value of loss.negatives", self.negatives, (SHUFFLED, ALL))

    def check_modalities(self, names: Sequence[str]) -> None:
        """Raise UsageError for fewer than two modalities, or for others than three with `n_squared`."""
        if self.negatives == ALL:
            check_count("symile with loss.negatives n_squared", names, 3, 3)
        check_count("symile", names, 2, None)


class SymileTerms(NamedTuple):
    """The total, and the mean product of true rows, without a gradient."""

    total: Tensor
    true_product: Tensor


class SymileLoss(WholeRowLoss):
    """Cross entropy of `s sum_d x_d y_d v_d`, with each modality in turn as the one that is asked about.

    With two modalities the product is their cosine. Negatives of row i are products of the other modalities of other
    rows: `n` of them, from orders that are drawn anew in each step and are the same on every rank, or all `n^2`.

    Memory and time for [pair, pair] numbers in blocks of rows: `n` takes about 16 MiB for each of three matrices
    whatever the batch (all at once 64 MiB each at 4,096 pairs, 16 GiB at 65,536). `n_squared` works on one row at a
    time, which takes 64 MiB for each of four matrices at 4,096 pairs and 16 GiB at 65,536, and pair^3 dim time: it is
    for small batches.

    Known to fail: true rows need not come close to each other (only their product grows), and flipping the signs of two
    modalities of three changes nothing, so that cosines between two of them mean little: do not expect a closed gap,
    nor retrieval by cosines. With rows of norm 1 the product of three is small (1/sqrt(dim) for even rows).

    Reference: Saporta et al., arXiv 2411.01053, section 3, and the authors' code.
    """

    draws: torch.Generator | None = None

    def begin_step(self, seed: int, step: int) -> None:
        """Draw the orders of this step from the seed of the run and the number of the step, so that a resumed run
        repeats them. Without it they come from torch's own generator."""
        self.draws = torch.Generator().manual_seed(hash((seed, step)) % 2**63)

    def terms(self, batch: WholeRows) -> SymileTerms:
        """The terms of a batch that is checked."""
        scale = self.scale(batch.ranks)
        if self.settings.negatives == ALL:
            terms = [_all_pairs(batch, name, scale) for name in batch.own]
        else:
            terms = [_shuffled(batch, name, scale, self.draws) for name in batch.own]
        total = torch.stack(terms).mean()
        with torch.no_grad():
            product = row_products(list(batch.own.values())).mean()
        return SymileTerms(total, product if batch.ranks is None else batch.ranks.average(product))


def row_products(modalities: Sequence[Tensor]) -> Rows:
    """`sum_d prod_m z^m_d` of each row, the multilinear inner product of its modalities.

    Args:
        modalities: one [row, dim] matrix for each.
    """
    product = modalities[0]
    for rows in modalities[1:]:
        product = product * rows
    return product.sum(dim=1)


def _shuffled(batch: WholeRows, anchor: str, scale: Tensor, draws: torch.Generator | None) -> Tensor:
    """The cross entropy of one modality, with negatives from shuffled rows of the others."""
    own, names = batch.own[anchor], batch.others(anchor)
    orders = [_order(batch, draws) for _ in names]
    products = torch.ones_like(batch.everyone[anchor])
    for name, order in zip(names, orders, strict=True):
        products = products * batch.everyone[name][order]
    true = row_products(list(batch.own.values()))
    columns = torch.arange(batch.count, device=batch.device)

    def logits_of(rows: slice) -> tuple[Tensor, Tensor]:
        mine = scale * true[rows]
        index = columns[batch.first + rows.start : batch.first + rows.stop, None]
        # the shuffled product in the column of row i gives way to its true one, as in the authors' code
        is_left_out = index == columns
        if batch.positives is not None:
            same = [batch.positives[index] == batch.positives[order] for order in orders]
            is_left_out = is_left_out | torch.stack(same).all(dim=0)
        logits = (scale * (own[rows] @ products.T)).masked_fill(is_left_out, -math.inf)
        return torch.cat([mine[:, None], logits], dim=1), mine

    return row_cross_entropy(logits_of, batch.num_rows, batch.count, batch.count, batch.ranks)


def _order(batch: WholeRows, draws: torch.Generator | None) -> Tensor:
    """An order of the rows of all ranks, drawn by the first one."""
    order = torch.randperm(batch.count, generator=draws).to(batch.device)
    return order if batch.ranks is None else batch.ranks.gather(order)[: batch.count]


def _all_pairs(batch: WholeRows, anchor: str, scale: Tensor) -> Tensor:
    """The cross entropy of one modality, with every pair of rows of the two others."""
    own, (one, other) = batch.own[anchor], (batch.everyone[name] for name in batch.others(anchor))
    true, items = row_products(list(batch.own.values())), batch.positives

    def logits_of(rows: slice) -> tuple[Tensor, Tensor]:
        mine = scale * true[rows]
        logits = scale * torch.einsum("id,jd,kd->ijk", own[rows], one, other)
        index = torch.arange(batch.first + rows.start, batch.first + rows.stop, device=batch.device)
        everyone = torch.arange(batch.count, device=batch.device) if items is None else items
        is_same = everyone[index, None] == everyone[None, :]
        logits = logits.masked_fill(is_same[:, :, None] & is_same[:, None, :], -math.inf)
        return torch.cat([mine[:, None], logits.flatten(start_dim=1)], dim=1), mine

    return row_cross_entropy(logits_of, batch.num_rows, batch.count**2, batch.count, batch.ranks)


METHODS.add(
    "symile",
    Method(
        "symile",
        "cross entropy of the product of all modalities of a row",
        SymileSettings(),
        SymileLoss,
        "Saporta et al., arXiv 2411.01053, section 3",
    ),
)
