"""From raw inputs to tensors: one preprocessor per modality, saved with the model.

An image is anything `data.pixels.load_image` reads or an 8-bit array; a text is a string; a vector is a row of numbers.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from gapless.core.errors import DataRefused, UsageError
from gapless.core.files import read_json
from gapless.images.pixels import load_image
from gapless.models.spec import ImageInput, InputSpec, TextInput, VectorInput

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


class Preprocessor(Protocol):
    """Prepare one raw input (cheap to keep), then collate prepared inputs to the encoder's keyword arguments."""

    def prepare(self, raw: Any) -> Any: ...

    def collate(self, prepared: Sequence[Any]) -> dict[str, Tensor]: ...


class ImagePreprocessor:
    """To a square of `size`, then 8 bits to normalised floats.

    `fit` says how: "pad" shows the whole image on black, "crop" brings the shorter side to `resize` (default `size`)
    and cuts the centre, "stretch" ignores the aspect. `resample` is Pillow's number of the filter.
    """

    def __init__(self, spec: ImageInput) -> None:
        self.size = spec.size
        self.channels = spec.channels
        self.fit = spec.fit
        self.edge = spec.size if spec.resize is None else spec.resize
        self.filter = Image.Resampling(Image.Resampling.BICUBIC if spec.resample is None else spec.resample)
        mean, std = (IMAGENET_MEAN, IMAGENET_STD) if self.channels == 3 else ((0.5,), (0.25,))
        self.mean = torch.tensor(mean if spec.mean is None else spec.mean).view(-1, 1, 1)
        self.std = torch.tensor(std if spec.std is None else spec.std).view(-1, 1, 1)

    def prepare(self, raw: Any) -> np.ndarray:
        """An 8-bit array, [size, size] for one channel and [size, size, 3] for three."""
        pixels = raw if isinstance(raw, np.ndarray) else load_image(raw)
        image = Image.fromarray(pixels).convert("L" if self.channels == 1 else "RGB")
        return np.asarray(self.resize(image))

    def resize(self, image: Image.Image) -> Image.Image:
        if self.fit == "stretch":
            width = height = self.size
        elif self.fit == "crop":  # rounded down, as torchvision and transformers do
            width, height = (side * self.edge // min(image.size) for side in image.size)
        else:
            width, height = (max(1, round(side * self.size / max(image.size))) for side in image.size)
        if image.size != (width, height):
            image = image.resize((width, height), self.filter, reducing_gap=2.0)
        if (width, height) == (self.size, self.size):
            return image
        left, top = (width - self.size) // 2, (height - self.size) // 2
        return image.crop((left, top, left + self.size, top + self.size))

    def collate(self, prepared: Sequence[np.ndarray]) -> dict[str, Tensor]:
        pixels = torch.from_numpy(np.stack(prepared))
        pixels = pixels.unsqueeze(1) if self.channels == 1 else pixels.permute(0, 3, 1, 2)
        return {"pixel_values": (pixels.float() / 255.0 - self.mean) / self.std}


class TextPreprocessor:
    """The tokenizer of the text encoder, cut at `max_length` tokens, padded to the longest of the batch."""

    def __init__(self, spec: TextInput, tokenizer: Any) -> None:
        self.max_length = spec.max_length
        self.padding = spec.padding
        self.tokenizer = tokenizer

    def prepare(self, raw: Any) -> str:
        if not isinstance(raw, str) or not raw.strip():
            raise DataRefused(f"a text must be a string with at least one word, got {raw!r}")
        return raw

    def collate(self, prepared: Sequence[str]) -> dict[str, Tensor]:
        if self.tokenizer is None:
            raise UsageError("this model has no tokenizer; save one with it")
        encoded = self.tokenizer(
            list(prepared), truncation=True, max_length=self.max_length, padding=self.padding, return_tensors="pt"
        )
        names = self.tokenizer.model_input_names
        return {name: encoded[name] for name in names if name in encoded}


class VectorPreprocessor:
    """Rows of `size` finite numbers."""

    def __init__(self, spec: VectorInput) -> None:
        self.size = spec.size

    def prepare(self, raw: Any) -> np.ndarray:
        values = np.asarray(raw, dtype=np.float32)
        if values.shape != (self.size,) or not np.isfinite(values).all():
            raise DataRefused(f"a vector must be {self.size} finite numbers, got shape {values.shape}")
        return values

    def collate(self, prepared: Sequence[np.ndarray]) -> dict[str, Tensor]:
        return {"values": torch.from_numpy(np.stack(prepared))}


def build_preprocessor(spec: InputSpec, tokenizer: Any = None) -> Preprocessor:
    """The preprocessor of an image, a text or a vector."""
    match spec:
        case ImageInput():
            return ImagePreprocessor(spec)
        case TextInput():
            return TextPreprocessor(spec, tokenizer)
        case VectorInput():
            return VectorPreprocessor(spec)


def image_input_of(directory: str | Path) -> dict[str, Any]:
    """The `input` description that stands for a transformers checkpoint's image processor."""
    config = image_processor_config(Path(directory))
    if config is None:
        return {"kind": "image"}
    crops = bool(config.get("do_center_crop"))
    resized = smallest_side(config.get("size") or config.get("crop_size") or 224)
    size = smallest_side(config.get("crop_size") or resized) if crops else resized
    spec: dict[str, Any] = {"kind": "image", "size": size, "channels": 3, "fit": "crop" if crops else "stretch"}
    if crops and config.get("do_resize", True):
        spec["resize"] = resized
    if config.get("resample") is not None:
        spec["resample"] = int(config["resample"])
    if config.get("do_normalize", True):
        spec |= {
            "mean": list(config.get("image_mean", IMAGENET_MEAN)),
            "std": list(config.get("image_std", IMAGENET_STD)),
        }
    else:
        spec |= {"mean": (0.0,) * 3, "std": (1.0,) * 3}
    return spec


def image_processor_config(directory: Path) -> dict[str, Any] | None:
    """What a checkpoint says about its images: in a file of its own, or in that of the whole processor."""
    own, shared = directory / "preprocessor_config.json", directory / "processor_config.json"
    config = read_json(own) if own.exists() else read_json(shared).get("image_processor") if shared.exists() else None
    return config if config and ("image_mean" in config or "size" in config) else None


def smallest_side(size: Any) -> int:
    """The number in what a `preprocessor_config.json` calls a size."""
    if isinstance(size, Mapping):
        size = size.get("shortest_edge") or size.get("height") or size.get("max_height") or 224
    return int(size)
