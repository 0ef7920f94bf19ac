"""Volumes: NIfTI files, DICOM series and .npy arrays, in one orientation and on one grid."""

from typing import TYPE_CHECKING

from gapless.core.lazy import lazy_names

__all__ = [
    "Volume",
    "read_volume",
]

if TYPE_CHECKING:
    from gapless.volumes.read import read_volume
    from gapless.volumes.volume import Volume

__getattr__ = lazy_names(
    __name__,
    {
        "Volume": "gapless.volumes.volume",
        "read_volume": "gapless.volumes.read",
    },
)
