"""Reads WFDB records, PhysioNet's format: a text header (.hea) that names files of samples beside it.

A header that names a file elsewhere is refused, before the library opens anything. The library itself could follow
such a name, or an address on the network.
"""

import math
import os
import re
import stat
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np

from gapless.core.errors import missing_extra
from gapless.signals.files import content_of, parsing
from gapless.signals.limits import MAX_CHANNELS, MAX_FILE_BYTES, MAX_HEADER_BYTES, MAX_RATE, FileRefused, check_counts
from gapless.signals.signal import Signal, chosen, places_of, to_millivolt

SUFFIX = ".hea"
_MAX_SAMPLES_PER_FRAME = 10_000
_MAX_SKEW = 1_000_000


def header_of(path: Path) -> Path | None:
    """The header of a WFDB record that a path names, with or without its suffix; None where it names none."""
    if path.suffix == SUFFIX:
        return path
    beside = path.with_name(path.name + SUFFIX) if path.name else path
    return beside if beside.suffix == SUFFIX and not path.exists() and beside.exists() else None


def is_header(content: bytes) -> bool:
    """Whether these bytes begin as a WFDB header does: comments, then a name and the number of channels."""
    lines = content[:MAX_HEADER_BYTES].split(b"\n")
    first = next((line for line in lines if line.strip() and not line.startswith(b"#")), b"")
    return re.fullmatch(rb"[A-Za-z0-9_-]+(/[0-9]+)?[ \t]+[0-9]+([ \t]+[ -~\t]*)?", first.strip()) is not None


def wfdb_files(header: Path) -> list[Path]:
    """The header and the files of samples that it names. Raises FileRefused: as `read_wfdb`."""
    return [header, *_sample_files(header, _read_header(header))]


def read_wfdb(header: Path, channels: Sequence[str] = (), missing: Literal["refuse", "mask"] = "refuse") -> Signal:
    """The record of a header.

    Args:
        header: path of the .hea file.
        channels: names of those to read; () reads all.
        missing: what happens where one is not there.

    Raises:
        FileRefused: damaged, of several segments, a file outside the header's folder, or above the limits.
        UsageError: wfdb is not installed.
    """
    record = _read_header(header)
    _sample_files(header, record)
    names = tuple(str(name or "") for name in record.sig_name)
    places = places_of(channels, names, missing) if channels else list(range(record.n_sig))
    read = [place for place in places if place is not None]
    if record.sig_len is not None:
        check_counts(len(read), int(record.sig_len))
    with parsing("WFDB"):
        import wfdb

        stem = os.path.abspath(header)[: -len(SUFFIX)]
        physical = wfdb.rdrecord(stem, channels=read, return_res=32)
        values = np.ascontiguousarray(np.asarray(physical.p_signal, dtype=np.float32).T)
        factors = np.array([[to_millivolt(str(unit or ""))] for unit in physical.units], dtype=np.float32)
    signal = Signal(values * factors, float(record.fs), tuple(names[place] for place in read))
    return chosen(signal, channels, missing) if channels else signal


def _read_header(header: Path) -> Any:
    """wfdb's record of a header, whose numbers are within the limits."""
    lines = [line.split() for line in content_of(header, MAX_HEADER_BYTES).decode("latin-1").splitlines()]
    lines = [words for words in lines if words and not words[0].startswith("#")]
    if len(lines) > MAX_CHANNELS + 1:
        raise FileRefused("signal too large", f"WFDB: its header has more than {MAX_CHANNELS} lines of channels")
    for words in lines[1:]:
        _check_name(words[0])
    with parsing("WFDB"):
        try:
            import wfdb
        except ImportError:
            raise missing_extra("wfdb", "waveform") from None
        record = wfdb.rdheader(os.path.abspath(header)[: -len(SUFFIX)])
        if not isinstance(record, wfdb.Record):
            raise FileRefused("unreadable file", "WFDB: records of several segments are not read; join them first")
        _check_header(record)
    return record


def _check_header(record: Any) -> None:
    """Raise FileRefused for numbers that contradict each other, or are above the limits."""
    names = record.file_name or []
    check_counts(record.n_sig or 0, 1 if record.sig_len is None else record.sig_len)
    if len(names) != record.n_sig:
        raise FileRefused("unreadable file", f"WFDB: its header names {record.n_sig} channels and has {len(names)}")
    if not record.fs or not 0 < float(record.fs) <= MAX_RATE:
        raise FileRefused("unreadable file", "WFDB: its rate is not plausible")
    are_plausible = (
        all(1 <= count <= _MAX_SAMPLES_PER_FRAME for count in record.samps_per_frame),
        all(0 <= (skew or 0) <= _MAX_SKEW for skew in record.skew),
        all(0 <= (offset or 0) <= MAX_FILE_BYTES for offset in record.byte_offset),
    )
    if not all(are_plausible):
        raise FileRefused("unreadable file", "WFDB: its samples per frame, skew or byte offset is not plausible")


def _check_name(name: str) -> None:
    """Raise FileRefused for a name of samples that is no plain name of a file beside the header.

    Neither the name nor its target is shown: a header may hold anything.
    """
    if not name or name.startswith("~") or name in ("-", ".", "..") or not set(name).isdisjoint("/\\:\0"):
        raise FileRefused("file outside its folder", "WFDB: the header names a file that is not beside it")


def _sample_files(header: Path, record: Any) -> list[Path]:
    """The files of samples, each a plain file in the header's own folder that holds what the header declares."""
    folder = Path(os.path.abspath(header)).parent  # where the library looks, also where the header is a link
    files = []
    for name in dict.fromkeys(record.file_name):
        _check_name(name or "")
        file = folder / name
        try:
            status = file.lstat()
        except (OSError, ValueError):
            raise FileRefused("missing file", "WFDB: a file of samples that the header names is not there") from None
        if stat.S_ISLNK(status.st_mode) and file.resolve().parent != folder.resolve():
            raise FileRefused("file outside its folder", "WFDB: a file of samples is a link to another folder")
        if not file.is_file():
            raise FileRefused("not a file", "WFDB: a name of samples in the header is no plain file")
        _check_length(record, name, file.stat().st_size)
        files.append(file)
    return files


def _check_length(record: Any, name: str, size: int) -> None:
    """Raise FileRefused for a file of samples that is too large, or shorter than its header says."""
    from wfdb.io._signal import BYTES_PER_SAMPLE

    rows = [row for row, other in enumerate(record.file_name) if other == name]
    formats = {str(record.fmt[row]) for row in rows}
    if size > MAX_FILE_BYTES:
        raise FileRefused("file too large", f"WFDB: its samples have {size} bytes, above {MAX_FILE_BYTES}")
    if len(formats) != 1 or not formats <= set(BYTES_PER_SAMPLE):
        raise FileRefused("unreadable file", "WFDB: the format of its samples is not one that is read")
    per_frame = sum(record.samps_per_frame[row] for row in rows)
    needed = math.floor((record.sig_len or 0) * per_frame * BYTES_PER_SAMPLE[formats.pop()])
    offset = max(record.byte_offset[row] or 0 for row in rows)
    if offset + needed > size:
        raise FileRefused("truncated file", f"WFDB: its header needs {offset + needed} bytes of samples, it has {size}")
