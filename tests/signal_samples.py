"""Files of signals made by hand, byte by byte where a header is to lie."""

import struct

import numpy as np

SECRET = "Mustermann"  # stands for what a header says of a person; it must appear nowhere


def ecg(channels=2, samples=720, seed=0):
    """[channel, time] millivolts that are whole multiples of 0.005, as 200 steps a millivolt store them."""
    return np.random.default_rng(seed).integers(-200, 200, (channels, samples)) / 200


def wfdb_record(folder, values, *, rate=360, name="rec", file=None, names=None, declared=None, channels=None):
    """A record of format 16; `declared` and `channels` lie about its counts, `file` about where its samples are."""
    folder.mkdir(parents=True, exist_ok=True)
    names = names or [f"L{row}" for row in range(len(values))]
    lines = [f"{name} {channels or len(values)} {rate} {declared or values.shape[1]}"]
    lines += [f"{file or name + '.dat'} 16 200/mV 16 0 0 0 0 {label}" for label in names]
    (folder / f"{name}.hea").write_text("\n".join([*lines, f"# {SECRET}, born 1950", ""]))
    (folder / f"{name}.dat").write_bytes(np.rint(values.T * 200).astype("<i2").tobytes())
    return folder / f"{name}.hea"


def edf_bytes(values, *, rate=100, names=None, unit="uV", records=None, per_record=None, channels=None):
    """An EDF file of records of one second; the named counts may lie."""
    names = names or [f"EEG C{row}" for row in range(len(values))]
    count = len(values)
    seconds = values.shape[1] // rate

    def fields(texts, size):
        return b"".join(str(text).ljust(size).encode()[:size] for text in texts)

    main = fields(["0"], 8) + fields([SECRET, SECRET], 80) + fields(["01.02.50", "03.04.05"], 8)
    main += fields([256 * (count + 1)], 8) + fields([""], 44)
    main += fields([seconds if records is None else records, 1], 8) + fields(
        [count if channels is None else channels], 4
    )
    rows = fields(names, 16) + fields([""] * count, 80) + fields([unit] * count, 8)
    rows += fields([-1000] * count, 8) + fields([1000] * count, 8) + fields([-32768] * count, 8)
    rows += fields([32767] * count, 8) + fields([""] * count, 80)
    rows += fields([rate if per_record is None else per_record] * count, 8) + fields([""] * count, 32)
    stored = np.rint((values + 1000) / 2000 * 65535 - 32768).astype("<i2")
    blocks = stored[:, : seconds * rate].reshape(count, seconds, rate).transpose(1, 0, 2)
    return main + rows + blocks.tobytes()


def wav_bytes(values, rate=8000, *, declared=None, extra=b""):
    """A WAV file of 16 bits; `declared` lies about the bytes of samples, `extra` is a chunk before them."""
    stored = np.rint(values.T * 32767).astype("<i2").tobytes()
    count = len(values)
    head = struct.pack("<4sIHHIIHH", b"fmt ", 16, 1, count, rate, rate * count * 2, count * 2, 16)
    data = struct.pack("<4sI", b"data", len(stored) if declared is None else declared) + stored
    body = b"WAVE" + head + extra + data
    return b"RIFF" + struct.pack("<I", len(body)) + body


def npy_bytes(array, *, shape=None, descr=None):
    """A .npy file; `shape` and `descr` lie about what is in it."""
    header = {"descr": descr or array.dtype.str, "fortran_order": False, "shape": shape or array.shape}
    text = repr(header).encode().ljust(117) + b"\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text + array.tobytes()
