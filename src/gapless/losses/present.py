"""The rows that a comparison of modalities is over, where rows lack some of them.

Each pair of modalities is compared on the rows that have both. Absent rows are set to zero first and then left out, so
that nothing of them reaches a value or a gradient, NaN included. With several ranks the padded rows and the masks of
all of them are gathered and the rows chosen afterwards: how many are chosen differs between ranks, and a rank without
any of them takes part in every exchange.
"""

from collections.abc import Mapping
from functools import cached_property
from typing import NamedTuple

import torch
from torch import Tensor

from gapless.core.geometry import num_pairs_apart, unit_norm
from gapless.losses.engine.gathered import Ranks

GivenPositives = Tensor | Mapping[str, Tensor] | None


class Chosen(NamedTuple):
    """Rows that a comparison is over.

    Args:
        own: [n of this rank] their numbers among this rank's rows.
        everyone: [n] their numbers among the rows of all ranks; `own` alone, where one process works.
        first: where this rank's begin in `everyone`.
    """

    own: Tensor
    everyone: Tensor
    first: int

    @property
    def of_this_rank(self) -> slice:
        """This rank's part of what is chosen from all ranks."""
        return slice(self.first, self.first + len(self.own))


class PresentBatch:
    """A batch whose rows lack some modalities, with what its comparisons need.

    Args:
        embeddings: modality -> [row, dim] of this rank, of one precision.
        masks: modality -> [row of all ranks] bool on the CPU, see `masks_of_all`; None where every row has everything.
        positives: [row] integers of this rank, or modality -> such integers, or None.
        ranks: who shares the batch; None for one process.
    """

    def __init__(
        self,
        embeddings: Mapping[str, Tensor],
        masks: Mapping[str, Tensor] | None,
        positives: GivenPositives,
        ranks: Ranks | None,
    ) -> None:
        first = next(iter(embeddings.values()))
        self.num_rows, self.device, self.ranks = len(first), first.device, ranks
        everyone = torch.ones(self.num_rows * (ranks.num_ranks if ranks else 1), dtype=torch.bool)
        self.masks = dict.fromkeys(embeddings, everyone) if masks is None else dict(masks)
        self.begin = self.num_rows * (ranks.rank if ranks else 0)
        self.rows = {name: self._without_absent(name, rows) for name, rows in embeddings.items()}
        self.positives = positives
        self._gathered: dict[str, Tensor] = {}

    def _without_absent(self, name: str, rows: Tensor) -> Tensor:
        """The rows with zeros for absent ones; a rank's gather would carry their NaN to all others."""
        mask = self._own(self.masks[name])
        return rows if mask.all() else torch.where(mask.to(self.device)[:, None], rows, torch.zeros_like(rows))

    def _own(self, mask: Tensor) -> Tensor:
        return mask[self.begin : self.begin + self.num_rows]

    def choose(self, mask: Tensor) -> Chosen:
        """The rows of a mask over all ranks."""
        own, everyone = (rows.nonzero().flatten().to(self.device) for rows in (self._own(mask), mask))
        return Chosen(own, everyone, int(mask[: self.begin].sum()))

    def with_both(self, pair: tuple[str, str]) -> Chosen:
        """The rows that have both modalities of a pair."""
        return self.choose(self.masks[pair[0]] & self.masks[pair[1]])

    def of_all_ranks(self, name: str) -> Tensor:
        """The rows of a modality of all ranks, [row of all ranks, dim]; gathered once."""
        if self.ranks is None:
            return self.rows[name]
        if name not in self._gathered:
            self._gathered[name] = self.ranks.gather(self.rows[name])
        return self._gathered[name]

    @cached_property
    def _numbers(self) -> Mapping[str, Tensor]:
        """Positives of all ranks by modality; one vector stands under the name ""."""
        if self.positives is None:
            return {}
        given = {"": self.positives} if isinstance(self.positives, Tensor) else self.positives
        return {name: x if self.ranks is None else self.ranks.gather(x) for name, x in given.items()}

    def positives_of_pair(self, pair: tuple[str, str], chosen: Chosen) -> Tensor | None:
        """[n] integers that are equal where two chosen rows count as the same for a pair; None where none do."""
        numbers = [self._numbers[name][chosen.everyone] for name in ("", *pair) if name in self._numbers]
        return joined(*numbers) if len(numbers) == 2 else next(iter(numbers), None)

    def positives_of_centroids(self, anchor: str, chosen: Chosen) -> Tensor | None:
        """[n] integers that are equal where the centroids of two chosen rows are not pushed apart.

        With positives by modality these are the anchor's; a row that lacks the anchor is the same as no other.
        """
        if "" in self._numbers:
            return self._numbers[""][chosen.everyone]
        if anchor not in self._numbers:
            return None
        numbers = self._numbers[anchor][chosen.everyone].unique(return_inverse=True)[1]
        alone = len(numbers) + torch.arange(len(numbers), device=self.device)
        return torch.where(self.masks[anchor].to(self.device)[chosen.everyone], numbers, alone)

    def centroids(self, normalise: bool) -> tuple[Tensor, Chosen]:
        """The mean of what each row has, [row, dim] of this rank, and the rows that have two modalities or more."""
        counts = torch.stack(list(self.masks.values())).sum(dim=0)
        own_counts = self._own(counts).clamp(min=1).to(self.device)
        total = _sum(self.rows)
        centroids = total / own_counts[:, None].to(total)
        return (unit_norm(centroids) if normalise else centroids), self.choose(counts >= 2)

    def nothing(self, logit_scale: Tensor) -> Tensor:
        """A zero that depends on every embedding and on the temperature, so that a backward pass reaches them all."""
        return (_sum({name: rows.sum() for name, rows in self.rows.items()}) + logit_scale) * 0.0


def _sum(terms: Mapping[str, Tensor]) -> Tensor:
    first, *others = terms.values()
    for term in others:
        first = first + term
    return first


def masks_of_all(
    present: Mapping[str, Tensor], names: list[str], num_rows: int, device: torch.device, ranks: Ranks | None
) -> dict[str, Tensor] | None:
    """The masks of all ranks, modality -> [row of all ranks] bool on the CPU; None where every row has everything.

    Masks decide how many rows a comparison has, so that they are read on the host: masks on an accelerator make it
    wait, once a batch.
    """
    everyone = torch.ones(num_rows, dtype=torch.bool)
    masks = torch.stack([present.get(name, everyone).cpu() for name in names], dim=1)
    if ranks is not None:
        masks = ranks.gather(masks.to(device, torch.uint8)).cpu().bool()
    return None if masks.all() else {name: masks[:, column] for column, name in enumerate(names)}


def joined(one: Tensor, other: Tensor) -> Tensor:
    """[row] integers that are equal where rows are linked by equal integers in one or the other, over any chain.

    >>> joined(torch.tensor([0, 0, 1, 2]), torch.tensor([5, 6, 6, 7]))
    tensor([0, 0, 0, 3])
    """
    groups = [numbers.unique(return_inverse=True)[1] for numbers in (one, other)]
    label = torch.arange(len(one), device=one.device)
    while True:
        before = label
        for group in groups:
            label = torch.full_like(label, len(label)).scatter_reduce(0, group, label, "amin")[group]
        label = label[label]  # the row that gave its number may have a lower one by now: chains shrink faster
        if torch.equal(label, before):
            return label


def are_apart(positives: Tensor | None, num_rows: int) -> bool:
    """Whether two of the rows are no positives of each other."""
    return num_rows >= 2 and (positives is None or bool(num_pairs_apart(positives) > 0))
