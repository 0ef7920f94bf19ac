"""Losses that compare rows with all their modalities at once; rows that lack one are refused."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, reduce
from typing import Any

import torch
from torch import Tensor

from gapless.core.errors import UsageError
from gapless.losses.anchored import ContrastiveLoss
from gapless.losses.base import Terms
from gapless.losses.batch import open_batch
from gapless.losses.engine.gathered import Ranks
from gapless.losses.present import GivenPositives, joined


def check_count(method: str, modalities: Sequence[str], least: int, most: int | None) -> None:
    """Refuse a number of modalities that a method cannot take.

    Args:
        method: its name.
        modalities: their names.
        least, most: how many it takes; `most` None is any number.

    Raises:
        UsageError: too few or too many.
    """
    count = len(modalities)
    if count < least or (most is not None and count > most):
        if least == most:
            wanted = f"exactly {least}"
        else:
            wanted = f"{least} to {most}" if most is not None else f"at least {least}"
        raise UsageError(
            f"the method {method} takes {wanted} modalities, and there are {count} ({', '.join(modalities)}); "
            "name others with --modalities, or train with another method"
        )


@dataclass(frozen=True)
class WholeRows:
    """A checked batch of which every row has every modality.

    Args:
        own: modality -> [row of this rank, dim].
        positives: [row of all ranks] integers, or None.
        ranks: who shares the batch; None for one process.
    """

    own: Mapping[str, Tensor]
    positives: Tensor | None
    ranks: Ranks | None

    @cached_property
    def everyone(self) -> Mapping[str, Tensor]:
        """modality -> [row of all ranks, dim]."""
        if self.ranks is None:
            return self.own
        return {name: self.ranks.gather(rows) for name, rows in self.own.items()}

    @property
    def num_rows(self) -> int:
        """Of this rank."""
        return len(next(iter(self.own.values())))

    @property
    def count(self) -> int:
        """Rows of all ranks."""
        return self.num_rows * (1 if self.ranks is None else self.ranks.num_ranks)

    @property
    def first(self) -> int:
        """Where this rank's rows begin among those of all ranks."""
        return 0 if self.ranks is None else self.ranks.rank * self.num_rows

    @property
    def device(self) -> torch.device:
        return next(iter(self.own.values())).device

    def others(self, anchor: str) -> list[str]:
        """The modalities but one."""
        return [name for name in self.own if name != anchor]


def open_whole_rows(
    embeddings: Mapping[str, Tensor], anchor: str, positives: GivenPositives, gather: bool
) -> WholeRows:
    """The checked batch of a loss over whole rows; arguments and errors as in `batch.open_batch`."""
    opened = open_batch(embeddings, anchor, positives, None, gather)
    given, ranks = opened.positives, opened.ranks
    if given is None:
        return WholeRows(opened.embeddings, None, ranks)
    by_modality = list(given.values()) if isinstance(given, Mapping) else [given]
    everyone = by_modality if ranks is None else [ranks.gather(numbers) for numbers in by_modality]
    return WholeRows(opened.embeddings, reduce(joined, everyone), ranks)


class WholeRowLoss(ContrastiveLoss):
    """A loss over rows with all their modalities; a subclass gives the terms of a batch.

    With `torch.distributed` running, the batch is that of all ranks together. Its `forward` has no `present`, so that a
    training on rows that lack a modality is refused before it starts. Differentiable once over several ranks.
    """

    def forward(self, embeddings: Mapping[str, Tensor], *, positives: GivenPositives = None) -> Any:
        """The terms of one batch; arguments and errors as in `GapClosingLoss.forward`.

        Positives by modality are joined, over any chain of rows that are equal in one of them.

        Raises:
            UsageError: a number of modalities that the method cannot take.
            ValueError: what `GapClosingLoss.forward` refuses.
        """
        self.settings.check_modalities(list(embeddings))
        batch = open_whole_rows(embeddings, self.anchor, positives, self.gather)
        with torch.autocast(batch.device.type, enabled=False):
            return self.terms(batch)

    def terms(self, batch: WholeRows) -> Terms:
        """The terms of a batch that is checked."""
        raise NotImplementedError
