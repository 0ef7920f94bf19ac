"""Reads the waveforms of DICOM files (PS3.3 C.10.9), such as 12-lead ECGs; nothing else of the file is parsed."""

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from gapless.images.dicom_elements import integer, items, number, text
from gapless.images.dicom_file import import_pydicom, parse_dicom, silenced
from gapless.signals.files import parsing
from gapless.signals.limits import MAX_RATE, FileRefused, check_counts
from gapless.signals.signal import Signal, chosen, to_millivolt

_TYPES = {"SB": np.int8, "UB": np.uint8, "SS": np.int16, "US": np.uint16, "SL": np.int32, "UL": np.uint32}


def read_dicom_waveform(
    content: bytes, channels: Sequence[str] = (), missing: Literal["refuse", "mask"] = "refuse", group: int = 0
) -> Signal:
    """One multiplex group of a file.

    Args:
        content: the file.
        channels: names of those to keep; () keeps all.
        missing: what happens where one is not there.
        group: which group, counted from 0: a 12-lead ECG has its rhythm and then its median beats.

    Raises:
        FileRefused: no waveform inside, damaged, or above the limits.
        UsageError: pydicom is not installed.
    """
    pydicom = import_pydicom()
    with parsing("DICOM"), silenced():
        dataset = parse_dicom(pydicom, content, ("WaveformSequence",))
        groups = items(dataset, "WaveformSequence")
        if not groups:
            raise FileRefused("unreadable file", "DICOM: the file holds no waveform")
        if not 0 <= group < len(groups):
            raise FileRefused("unreadable file", f"DICOM: group {group} of {len(groups)}")
        rate = number(groups[group], "SamplingFrequency")
        if rate is None or not 0 < rate <= MAX_RATE:
            raise FileRefused("unreadable file", "DICOM: its sampling frequency is not plausible")
        stored = _stored(groups[group], is_little=dataset.original_encoding[1])
        signal = _physical(stored, groups[group], rate)
    return chosen(signal, channels, missing) if channels else signal


def _stored(item: Any, *, is_little: bool) -> NDArray[np.float32]:
    """The stored values of a group, [channel, time]; NaN on padding."""
    channels, samples = integer(item, "NumberOfWaveformChannels"), integer(item, "NumberOfWaveformSamples")
    check_counts(channels or 0, samples or 0)
    assert channels is not None
    assert samples is not None
    dtype = np.dtype(_TYPES.get(text(item, "WaveformSampleInterpretation"), np.void))
    bits = integer(item, "WaveformBitsAllocated")
    if dtype.kind not in "iu" or bits != dtype.itemsize * 8:
        raise FileRefused("unreadable file", "DICOM: its sample interpretation is not one that is read")
    dtype = dtype.newbyteorder("<" if is_little else ">")
    content = item.get("WaveformData") or b""
    needed = channels * samples * dtype.itemsize
    if len(content) < needed:
        raise FileRefused("truncated file", f"DICOM: its header needs {needed} bytes of samples, it has {len(content)}")
    raw = np.frombuffer(content, dtype, channels * samples)
    values = raw.astype(np.float32)
    padding = item.get("WaveformPaddingValue")
    if isinstance(padding, bytes) and len(padding) >= dtype.itemsize:
        values[raw == np.frombuffer(padding, dtype, 1)[0]] = np.nan
    return np.ascontiguousarray(values.reshape(samples, channels).T)


def _physical(stored: NDArray[np.float32], item: Any, rate: float) -> Signal:
    """Stored values times their sensitivity, in millivolt where they are volts."""
    described = items(item, "ChannelDefinitionSequence")
    if len(described) != len(stored):
        raise FileRefused("unreadable file", "DICOM: it does not describe each of its channels")
    names = []
    for row, channel in enumerate(described):
        factor = (number(channel, "ChannelSensitivity") or 1.0) * (
            number(channel, "ChannelSensitivityCorrectionFactor") or 1.0
        )
        unit = next((text(one, "CodeValue") for one in items(channel, "ChannelSensitivityUnitsSequence")), "")
        stored[row] = (stored[row] * factor + (number(channel, "ChannelBaseline") or 0.0)) * to_millivolt(unit)
        source = next((text(one, "CodeMeaning") for one in items(channel, "ChannelSourceSequence")), "")
        names.append(source or text(channel, "ChannelLabel"))
    return Signal(stored, rate, tuple(names))
