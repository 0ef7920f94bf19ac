"""Reads WAV and FLAC files by libsndfile; files of its other formats are refused by their first bytes."""

import io
import struct

import numpy as np

from gapless.core.errors import missing_extra
from gapless.signals.files import parsing
from gapless.signals.limits import MAX_RATE, FileRefused, check_counts
from gapless.signals.signal import Signal

_PLAIN = (1, 3, 0xFFFE)  # formats of WAV whose samples have a fixed size: integers, floats, extensible


def is_audio(content: bytes) -> bool:
    """Whether these are the bytes of a WAV or FLAC file."""
    return content.startswith(b"fLaC") or (content.startswith(b"RIFF") and content[8:12] == b"WAVE")


def read_audio(content: bytes) -> Signal:
    """The sound of a file: [channel, time] in [-1, 1].

    Raises:
        FileRefused: another format, damaged, shorter than its header says, or above the limits.
        UsageError: soundfile is not installed.
    """
    if not is_audio(content):
        raise FileRefused("unreadable file", "audio: it is neither WAV nor FLAC")
    if content.startswith(b"RIFF"):
        _check_wav(content)
    with parsing("audio"):
        try:
            import soundfile
        except (ImportError, OSError):  # OSError: the package without its library
            raise missing_extra("soundfile", "audio") from None
        with soundfile.SoundFile(io.BytesIO(content)) as file:
            check_counts(file.channels, file.frames)
            if not 0 < file.samplerate <= MAX_RATE:
                raise FileRefused("unreadable file", "audio: its rate is not plausible")
            values = file.read(frames=file.frames, dtype="float32", always_2d=True)
            if len(values) != file.frames:
                raise FileRefused("truncated file", f"audio: it holds {len(values)} of {file.frames} samples")
            return Signal(np.ascontiguousarray(values.T), float(file.samplerate))


def _check_wav(content: bytes) -> None:
    """Raise FileRefused for chunks that are longer than the file; libsndfile would cut them in silence."""
    position, frame, is_plain = 12, 0, False
    while position + 8 <= len(content):
        name, size = content[position : position + 4], struct.unpack("<I", content[position + 4 : position + 8])[0]
        held = len(content) - position - 8
        if size > held:
            raise FileRefused("truncated file", f"audio: a part of it has {size} bytes by its header, it has {held}")
        if name == b"fmt " and size >= 16:
            code, channels, _, _, frame, bits = struct.unpack("<HHIIHH", content[position + 8 : position + 24])
            is_plain = code in _PLAIN
            if is_plain and (not channels or frame != channels * (-(-bits // 8))):
                raise FileRefused("unreadable file", "audio: its header contradicts itself about the size of a sample")
        if name == b"data":
            if not frame:
                raise FileRefused("unreadable file", "audio: its samples stand before their description")
            if is_plain and size % frame:
                raise FileRefused("truncated file", "audio: its last sample is not whole")
            return
        position += 8 + size + size % 2
    raise FileRefused("truncated file", "audio: it holds no samples")
