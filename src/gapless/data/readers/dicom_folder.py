"""`gapless data dicom`: a folder of DICOM files and a table of reports.

The pictures are written as PNG without any metadata, under running numbers: no file name, no header value beyond the
allow-list of `dicom_header.ALLOWED_HEADER`, no identifier reaches the manifest. The report is the user's own text.
"""

import hashlib
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from gapless.data.build import MAX_BAD, TEXT_LABEL, BuildOptions, build_manifest
from gapless.data.dicom_header import ALLOWED_HEADER, JOIN_ELEMENTS, Header, read_header
from gapless.data.manifest import Manifest
from gapless.data.pixels import ImageRefused, is_dicom
from gapless.data.readers.table import TableFile, TableKeys
from gapless.data.rows import FileSource, RawRow, faulty_row
from gapless.data.table_format import Cells, TextOptions
from gapless.data.tables import check_columns, read_lines, texts_of
from gapless.errors import UsageError, unknown_name
from gapless.values import text_of

LABELS = (*ALLOWED_HEADER, TEXT_LABEL)
BY_PATH = "path"
_NOT_IMAGES = ("DICOMDIR",)


@dataclass(frozen=True)
class _Report:
    """A line of the report table."""

    origin: str
    cells: Cells


def read_dicom(
    source: str | Path,
    out: str | Path,
    reports: str | Path,
    image_key: str = "image",
    caption_key: str | Sequence[str] = "report",
    match: str = BY_PATH,
    group_key: str | None = None,
    label_keys: Sequence[str] = (),
    split_key: str | None = None,
    allow_burned_in_text: bool = True,
    licence: str | None = None,
    encoding: str | None = None,
    separator: str | None = None,
    max_bad: float = MAX_BAD,
    workers: int | None = None,
) -> Manifest:
    """Build a manifest from DICOM files and their reports.

    Args:
        source: the folder; every file in it and below is read.
        out: the manifest's directory; must be new.
        reports: a table (CSV, TSV, JSONL, Parquet), or `SPLIT=FILE`.
        image_key: its column that tells the file: the path below `source`, or the value named by `match`.
        caption_key: its column, or columns, with the report.
        match: "path", or the header element that `image_key` holds (StudyInstanceUID, AccessionNumber, ...).
        group_key: its column of what must not be split, by default the patient; either under a name that tells nothing.
        label_keys, split_key: further columns, as in `read_table`.
        allow_burned_in_text: False leaves out images whose header, kind or pixels suggest that text is burned in.
        licence: of the whole data set.
        encoding, separator: of the table of reports, as in `read_table`.
        max_bad: the largest share of bad rows: unreadable files, files without a report, reports without a file.
        workers: processes that verify; None uses all cores.
    """
    root, table = Path(source), TableFile.parse(reports, TextOptions(encoding, separator))
    if not root.is_dir():
        raise UsageError(f"{root} is not a directory")
    if match not in (BY_PATH, *JOIN_ELEMENTS):
        raise unknown_name("match", match, (BY_PATH, *JOIN_ELEMENTS))
    captions = (caption_key,) if isinstance(caption_key, str) else tuple(caption_key)
    keys = TableKeys(image_key, captions, group_key, split_key, tuple(label_keys))
    check_columns(table.path, keys.named(), table.text)
    options = BuildOptions(
        source="DICOM files",
        labels=(*LABELS, *keys.labels),
        licence=licence,
        max_bad=max_bad,
        workers=workers,
        frame=-1,
        burned_in_text="flag" if allow_burned_in_text else "leave out",
    )
    return build_manifest(_rows(root, table, keys, match), out, options)


def _rows(root: Path, table: TableFile, keys: TableKeys, match: str) -> Iterator[RawRow]:
    reports, odd = _reports(table, keys)
    yield from odd
    names: dict[str, str] = {}
    used: set[str] = set()
    for number, path in enumerate(_files(root, table.path), start=1):
        name = path.relative_to(root).as_posix()
        id = f"image-{number:07d}"
        source = FileSource(root, name)
        try:
            header = _header_of(source)
        except ImageRefused as error:
            yield faulty_row(name, error.reason, error.detail, id)
            continue
        key = name if match == BY_PATH else header.keys[match]
        report = reports.get(key)
        if report is None:
            yield faulty_row(name, "no report", "" if match != BY_PATH else f"{name} is not in the table", id)
            continue
        used.add(key)
        yield RawRow(
            origin=name,
            id=id,
            image=source,
            image_name=id,
            captions=[text for key in keys.captions for text in texts_of(report.cells.get(key))],
            split=(text_of(report.cells.get(keys.split)) if keys.split else "") or table.split,
            group=_group(header, report, keys, source, id, names),
            labels={
                **header.labels,
                TEXT_LABEL: header.burned_in_text,
                **{label: text_of(report.cells.get(label)) or None for label in keys.labels},
            },
        )
    for key, report in reports.items():
        if key not in used:
            yield faulty_row(report.origin, "missing image", "no file of the folder has this report")


def _reports(table: TableFile, keys: TableKeys) -> tuple[dict[str, _Report], list[RawRow]]:
    reports: dict[str, _Report] = {}
    odd = []
    for origin, cells, fault in read_lines(table.path, table.text):
        key = text_of(cells.get(keys.image)) if cells is not None else ""
        if cells is None or not key:
            odd.append(faulty_row(origin, "malformed row", fault or f"column {keys.image!r} is empty"))
        elif key in reports:
            odd.append(faulty_row(origin, "duplicate report", "an earlier line has the same key"))
        else:
            reports[key] = _Report(origin, cells)
    return reports, odd


def _files(root: Path, table: Path) -> Iterator[Path]:
    """Every file that may be an image, in an order that no file system changes; links are not followed."""
    for folder, subfolders, names in os.walk(root):
        subfolders[:] = sorted(name for name in subfolders if not name.startswith("."))
        for name in sorted(names):
            path = Path(folder) / name
            is_table = path.exists() and path.samefile(table)
            if not name.startswith(".") and name not in _NOT_IMAGES and not is_table:
                yield path


def _header_of(source: FileSource) -> Header:
    content = source.read()
    if not is_dicom(content):
        raise ImageRefused("not a DICOM file")
    return read_header(content)


def _group(header: Header, report: _Report, keys: TableKeys, source: FileSource, id: str, names: dict[str, str]) -> str:
    """A name for the patient, or what `group_key` groups by, from the bytes of its first file: the same in every run,
    and telling nothing (a checksum of a number could be found by trying all numbers).
    """
    known = header.keys["PatientID"] or header.keys["StudyInstanceUID"]
    value = text_of(report.cells.get(keys.group)) if keys.group else known
    if not value:
        return "" if keys.group else id
    if value not in names:
        kind = "group" if keys.group else "patient"
        names[value] = f"{kind}-{hashlib.sha256(source.read()).hexdigest()[:16]}"
    return names[value]
