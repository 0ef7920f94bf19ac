"""Images: anything that `images.pixels.load_image` reads, or an 8-bit array, as a square of normalised floats."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np
from PIL import Image

from gapless.core.errors import UsageError
from gapless.images.augment import augment
from gapless.images.pixels import Pixels, load_image, verify_image
from gapless.images.thumbnails import thumbnail_of_pixels
from gapless.modalities.base import MODALITIES, Modality
from gapless.modalities.files import path_or_bytes

if TYPE_CHECKING:
    from torch import Tensor

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


@dataclass(frozen=True)
class ImageInput:
    """An image as a square of normalised floats.

    Args:
        size: side of the square, in pixels.
        channels: 1 (grey) or 3.
        fit: "pad" shows the whole image on black, "crop" brings the shorter side to `resize` and cuts the centre,
            "stretch" ignores the aspect.
        resize: the shorter side before a crop; default `size`.
        resample: Pillow's number of the filter; default bicubic.
        mean, std: per channel, of values in [0, 1]; default ImageNet's, or 0.5 and 0.25 for one channel.
        frame: which frame of a DICOM file of several; -1 is the middle one.
    """

    kind: ClassVar[str] = "image"
    size: int = 224
    channels: Literal[1, 3] = 3
    fit: Literal["pad", "crop", "stretch"] = "pad"
    resize: int | None = None
    resample: int | None = None
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    frame: int | Literal[-1] = 0


class ImageModality(Modality[ImageInput]):
    """To a square of `size`, then 8 bits to normalised floats."""

    Input = ImageInput
    is_slow_to_prepare = True

    def __init__(self, settings: ImageInput, tokenizer: Any = None) -> None:
        super().__init__(settings)
        self.size = settings.size
        self.channels = settings.channels
        self.edge = settings.size if settings.resize is None else settings.resize
        self.filter = Image.Resampling(Image.Resampling.BICUBIC if settings.resample is None else settings.resample)
        mean, std = (IMAGENET_MEAN, IMAGENET_STD) if self.channels == 3 else ((0.5,), (0.25,))
        self.mean = mean if settings.mean is None else settings.mean
        self.std = std if settings.std is None else settings.std

    @staticmethod
    def check(source: Any, params: Mapping[str, Any]) -> dict[str, Any]:
        """`width` and `height` of the bytes of an image file; `frame` of the params as in `load_image`."""
        height, width = verify_image(source, frame=params.get("frame", 0))
        return {"width": width, "height": height}

    def read(self, source: Any) -> Pixels:
        """8-bit pixels, [height, width] or [height, width, 3]."""
        return source if isinstance(source, np.ndarray) else load_image(source, frame=self.settings.frame)

    def prepare(self, raw: Any) -> Pixels:
        """An 8-bit array, [size, size] for one channel and [size, size, 3] for three."""
        image = Image.fromarray(self.read(raw)).convert("L" if self.channels == 1 else "RGB")
        return np.asarray(self.resize(image))

    def resize(self, image: Image.Image) -> Image.Image:
        """The image as a square of `size`, by the setting `fit`."""
        if self.settings.fit == "stretch":
            width = height = self.size
        elif self.settings.fit == "crop":  # rounded down, as torchvision and transformers do
            width, height = (side * self.edge // min(image.size) for side in image.size)
        else:
            width, height = (max(1, round(side * self.size / max(image.size))) for side in image.size)
        if image.size != (width, height):
            image = image.resize((width, height), self.filter, reducing_gap=2.0)
        if (width, height) == (self.size, self.size):
            return image
        left, top = (width - self.size) // 2, (height - self.size) // 2
        return image.crop((left, top, left + self.size, top + self.size))

    def augment(self, prepared: Pixels, seed: int, epoch: int, sample_id: str) -> Pixels:
        """Small shifts and changes of intensity, never a flip: see `images.augment`."""
        return augment(prepared, seed, epoch, sample_id)

    def collate(self, prepared: Sequence[Pixels]) -> "dict[str, Tensor]":
        """`pixel_values` [row, channel, size, size]."""
        import torch

        mean, std = (torch.tensor(values).view(-1, 1, 1) for values in (self.mean, self.std))
        pixels = torch.from_numpy(np.stack(prepared))
        pixels = pixels.unsqueeze(1) if self.channels == 1 else pixels.permute(0, 3, 1, 2)
        return {"pixel_values": (pixels.float() / 255.0 - mean) / std}

    @classmethod
    def default_encoder(cls, settings: ImageInput) -> dict[str, Any]:
        return small_resnet(settings.channels, (32, 64, 128, 256), (1, 1, 1, 1))

    def preview(self, raw: Any) -> bytes:
        return thumbnail_of_pixels(self.read(raw))

    def parse_query(self, value: Any) -> Any:
        """A path, the bytes of an image file, or 8-bit pixels: [height, width] grey or [height, width, 3] coloured.

        Raises:
            UsageError: anything else.
        """
        source = path_or_bytes(value, "the image")
        if source is not None:
            return source
        if not isinstance(value, np.ndarray):
            raise UsageError(
                f"an image is a path, the bytes of an image file or an array of pixels, got {type(value).__name__}"
            )
        is_picture = value.ndim == 2 or (value.ndim == 3 and value.shape[2] == 3)
        if value.dtype != np.uint8 or value.size == 0 or not is_picture:
            raise UsageError(
                f"pixels are 8-bit, [height, width] or [height, width, 3], got {value.dtype} of shape {value.shape}"
            )
        return value

    def sample(self, count: int, random: np.random.Generator) -> list[Any]:
        return list(random.integers(0, 256, (count, 48, 64), dtype=np.uint8))


def small_resnet(channels: int, widths: Sequence[int], depths: Sequence[int]) -> dict[str, Any]:
    """The `encoder` of a small ResNet, from a configuration."""
    return {
        "kind": "transformers",
        "config": {
            "model_type": "resnet",
            "num_channels": channels,
            "embedding_size": widths[0],
            "hidden_sizes": list(widths),
            "depths": list(depths),
            "layer_type": "basic",
        },
        "pooling": "pooler",
    }


MODALITIES.add("image", ImageModality)
