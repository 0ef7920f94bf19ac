"""Reads a waveform of any known format, told apart by its first bytes, or by the suffix of a WFDB header."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from gapless.images.dicom_file import is_dicom
from gapless.signals.audio_files import is_audio, read_audio
from gapless.signals.dicom_waveforms import read_dicom_waveform
from gapless.signals.edf_files import is_edf, read_edf
from gapless.signals.files import content_of
from gapless.signals.limits import FileRefused, check_counts
from gapless.signals.npy_files import MAGIC, read_npy
from gapless.signals.signal import Signal, check_values, chosen
from gapless.signals.wfdb_files import header_of, is_header, read_wfdb, wfdb_files

Layout = Literal["channel_time", "time_channel"]


def read_waveform(
    source: Any,
    *,
    channels: Sequence[str] = (),
    missing: Literal["refuse", "mask"] = "refuse",
    group: int = 0,
    layout: Layout = "channel_time",
) -> Signal:
    """A waveform.

    Args:
        source: a path, the bytes of a file, or numbers: [channel, time], or [time] of one channel.
        channels: names of those to read, in order; () reads all. Numbers have none: their channels are numbered from
            1, and "2" is the second one.
        missing: whether a channel that is not there is refused, or NaN.
        group: the multiplex group of a DICOM file.
        layout: of numbers and of `.npy` files.

    Raises:
        FileRefused: damaged, of no known format, or above the limits. UsageError: its package is not installed.
    """
    if isinstance(source, str | Path) and (header := header_of(Path(source))) is not None:
        return check_values(read_wfdb(header, channels, missing))
    if not isinstance(source, str | Path | bytes | bytearray | memoryview):
        return _numbers(source, channels, missing, layout)
    content = content_of(source)
    if content.startswith(MAGIC):
        return _numbers(read_npy(content), channels, missing, layout)
    if is_edf(content):
        signal = read_edf(content, channels, missing)
    elif is_dicom(content):
        signal = read_dicom_waveform(content, channels, missing, group)
    elif is_audio(content):
        signal = _numbered(read_audio(content), channels, missing)
    elif is_header(content):
        raise FileRefused(
            "unreadable file",
            "WFDB: a record is several files, and this is its header alone; name its path, or send EDF, DICOM or npy",
        )
    else:
        raise FileRefused("unreadable file", "it is no WFDB header, EDF, BDF, DICOM, WAV, FLAC or npy file")
    return check_values(signal)


def waveform_files(source: Any) -> list[Path]:
    """The files that a waveform consists of; none for bytes and numbers."""
    if not isinstance(source, str | Path):
        return []
    header = header_of(Path(source))
    return [Path(source)] if header is None else wfdb_files(header)


def _numbers(values: Any, channels: Sequence[str], missing: Literal["refuse", "mask"], layout: Layout) -> Signal:
    try:
        matrix = np.asarray(values)
    except ValueError:  # rows of several lengths
        matrix = np.empty(0, dtype=object)
    if matrix.dtype.kind not in "fiu" or matrix.ndim not in (1, 2):
        raise FileRefused("unreadable file", "a waveform of numbers is one row of them a channel, all of one length")
    matrix = matrix.reshape(1, -1) if matrix.ndim == 1 else matrix
    matrix = matrix.T if layout == "time_channel" and np.ndim(values) == 2 else matrix
    check_counts(*matrix.shape)
    return check_values(_numbered(Signal(_as_float32(matrix)), channels, missing))


def _as_float32(matrix: NDArray[Any]) -> NDArray[np.float32]:
    with np.errstate(over="ignore"):  # a number that becomes an infinity is refused with its channel
        return np.ascontiguousarray(matrix, dtype=np.float32)


def _numbered(signal: Signal, channels: Sequence[str], missing: Literal["refuse", "mask"]) -> Signal:
    signal = Signal(signal.values, signal.rate, tuple(str(row + 1) for row in range(len(signal.values))))
    return chosen(signal, channels, missing) if channels else signal
