"""The door of the figures: what arrives is checked once, here, and leaves as unit-norm rows."""

import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from gapless.captions import caption_codes
from gapless.errors import DataRefused
from gapless.geometry import at_least_fp32, blocks, unit_norm

ROWS_AT_ONCE = 8192
MIN_ROWS = 2  # figures compare rows with each other


def check_embeddings(embeddings: Mapping[str, Any], minimum: int = 2) -> dict[str, Tensor]:
    """Unit-norm [pair, dim] rows of each modality on the CPU; fp16 and bf16 raised to fp32, float64 kept.

    Args:
        embeddings: modality name -> [pair, dim] tensor, array or memory map of floats, rows aligned.
        minimum: modalities needed.

    Raises:
        ValueError: too few modalities, integers, other than two dimensions, shapes that differ, fewer than 2 rows.
        DataRefused: rows with NaN or infinite values, or rows of zeros, named and counted.
    """
    if len(embeddings) < minimum:
        got = ", ".join(embeddings) or "none"
        raise ValueError(f"a gap needs at least {minimum} modalities, got {len(embeddings)} ({got})")
    rows = {name: _as_rows(name, value) for name, value in embeddings.items()}
    shapes = {name: tuple(value.shape) for name, value in rows.items()}
    if len(set(shapes.values())) > 1:
        listed = ", ".join(f"{name} {shape}" for name, shape in shapes.items())
        raise ValueError(f"expected [pair, dim] matrices of one shape, got {listed}")
    if next(iter(shapes.values()))[0] < 2:
        raise ValueError(f"figures need at least 2 rows, got {next(iter(shapes.values()))[0]}")
    return {name: _unit_rows(name, value) for name, value in rows.items()}


def _as_rows(name: str, value: Any) -> Tensor:
    if isinstance(value, np.ndarray):
        if value.dtype.kind != "f":
            raise ValueError(f"{name}: expected floating-point rows, got {value.dtype}")
        value = _borrowed(value)
    if not isinstance(value, Tensor) or not value.is_floating_point():
        raise ValueError(f"{name}: expected floating-point rows, got {getattr(value, 'dtype', type(value).__name__)}")
    if value.ndim != 2:
        raise ValueError(f"{name}: expected a [pair, dim] matrix, got shape {tuple(value.shape)}")
    return value.detach()


def _borrowed(array: np.ndarray) -> Tensor:
    """A tensor over the array's own memory; also over a read-only map, which nothing here writes to."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="The given NumPy array is not writable")
        return torch.from_numpy(array)


def _unit_rows(name: str, value: Tensor) -> Tensor:
    """Normalised block by block, so that a memory-mapped half-precision file is never held twice."""
    dtype = torch.float64 if value.dtype == torch.float64 else torch.float32
    result = torch.empty(value.shape, dtype=dtype)
    broken, zero = [], []
    for part in blocks(len(value), ROWS_AT_ONCE):
        rows = at_least_fp32(value[part].cpu())
        largest = rows.abs().amax(dim=1, keepdim=True)
        broken.append(~torch.isfinite(largest.squeeze(1)))
        zero.append(largest.squeeze(1) == 0)
        result[part] = unit_norm(rows / torch.where(largest == 0, torch.ones_like(largest), largest))
    refuse_rows(name, "hold NaN or infinite values", torch.cat(broken))
    refuse_rows(name, "are all zeros and have no direction", torch.cat(zero))
    return result


def refuse_rows(name: str, what: str, bad: Tensor) -> None:
    """Raise DataRefused that counts the marked rows and names the first ten."""
    count = int(bad.sum())
    if count:
        first = ", ".join(map(str, bad.nonzero().flatten()[:10].tolist()))
        raise DataRefused(f"{name}: {count} of {len(bad)} rows {what} (row {first}); remove them from every modality")


def group_index(groups: Any, num_rows: int) -> Tensor:
    """Groups of any hashable kind as [pair] integers 0..G-1; None makes every row its own group."""
    if groups is None:
        return torch.arange(num_rows)
    return torch.from_numpy(_codes("groups", groups, num_rows))


def caption_classes(captions: Sequence[Any], num_rows: int) -> Tensor:
    """[pair] integers, equal where the captions are the same (see `gapless.captions`); an empty one equals no other."""
    if len(captions) != num_rows:
        raise ValueError(f"expected {num_rows} captions, one per row, got {len(captions)}")
    return torch.tensor(caption_codes(captions), dtype=torch.long)


def _codes(what: str, values: Any, num_rows: int) -> np.ndarray:
    if isinstance(values, Tensor):
        values = values.cpu().numpy()
    values = values if isinstance(values, np.ndarray) else np.array([str(value) for value in values])
    if values.shape != (num_rows,):
        raise ValueError(f"expected {num_rows} {what}, one per row, got shape {values.shape}")
    return np.unique(values, return_inverse=True)[1].astype(np.int64)
