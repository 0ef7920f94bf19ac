"""Volumes: NIfTI files, DICOM series and .npy arrays, as slices of 8 bits on one grid."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from gapless.core.errors import UsageError
from gapless.modalities.base import MODALITIES, Modality
from gapless.modalities.files import file_query
from gapless.modalities.params import settings_of
from gapless.volumes.volume import Volume, on_grid, to_8_bits

if TYPE_CHECKING:
    from pathlib import Path

    from torch import Tensor

MEAN, STD = 0.5, 0.25  # of values in [0, 1], as of grey images
PATCH, TUBELET = 16, 2  # of the default encoder: pixels of a side, slices


@dataclass(frozen=True)
class VolumeInput:
    """A volume as slices of a square grid, from feet to head, front at the top and the patient's right at the left.

    Args:
        depth: slices of the grid.
        size: rows and columns of a slice.
        spacing: millimetres between slices, rows and columns of the grid, which lies on the middle of the volume; None
            stretches the volume over the grid.
        window: centre and width, in the units of the file (Hounsfield for CT); None takes the range of each volume.
        frame: which volume of a 4-D NIfTI file, counted from 0; None refuses files of several.
        voxel: millimetres between slices, rows and columns of arrays and .npy files; None is 1 each.
    """

    kind: ClassVar[str] = "volume"
    depth: int = 16
    size: int = 96
    spacing: tuple[float, ...] | None = None
    window: tuple[float, ...] | None = None
    frame: int | None = None
    voxel: tuple[float, ...] | None = None

    def __post_init__(self) -> None:
        if self.depth < 1 or self.size < 1:
            raise UsageError("depth and size of a volume are at least 1")
        for name in ("spacing", "voxel"):
            sizes = getattr(self, name)
            if sizes is not None and (len(sizes) != 3 or not min(sizes) > 0):
                raise UsageError(f"{name} of a volume is three numbers above 0: of slices, rows and columns")
        if self.window is not None and (len(self.window) != 2 or not self.window[1] > 0):
            raise UsageError("window of a volume is its centre and its width, and the width is above 0")


class VolumeModality(Modality[VolumeInput]):
    """To the grid, through the window, to 8 bits."""

    Input = VolumeInput
    takes_folders = True  # of slices
    is_slow_to_prepare = True

    @staticmethod
    def check(source: Any, params: Mapping[str, Any]) -> dict[str, Any]:
        """`depth`, `height` and `width` in voxels, and `depth_mm`, `height_mm` and `width_mm` between them.

        Raises:
            DataRefused: unreadable, several volumes, a slice missing, or no number in it.
        """
        volume = _read(source, settings_of(VolumeInput, params))
        sizes = dict(zip(("depth", "height", "width"), volume.voxels.shape, strict=True))
        steps = zip(("depth_mm", "height_mm", "width_mm"), volume.spacing, strict=True)
        return {**sizes, **{name: round(step, 6) for name, step in steps}}

    @staticmethod
    def files(source: Any) -> "list[Path]":
        from gapless.volumes.read import volume_files

        return volume_files(source)

    def read(self, source: Any) -> Volume:
        """The voxels in the units of the file, in the orientation of `Volume`."""
        return source if isinstance(source, Volume) else _read(source, self.settings)

    def prepare(self, raw: Any) -> NDArray[np.uint8]:
        """[depth, size, size], 8 bits. Raises DataRefused: as `check`."""
        settings = self.settings
        grid = on_grid(self.read(raw), (settings.depth, settings.size, settings.size), settings.spacing)
        return to_8_bits(grid, settings.window)

    def collate(self, prepared: Sequence[NDArray[np.uint8]]) -> "dict[str, Tensor]":
        """`pixel_values` [row, slice, 1, size, size], as models of videos take them."""
        import torch

        pixels = torch.from_numpy(np.stack(prepared)).unsqueeze(2)
        return {"pixel_values": (pixels.float() / 255.0 - MEAN) / STD}

    @classmethod
    def default_encoder(cls, settings: VolumeInput) -> dict[str, Any]:
        """A small VideoMAE, whose frames are the slices.

        Raises:
            UsageError: a grid that cannot be cut into its patches.
        """
        if settings.depth % TUBELET or settings.size % PATCH:
            raise UsageError(
                f"the default encoder of a volume cuts {TUBELET} slices of {PATCH} pixels: depth must be a multiple of "
                f"{TUBELET} and size of {PATCH}, got {settings.depth} and {settings.size}"
            )
        return {
            "kind": "transformers",
            "config": {
                "model_type": "videomae",
                "image_size": settings.size,
                "num_frames": settings.depth,
                "patch_size": PATCH,
                "tubelet_size": TUBELET,
                "num_channels": 1,
                "hidden_size": 128,
                "num_hidden_layers": 3,
                "num_attention_heads": 4,
                "intermediate_size": 256,
                "hidden_dropout_prob": 0.0,
                "attention_probs_dropout_prob": 0.0,
            },
            "pooling": "mean",
        }

    def preview(self, raw: Any) -> bytes:
        """The middle slice, in the proportions of the patient."""
        from gapless.images.thumbnails import thumbnail_of_pixels

        volume = self.read(raw)
        middle = len(volume.voxels) // 2
        _, height, width = (size * step for size, step in zip(volume.voxels.shape, volume.spacing, strict=True))
        rows, columns = (max(1, round(256 * length / max(height, width))) for length in (height, width))
        slab = Volume(volume.voxels[middle : middle + 1], volume.spacing)
        return thumbnail_of_pixels(to_8_bits(on_grid(slab, (1, rows, columns), None), self.settings.window)[0])

    def parse_query(self, value: Any) -> Any:
        """A path (also of a folder of slices), the bytes of a file or of each slice, or an array of voxels."""
        from gapless.volumes.read import is_several_files

        return value if is_several_files(value) else file_query(value, "a volume")

    def sample(self, count: int, random: np.random.Generator) -> list[Any]:
        values = random.random((count, 5, 24, 20)).astype(np.float32)
        return [Volume(row, (5.0, 1.0, 1.0)) for row in values]


def _read(source: Any, settings: VolumeInput) -> Volume:
    from gapless.volumes.read import read_volume

    return read_volume(source, frame=settings.frame, voxel=settings.voxel)


MODALITIES.add("volume", VolumeModality)
