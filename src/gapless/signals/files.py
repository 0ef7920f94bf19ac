"""Reads the bytes of a file that must be a plain file within the limits, and runs the readers of foreign formats."""

import logging
import os
import stat
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from gapless.core.errors import DataRefused, GaplessError
from gapless.signals.limits import MAX_FILE_BYTES, FileRefused

_PARSERS = ("wfdb", "edfio", "nibabel.global", "nibabel")


def content_of(source: Any, limit: int = MAX_FILE_BYTES) -> bytes:
    """The bytes of a path, or the bytes themselves.

    Raises:
        FileRefused: missing, no plain file, or larger than `limit` bytes; the message names the file alone.
    """
    if isinstance(source, bytes | bytearray | memoryview):
        if len(source) > limit:
            raise FileRefused("file too large", f"{len(source)} bytes are above {limit}")
        return bytes(source)
    path = Path(source)
    try:
        # not blocking: opening a named pipe would otherwise wait for a writer
        with open(os.open(path, os.O_RDONLY | os.O_NONBLOCK), "rb") as stream:
            status = os.fstat(stream.fileno())
            if not stat.S_ISREG(status.st_mode):
                raise FileRefused("not a file", path.name)
            if status.st_size > limit:
                raise FileRefused("file too large", f"{path.name}: {status.st_size} bytes are above {limit}")
            return stream.read()
    except (OSError, ValueError) as error:  # a path with a NUL is a ValueError
        raise FileRefused("missing file", f"{path.name}: {getattr(error, 'strerror', 'no such name')}") from None


@contextmanager
def parsing(what: str) -> Iterator[None]:
    """Run a parser of others in the block: its warnings are silenced, and its errors become a refusal by their class.

    Both quote values of headers, which may be names and dates.

    Args:
        what: the format, for the message.

    Raises:
        FileRefused: whatever the parser raises, save errors of gapless and a lack of memory.
    """
    levels = {name: logging.getLogger(name).level for name in _PARSERS}
    for name in levels:
        logging.getLogger(name).setLevel(logging.CRITICAL + 1)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    except (GaplessError, DataRefused, MemoryError):
        raise
    except Exception as error:
        detail = f"{what}: the file is damaged, or breaks its format in an unknown way: {type(error).__name__}"
        raise FileRefused("unreadable file", detail) from None
    finally:
        for name, level in levels.items():
            logging.getLogger(name).setLevel(level)
