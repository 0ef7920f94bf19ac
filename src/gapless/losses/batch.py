"""How a loss takes a batch: checked, at one precision, with the ranks and the masks of all of them."""

from collections.abc import Mapping
from typing import NamedTuple

from torch import Tensor

from gapless.core.geometry import at_one_precision
from gapless.losses.checks import check_batch, check_enough
from gapless.losses.engine.gathered import Ranks
from gapless.losses.present import GivenPositives, masks_of_all


class OpenBatch(NamedTuple):
    """A batch that was checked.

    Args:
        embeddings: modality -> [row, dim] of this rank, fp32 or float64.
        positives: [row] int64 of this rank, or modality -> such integers, or None.
        masks: modality -> [row of all ranks] bool on the CPU; None where every row has everything.
        ranks: who shares the batch; None for one process.
    """

    embeddings: dict[str, Tensor]
    positives: GivenPositives
    masks: dict[str, Tensor] | None
    ranks: Ranks | None


def open_batch(
    embeddings: Mapping[str, Tensor],
    anchor: str | None,
    positives: GivenPositives,
    present: Mapping[str, Tensor] | None,
    gather: bool,
) -> OpenBatch:
    """The batch of a loss.

    Args:
        embeddings, positives, present: as in `GapClosingLoss.forward`.
        anchor: the modality that must be among the embeddings, or None.
        gather: whether the batch is that of all ranks of `torch.distributed` together.

    Raises:
        ValueError: see `GapClosingLoss.forward`.
    """
    check_batch(embeddings, anchor, positives, present)
    # torch cannot sort every kind of integer
    if isinstance(positives, Mapping):
        positives = {name: numbers.long() for name, numbers in positives.items()}
    elif positives is not None:
        positives = positives.long()
    first = next(iter(embeddings.values()))
    ranks = Ranks.current() if gather else None
    check_enough(first, positives, ranks, present is not None)
    masks = None
    if present is not None:
        masks = masks_of_all(present, list(embeddings), len(first), first.device, ranks)
    at_one = dict(zip(embeddings, at_one_precision(*embeddings.values()), strict=True))
    return OpenBatch(at_one, positives, masks, ranks)
