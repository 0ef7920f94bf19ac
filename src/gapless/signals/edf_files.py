"""Reads EDF and BDF recordings; their header, which names the patient, is checked and never shown."""

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np

from gapless.core.errors import missing_extra
from gapless.signals.files import parsing
from gapless.signals.limits import MAX_CHANNELS, MAX_RATE, FileRefused, check_counts
from gapless.signals.signal import Signal, chosen, places_of, to_millivolt

EDF_MAGIC, BDF_MAGIC = b"0       ", b"\xffBIOSEMI"
_MAIN_HEADER = 256  # bytes, and the same for each channel
_SAMPLES_FIELD = 216  # bytes a channel before the counts of samples in a record
_MAX_RECORDS = 100_000_000


def is_edf(content: bytes) -> bool:
    """Whether these are the bytes of an EDF or BDF file."""
    return content.startswith((EDF_MAGIC, BDF_MAGIC))


def read_edf(content: bytes, channels: Sequence[str] = (), missing: Literal["refuse", "mask"] = "refuse") -> Signal:
    """The recording of a file.

    Args:
        content: the file.
        channels: names of those to read; () reads all but annotations.
        missing: what happens where one is not there.

    Raises:
        FileRefused: damaged, with gaps (EDF+D), channels of several rates, or above the limits.
        UsageError: edfio is not installed.
    """
    _check_header(content)
    with parsing("EDF"):
        try:
            import edfio
        except ImportError:
            raise missing_extra("edfio", "waveform") from None
        is_bdf = content.startswith(BDF_MAGIC)
        recording: Any = edfio.read_bdf(content) if is_bdf else edfio.read_edf(content, lazy_load_data=True)
        if not recording.is_continuous:
            raise FileRefused("unreadable file", "EDF: a recording with gaps (EDF+D) is not read; cut it into pieces")
        return _signal(recording, channels, missing)


def _signal(recording: Any, channels: Sequence[str], missing: Literal["refuse", "mask"]) -> Signal:
    signals = recording.signals  # without those of annotations
    names = tuple(str(signal.label) for signal in signals)
    places = places_of(channels, names, missing) if channels else list(range(len(names)))
    read = [signals[place] for place in places if place is not None]
    rates = {float(signal.sampling_frequency) for signal in read}
    if len(rates) > 1:
        raise FileRefused(
            "several rates", f"EDF: its channels have {len(rates)} rates; name those of one with channels"
        )
    if not read or not 0 < min(rates) <= MAX_RATE:
        raise FileRefused("empty signal", "EDF: no channel that is read has samples")
    check_counts(len(read), recording.num_data_records * read[0].samples_per_data_record)
    for one in read:  # without a usable range edfio gives the stored integers, as if they were physical values
        if one.digital_min == one.digital_max or not 0 < abs(one.physical_max - one.physical_min) < np.inf:
            raise FileRefused("unreadable file", "EDF: a channel has no range of physical values")
    values = np.stack(
        [np.asarray(one.data, dtype=np.float32) * to_millivolt(str(one.physical_dimension)) for one in read]
    )
    signal = Signal(values.astype(np.float32, copy=False), rates.pop(), tuple(str(one.label) for one in read))
    return chosen(signal, channels, missing) if channels else signal


def _check_header(content: bytes) -> None:
    """Raise FileRefused for counts that are negative, above the limits, or more than the file holds."""
    if len(content) < _MAIN_HEADER:
        raise FileRefused("truncated file", "EDF: it is shorter than its header")
    records, channels = _count(content[236:244]), _count(content[252:256])
    if not 1 <= records <= _MAX_RECORDS:
        raise FileRefused("unreadable file", "EDF: its number of records is not plausible")
    if not 1 <= channels <= MAX_CHANNELS:
        raise FileRefused("signal too large", f"EDF: it has no channel, or more than {MAX_CHANNELS}")
    if len(content) < _MAIN_HEADER * (channels + 1):
        raise FileRefused("truncated file", "EDF: it is shorter than its header")
    first = _MAIN_HEADER + _SAMPLES_FIELD * channels
    samples = [_count(content[first + 8 * row : first + 8 * row + 8]) for row in range(channels)]
    if min(samples) < 1:
        raise FileRefused("unreadable file", "EDF: a channel has no plausible number of samples")
    bytes_per_value = 3 if content.startswith(BDF_MAGIC) else 2
    needed = _MAIN_HEADER * (channels + 1) + records * sum(samples) * bytes_per_value
    if needed > len(content):
        raise FileRefused("truncated file", f"EDF: its header needs {needed} bytes, it has {len(content)}")
    check_counts(1, records * max(samples))


def _count(field: bytes) -> int:
    """A whole number of the header; -1 where it is none."""
    try:
        return int(field.decode("ascii"))
    except ValueError:
        return -1
