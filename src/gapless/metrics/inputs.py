"""Validates embeddings and groups for the metrics, and returns unit-norm rows and integer codes."""

import warnings
from collections.abc import Iterable, Mapping, Sequence
from itertools import permutations
from numbers import Integral
from typing import Any

import numpy as np
import torch
from torch import Tensor

from gapless.core.captions import caption_codes
from gapless.core.errors import DataRefused
from gapless.core.geometry import at_least_fp32, blocks, unit_norm
from gapless.core.memory_maps import release_pages
from gapless.core.values import names_of, refuse_missing

ROWS_AT_ONCE = 8192
MIN_ROWS = 2  # figures compare rows, so one row has none
FLOAT64_BYTES = 8
SIGNS_OF_KEYS = "/+@"  # between the parts of a key, the parts of a joint query, and before the suffix "complete"


def check_embeddings(
    embeddings: Mapping[str, Any], minimum: int = 2, present: Mapping[str, Tensor] | None = None
) -> dict[str, Tensor]:
    """Unit-norm [pair, dim] rows of each modality on the CPU, all in one precision.

    fp16 and bf16 are raised to fp32; where one modality is float64 (or wider), all are float64.

    Args:
        embeddings: modality name -> [pair, dim] tensor, array or memory map of floats, rows aligned. Arrays may have
            any byte order, order in memory or strides; a masked value counts as NaN.
        minimum: modalities needed.
        present: modality -> [pair] bool, from `check_present`: rows that are absent are not looked at, and are zeros.

    Raises:
        ValueError: what `check_modality_names` refuses, too few modalities, integers, other than two dimensions, shapes
            that differ, fewer than 2 rows.
        DataRefused: rows with NaN or infinite values, or rows of zeros, named and counted.

    >>> rows = check_embeddings({"image": np.array([[3.0, 4.0], [0.0, 2.0]]), "text": np.eye(2)})
    >>> rows["image"].float()
    tensor([[0.6000, 0.8000],
            [0.0000, 1.0000]])
    """
    rows, dtype = _rows_and_precision(embeddings, minimum)
    masks = present or {}
    return {name: _unit_rows(name, value, dtype, masks.get(name)) for name, value in rows.items()}


class UnitRows:
    """Rows of one modality that are scaled to norm 1 when they are read: a memory-mapped file is never copied whole.

    `rows[slice]` and `rows[indices]` are [row, dim] tensors on the CPU. Pages of the file are given back after each
    read, so that what is resident does not grow with the rows.

    Args:
        name: of the modality, for messages.
        value: [pair, dim] floats.
        dtype: of what is read.
        present: [pair] bool; rows that are absent are zeros, whatever they hold. None where nothing is missing.
    """

    def __init__(
        self, name: str, value: np.ndarray | Tensor, dtype: torch.dtype, present: Tensor | None = None
    ) -> None:
        self.name = name
        self.dtype = dtype
        self._value = value
        self._present = present

    @property
    def shape(self) -> tuple[int, int]:
        return len(self._value), int(self._value.shape[1])

    def __len__(self) -> int:
        return len(self._value)

    def __getitem__(self, part: slice | Tensor | np.ndarray) -> Tensor:
        part = torch.from_numpy(part) if isinstance(part, np.ndarray) else part
        rows = _unit_block(self._read(part))
        release_pages(self._value)
        return rows

    def _read(self, part: slice | Tensor) -> Tensor:
        return _present_rows(_block(self._value, part).to(self.dtype), self._present, part)

    def check(self) -> None:
        """Refuse rows with NaN, infinite values or zeros alone: one pass, memory of one bool a row."""
        largest = torch.empty(len(self), dtype=self.dtype)  # filled in place: kept parts would hold the heap open
        for part in blocks(len(self), ROWS_AT_ONCE):
            largest[part] = _largest(self._read(part))
            release_pages(self._value)
        is_there = torch.ones_like(largest, dtype=torch.bool) if self._present is None else self._present
        _refuse_unusable(self.name, ~torch.isfinite(largest), (largest == 0) & is_there)


def read_embeddings(
    embeddings: Mapping[str, Any], minimum: int = 2, present: Mapping[str, Tensor] | None = None
) -> dict[str, UnitRows]:
    """As `check_embeddings`, of rows that are read from where they are, block by block."""
    rows, dtype = _rows_and_precision(embeddings, minimum)
    masks = present or {}
    result = {name: UnitRows(name, value, dtype, masks.get(name)) for name, value in rows.items()}
    for one in result.values():
        one.check()
    return result


def _rows_and_precision(
    embeddings: Mapping[str, Any], minimum: int
) -> tuple[dict[str, np.ndarray | Tensor], torch.dtype]:
    check_modality_names(embeddings)
    if len(embeddings) < minimum:
        got = ", ".join(embeddings) or "none"
        raise ValueError(f"a gap needs at least {minimum} modalities, got {len(embeddings)} ({got})")
    rows = {name: _as_rows(name, value) for name, value in embeddings.items()}
    shapes = {name: tuple(value.shape) for name, value in rows.items()}
    if len(set(shapes.values())) > 1:
        listed = ", ".join(f"{name} {shape}" for name, shape in shapes.items())
        raise ValueError(f"expected [pair, dim] matrices of one shape, got {listed}")
    num_rows, dim = next(iter(shapes.values()))
    if num_rows < 2:
        raise ValueError(f"figures need at least 2 rows, got {num_rows}")
    if dim < 1:
        raise ValueError(f"expected rows of at least 1 number, got shape {(num_rows, dim)}")
    is_wide = any(value.dtype.itemsize >= FLOAT64_BYTES for value in rows.values())
    return rows, torch.float64 if is_wide else torch.float32


def check_modality_names(names: Iterable[str]) -> None:
    """Refuse names of modalities with which the keys of figures would be ambiguous.

    Raises:
        ValueError: a name that is empty or has "/", "+" or "@", or two pairs of modalities whose keys are the same.

    >>> check_modality_names(["left_to_right", "text"])
    >>> check_modality_names(["a/b", "text"])
    Traceback (most recent call last):
    ...
    ValueError: the name of the modality 'a/b' is empty or has '/', '+' or '@', which keys of figures use; rename it
    """
    names = list(names)
    for name in names:
        if not name or set(name) & set(SIGNS_OF_KEYS):
            raise ValueError(
                f"the name of the modality {name!r} is empty or has '/', '+' or '@', which keys of figures use; "
                "rename it"
            )
    keys: dict[str, tuple[str, str]] = {}
    for first, second in permutations(names, 2):
        for key in (f"{first}-{second}", f"{first}_to_{second}"):
            a, b = keys.setdefault(key, (first, second))
            if (a, b) != (first, second):
                raise ValueError(
                    f"the modalities {a!r} and {b!r} have the same key of figures as {first!r} and {second!r}, {key}; "
                    "rename one of them"
                )


def check_present(present: Mapping[str, Any] | None, embeddings: Mapping[str, Any]) -> dict[str, Tensor] | None:
    """Modality -> [pair] bool for every modality; None where nothing is missing.

    Raises:
        ValueError: a mask of an unknown modality, or one that is not one bool a row.
        DataRefused: a modality that no row has.

    >>> check_present({"text": [True, False]}, {"image": np.eye(2), "text": np.eye(2)})
    {'image': tensor([True, True]), 'text': tensor([ True, False])}
    """
    if present is None:
        return None
    masks = {name: torch.ones(len(matrix), dtype=torch.bool) for name, matrix in embeddings.items()}
    for name, given in present.items():
        if name not in masks:
            raise ValueError(f"present names {name!r}, and the modalities are {', '.join(masks)}")
        mask = torch.as_tensor(given).cpu()
        if mask.dtype != torch.bool or mask.shape != masks[name].shape:
            raise ValueError(
                f"present[{name!r}] is {len(masks[name])} bools, one for each row, got {mask.dtype} {tuple(mask.shape)}"
            )
        if not mask.any():
            raise DataRefused(f"no row has {name}; leave {name} out")
        masks[name] = mask
    return None if all(mask.all() for mask in masks.values()) else masks


def _as_rows(name: str, value: Any) -> np.ndarray | Tensor:
    is_float = value.dtype.kind == "f" if isinstance(value, np.ndarray) else False
    if isinstance(value, Tensor):
        value, is_float = value.detach(), value.is_floating_point()
    if not is_float:
        raise ValueError(f"{name}: expected floating-point rows, got {getattr(value, 'dtype', type(value).__name__)}")
    if value.ndim != 2:
        raise ValueError(f"{name}: expected a [pair, dim] matrix, got shape {tuple(value.shape)}")
    rows: np.ndarray | Tensor = value
    return rows


def _block(value: np.ndarray | Tensor, part: slice | Tensor) -> Tensor:
    """Some rows on the CPU, in fp32 or float64."""
    if isinstance(value, Tensor):
        return at_least_fp32(value[part].cpu())
    rows = value[part.numpy() if isinstance(part, Tensor) else part]
    if isinstance(rows, np.ma.MaskedArray):
        rows = rows.filled(np.nan)
    dtype = np.float64 if rows.dtype.itemsize >= FLOAT64_BYTES else np.float32
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="The given NumPy array is not writable")
        return torch.from_numpy(np.ascontiguousarray(rows, dtype=dtype))


def _unit_rows(name: str, value: np.ndarray | Tensor, dtype: torch.dtype, present: Tensor | None) -> Tensor:
    """Rows scaled to norm 1, block by block: a memory-mapped half-precision file is not copied as a whole."""
    result = torch.empty(tuple(value.shape), dtype=dtype)
    broken, zero = [], []
    for part in blocks(len(value), ROWS_AT_ONCE):
        rows = _present_rows(_block(value, part).to(dtype), present, part)
        largest = _largest(rows)
        broken.append(~torch.isfinite(largest))
        zero.append((largest == 0) & (True if present is None else present[part]))
        result[part] = _unit_block(rows)
        release_pages(value)
    _refuse_unusable(name, torch.cat(broken), torch.cat(zero))
    return result


def _present_rows(rows: Tensor, present: Tensor | None, part: slice | Tensor) -> Tensor:
    """Zeros in the rows of the part that are absent."""
    return rows if present is None else torch.where(present[part][:, None], rows, torch.zeros_like(rows))


def _largest(rows: Tensor) -> Tensor:
    """[row] the largest absolute value."""
    return rows.abs().amax(dim=1)


def _unit_block(rows: Tensor) -> Tensor:
    """Rows scaled to norm 1, first by their largest value: squares of small or large numbers leave the range."""
    largest = _largest(rows)[:, None]
    return unit_norm(rows / torch.where(largest == 0, torch.ones_like(largest), largest))


def _refuse_unusable(name: str, broken: Tensor, zero: Tensor) -> None:
    refuse_rows(name, "hold NaN or infinite values", broken)
    refuse_rows(name, "are all zeros and have no direction", zero)


def check_counts(**counts: tuple[Any, int]) -> None:
    """Raise ValueError for a count that is not an integer of at least its minimum; `name=(count, minimum)`."""
    for name, (value, least) in counts.items():
        if not isinstance(value, Integral) or value < least:
            raise ValueError(f"{name} is a whole number of at least {least}, got {value!r}")


def refuse_rows(name: str, what: str, bad: Tensor) -> None:
    """Raise DataRefused that counts the marked rows and names the first ten."""
    count = int(bad.sum())
    if count:
        first = ", ".join(map(str, bad.nonzero().flatten()[:10].tolist()))
        raise DataRefused(f"{name}: {count} of {len(bad)} rows {what} (row {first}); remove them from every modality")


def group_index(groups: Any, num_rows: int) -> Tensor:
    """Groups as [pair] integers 0..G-1; None makes every row its own group.

    Groups are names (`gapless.core.values.name_of`): 1000.0 and 1000 are one, 007 and 7 are two.

    Raises:
        ValueError: another number of groups than rows.
        DataRefused: rows without a group, counted; cells that are lists or mappings.

    >>> group_index(["p2", "p1", "p2"], 3)
    tensor([1, 0, 1])
    """
    if groups is None:
        return torch.arange(num_rows)
    groups = groups.cpu().numpy() if isinstance(groups, Tensor) else groups
    if type(groups) is np.ndarray and groups.dtype.kind in "iu" and groups.shape == (num_rows,):
        return torch.from_numpy(np.unique(groups, return_inverse=True)[1].astype(np.int64))  # in numeric order
    names = names_of("groups", groups)
    refuse_missing("groups", "group", names)
    return _codes("groups", names, num_rows)


def item_classes(positives: Any, num_rows: int) -> Tensor:
    """[pair] integers, equal where rows show the same item; a row without a name is an item of its own."""
    names = names_of("positives", positives)
    return _codes("positives", [name or f"\0{row}" for row, name in enumerate(names)], num_rows)


def caption_classes(captions: Sequence[Any], num_rows: int) -> Tensor:
    """[pair] integers, equal where the captions are the same (`core.captions`); an empty one equals no other.

    >>> caption_classes(["No effusion.", "cyst", "no effusion", ""], 4)
    tensor([0, 1, 0, 2])
    """
    if len(captions) != num_rows:
        raise ValueError(f"expected {num_rows} captions, one per row, got {len(captions)}")
    return torch.tensor(caption_codes(captions), dtype=torch.long)


def _codes(what: str, names: Sequence[str], num_rows: int) -> Tensor:
    if len(names) != num_rows:
        raise ValueError(f"expected {num_rows} {what}, one per row, got {len(names)}")
    code: dict[str, int] = {name: number for number, name in enumerate(sorted(set(names)))}
    return torch.tensor([code[name] for name in names], dtype=torch.int64)
