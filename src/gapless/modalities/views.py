"""Several views of one modality in a row, such as a frontal and a lateral image: one encoder, the mean of its features.

In a batch each tensor of such a modality is [row, view, ...], and `views` says which places hold one, so that a batch
is cut by rows like any other.
"""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from gapless.modalities.base import Modality

if TYPE_CHECKING:
    from torch import Tensor

VIEWS = "views"


class Views(tuple[Any, ...]):
    """The prepared inputs of several views of one modality in one row."""


def collate_rows(kind: Modality[Any], prepared: Sequence[Any]) -> "dict[str, Tensor]":
    """`kind.collate` of rows, some of which may be `Views`.

    Returns:
        Tensors [row, ...] as the kind gives them. Where a row has several views, tensors [row, view, ...] with `views`,
        [row, view] bool; a place without a view repeats another input.
    """
    import torch

    if not any(isinstance(one, Views) for one in prepared):
        return kind.collate(prepared)
    rows = [one if isinstance(one, Views) else Views([one]) for one in prepared]
    inputs = kind.collate([view for row in rows for view in row])
    counts = torch.tensor([len(row) for row in rows])
    mask = torch.arange(int(counts.max())) < counts[:, None]
    places = torch.zeros_like(mask, dtype=torch.long)
    places[mask] = torch.arange(int(counts.sum()))
    return {**{name: values[places] for name, values in inputs.items()}, VIEWS: mask}


def flat_views(inputs: "Mapping[str, Tensor]") -> "tuple[dict[str, Tensor], Tensor | None]":
    """The encoder's inputs [view, ...] of all views in the order of their rows, and the mask [row, view] or None."""
    mask = inputs.get(VIEWS)
    if mask is None:
        return dict(inputs), None
    return {name: values[mask] for name, values in inputs.items() if name != VIEWS}, mask


def first_views(inputs: "Mapping[str, Tensor]") -> "dict[str, Tensor]":
    """The inputs of the first view of each row."""
    return {name: values[:, 0] for name, values in inputs.items() if name != VIEWS} if VIEWS in inputs else dict(inputs)


def mean_over_views(features: "Tensor", mask: "Tensor | None") -> "Tensor":
    """[row, size], the mean over the views of each row.

    Args:
        features: [view, size], in the order of `flat_views`.
        mask: [row, view] bool; None where every row has one view, whose features are then returned.
    """
    if mask is None:
        return features
    rows = mask.nonzero()[:, 0]
    sums = features.new_zeros(len(mask), features.shape[1]).index_add(0, rows, features)
    return sums / mask.sum(dim=1, keepdim=True).to(features.dtype)
