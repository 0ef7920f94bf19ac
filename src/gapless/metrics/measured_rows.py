"""What `measure` computes on: checked rows with their groups, positives and labels, and how it is to be done."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from gapless.metrics.uncertainty import GroupSums

Figures = dict[str, Any]


@dataclass(frozen=True)
class Settings:
    """How figures are computed; see `measure`."""

    anchor: str | None
    include: Sequence[str]
    seed: int
    max_grouping_pairs: int
    block_size: int


@dataclass(frozen=True)
class MeasuredRows:
    """Checked rows and what is known of each.

    Args:
        rows: modality -> [row, dim] unit-norm rows; absent ones hold zeros.
        groups: [row] integers 0..G-1, each of which occurs.
        classes: [row] integers from 0 without a gap, equal where captions are the same, or None.
        items: [row] integers from 0 without a gap, equal where rows show one item, or None.
        codes: name of the labels -> [row] integers, -1 where missing.
        present: modality -> [row] bool; None where nothing is missing.
    """

    rows: Mapping[str, Tensor]
    groups: Tensor
    classes: Tensor | None = None
    items: Tensor | None = None
    codes: Mapping[str, Tensor] = field(default_factory=dict)
    present: Mapping[str, Tensor] | None = None

    def __len__(self) -> int:
        return len(self.groups)

    @cached_property
    def sums(self) -> GroupSums:
        return GroupSums(self.groups, int(self.groups.max()) + 1)

    @property
    def counts(self) -> Tensor:
        """[row] how many modalities a row has."""
        if self.present is None:
            return torch.full((len(self),), len(self.rows))
        return torch.stack([mask.long() for mask in self.present.values()]).sum(dim=0)

    def having(self, names: Sequence[str]) -> Tensor:
        """[row] bool, whether a row has all of these modalities."""
        if self.present is None:
            return torch.ones(len(self), dtype=torch.bool)
        return torch.stack([self.present[name] for name in names]).all(dim=0)

    def take(self, chosen: Tensor, names: Sequence[str] | None = None) -> "MeasuredRows":
        """The rows of a mask in some modalities, with groups, classes and items numbered anew.

        They are complete where every chosen row has all of these modalities.
        """
        names = list(self.rows) if names is None else list(names)
        masks = None if self.present is None else {name: self.present[name][chosen] for name in names}
        return MeasuredRows(
            {name: self.rows[name][chosen] for name in names},
            _renumbered(self.groups[chosen]),
            None if self.classes is None else _renumbered(self.classes[chosen]),
            None if self.items is None else _renumbered(self.items[chosen]),
            {name: codes[chosen] for name, codes in self.codes.items()},
            None if masks is None or all(mask.all() for mask in masks.values()) else masks,
        )


def _renumbered(codes: Tensor) -> Tensor:
    numbers: Tensor = torch.unique(codes, return_inverse=True)[1]
    return numbers
