"""From DICOM files and reports to raw rows: which report is whose, who is one patient, what a row holds.

The folder reader and the DICOMweb reader share it. No file name, no header value beyond the allow-list of
`dicom_header.ALLOWED_HEADER` and no identifier reaches a row. The report is the user's own text.
"""

import logging
import unicodedata
from collections.abc import Container, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Annotated, Any

from gapless.core.errors import UsageError, unknown_name
from gapless.core.values import name_of, text_of
from gapless.images.dicom_header import ALLOWED_HEADER, JOIN_ELEMENTS, Header, identifier
from gapless.manifest.build import TEXT_LABEL
from gapless.manifest.modality_cells import CellRefused, FileView, views_of
from gapless.manifest.modality_spec import ModalitySpec
from gapless.manifest.options import MAX_BAD, BuildOptions, ImageOptions
from gapless.manifest.raw_rows import FileSource, RawRow, faulty_row
from gapless.manifest.readers.base import CAPTION_HELP, LABEL_HELP, Names, Option, ReaderOptions
from gapless.manifest.readers.dicom_groups import BY_PATIENT, GROUPINGS, doubts, group_files
from gapless.manifest.readers.dicom_studies import (
    VOLUME,
    StudyFile,
    content_kind,
    of_files,
    own_files,
    studies_of,
    study_views,
)
from gapless.manifest.readers.modality_options import KEEP, MODALITY_HELP, given_modalities, presence_options
from gapless.manifest.readers.passed_over import PassedOver
from gapless.manifest.readers.table import TableFile, all_cells, check_modality_columns
from gapless.manifest.survey import surveyed
from gapless.modalities.base import FILES
from gapless.signals.limits import FileRefused
from gapless.tables.table_format import Cells
from gapless.tables.tables import check_columns, read_lines, texts_of
from gapless.volumes.dicom_series import SliceHeader

logger = logging.getLogger(__name__)

LABELS = (*ALLOWED_HEADER, TEXT_LABEL)
BY_PATH = "path"
DEFAULT_REPORT = "report"
IMAGE = ModalitySpec("image", "image", ("file",))  # the DICOM file itself


@dataclass(frozen=True)
class Report:
    """A line of the report table, or a report that a server holds."""

    origin: str
    cells: Cells


@dataclass(frozen=True)
class DicomFile:
    """A DICOM file: its header and the sha256 of its content, or the (reason, detail) why it is not read.

    Args:
        name: its path below the folder.
        origin: what messages and the list of skipped rows call it.
        kind, place: as `content_kind` gives them, where rows are studies; a file whose header alone can be read has
            a fault too.
    """

    name: str
    origin: str
    header: Header | None
    digest: str = ""
    fault: tuple[str, str] = ("", "")
    kind: str = ""
    place: SliceHeader | None = None

    def with_kind(self, content: bytes) -> "DicomFile":
        """The file with its kind and place, or the fault of its content."""
        try:
            kind, place = content_kind(content)
        except FileRefused as error:
            return replace(self, fault=(error.reason, error.detail))
        return replace(self, kind=kind, place=place)


@dataclass(frozen=True, kw_only=True)
class ReportOptions(ReaderOptions):
    """What the readers of DICOM files share: how reports are joined to them, and what a row holds.

    Args:
        image_key: its column that tells the file: the path below `source`, or the value named by `match`.
        caption_key: its column, or columns, with the report; by default "report". Beside `modality` it stands for
            text=text:COLUMN.
        modality: further modalities of its columns, each NAME=KIND:COLUMN[,COLUMN...][,param=value...] of texts,
            numbers or fields, any of them absent; the file itself is the modality "image". With ecg=waveform or
            ct=volume a row is a study: its waveforms, its series of slices, and its other files as images.
        missing: "keep" files that lack a modality (the default with `modality`), or "drop" them.
        min_present: files with fewer modalities are skipped and counted; by default 2.
        match: "path", or the header element that `image_key` holds (StudyInstanceUID, AccessionNumber, ...).
        group_key: its column of what must not be split, by default what `group_by` says; the manifest holds a name that
            reveals nothing in place of the value.
        group_by: "patient": files that share a PatientID or a study are one group, also over several steps; "study":
            only those that share a study, for files whose PatientID is a placeholder.
        label_keys: its columns to keep as labels.
        split_key: its column with train / validation / test; by default the split of `reports`, else train.
        allow_burned_in_text: False leaves out images whose header, kind or pixels suggest that text is burned in.
        licence: of the whole data set.
        encoding: of the table of reports: utf-8, cp1252, ...; by default UTF-8, or what a byte-order mark says.
        separator: between its cells, a character or "tab"; by default what the header shows.
        max_bad: the largest share of bad rows: unreadable files, files without a report, reports without a file.
        workers: processes that verify; None uses all cores.
    """

    image_key: str = "image"
    caption_key: Annotated[Names, Option("caption_key", CAPTION_HELP)] = ()
    modality: Annotated[Names, Option("modality", MODALITY_HELP, is_divided=False)] = ()
    missing: str | None = None
    min_present: int | None = None
    match: str = BY_PATH
    group_key: str | None = None
    group_by: str = BY_PATIENT
    label_keys: Annotated[Names, Option("label_key", LABEL_HELP)] = ()
    split_key: str | None = None
    allow_burned_in_text: bool = True
    licence: str | None = None
    encoding: str | None = None
    separator: str | None = None
    max_bad: float = MAX_BAD
    workers: int | None = None

    def caption_columns(self) -> Names:
        """The columns of reports of a folder without further modalities."""
        return self.caption_key or (DEFAULT_REPORT,)

    def key_columns(self) -> list[str]:
        """Every column that the table of reports must have and that holds no modality."""
        one_each = (self.image_key, self.group_key, self.split_key)
        return [*(key for key in one_each if key is not None), *self.label_keys]

    def specs(self) -> tuple[ModalitySpec, ...]:
        """The modalities of the table's columns, none for images and reports.

        Raises:
            UsageError: a wrong word, or a kind that is read from files.
        """
        is_asked = self.missing == KEEP
        is_text = self.caption_key or (is_asked and not self.modality)
        shorthands = [ModalitySpec("text", "text", self.caption_columns())] if is_text else []
        words = own_files(self.modality)
        specs = given_modalities(words, shorthands, (*LABELS, *self.label_keys), is_asked)
        for spec in specs:
            if spec.name == IMAGE.name:
                raise UsageError("the DICOM files are the modality 'image' already; give this one another name")
            if spec.form == FILES and spec not in of_files(specs):
                raise UsageError(
                    "DICOM files give images, waveforms (ecg=waveform) and volumes (ct=volume) from DICOM "
                    f"files, and {spec.name!r} names other files of the kind {spec.kind}, whose files may hold names "
                    "and dates: list them for 'gapless data table'"
                )
        return specs


def check_choices(options: ReportOptions) -> None:
    """Raises UsageError for a word of `match` or `group_by` that is none."""
    if options.match not in (BY_PATH, *JOIN_ELEMENTS):
        raise unknown_name("match", options.match, (BY_PATH, *JOIN_ELEMENTS))
    if options.group_by not in GROUPINGS:
        raise unknown_name("group_by", options.group_by, GROUPINGS)


def specs_of_table(options: ReportOptions, table: TableFile) -> tuple[ModalitySpec, ...]:
    """The modalities of `options.specs` with what a survey of the table fills in; none for images and reports.

    Raises:
        UsageError: a column that the table lacks.
    """
    specs = options.specs()
    if specs:
        check_modality_columns(table, [spec for spec in specs if spec.form != FILES], options.key_columns())
    else:
        check_columns(table.path, [*options.key_columns(), *options.caption_columns()], table.text)
    own = of_files(specs)
    surveyed_specs = iter(surveyed([spec for spec in specs if spec not in own], lambda: all_cells([table])))
    return tuple(spec if spec in own else next(surveyed_specs) for spec in specs)


class NotTaken:
    """What a reader counts and leaves out: files, and series of slices that are no volume."""

    def __init__(self) -> None:
        self.files = PassedOver("files")
        self.series = PassedOver("series of slices that are no volume")

    def counts(self, specs: Sequence[ModalitySpec]) -> dict[str, Mapping[str, int]]:
        """The counts, which grow while the rows are read; those of series where volumes are taken from the files."""
        has_volumes = any(spec.kind == VOLUME for spec in of_files(specs))
        return {
            "passed_over": self.files.counts,
            **({"series_left_out": self.series.counts} if has_volumes else {}),
        }


def build_options(
    options: ReportOptions, specs: Sequence[ModalitySpec], source: str, not_taken: NotTaken
) -> BuildOptions:
    """The options of a build of DICOM files.

    Args:
        options: of the reader.
        specs: the modalities beside the image; none for images and reports.
        source: what is read, for people.
        not_taken: what is left out.
    """
    modalities = (IMAGE, *specs) if specs else ()
    return BuildOptions(
        source=source,
        labels=(*LABELS, *options.label_keys),
        images=ImageOptions(frame=-1, find_text=True, modalities=modalities),
        **presence_options(modalities, options.missing, options.min_present),
        licence=options.licence,
        max_bad=options.max_bad,
        workers=options.workers,
        leaves_out_text=not options.allow_burned_in_text,
        details=not_taken.counts(specs),
    )


def rows_of_files(
    root: Path,
    files: Sequence[DicomFile],
    reports: Mapping[str, Report],
    options: ReportOptions,
    specs: Sequence[ModalitySpec],
    split: str | None,
    not_taken: NotTaken,
) -> Iterator[RawRow]:
    """A row for each file; where waveforms or volumes are taken from the files, a row for each study.

    Args:
        root: the folder of the files.
        files: all of them, because the last one may be what joins two studies.
        reports: by the key that `options.match` says.
        options: of the reader.
        specs: the modalities beside the image; none for images and reports.
        split: of rows for which no column names one.
        not_taken: counts the series that are no volume.
    """
    groups = _patient_groups(files, options.group_by, options.group_key is None)
    if of_files(specs):
        yield from _study_rows(root, files, groups, reports, split, options, specs, not_taken.series)
        not_taken.series.say()
    else:
        yield from _file_rows(root, files, groups, reports, split, options, specs)


def _file_rows(
    root: Path,
    files: Sequence[DicomFile],
    groups: Mapping[int, str],
    reports: Mapping[str, Report],
    split: str | None,
    keys: ReportOptions,
    specs: Sequence[ModalitySpec],
) -> Iterator[RawRow]:
    by_column: dict[str, str] = {}
    used: set[str] = set()
    for number, file in enumerate(files):
        id = f"image-{number + 1:07d}"
        if file.header is None:
            yield faulty_row(file.origin, *file.fault, id)
            continue
        key = _report_key(file.name, file.header, keys.match)
        report = reports.get(key)
        if report is None and specs:
            report = Report(file.origin, {})  # a file that has its image alone
        if report is None:
            yield faulty_row(file.origin, "no report", _no_report(file.origin, key, keys.match), id)
            continue
        used.add(key)
        group = groups[number]
        try:
            if keys.group_key is not None:
                group = _column_group(name_of(report.cells.get(keys.group_key)), file.digest, by_column)
            yield _row(FileSource(root, file.name), file.origin, file.header, report, keys, split, id, group, specs)
        except CellRefused as error:
            yield faulty_row(file.origin, error.reason, error.detail, id)
        except ValueError as error:
            yield faulty_row(file.origin, "malformed row", str(error)[:200], id)
    yield from _without_file(reports, used)
    if keys.group_key is not None and len(by_column) == 1 and len(used) > 1:
        logger.warning("the column %r names one group for all images, which no split can part", keys.group_key)


def _study_rows(
    root: Path,
    files: Sequence[DicomFile],
    groups: Mapping[int, str],
    reports: Mapping[str, Report],
    split: str | None,
    keys: ReportOptions,
    specs: Sequence[ModalitySpec],
    left_out: PassedOver,
) -> Iterator[RawRow]:
    """A row for each study; `left_out` counts the series that are no volume."""
    readable = []
    for number, file in enumerate(files):
        if file.header is None or file.fault[0]:
            yield faulty_row(file.origin, *file.fault, f"file-{number + 1:07d}")
        else:
            readable.append(StudyFile(number, file.name, file.header, file.kind, file.place))
    by_column: dict[str, str] = {}
    used: set[str] = set()
    for place, study in enumerate(studies_of(readable), 1):
        first, id = study[0], f"study-{place:07d}"
        origin = files[first.number].origin
        named = [_report_key(file.name, file.header, keys.match) for file in study]
        found = [key for key in dict.fromkeys(named) if key in reports]
        used.update(found)
        if len(found) > 1:
            detail = f"{len(found)} lines of the table belong to one study, and a row has one; merge them"
            yield faulty_row(origin, "several reports", detail, id)
            continue
        report = reports[found[0]] if found else Report(origin, {})
        group = groups[first.number]
        try:
            if keys.group_key is not None:
                digest = files[first.number].digest
                group = _column_group(name_of(report.cells.get(keys.group_key)), digest, by_column)
            views = study_views(root, study, of_files(specs), IMAGE.name, id, left_out)
            yield _row(FileSource(root, first.name), origin, first.header, report, keys, split, id, group, specs, views)
        except CellRefused as error:
            yield faulty_row(origin, error.reason, error.detail, id)
        except ValueError as error:
            yield faulty_row(origin, "malformed row", str(error)[:200], id)
    yield from _without_file(reports, used)


def _row(
    image: FileSource,
    origin: str,
    header: Header,
    report: Report,
    keys: ReportOptions,
    split: str | None,
    id: str,
    group: str,
    specs: Sequence[ModalitySpec],
    files: Mapping[str, tuple[FileView, ...]] | None = None,
) -> RawRow:
    """Raises CellRefused, or ValueError for a cell that is no text.

    Args:
        files: modality -> its files, where the row is a study; by default the file `image`.
    """
    content: dict[str, Any]
    if specs:
        of_table = [spec for spec in specs if spec.form != FILES]
        views = {spec.name: of for spec in of_table if (of := views_of(spec, report.cells, lambda cell: None))}
        content = {"views": {**({IMAGE.name: (FileView(image, id),)} if files is None else files), **views}}
    else:
        captions = [text for key in keys.caption_columns() for text in texts_of(report.cells.get(key))]
        content = {"image": image, "image_name": id, "captions": captions}
    return RawRow(
        origin=origin,
        id=id,
        **content,
        split=text_of(report.cells.get(keys.split_key)) if keys.split_key else split,
        group=group,
        labels={
            **header.labels,
            TEXT_LABEL: header.burned_in_text,
            **{label: name_of(report.cells.get(label)) or None for label in keys.label_keys},
        },
    )


def _report_key(name: str, header: Header, match: str) -> str:
    """The key by which a file's report is looked up."""
    return _path_key(name) if match == BY_PATH else identifier(header.keys[match])


def _without_file(reports: Mapping[str, Report], used: Container[str]) -> Iterator[RawRow]:
    """A faulty row for each report that no file has."""
    for key, report in reports.items():
        if key not in used:
            yield faulty_row(report.origin, "missing image", "no file has this report")


def _no_report(name: str, key: str, match: str) -> str:
    if match == BY_PATH:
        return f"{name} is not in the table"
    return f"the table has no line for its {match}" if key else f"the file has no {match}"


def reports_of_table(table: TableFile, keys: ReportOptions) -> tuple[dict[str, Report], list[RawRow]]:
    """The lines of the table by their key, and a faulty row for each line that has none."""
    reports: dict[str, Report] = {}
    odd = []
    key_of = _path_key if keys.match == BY_PATH else identifier
    for origin, cells, fault in read_lines(table.path, table.text):
        try:
            key = key_of(cells.get(keys.image_key)) if cells is not None else ""
        except ValueError as error:
            cells, key, fault = None, "", str(error)[:200]
        if cells is None or not key:
            odd.append(faulty_row(origin, "malformed row", fault or f"column {keys.image_key!r} is empty"))
        elif key in reports:
            odd.append(faulty_row(origin, "duplicate report", "an earlier line has the same key"))
        else:
            reports[key] = Report(origin, cells)
    return reports, odd


def _path_key(value: object) -> str:
    """One spelling of a path below the folder: Windows' backslashes, `./`, the decomposed letters of macOS."""
    text = unicodedata.normalize("NFC", text_of(value).replace("\\", "/"))
    return str(PurePosixPath(text)) if text else ""


def _patient_groups(files: Sequence[DicomFile], group_by: str, is_used: bool) -> Mapping[int, str]:
    """File number -> a name for its patient or study, made from the bytes of the first file of the group.

    The name is the same in every run and reveals nothing. A checksum of the PatientID could be inverted by trying all
    numbers.
    """
    readable = [number for number, file in enumerate(files) if file.header is not None]
    keys = [header.keys for file in files if (header := file.header) is not None]
    labels = group_files(keys, group_by)
    if is_used:
        for sentence in doubts(keys, labels, group_by):
            logger.warning("%s", sentence)
    first: dict[int, str] = {}
    for number, label in zip(readable, labels, strict=True):
        first.setdefault(label, f"{group_by}-{files[number].digest[:16]}")
    return {number: first[label] for number, label in zip(readable, labels, strict=True)}


def _column_group(value: str, digest: str, names: dict[str, str]) -> str:
    """A name that reveals nothing for a value of the group column; "" for an empty value."""
    return names.setdefault(value, f"group-{digest[:16]}") if value else ""
