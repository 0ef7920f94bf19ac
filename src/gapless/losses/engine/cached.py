"""A large contrastive batch in the memory of a small one (GradCache, feature-cached accumulation).

    micro_batches = split_batch(batch, 64)
    embeddings = cached_embeddings(encode, micro_batches)       # all rows, without activations in memory
    loss(embeddings).total.backward()                           # encodes each micro-batch again, one at a time

Plain gradient accumulation contrasts every micro-batch with itself only. Here the gradient is that of the large batch,
at the cost of one more forward pass of the encoders. A micro-batch is one checkpoint of `torch.utils.checkpoint`, which
replays random state and autocast. There is one graph, so that DDP synchronises once and loss scaling works.

Batch normalisation would normalise over micro-batches and update its running statistics twice: use encoders without
it, or freeze them.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from gapless.core.geometry import blocks


def cached_embeddings(encode: Callable[[Any], Mapping[str, Tensor]], micro_batches: Sequence[Any]) -> dict[str, Tensor]:
    """The embeddings of all micro-batches together, at the memory of one.

    Args:
        encode: micro-batch -> modality -> [row, dim]. Called once now and, where there is a gradient, once more in
            the backward pass, with the same random state.
        micro_batches: what `encode` takes, at least one.

    Returns:
        modality -> [pair, dim], rows in the order of the micro-batches.

    Reference: Gao et al., arXiv 2101.06983.
    """
    if not micro_batches:
        raise ValueError("expected at least one micro-batch, got none")
    parts = [checkpoint(encode, micro_batch, use_reentrant=False) for micro_batch in micro_batches]
    return {name: torch.cat([part[name] for part in parts]) for name in parts[0]}


def split_batch(batch: Any, micro_batch_size: int) -> list[Any]:
    """Consecutive slices of every tensor in nested mappings; the last one may be smaller.

    >>> split_batch({"text": {"ids": torch.arange(3)}}, 2)
    [{'text': {'ids': tensor([0, 1])}}, {'text': {'ids': tensor([2])}}]
    """
    if micro_batch_size < 1:
        raise ValueError(f"a micro-batch needs at least 1 row, got {micro_batch_size}")
    sizes = set(_lengths(batch))
    if len(sizes) != 1:
        raise ValueError(f"expected tensors of one length, got lengths {sorted(sizes)}")
    return [_rows(batch, rows) for rows in blocks(sizes.pop(), micro_batch_size)]


def split_present(
    batch: Mapping[str, Mapping[str, Tensor]], present: Mapping[str, Tensor], micro_batch_size: int
) -> list[tuple[dict[str, dict[str, Tensor]], dict[str, Tensor]]]:
    """`split_batch` of a batch that holds, for each modality, the inputs of the rows that have it alone.

    Args:
        batch: modality -> the inputs of its present rows; without the modalities that no row has.
        present: modality -> [row] bool.
        micro_batch_size: rows of the batch, present or not.

    Returns:
        (inputs, masks) of each micro-batch, in the form of `batch` and `present`.

    Raises:
        ValueError: masks of several lengths, or inputs of another number of rows than their mask has.
    """
    for name, inputs in batch.items():
        sizes = set(_lengths(inputs))
        if sizes != {int(present[name].sum())}:
            raise ValueError(f"{name}: {int(present[name].sum())} rows are present, got inputs of {sorted(sizes)} rows")
    parts = []
    starts = dict.fromkeys(batch, 0)
    for masks in split_batch(present, micro_batch_size):
        inputs_of_part = {}
        for name, inputs in batch.items():
            start, starts[name] = starts[name], starts[name] + int(masks[name].sum())
            if starts[name] > start:
                inputs_of_part[name] = _rows(inputs, slice(start, starts[name]))
        parts.append((inputs_of_part, masks))
    return parts


def _lengths(batch: Any) -> list[int]:
    if isinstance(batch, Mapping):
        return [length for value in batch.values() for length in _lengths(value)]
    return [len(batch)]


def _rows(batch: Any, rows: slice) -> Any:
    if isinstance(batch, Mapping):
        return {name: _rows(value, rows) for name, value in batch.items()}
    return batch[rows]
