"""A volume in one orientation, and its way onto a grid of 8 bits."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from gapless.signals.limits import MAX_PREPARED, FileRefused, max_values

# Percentiles between which the values of a volume without a window are shown.
_STRETCH = (0.5, 99.5)


@dataclass(frozen=True)
class Volume:
    """Voxels as a radiologist looks at axial slices: from feet to head, each with its front at the top and the
    patient's right side at the left.

    Args:
        voxels: [slice, row, column] fp32, towards the head, the back and the patient's left.
        spacing: millimetres between slices, rows and columns.
    """

    voxels: NDArray[np.float32]
    spacing: tuple[float, float, float]


def check_voxels(shape: Sequence[int]) -> None:
    """Refuse a volume of another number of axes than 3, without a voxel, or with more than the limit."""
    if len(shape) != 3:
        raise FileRefused("unreadable file", f"a volume has 3 axes, and this one has {len(shape)}")
    if min(shape) < 1:
        raise FileRefused("empty volume", "an axis of it has no voxel")
    count = int(np.prod([int(size) for size in shape], dtype=object))
    if count > max_values():
        raise FileRefused("volume too large", f"{count} voxels are above {max_values()}")


def check_volume(volume: Volume) -> Volume:
    """The volume itself. Raises FileRefused: an implausible spacing, or no finite voxel."""
    check_voxels(volume.voxels.shape)
    if not all(1e-4 < size < 1e4 for size in volume.spacing):
        raise FileRefused("unreadable file", "the spacing of its voxels is not plausible")
    if not np.isfinite(volume.voxels).any():
        raise FileRefused("empty volume", "no voxel of it is a number")
    return volume


def on_grid(volume: Volume, shape: tuple[int, int, int], spacing: Sequence[float] | None) -> NDArray[np.float32]:
    """The volume on a grid of this shape, NaN outside of it and where no voxel is a number.

    Args:
        shape: slices, rows and columns of the grid.
        spacing: millimetres between its voxels: the grid lies on the middle of the volume, which is cropped or padded.
            None stretches the volume over the grid, axis by axis.

    Along each axis a coarser grid takes the mean of what its voxel covers, so that no fine structure turns into a false
    coarse one, and a finer one is interpolated linearly. Voxels that are no number have no weight.
    """
    if int(np.prod(shape)) > MAX_PREPARED:
        raise FileRefused("volume too large", f"a grid of {shape} is above {MAX_PREPARED} voxels")
    there = np.isfinite(volume.voxels)
    values = np.where(there, volume.voxels, np.float32(0.0))
    # Where all are numbers, what is covered is the product of the axes, and needs no pass over the voxels.
    covered = None if there.all() else there.astype(np.float32)
    outside = np.zeros(shape, dtype=bool)
    for axis, (old, size) in enumerate(zip(volume.spacing, volume.voxels.shape, strict=True)):
        step = spacing[axis] / old if spacing else size / shape[axis]
        weights = _weights(size, shape[axis], step)
        values = _along(weights, values, axis)
        covered = None if covered is None else _along(weights, covered, axis)
        np.moveaxis(outside, axis, 0)[weights.sum(axis=1) == 0] = True
    if covered is not None:
        values = values / np.where(covered > 1e-6, covered, np.float32(np.nan))
    values[outside] = np.nan
    return values


def _weights(size: int, count: int, step: float) -> NDArray[np.float32]:
    """How much each of `size` old voxels counts for each of `count` new ones, [new, old]; rows sum to 1, or to 0
    outside.

    Args:
        step: distance between new voxels in old ones; the middles of both axes are one place.
    """
    centres = size / 2 + step * (np.arange(count) - (count - 1) / 2)  # old voxel i reaches from i to i + 1
    old = np.arange(size)
    if step >= 1:
        low, high = centres[:, None] - step / 2, centres[:, None] + step / 2
        weights = np.clip(np.minimum(high, old + 1) - np.maximum(low, old), 0.0, None)
    else:
        places = np.clip(centres, 0.5, size - 0.5)[:, None]
        weights = np.clip(1 - np.abs(old + 0.5 - places), 0.0, None)
    weights[(centres < -1e-6) | (centres > size + 1e-6)] = 0.0
    sums = weights.sum(axis=1, keepdims=True)
    return np.asarray(weights / np.where(sums > 0, sums, 1.0), dtype=np.float32)


def _along(weights: NDArray[np.float32], values: NDArray[np.float32], axis: int) -> NDArray[np.float32]:
    return np.moveaxis(np.tensordot(weights, values, axes=(1, axis)), 0, axis)


def to_8_bits(voxels: NDArray[np.float32], window: Sequence[float] | None) -> NDArray[np.uint8]:
    """Voxels as 8 bits, 0 where they are no number.

    Args:
        window: centre and width, in the units of the file (Hounsfield for CT); None goes from the 0.5th to the 99.5th
            percentile of the voxels.
    """
    there = np.isfinite(voxels)
    if not there.any():
        return np.zeros(voxels.shape, dtype=np.uint8)
    if window is not None:
        low, high = window[0] - window[1] / 2, window[0] + window[1] / 2
    else:
        low, high = (float(edge) for edge in np.percentile(voxels[there], _STRETCH))
    scaled = np.clip((np.where(there, voxels, low) - low) / max(high - low, 1e-6), 0.0, 1.0)
    scaled[~there] = 0.0
    return np.asarray(np.rint(scaled * 255).astype(np.uint8))
