"""Kinds of modalities, one file each: how an image, a text or a row of numbers is checked, read, prepared and shown."""

from typing import TYPE_CHECKING

from gapless.core.lazy import lazy_names

__all__ = [
    "MODALITIES",
    "ImageInput",
    "Modality",
    "TextInput",
    "VectorInput",
    "build_modality",
]

if TYPE_CHECKING:
    from gapless.modalities.base import MODALITIES, Modality, build_modality
    from gapless.modalities.image import ImageInput
    from gapless.modalities.text import TextInput
    from gapless.modalities.vector import VectorInput

__getattr__ = lazy_names(
    __name__,
    {
        "MODALITIES": "gapless.modalities.base",
        "ImageInput": "gapless.modalities.image",
        "Modality": "gapless.modalities.base",
        "TextInput": "gapless.modalities.text",
        "VectorInput": "gapless.modalities.vector",
        "build_modality": "gapless.modalities.base",
    },
)
