"""Checks of the batches of a loss: each raises a ValueError that shows the input and says what to do."""

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor

from gapless.core.geometry import at_least_fp32, can_read_values
from gapless.losses.engine.gathered import Ranks

# Rows that were never normalised are further from norm 1 than this, at least one of a batch. Rows that are parameters
# themselves, or points of a finite difference, are nearer, and the formulas hold for them.
NORM_TOLERANCE = 0.25


def check_batch(
    embeddings: Mapping[str, Tensor],
    anchor: str | None,
    positives: Tensor | Mapping[str, Tensor] | None,
    present: Mapping[str, Tensor] | None = None,
) -> None:
    """Refuse embeddings, masks and positives that do not fit together, and present rows that are not normalised.

    Args:
        embeddings, positives, present: as in `GapClosingLoss.forward`.
        anchor: the modality that must be among the embeddings, or None.

    Raises:
        ValueError: see `GapClosingLoss.forward`.
    """
    if len(embeddings) < 2:
        raise ValueError(f"expected at least two modalities, got {sorted(embeddings)}")
    for name, rows in embeddings.items():
        if not isinstance(rows, Tensor) or not rows.is_floating_point():
            raise ValueError(f"{name!r}: expected a tensor of floating-point rows, got {_kind_of(rows)}")
    shapes = {name: tuple(rows.shape) for name, rows in embeddings.items()}
    if anchor is not None and anchor not in shapes:
        raise ValueError(f"the anchor {anchor!r} is not among the modalities {sorted(shapes)}")
    shape = next(iter(shapes.values()))
    if len(set(shapes.values())) > 1 or len(shape) != 2 or shape[1] == 0:
        raise ValueError(f"expected [pair, dim] matrices of one shape, got {shapes}")
    devices = {name: str(rows.device) for name, rows in embeddings.items()}
    if len(set(devices.values())) > 1:
        raise ValueError(f"expected all modalities on one device, got {devices}")
    for name, numbers in positives.items() if isinstance(positives, Mapping) else [("", positives)]:
        _check_known(name or next(iter(shapes)), shapes, "positives")
        _check_positives(numbers, shape[0], f"positives[{name!r}]" if name else "positives")
    for name, has in (present or {}).items():
        _check_known(name, shapes, "present")
        _check_mask(name, has, shape[0])
    if can_read_values(*embeddings.values()):
        for name, rows in embeddings.items():
            mask = None if present is None else present.get(name)
            _check_rows(name, rows.detach(), None if mask is None else mask.cpu())


def _check_known(name: str, names: Iterable[str], what: str) -> None:
    """Raise ValueError for a name that is no modality of the batch."""
    if name not in names:
        raise ValueError(f"{what} names {name!r}, and the modalities are {sorted(names)}")


def _check_mask(name: str, mask: Any, num_rows: int) -> None:
    """Raise ValueError for a mask that is not one bool for each row."""
    if not isinstance(mask, Tensor) or mask.dtype != torch.bool:
        raise ValueError(f"present[{name!r}]: expected a tensor of {num_rows} bools, got {_kind_of(mask)}")
    if tuple(mask.shape) != (num_rows,):
        raise ValueError(f"present[{name!r}]: expected {num_rows} bools, one for each row, got {tuple(mask.shape)}")


def _check_positives(positives: Tensor | None, num_rows: int, what: str) -> None:
    """Raise ValueError for positives that are not one integer for each row."""
    if positives is None:
        return
    is_tensor = isinstance(positives, Tensor)
    if not is_tensor or positives.is_floating_point() or positives.is_complex() or positives.dtype == torch.bool:
        raise ValueError(
            f"{what}: expected a tensor of {num_rows} integers, one for each row, got {_kind_of(positives)}"
        )
    if tuple(positives.shape) != (num_rows,):
        raise ValueError(f"{what}: expected {num_rows} integers, one for each row, got {tuple(positives.shape)}")


def _check_rows(name: str, rows: Tensor, present: Tensor | None) -> None:
    """Raise ValueError for rows with NaN or infinite values, or with a norm far from 1; zeros and absent rows pass."""
    norms = torch.linalg.vector_norm(at_least_fp32(rows), dim=1)
    absent = torch.zeros(len(rows), dtype=torch.bool) if present is None else ~present
    is_good = ((norms - 1).abs() <= NORM_TOLERANCE) | (norms == 0) | absent
    if is_good.all():
        return
    finite = rows.isfinite().all(dim=1) | absent
    if not finite.all():
        bad = (~finite).nonzero().flatten().tolist()
        raise ValueError(f"{len(bad)} row(s) of {name!r} are not finite, the first is row {bad[0]} of the batch")
    bad = (~is_good).nonzero().flatten().tolist()
    raise ValueError(
        f"{len(bad)} row(s) of {name!r} are not of norm 1, the first is row {bad[0]} of the batch with "
        f"{float(norms[bad[0]]):.3g}: give the loss torch.nn.functional.normalize(rows, dim=1)"
    )


def check_enough(
    rows: Tensor, positives: Tensor | Mapping[str, Tensor] | None, ranks: Ranks | None, has_masks: bool = False
) -> None:
    """Raise ValueError for a (global) batch of fewer than 2 rows, or of rows that are all positives of each other."""
    if ranks is not None:
        ranks.check_batches(rows, positives, has_masks)
    num_rows = len(rows) * (1 if ranks is None else ranks.num_ranks)
    if num_rows < 2:
        raise ValueError(f"the loss compares pairs with each other and needs at least 2, got {num_rows}")
    if not isinstance(positives, Tensor) or ranks is not None or not can_read_values(rows, positives):
        return
    if bool((positives == positives[0]).all()):
        raise ValueError(
            f"all {num_rows} rows are positives of each other ({int(positives[0])}): nothing to tell apart"
        )


def _kind_of(value: Any) -> str:
    return f"a tensor of {value.dtype}" if isinstance(value, Tensor) else type(value).__name__
