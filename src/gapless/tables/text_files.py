"""Opens text files in their encoding; other files are refused with a message that names their kind.

with open_text(Path("reports.csv.gz"), TextOptions(encoding="cp1252")) as stream:
    first = stream.readline()
"""

import codecs
import gzip
import io
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, TextIO, cast

from gapless.core.errors import DataRefused, UsageError, one_line
from gapless.tables.table_format import DETECT, TextOptions

HEAD_BYTES = 4096
GZIP = b"\x1f\x8b"
PARQUET = b"PAR1"
# The mark of UTF-32 begins with that of UTF-16.
_BYTE_ORDER_MARKS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
# First bytes of files that are no text -> their kind, and what to do.
_OTHER_KINDS = {
    PARQUET: "a Parquet file: name it .parquet",
    b"ARROW1": "an Arrow file: write it as Parquet",
    b"FEA1": "a Feather file: write it as Parquet",
    b"\xd0\xcf\x11\xe0": "an old Office file, such as an .xls workbook: save the sheet as CSV UTF-8",
    b"BZh91AY&SY": "compressed by bzip2: unpack it first, or compress it by gzip",
    b"\xfd7zXZ": "compressed by xz: unpack it first, or compress it by gzip",
    b"\x28\xb5\x2f\xfd": "compressed by zstd: unpack it first, or compress it by gzip",
    b"7z\xbc\xaf\x27\x1c": "a 7z archive: unpack it first",
    b"Rar!": "a rar archive: unpack it first",
    b"SQLite format 3": "a SQLite database: export the table as CSV",
    b"\x89HDF": "an HDF5 file: write its rows as CSV, JSONL or Parquet",
    b"\x93NUMPY": "a NumPy array: write its rows as CSV, JSONL or Parquet",
    b"%PDF-": "a PDF: export its text as CSV, JSONL or Parquet",
    b"version https://git-lfs": "a pointer of Git LFS: get the file itself by `git lfs pull`",
    b"<!doctype": "a web page and not the file: get the file again",
    b"<html": "a web page and not the file: get the file again",
}


@contextmanager
def open_text(path: Path, options: TextOptions = DETECT) -> Iterator[TextIO]:
    """A file as text with its line ends as they are; gzip is unpacked, a byte-order mark decides before the encoding.

    Bytes that the encoding does not have become lone surrogates, which `core.values.is_unicode` finds, so that only
    their own row is lost.

    Args:
        path: a file.
        options: of which the encoding is used.

    Raises:
        UsageError: an unknown encoding, UTF-16 without a mark, or a file that is no text (a zip, a workbook, ...).
        DataRefused: a damaged gzip, or bytes that are not the UTF-16 or UTF-32 that the mark announces.
    """
    if options.encoding is not None:
        _check_encoding(options.encoding)
    try:
        with _open_bytes(path) as binary:
            head = binary.read(HEAD_BYTES)
            binary.seek(0)
            name = _encoding_of(path, head, options)
            yield io.TextIOWrapper(binary, encoding=name, errors="surrogateescape", newline="")
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise DataRefused(f"{path} is a damaged gzip file ({one_line(error)}); get it again") from None
    except UnicodeDecodeError as error:
        remedy = ", or name its encoding by --encoding" if options.can_be_chosen else ""
        raise DataRefused(
            f"{path} is not the {error.encoding} that it is read as ({one_line(error)}); save it as UTF-8{remedy}"
        ) from None


def describe_other_kind(path: Path) -> str | None:
    """The kind of a file that is no table, and what to do ("an Excel workbook: ..."); None when unrecognised."""
    return _other_kind(path, first_bytes(path)) if path.is_file() else None


def first_bytes(path: Path) -> bytes:
    """The first bytes of a file, without unpacking it."""
    with path.open("rb") as stream:
        return stream.read(HEAD_BYTES)


def _check_encoding(encoding: str) -> None:
    """Raise UsageError for a name of no text encoding."""
    try:
        "".encode(encoding)
    except LookupError:
        raise UsageError(
            f"--encoding {encoding!r} is no encoding that Python knows; some are utf-8, utf-16, cp1252, gb18030"
        ) from None


def _open_bytes(path: Path) -> IO[bytes]:
    is_gzip = first_bytes(path).startswith(GZIP)
    return cast("IO[bytes]", gzip.open(path, "rb")) if is_gzip else path.open("rb")


def _encoding_of(path: Path, head: bytes, options: TextOptions) -> str:
    if kind := _other_kind(path, head):
        raise UsageError(f"{path} is {kind}")
    for mark, name in _BYTE_ORDER_MARKS:
        if head.startswith(mark):
            return name
    if options.encoding is not None:
        return options.encoding
    even, odd = head[0::2].count(0), head[1::2].count(0)
    if max(even, odd) > len(head) // 5 > 5 * min(even, odd):  # Western text in UTF-16: a NUL in every second place
        name = "utf-16-le" if odd > even else "utf-16-be"
        remedy = f"--encoding {name} reads it" if options.can_be_chosen else "save it as UTF-8"
        raise UsageError(f"{path} looks like UTF-16 without a byte-order mark; {remedy}")
    return "utf-8"


def _other_kind(path: Path, head: bytes) -> str | None:
    lowered = head.lstrip().lower()
    for start, kind in _OTHER_KINDS.items():
        if head.startswith(start) or (start.startswith(b"<") and lowered.startswith(start)):
            return kind
    if head.startswith((b"PK\x03\x04", b"PK\x05\x06")):
        return _zip_kind(path)
    if head[257:262] == b"ustar":
        return "a tar archive: `gapless data shards` reads those that hold images and captions"
    return None


def _zip_kind(path: Path) -> str:
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
    except (zipfile.BadZipFile, OSError):
        names = []
    if any(name.startswith("xl/") for name in names):
        return "an Excel workbook: save the sheet as CSV UTF-8"
    if "content.xml" in names:
        return "an OpenDocument file: save the sheet as CSV"
    return "a zip archive: unpack it first, or compress the table by gzip"
