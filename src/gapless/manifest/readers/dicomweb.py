"""`gapless data dicomweb`: studies of a PACS by its DICOMweb service, with a table of reports or with its own.

Rows, pixels, labels and groups are those of `gapless data dicom` on the same files. A file is reduced in memory to what
its picture needs before it is written (`dicom_copies`), and an interrupted run continues from these copies.
"""

import hashlib
import logging
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from gapless.core.errors import NeedsNetwork, UsageError, missing_extra
from gapless.core.progress import progress_bar
from gapless.core.values import text_of
from gapless.images.dicom_header import identifier, read_header
from gapless.images.pixels import ImageRefused, is_dicom
from gapless.manifest.modality_spec import ModalitySpec
from gapless.manifest.raw_rows import RawRow
from gapless.manifest.readers.base import READERS, Names, Option, Reader, Reading
from gapless.manifest.readers.dicom_copies import plain_copy, report_text
from gapless.manifest.readers.dicom_rows import (
    BY_PATH,
    DEFAULT_REPORT,
    DicomFile,
    NotTaken,
    Report,
    ReportOptions,
    build_options,
    check_choices,
    reports_of_table,
    rows_of_files,
    specs_of_table,
)
from gapless.manifest.readers.dicom_studies import of_files
from gapless.manifest.readers.table import TableFile
from gapless.manifest.verify import store_bytes
from gapless.modalities.base import FILES
from gapless.signals.limits import FileRefused
from gapless.tables.table_format import TextOptions

BY_STUDY_UID = "StudyInstanceUID"
_QUERIED = (BY_STUDY_UID, "AccessionNumber", "PatientID")
MAX_FAILURES = 20  # files in a row that the server fails to give, after which it is taken for broken
AT_ONCE = 64

if TYPE_CHECKING:  # they need the package dicomweb-client
    from gapless.pacs import Instance, Server

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class DicomWebOptions(ReportOptions):
    """Build a manifest from a DICOMweb service. Credentials come from the environment or from netrc.

    Args:
        reports: a table (CSV, TSV, JSONL, Parquet), or `SPLIT=FILE`; by default the structured reports of each study.
        image_key: the column of `reports` with the value named by `match`.
        match: the element that `image_key` holds: StudyInstanceUID, AccessionNumber, PatientID, ...
        patient: only studies of this PatientID.
        modality_type: only files of this DICOM modality, such as CT or DX.
        date: only studies of this date, or of a range, such as 20240101-20241231.
        unverified_tls: true accepts any certificate, and sends credentials without TLS.
        connections: files that are fetched at once.
    """

    reports: str | Path | None = None
    image_key: str = "study"
    match: str = BY_STUDY_UID
    study: Annotated[Names, Option("study", "StudyInstanceUID of a study to fetch; by default those of `reports`")] = ()
    patient: str | None = None
    modality_type: str | None = None
    date: str | None = None
    unverified_tls: bool = False
    connections: int = 4

    def queries(self) -> list[dict[str, str]]:
        """The filters of each query that the options ask for; none where the table says which studies are wanted."""
        filters = {"PatientID": self.patient, "ModalitiesInStudy": self.modality_type, "StudyDate": self.date}
        given = {name: value for name, value in filters.items() if value}
        if self.study:
            return [{BY_STUDY_UID: uid, **given} for uid in self.study]
        return [given] if given.keys() - {"ModalitiesInStudy"} else []


def _read(sources: Sequence[str | Path], options: DicomWebOptions) -> Reading:
    try:
        from gapless.pacs import Server, check_address
    except ImportError:
        raise missing_extra("dicomweb-client", "dicomweb") from None
    url = check_address(str(sources[0]))
    check_choices(options)
    table, specs = _reports_and_specs(options)
    server = Server(url, options.unverified_tls)
    if options.unverified_tls:
        logger.warning(
            "certificates are not verified (--unverified_tls): anybody between here and %s can read along", url
        )
    not_taken = NotTaken()
    build = build_options(options, specs, "DICOMweb", not_taken)
    return Reading(partial(_rows, server, table, options, not_taken, specs), build)


def _reports_and_specs(options: DicomWebOptions) -> tuple[TableFile | None, Sequence[ModalitySpec]]:
    """Raises UsageError for options that contradict each other, before the server is asked."""
    if options.match == BY_PATH:
        raise UsageError("a server has no paths: --match names an element, such as StudyInstanceUID or AccessionNumber")
    if options.connections < 1:
        raise UsageError(f"--connections must be at least 1, got {options.connections}")
    if options.reports is not None:
        if not options.queries() and options.match not in _QUERIED:
            raise UsageError(
                f"a server is not asked by {options.match}: name studies with --study, --patient or --date"
            )
        table = TableFile.parse(options.reports, TextOptions(options.encoding, options.separator))
        return table, specs_of_table(options, table)
    if not options.queries():
        raise UsageError("name the studies to fetch: --study, --patient or --date, or a table with --reports")
    specs = options.specs()
    columns = {column for spec in specs if spec.form != FILES for column in spec.columns}
    columns |= {*options.label_keys, *filter(None, (options.group_key, options.split_key)), *options.caption_key}
    if wrong := sorted(columns - {DEFAULT_REPORT}):
        raise UsageError(
            f"the column {wrong[0]!r} needs a table: give --reports; without it the structured reports of the studies "
            f"are the column {DEFAULT_REPORT!r}"
        )
    return None, specs


def _rows(
    server: "Server",
    table: TableFile | None,
    options: DicomWebOptions,
    not_taken: NotTaken,
    specs: Sequence[ModalitySpec],
    folder: Path,
) -> Iterator[RawRow]:
    """Args: folder: where copies of the files are, those of an interrupted run included."""
    reports: dict[str, Report] = {}
    if table is not None:
        reports, odd = reports_of_table(table, options)
        yield from odd
    files: list[DicomFile] = []
    wanted: list[Instance] = []
    for number, study in enumerate(_studies(server, options, reports), 1):
        instances = server.instances(study, number)
        if not instances:
            lost = ("missing image", "the server lists the study and has no file of it")
            files.append(DicomFile("", f"study {number}", None, fault=lost))
        for instance in instances:
            if reason := _reason_to_pass(instance, options, has_table=table is not None):
                not_taken.files.add(reason, instance.origin)
            else:
                wanted.append(instance)
    not_taken.files.say()
    if table is None:
        reports = _reports_of(server, [one for one in wanted if one.is_report])
        wanted = [one for one in wanted if not one.is_report]
    files += _fetched(server, wanted, folder, options.connections, with_kind=bool(of_files(specs)))
    split = None if table is None else table.split
    yield from rows_of_files(folder, files, reports, options, specs, split, not_taken)


def _studies(server: "Server", options: DicomWebOptions, reports: Mapping[str, Report]) -> list[Mapping[str, str]]:
    """The identifiers of the studies that are wanted, in the order of their UIDs."""
    queries = options.queries()
    if not queries:
        of_type = {"ModalitiesInStudy": options.modality_type} if options.modality_type else {}
        values = (text_of(report.cells.get(options.image_key)) for report in reports.values())
        # `*` and `?` stand for anything in a query: such a value would ask for other patients' studies.
        queries = [{options.match: value, **of_type} for value in values if not set(value) & set("*?\\")]
    studies: dict[str, Mapping[str, str]] = {}
    for query in progress_bar(queries, what="asking for studies", unit="query"):
        studies |= server.studies(query)
    return [studies[uid] for uid in sorted(studies)]


def _reason_to_pass(instance: "Instance", options: DicomWebOptions, has_table: bool) -> str | None:
    if instance.is_report:
        return "a structured report, beside a table of reports" if has_table else None
    if not instance.may_have_pixels:
        return "neither an image nor a waveform"
    other = options.modality_type and instance.modality and instance.modality != options.modality_type
    return "of another DICOM modality" if other else None


def _reports_of(server: "Server", documents: "Sequence[Instance]") -> dict[str, Report]:
    """Study -> its report, with a text for each structured report of the study; unreadable ones are said on stderr."""
    texts: dict[str, list[str]] = {}
    origins: dict[str, str] = {}
    num_bad = 0
    for document in progress_bar(documents, what="fetching reports", unit="report"):
        try:
            text = report_text(server.fetch(document))
        except (ImageRefused, FileRefused):
            num_bad += 1
            continue
        key = identifier(document.keys[BY_STUDY_UID])
        origins.setdefault(key, document.origin)
        if text:
            texts.setdefault(key, []).append(text)
    if num_bad:
        logger.warning("%d of %d structured reports cannot be read", num_bad, len(documents))
    return {key: Report(origins[key], {DEFAULT_REPORT: found}) for key, found in texts.items()}


def _fetched(
    server: "Server", instances: "Sequence[Instance]", folder: Path, connections: int, *, with_kind: bool
) -> Iterator[DicomFile]:
    """The copies of the instances, in their order.

    Args:
        with_kind: each with its kind and place, because rows are studies.

    Raises:
        NeedsNetwork: the server cannot be reached, or gives none of many files in a row.
    """
    copies = {path.name.partition("-")[0]: path.name for path in folder.glob("*.dcm")}
    failures = 0
    with (
        ThreadPoolExecutor(connections) as pool,
        progress_bar(what="fetching", unit="file", total=len(instances)) as shown,
    ):
        for start in range(0, len(instances), AT_ONCE):
            chunk = instances[start : start + AT_ONCE]
            for file in pool.map(partial(_copy_of, server, folder, copies, with_kind), chunk):
                failures = failures + 1 if file.fault[0] == "server error" else 0
                if failures >= MAX_FAILURES:
                    raise NeedsNetwork(
                        f"{server.url} failed to give {failures} files in a row; what was fetched is kept, and the "
                        "same command continues"
                    )
                shown.update(1)
                yield file


def _copy_of(
    server: "Server", folder: Path, copies: Mapping[str, str], with_kind: bool, instance: "Instance"
) -> DicomFile:
    """The copy of one instance, fetched unless an earlier run did; its name ends with the sha256 of the original."""
    key = hashlib.sha256(f"{server.url}|{instance.keys['SOPInstanceUID']}".encode()).hexdigest()[:32]
    try:
        if name := copies.get(key):
            digest = Path(name).stem.partition("-")[2]
            copy = (folder / name).read_bytes()
            header = read_header(copy)
        else:
            content = server.fetch(instance)
            if not is_dicom(content):
                return DicomFile("", instance.origin, None, fault=("not a DICOM file", ""))
            header, digest = read_header(content), hashlib.sha256(content).hexdigest()
            if header.keys["SOPInstanceUID"] != instance.keys["SOPInstanceUID"]:
                another = ("another file", "the server gives another file than the one asked for")
                return DicomFile("", instance.origin, None, fault=another)
            name = f"{key}-{digest}.dcm"
            copy = plain_copy(content, header)
            store_bytes(folder / name, copy)
    except (ImageRefused, FileRefused) as error:
        return DicomFile("", instance.origin, None, fault=(error.reason, error.detail))
    file = DicomFile(name, instance.origin, replace(header, keys=instance.keys), digest)
    return file.with_kind(copy) if with_kind else file


READER = READERS.add(
    "dicomweb",
    Reader(
        "dicomweb",
        "studies of a PACS, by DICOMweb, and their reports -> manifest",
        DicomWebOptions,
        _read,
        "the address of the service, such as https://pacs.example.org/dicom-web",
        example="data dicomweb https://pacs.example.org/dicom-web --reports reports.csv --out manifest",
    ),
)
