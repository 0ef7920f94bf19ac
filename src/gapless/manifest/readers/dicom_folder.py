"""`gapless data dicom`: a folder of DICOM files and a table of reports.

The pictures are written as PNG without any metadata, under running numbers: no file name, no header value beyond the
allow-list of `dicom_header.ALLOWED_HEADER`, no identifier reaches the manifest. The report is the user's own text.
"""

import hashlib
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gapless.core.errors import DataRefused, UsageError
from gapless.core.progress import progress_bar
from gapless.images.dicom_header import read_header
from gapless.images.pixels import ImageRefused, is_dicom
from gapless.manifest.manifest import Manifest
from gapless.manifest.modality_spec import ModalitySpec
from gapless.manifest.raw_rows import FileSource, RawRow
from gapless.manifest.readers.base import READERS, Reader, Reading
from gapless.manifest.readers.dicom_rows import (
    DicomFile,
    NotTaken,
    ReportOptions,
    build_options,
    check_choices,
    reports_of_table,
    rows_of_files,
    specs_of_table,
)
from gapless.manifest.readers.dicom_studies import of_files
from gapless.manifest.readers.passed_over import PassedOver, leftover
from gapless.manifest.readers.table import TableFile
from gapless.tables.table_format import TextOptions

_INDEX = "DICOMDIR"


@dataclass(frozen=True, kw_only=True)
class DicomOptions(ReportOptions):
    """Build a manifest from DICOM files and their reports.

    Args:
        reports: a table (CSV, TSV, JSONL, Parquet), or `SPLIT=FILE`.
    """

    reports: str | Path


def read_dicom(source: str | Path, out: str | Path, reports: str | Path, **options: Any) -> Manifest:
    """Build a manifest from a folder of DICOM files and a table of reports, with the options of `DicomOptions`."""
    return READER.build(source, out, reports=reports, **options)


def _read(sources: Sequence[str | Path], options: DicomOptions) -> Reading:
    root = Path(sources[0])
    table = TableFile.parse(options.reports, TextOptions(options.encoding, options.separator))
    if not root.is_dir():
        raise UsageError(f"{root} is not a directory")
    check_choices(options)
    specs = specs_of_table(options, table)
    not_taken = NotTaken()
    build = build_options(options, specs, "DICOM files", not_taken)
    return Reading(_rows(root, table, options, not_taken, specs), build)


def _rows(
    root: Path, table: TableFile, keys: DicomOptions, not_taken: NotTaken, specs: Sequence[ModalitySpec]
) -> Iterator[RawRow]:
    reports, odd = reports_of_table(table, keys)
    yield from odd
    names = _sorted_names(root, table.path, not_taken.files)
    are_studies = bool(of_files(specs))
    bar = progress_bar(names, what="reading headers", unit="file")
    files = [_read_file(root, name, with_kind=are_studies) for name in bar]
    not_taken.files.say()
    yield from rows_of_files(root, files, reports, keys, specs, table.split, not_taken)


def _sorted_names(root: Path, table: Path, passed_over: PassedOver) -> list[str]:
    """Every file that may be an image, by its path below `root`, in an order that no file system changes.

    Links to files are listed; links to folders are not followed, since they may lead in a circle.
    """
    names = []
    for folder, subfolders, files in os.walk(root, onerror=_refuse_folder):
        kept = []
        for name in sorted(subfolders):
            path = Path(folder) / name
            relative = path.relative_to(root).as_posix()
            reason = "a link to a folder, which is not followed" if path.is_symlink() else leftover(f"{relative}/-")
            if reason is not None:
                passed_over.add(reason, relative)
            else:
                kept.append(name)
        subfolders[:] = kept
        for name in sorted(files):
            path = Path(folder) / name
            relative = path.relative_to(root).as_posix()
            if path.exists() and path.samefile(table):
                continue
            if reason := "an index of DICOM files" if name == _INDEX else leftover(relative):
                passed_over.add(reason, relative)
            else:
                names.append(relative)
    return names


def _refuse_folder(error: OSError) -> None:
    raise DataRefused(f"{error.filename} cannot be read ({error.strerror}): its files would be missing")


def _read_file(root: Path, name: str, *, with_kind: bool) -> DicomFile:
    try:
        content = FileSource(root, name).read()
        if not is_dicom(content):
            return DicomFile(name, name, None, fault=("not a DICOM file", ""))
        file = DicomFile(name, name, read_header(content), hashlib.sha256(content).hexdigest())
        return file.with_kind(content) if with_kind else file
    except ImageRefused as error:
        return DicomFile(name, name, None, fault=(error.reason, error.detail))


READER = READERS.add(
    "dicom",
    Reader(
        "dicom",
        "DICOM files and a table of reports -> manifest",
        DicomOptions,
        _read,
        "the folder",
        example="data dicom studies --reports reports.csv --out manifest",
    ),
)
