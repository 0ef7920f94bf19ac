"""Kinds of modalities, one file each: how an image, a waveform or a table is checked, read, prepared and shown."""

from typing import TYPE_CHECKING

from gapless.core.lazy import lazy_names

__all__ = [
    "MODALITIES",
    "AudioInput",
    "ImageInput",
    "Modality",
    "TableInput",
    "TextInput",
    "VectorInput",
    "VolumeInput",
    "WaveformInput",
    "build_modality",
]

if TYPE_CHECKING:
    from gapless.modalities.audio import AudioInput
    from gapless.modalities.base import MODALITIES, Modality, build_modality
    from gapless.modalities.image import ImageInput
    from gapless.modalities.table import TableInput
    from gapless.modalities.text import TextInput
    from gapless.modalities.vector import VectorInput
    from gapless.modalities.volume import VolumeInput
    from gapless.modalities.waveform import WaveformInput

__getattr__ = lazy_names(
    __name__,
    {
        "MODALITIES": "gapless.modalities.base",
        "AudioInput": "gapless.modalities.audio",
        "ImageInput": "gapless.modalities.image",
        "Modality": "gapless.modalities.base",
        "TableInput": "gapless.modalities.table",
        "TextInput": "gapless.modalities.text",
        "VectorInput": "gapless.modalities.vector",
        "VolumeInput": "gapless.modalities.volume",
        "WaveformInput": "gapless.modalities.waveform",
        "build_modality": "gapless.modalities.base",
    },
)
