"""Sounds: WAV and FLAC files, mixed to one channel, at one rate and of one length."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from gapless.core.errors import UsageError
from gapless.modalities.base import MODALITIES, Modality
from gapless.modalities.files import file_query
from gapless.modalities.params import settings_of
from gapless.signals.limits import MAX_RATE
from gapless.signals.resampling import at_rate, of_length, piece
from gapless.signals.signal import Signal, is_clipped, is_flat

if TYPE_CHECKING:
    from torch import Tensor

# Strides of the layers that turn samples into tokens in the default encoder: 320 samples a token, 20 ms at 16 kHz.
STRIDES = (5, 4, 4, 2, 2)
KERNELS = (10, 8, 4, 4, 2)


@dataclass(frozen=True)
class AudioInput:
    """A sound as samples of one channel.

    Args:
        rate: samples a second; a file of another rate is resampled.
        seconds: how long the prepared piece is; longer sounds are cropped, shorter ones padded with a mask.
        resample: False refuses a file of another rate.
        crop: which piece of a longer one is kept.
        normalise: whether each piece is brought to mean 0 and standard deviation 1, as wav2vec2 wants it.
    """

    kind: ClassVar[str] = "audio"
    rate: float = 16_000.0
    seconds: float = 10.0
    resample: bool = True
    crop: Literal["start", "centre"] = "start"
    normalise: bool = True

    def __post_init__(self) -> None:
        if not 0 < self.rate <= MAX_RATE or not self.seconds > 0:
            raise UsageError(f"rate and seconds of an audio are above 0, got {self.rate} and {self.seconds}")

    @property
    def length(self) -> int:
        """Samples of the prepared piece."""
        return max(1, round(self.seconds * self.rate))


class AudioModality(Modality[AudioInput]):
    """[time] at the rate; padding is masked."""

    Input = AudioInput
    is_slow_to_prepare = True

    @staticmethod
    def check(source: Any, params: Mapping[str, Any]) -> dict[str, Any]:
        """`rate`, `channels` and `seconds` of the file, and whether it is `flat` or `clipped` (0 or 1).

        Raises:
            DataRefused: unreadable, of another rate where `resample` is false, or no number in it.
        """
        settings = settings_of(AudioInput, params)
        signal = read_sound(source)
        if "rate" in params and not settings.resample:
            at_rate(signal, settings.rate, is_allowed=False)
        assert signal.rate is not None
        return {
            "rate": signal.rate,
            "channels": len(signal.values),
            "seconds": round(signal.values.shape[1] / signal.rate, 6),
            "flat": int(is_flat(signal.values).all()),
            "clipped": int(is_clipped(signal.values).any()),
        }

    def read(self, source: Any) -> Signal:
        """All channels at the rate of the file; an array has the settings' rate."""
        if isinstance(source, Signal):
            return source
        signal = read_sound(source)
        return signal if signal.rate is not None else replace(signal, rate=self.settings.rate)

    def prepare(self, raw: Any) -> NDArray[np.float32]:
        """[length] fp32, the mean of the channels; NaN after the end of the sound. Raises DataRefused: as `check`."""
        settings = self.settings
        signal = piece(self.read(raw), settings.seconds, settings.crop)
        signal = at_rate(
            replace(signal, values=signal.values.mean(axis=0, keepdims=True)), settings.rate, settings.resample
        )
        samples: NDArray[np.float32] = of_length(signal.values, settings.length, settings.crop)[0]
        if not settings.normalise:
            return samples
        there = samples[~np.isnan(samples)].astype(np.float64)
        return np.asarray((samples - there.mean()) / np.sqrt(there.var() + 1e-7), dtype=np.float32)

    def collate(self, prepared: Sequence[NDArray[np.float32]]) -> "dict[str, Tensor]":
        """`input_values` [row, length] with 0 on padding, and its `attention_mask`."""
        import torch

        samples = torch.from_numpy(np.stack(prepared))
        return {"input_values": torch.nan_to_num(samples), "attention_mask": (~torch.isnan(samples)).long()}

    @classmethod
    def default_encoder(cls, settings: AudioInput) -> dict[str, Any]:
        """A small wav2vec2.

        Raises:
            UsageError: a piece that is too short for one token.
        """
        length = settings.length
        for kernel, stride in zip(KERNELS, STRIDES, strict=True):
            length = (length - kernel) // stride + 1
        if length < 1:
            raise UsageError(
                f"the default encoder of an audio needs more samples than {settings.length} (rate times seconds); "
                "raise seconds, or name an encoder"
            )
        return {
            "kind": "transformers",
            "config": {
                "model_type": "wav2vec2",
                "hidden_size": 128,
                "num_hidden_layers": 3,
                "num_attention_heads": 4,
                "intermediate_size": 256,
                "conv_dim": [64] * len(STRIDES),
                "conv_stride": list(STRIDES),
                "conv_kernel": list(KERNELS),
                "num_feat_extract_layers": len(STRIDES),
                "feat_extract_norm": "layer",  # what takes a mask
                "num_conv_pos_embeddings": 32,
                "num_conv_pos_embedding_groups": 8,
                "apply_spec_augment": False,
                "mask_time_prob": 0.0,  # no parameter for masked stretches, which would never have a gradient
                "layerdrop": 0.0,
                "hidden_dropout": 0.0,
                "attention_dropout": 0.0,
                "activation_dropout": 0.0,
                "feat_proj_dropout": 0.0,
            },
            "pooling": "mean",
        }

    def preview(self, raw: Any) -> bytes:
        """The curve of the sound."""
        from gapless.signals.drawing import draw_curves

        return draw_curves(self.read(raw).values.mean(axis=0, keepdims=True))

    def parse_query(self, value: Any) -> Any:
        """A path, the bytes of a file, or an array of samples at the settings' rate."""
        return file_query(value, "a sound")

    def sample(self, count: int, random: np.random.Generator) -> list[Any]:
        values = 0.1 * random.standard_normal((count, 1, self.settings.length)).astype(np.float32)
        return [Signal(row, self.settings.rate) for row in values]


def read_sound(source: Any) -> Signal:
    """The sound of a path, of the bytes of a file, or of numbers [channel, time]; these have no rate."""
    from pathlib import Path

    from gapless.signals.audio_files import read_audio
    from gapless.signals.files import content_of
    from gapless.signals.read import read_waveform
    from gapless.signals.signal import check_values

    if isinstance(source, str | Path | bytes | bytearray | memoryview):
        return check_values(read_audio(content_of(source)))
    return read_waveform(source)


MODALITIES.add("audio", AudioModality)
