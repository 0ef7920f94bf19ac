"""Reads a volume of any known format: a folder of DICOM slices, a NIfTI file, a .npy file, or an array."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from gapless.signals.files import content_of
from gapless.signals.limits import FileRefused
from gapless.signals.npy_files import MAGIC, read_npy
from gapless.volumes.dicom_series import read_series, series_files
from gapless.volumes.nifti import is_nifti, read_nifti
from gapless.volumes.volume import Volume, check_volume, check_voxels


def read_volume(source: Any, *, frame: int | None = None, voxel: Sequence[float] | None = None) -> Volume:
    """A volume.

    Args:
        source: a folder of DICOM slices, a list of the bytes of each, a path, the bytes of a file, or an array
            [slice, row, column] that is oriented as `Volume` is.
        frame: which volume of a 4-D NIfTI file.
        voxel: millimetres between slices, rows and columns of arrays and .npy files, which say none; None is 1 each.

    Raises:
        FileRefused: damaged, of no known format, or above the limits. UsageError: its package is not installed.
    """
    if isinstance(source, str | Path) and Path(source).is_dir():
        return check_volume(read_series(Path(source)))
    if is_several_files(source):
        return check_volume(read_series(source))
    if not isinstance(source, str | Path | bytes | bytearray | memoryview):
        return _array(np.asarray(source), voxel)
    content = content_of(source)
    if content.startswith(MAGIC):
        return _array(read_npy(content), voxel)
    if is_nifti(content):
        return check_volume(read_nifti(content, frame))
    raise FileRefused("unreadable file", "it is no NIfTI file of one part, no npy file and no folder of DICOM slices")


def is_several_files(source: Any) -> bool:
    """Whether a source is the bytes of several files, as those of a series."""
    return isinstance(source, list) and bool(source) and all(isinstance(one, bytes) for one in source)


def volume_files(source: Any) -> list[Path]:
    """The files that a volume consists of; none for bytes and arrays."""
    if not isinstance(source, str | Path):
        return []
    path = Path(source)
    return series_files(path) if path.is_dir() else [path]


def _array(voxels: np.ndarray, voxel: Sequence[float] | None) -> Volume:
    if voxels.dtype.kind not in "fiu":
        raise FileRefused("unreadable file", "the voxels of a volume are plain numbers")
    check_voxels(voxels.shape)
    depth, height, width = voxel or (1.0, 1.0, 1.0)
    return check_volume(Volume(np.ascontiguousarray(voxels, dtype=np.float32), (depth, height, width)))
