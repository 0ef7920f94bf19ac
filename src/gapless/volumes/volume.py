"""A volume in one orientation, and its way onto a grid of 8 bits."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from gapless.signals.limits import MAX_PREPARED, MAX_VALUES, FileRefused

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
    if count > MAX_VALUES:
        raise FileRefused("volume too large", f"{count} voxels are above {MAX_VALUES}")


def check_volume(volume: Volume) -> Volume:
    """The volume itself. Raises FileRefused: an implausible spacing, or no finite voxel."""
    check_voxels(volume.voxels.shape)
    if not all(1e-4 < size < 1e4 for size in volume.spacing):
        raise FileRefused("unreadable file", "the spacing of its voxels is not plausible")
    if not np.isfinite(volume.voxels).any():
        raise FileRefused("empty volume", "no voxel of it is a number")
    return volume


def on_grid(volume: Volume, shape: tuple[int, int, int], spacing: Sequence[float] | None) -> NDArray[np.float32]:
    """The volume on a grid of this shape, NaN outside of it.

    Args:
        shape: slices, rows and columns of the grid.
        spacing: millimetres between its voxels: the grid lies on the middle of the volume, which is cropped or padded.
            None stretches the volume over the grid, axis by axis.

    Voxels are averaged in whole blocks where the grid is coarser by 2 or more, and then interpolated linearly: so no
    fine structure turns into a false coarse one.
    """
    from scipy.ndimage import affine_transform

    if int(np.prod(shape)) > MAX_PREPARED:
        raise FileRefused("volume too large", f"a grid of {shape} is above {MAX_PREPARED} voxels")
    voxels = volume.voxels
    extent = [size * step for size, step in zip(voxels.shape, volume.spacing, strict=True)]
    target = spacing or [length / size for length, size in zip(extent, shape, strict=True)]
    blocks = [
        max(1, min(size, int(new / old + 1e-9)))
        for size, new, old in zip(voxels.shape, target, volume.spacing, strict=True)
    ]
    voxels = _block_means(voxels, blocks)
    steps = np.array([new / (old * block) for new, old, block in zip(target, volume.spacing, blocks, strict=True)])
    # The middle of the grid is the middle of the original, from which the blocks cut a rest off at the end.
    middle = np.array([size / 2 / block - 0.5 for size, block in zip(volume.voxels.shape, blocks, strict=True)])
    offset = middle - steps * (np.array(shape) - 1) / 2
    places = [offset[axis] + steps[axis] * np.arange(shape[axis]) for axis in range(3)]
    drawn = affine_transform(voxels, steps, offset=offset, output_shape=shape, order=1, mode="nearest")
    for axis, (place, size) in enumerate(zip(places, voxels.shape, strict=True)):
        outside = (place < -0.5 - 1e-6) | (place > size - 0.5 + 1e-6)
        np.moveaxis(drawn, axis, 0)[outside] = np.nan
    return np.asarray(drawn)


def _block_means(voxels: NDArray[np.float32], blocks: Sequence[int]) -> NDArray[np.float32]:
    """The means of whole blocks; a rest at the end of an axis is left out."""
    for axis, block in enumerate(blocks):
        if block > 1:
            moved = np.moveaxis(voxels, axis, 0)
            count = len(moved) // block
            means = moved[: count * block].reshape(count, block, *moved.shape[1:]).mean(axis=1, dtype=np.float32)
            voxels = np.moveaxis(means, 0, axis)
    return voxels


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
