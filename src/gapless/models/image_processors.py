"""Translates the image processor of a transformers checkpoint into the `input` of a model."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from gapless.core.files import read_json
from gapless.modalities.image import IMAGENET_MEAN, IMAGENET_STD


def image_input_of(directory: str | Path) -> dict[str, Any]:
    """The `input` description that stands for a transformers checkpoint's image processor."""
    config = image_processor_config(Path(directory))
    if config is None:
        return {"kind": "image"}
    crops = bool(config.get("do_center_crop"))
    resized = _smallest_side(config.get("size") or config.get("crop_size") or 224)
    size = _smallest_side(config.get("crop_size") or resized) if crops else resized
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
    """The configuration of a checkpoint's image processor; None without one.

    It is in `preprocessor_config.json`, or under `image_processor` in `processor_config.json`.
    """
    own, shared = directory / "preprocessor_config.json", directory / "processor_config.json"
    config = read_json(own) if own.exists() else read_json(shared).get("image_processor") if shared.exists() else None
    return config if config and ("image_mean" in config or "size" in config) else None


def _smallest_side(size: Any) -> int:
    """The number in what a `preprocessor_config.json` calls a size."""
    if isinstance(size, Mapping):
        size = size.get("shortest_edge") or size.get("height") or size.get("max_height") or 224
    return int(size)
