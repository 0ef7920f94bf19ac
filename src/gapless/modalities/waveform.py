"""Waveforms: WFDB, EDF, BDF, DICOM, WAV, FLAC and .npy files, or rows of numbers, at one rate and of one length."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from gapless.core.errors import DataRefused, UsageError
from gapless.modalities.base import MODALITIES, Modality, row_named
from gapless.modalities.files import file_query
from gapless.modalities.params import settings_of
from gapless.signals.limits import MAX_RATE, FileRefused
from gapless.signals.resampling import at_rate, of_length, piece
from gapless.signals.signal import Signal, is_clipped, is_flat

if TYPE_CHECKING:
    from pathlib import Path

    from torch import Tensor

FIT_ROWS = 2000  # training rows, evenly spaced, whose values give the statistics
PATCHES = 64  # of a waveform in the default encoder, about


@dataclass(frozen=True)
class WaveformInput:
    """A waveform as channels of standardised values at one rate.

    Args:
        rate: samples a second; None until `fit` takes that of the training rows. Numbers and .npy files say no rate:
            theirs is taken to be this one.
        seconds: how long the prepared piece is; longer waveforms are cropped, shorter ones padded with a mask.
        channels: names in their order, as ("I", "II", "V1"); () takes all, in the order of the file.
        missing: whether a channel that is not there is refused, or masked.
        resample: whether a file of another rate is resampled rather than refused.
        crop: which piece of a longer one is kept.
        layout: the axes of numbers and of .npy files.
        group: the multiplex group of a DICOM file, counted from 0.
        mean, std: of each channel over the training rows, from `fit`.
    """

    kind: ClassVar[str] = "waveform"
    rate: float | None = None
    seconds: float = 10.0
    channels: tuple[str, ...] = ()
    missing: Literal["refuse", "mask"] = "refuse"
    resample: bool = False
    crop: Literal["start", "centre"] = "start"
    layout: Literal["channel_time", "time_channel"] = "channel_time"
    group: int = 0
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None

    def __post_init__(self) -> None:
        if self.rate is not None and not 0 < self.rate <= MAX_RATE:
            raise UsageError(f"the rate of a waveform is above 0 and at most {MAX_RATE:g}, got {self.rate}")
        if not self.seconds > 0:
            raise UsageError(f"seconds of a waveform is above 0, got {self.seconds}")
        if self.missing == "mask" and not self.channels:
            raise UsageError("missing=mask needs the names of the channels")
        if len(set(self.channels)) != len(self.channels):
            raise UsageError("channels of a waveform names each one once")

    @property
    def length(self) -> int:
        """Samples of the prepared piece. Raises UsageError: no rate yet."""
        if self.rate is None:
            raise UsageError("the rate of the waveform is unknown; name it (rate=500), or fit it to training rows")
        return max(1, round(self.seconds * self.rate))


class WaveformModality(Modality[WaveformInput]):
    """[channel, time] at the rate, standardised by channel; what was not recorded is masked."""

    Input = WaveformInput
    optional_suffix = ".hea"  # WFDB records are named without it
    is_slow_to_prepare = True

    @staticmethod
    def check(source: Any, params: Mapping[str, Any]) -> dict[str, Any]:
        """`channels`, `rate`, `seconds` (the last two None where they are unknown), and how many of the channels are
        `flat` or `clipped`.

        Raises:
            DataRefused: unreadable, a channel or the rate is not that of the params, or no number in it.
        """
        settings = settings_of(WaveformInput, params)
        signal = read_signal(source, settings)
        if settings.rate is not None and not settings.resample:
            signal = at_rate(signal, settings.rate, is_allowed=False)
        seconds = signal.seconds
        return {
            "channels": len(signal.values),
            "rate": signal.rate,
            "seconds": None if seconds is None else round(seconds, 6),
            "flat": int(is_flat(signal.values).sum()),
            "clipped": int(is_clipped(signal.values).sum()),
        }

    @staticmethod
    def files(source: Any) -> "list[Path]":
        from gapless.signals.read import waveform_files

        return waveform_files(source)

    def read(self, source: Any) -> Signal:
        """Physical values of the settings' channels, as the file has them."""
        return source if isinstance(source, Signal) else read_signal(source, self.settings)

    def prepare(self, raw: Any) -> NDArray[np.float32]:
        """[channel, length] fp32, standardised; NaN where nothing was recorded.

        Raises:
            DataRefused: as `check`, or another number of channels than the training rows have.
            UsageError: the rate is unknown.
        """
        values = _prepared(self.read(raw), self.settings)
        mean, std = self.settings.mean, self.settings.std
        if mean is None or std is None:
            return values
        if len(values) != len(mean):
            raise FileRefused("wrong channels", f"it has {len(values)}, and the training rows have {len(mean)}")
        return (values - np.array(mean, np.float32)[:, None]) / np.array(std, np.float32)[:, None]

    def collate(self, prepared: Sequence[NDArray[np.float32]]) -> "dict[str, Tensor]":
        """`past_values` [row, time, channel] with 0 where nothing was recorded, and its `past_observed_mask`."""
        import torch

        if len({rows.shape for rows in prepared}) > 1:
            counts = sorted({len(rows) for rows in prepared})
            raise DataRefused(f"waveforms of {counts} channels cannot be in one batch; name those to read")
        values = torch.from_numpy(np.stack(prepared)).transpose(1, 2).contiguous()
        observed = ~torch.isnan(values)
        return {"past_values": torch.nan_to_num(values), "past_observed_mask": observed.float()}

    @classmethod
    def fit(cls, settings: WaveformInput, rows: Sequence[Any]) -> WaveformInput:
        """With the mean and standard deviation of each channel, and the rate where none was named.

        At most `FIT_ROWS` evenly spaced rows are read. A channel that is flat everywhere has a standard deviation of 1.

        Raises:
            DataRefused: no row, or rows of several rates or numbers of channels.
        """
        if not rows:
            raise DataRefused("a waveform cannot be fitted: no training row has it")
        places = np.unique(np.linspace(0, len(rows) - 1, min(FIT_ROWS, len(rows))).astype(int)).tolist()
        if settings.rate is None:
            with row_named(places[0]):
                rate = cls(settings).read(rows[places[0]]).rate
            if rate is None:
                raise UsageError("the source of the waveform says no rate; name it (rate=500)")
            settings = replace(settings, rate=rate)
        mean, std = _moments(cls(settings), rows, places)
        return replace(settings, mean=mean, std=std)

    @classmethod
    def default_encoder(cls, settings: WaveformInput) -> dict[str, Any]:
        """A small PatchTST: channels share its weights, and pooling leaves out what was not recorded."""
        length = settings.length if settings.rate is not None else PATCHES
        patch = _patch_length(length)
        channels = len(settings.channels) or len(settings.mean or (0.0,))
        return {
            "kind": "transformers",
            "config": {
                "model_type": "patchtst",
                "num_input_channels": channels,
                "context_length": length,
                "patch_length": patch,
                "patch_stride": patch,
                "d_model": 128,
                "num_hidden_layers": 3,
                "num_attention_heads": 4,
                "ffn_dim": 256,
                "share_embedding": False,  # an embedding for each channel: without, the mean is blind to their order
                "channel_attention": True,
                "scaling": None,
                "do_mask_input": False,
                "attention_dropout": 0.0,
                "positional_dropout": 0.0,
                "ff_dropout": 0.0,
            },
            "pooling": "series",
        }

    def preview(self, raw: Any) -> bytes:
        """The curves of the first channels, over the piece that the model sees, and shorter where it is shorter."""
        from gapless.signals.drawing import draw_curves

        signal, settings = self.read(raw), self.settings
        length = signal.values.shape[1]
        shown = length if signal.rate is None else min(length, max(1, round(settings.seconds * signal.rate)))
        first = 0 if settings.crop == "start" else (length - shown) // 2
        return draw_curves(signal.values[:, first : first + shown])

    def parse_query(self, value: Any) -> Any:
        """A path, the bytes of a file, or numbers; a WFDB record, which is several files, by its path alone."""
        return file_query(value, "a waveform")

    def sample(self, count: int, random: np.random.Generator) -> list[Any]:
        channels = len(self.settings.channels) or len(self.settings.mean or (0.0,))
        values = random.standard_normal((count, channels, self.settings.length)).astype(np.float32)
        return [Signal(row, self.settings.rate, self.settings.channels) for row in values]


def read_signal(source: Any, settings: WaveformInput) -> Signal:
    """The signal of a source with the settings' channels; numbers have the settings' rate."""
    from gapless.signals.read import read_waveform

    signal = read_waveform(
        source,
        channels=settings.channels,
        missing=settings.missing,
        group=settings.group,
        layout=settings.layout,
    )
    return signal if signal.rate is not None else replace(signal, rate=settings.rate)


def _prepared(signal: Signal, settings: WaveformInput) -> NDArray[np.float32]:
    """[channel, length] in physical values. Raises DataRefused: another rate."""
    length = settings.length
    assert settings.rate is not None
    signal = at_rate(piece(signal, settings.seconds, settings.crop), settings.rate, settings.resample)
    return of_length(signal.values, length, settings.crop)


def _moments(
    kind: WaveformModality, rows: Sequence[Any], places: Sequence[int]
) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation of each channel over what was recorded in these rows. Raises RowRefused."""
    count = total = squares = np.zeros(0)
    for place in places:
        with row_named(place):
            values = _prepared(kind.read(rows[place]), kind.settings)
            if len(count) not in (0, len(values)):
                raise DataRefused(f"waveforms of {len(count)} and of {len(values)} channels; name those to read")
        exact = np.nan_to_num(values.astype(np.float64))
        if not len(count):
            count = total = squares = np.zeros(len(values))
        count = count + (~np.isnan(values)).sum(axis=1)
        total = total + exact.sum(axis=1)
        squares = squares + (exact**2).sum(axis=1)
    mean = total / np.maximum(count, 1)
    std = np.sqrt(np.maximum(squares / np.maximum(count, 1) - mean**2, 0.0))
    std = np.where(std > 1e-6 * np.maximum(np.abs(mean), 1e-6), std, 1.0)
    return tuple(map(float, mean)), tuple(map(float, std))


def _patch_length(length: int) -> int:
    """A divisor of the length that gives about `PATCHES` patches; without a near one, the last samples are cut off."""
    wanted = max(1, length // PATCHES)
    divisors = [size for size in range(max(1, wanted // 2), 2 * wanted + 1) if length % size == 0]
    return min(divisors, key=lambda size: abs(size - wanted)) if divisors else wanted


MODALITIES.add("waveform", WaveformModality)
