"""Reads `.npy` files of plain numbers: never unpickled, and no larger than what the file holds."""

import io
import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gapless.signals.files import parsing
from gapless.signals.limits import FileRefused, max_values

MAGIC = b"\x93NUMPY"


def read_npy(content: bytes) -> NDArray[Any]:
    """The array of a `.npy` file, read-only, in the byte order of this machine where it is floats.

    Raises:
        FileRefused: objects (refused unread), no plain numbers, or a shape that the file does not hold.
    """
    stream = io.BytesIO(content)
    with parsing("npy"):
        version = np.lib.format.read_magic(stream)
        read_header = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        shape, is_fortran, dtype = read_header(stream)
        count = math.prod(shape)
        if dtype.hasobject:
            raise FileRefused("unreadable file", "npy: it holds Python objects, which are refused unread")
        if dtype.kind not in "fiu":
            raise FileRefused("unreadable file", f"npy: it holds {dtype.kind!r} values, and no plain numbers")
        if count > max_values():
            raise FileRefused("signal too large", f"npy: {count} values are above {max_values()}")
        held = len(content) - stream.tell()
        if count < 1 or held < count * dtype.itemsize:
            raise FileRefused(
                "truncated file", f"npy: its header needs {count * dtype.itemsize} bytes, it holds {held}"
            )
        flat = np.frombuffer(content, dtype, count, stream.tell())
        return flat.reshape(shape, order="F" if is_fortran else "C")
