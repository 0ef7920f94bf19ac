"""Parses the requested elements of a DICOM file, and no others.

Files without the preamble, without file meta information or without a transfer syntax are read too: the data set is
then read as little endian, with explicit or implicit VR by the form of its first element.
"""

import io
import logging
import struct
import threading
import warnings
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from gapless.core.errors import missing_extra
from gapless.images.limits import ImageRefused, check_size

DEFLATED = "1.2.840.10008.1.2.1.99"
IMPLICIT_LITTLE, EXPLICIT_LITTLE, EXPLICIT_BIG = "1.2.840.10008.1.2", "1.2.840.10008.1.2.1", "1.2.840.10008.1.2.2"
# Bytes that a deflated file may inflate to beside its pixels; a larger one is refused.
MAX_HEADER_BYTES = 16 * 1024 * 1024
INFLATED_AT_ONCE = 1 << 20
FIRST_PIXEL_TAG = 0x7FE00000

_PREAMBLE = 128
_META_GROUP, _IDENTIFYING_GROUP = 0x0002, 0x0008
_LAST_FIRST_ELEMENT = 0x0060  # Modality: a data set that begins later than there is not recognised
_MAX_FIRST_LENGTH = 1 << 16

_silence = threading.Lock()
_silenced = 0
_level_before = logging.NOTSET


def is_dicom(content: bytes) -> bool:
    """Whether these are the bytes of a DICOM file, with or without its preamble."""
    return content[_PREAMBLE : _PREAMBLE + 4] == b"DICM" or _begins_with_an_element(content)


def _begins_with_an_element(content: bytes) -> bool:
    """Whether the bytes begin as a data set does: with a short element of group 2 or 8."""
    if len(content) < 16:
        return False
    for order in "<>":
        group, element = struct.unpack(f"{order}HH", content[:4])
        if group not in (_META_GROUP, _IDENTIFYING_GROUP) or element > _LAST_FIRST_ELEMENT:
            continue
        if content[4:6].isalpha() and content[4:6].isupper():
            return True
        if order == "<" and struct.unpack("<I", content[4:8])[0] < min(len(content), _MAX_FIRST_LENGTH):
            return True
    return False


def import_pydicom() -> Any:
    """The module `pydicom`. Raises UsageError where it is not installed."""
    try:
        import pydicom
        import pydicom.pixels
    except ImportError:
        raise missing_extra("pydicom", "dicom") from None
    return pydicom


@contextmanager
def silenced() -> Iterator[None]:
    """pydicom's warnings and log lines quote header values.

    The loggers of its modules inherit the level of the first one, which is restored when the last of several threads
    is done.
    """
    global _silenced, _level_before
    logger = logging.getLogger("pydicom")
    with _silence:
        if _silenced == 0:
            _level_before = logger.level
            logger.setLevel(logging.CRITICAL + 1)
        _silenced += 1
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        with _silence:
            _silenced -= 1
            if _silenced == 0:
                logger.setLevel(_level_before)


def parse_dicom(pydicom: Any, content: bytes, tags: tuple[str, ...]) -> Any:
    """The data set of a file, with the elements named by `tags`; its `file_meta` always names a transfer syntax.

    Raises:
        ImageRefused: a deflated file that inflates to more than its pixels need.
        Exception: whatever pydicom raises on a damaged file, with header values in the message.
    """
    stream = io.BytesIO(content)
    has_preamble = content[_PREAMBLE : _PREAMBLE + 4] == b"DICM"
    stream.seek(_PREAMBLE + 4 if has_preamble else 0)
    meta = None
    if has_preamble or content[:2] == b"\x02\x00":
        # The public function for this takes only paths.
        meta = pydicom.filereader._read_file_meta_info(stream)
    syntax = str(meta.get("TransferSyntaxUID") or "").strip() if meta is not None else ""
    if syntax == DEFLATED:
        _check_inflated_size(pydicom, content[stream.tell() :])
    if syntax:
        return pydicom.dcmread(io.BytesIO(content), specific_tags=list(tags), force=True)
    # Without a transfer syntax pydicom looks at the first element, when it is given the bare data set.
    dataset = pydicom.dcmread(io.BytesIO(content[stream.tell() :]), specific_tags=list(tags), force=True)
    is_implicit, is_little = dataset.original_encoding
    dataset.file_meta = pydicom.dataset.FileMetaDataset()
    explicit = EXPLICIT_LITTLE if is_little else EXPLICIT_BIG
    dataset.file_meta.TransferSyntaxUID = pydicom.uid.UID(IMPLICIT_LITTLE if is_implicit else explicit)
    return dataset


def _check_inflated_size(pydicom: Any, deflated: bytes) -> None:
    """Raise ImageRefused for a file that inflates to more than its pixels and a header need."""
    limit = _pixel_bytes(pydicom, deflated) + MAX_HEADER_BYTES
    inflater = zlib.decompressobj(-zlib.MAX_WBITS)
    size = 0
    while deflated and not inflater.eof:
        size += len(inflater.decompress(deflated, INFLATED_AT_ONCE))
        deflated = inflater.unconsumed_tail
        if size > limit:
            raise ImageRefused("too many pixels", f"a deflated DICOM file inflates to more than {limit} bytes")


def _pixel_bytes(pydicom: Any, deflated: bytes) -> int:
    """How many bytes of pixels a deflated data set announces."""
    head = zlib.decompressobj(-zlib.MAX_WBITS).decompress(deflated, INFLATED_AT_ONCE)
    sizes = ("Rows", "Columns", "SamplesPerPixel", "BitsAllocated", "NumberOfFrames")
    header = pydicom.filereader.read_dataset(
        io.BytesIO(head),
        is_implicit_VR=False,
        is_little_endian=True,
        stop_when=lambda tag, vr, length: tag >= FIRST_PIXEL_TAG,
        specific_tags=[pydicom.tag.Tag(name) for name in sizes],
    )
    rows, columns, samples, bits, frames = (max(1, int(header.get(name) or 1)) for name in sizes)
    check_size(columns, rows * frames)
    return rows * columns * frames * samples * bits // 8
