"""Waveforms and sounds: WFDB, EDF, DICOM waveforms, WAV, FLAC and .npy files as channels of physical values."""

from typing import TYPE_CHECKING

from gapless.core.lazy import lazy_names

__all__ = [
    "FileRefused",
    "Signal",
    "read_audio",
    "read_waveform",
]

if TYPE_CHECKING:
    from gapless.signals.audio_files import read_audio
    from gapless.signals.limits import FileRefused
    from gapless.signals.read import read_waveform
    from gapless.signals.signal import Signal

__getattr__ = lazy_names(
    __name__,
    {
        "FileRefused": "gapless.signals.limits",
        "Signal": "gapless.signals.signal",
        "read_audio": "gapless.signals.audio_files",
        "read_waveform": "gapless.signals.read",
    },
)
