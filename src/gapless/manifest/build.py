"""Builds a manifest from the raw rows of a reader; all readers use it.

Every image, and every item of another modality, is opened once and verified, on all cores. Every row is kept, or
skipped with a reason. The manifest is complete or absent, and an interrupted build continues.
"""

import hashlib
import itertools
import logging
import re
import unicodedata
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from gapless.core import files
from gapless.core.errors import DataRefused, UsageError
from gapless.core.locks import only_writer
from gapless.core.name_counts import NameCounts
from gapless.core.plan import directory_beside
from gapless.core.pool import MIN_IMAGES_FOR_WORKERS, available_cores
from gapless.core.progress import progress_bar
from gapless.core.values import is_missing, is_unicode, name_of
from gapless.manifest.clean_text import clean_captions, clean_text
from gapless.manifest.manifest import SKIPPED_FILE, Manifest, split_named
from gapless.manifest.modality_cells import FileView
from gapless.manifest.modality_columns import STORED, modality_cells
from gapless.manifest.modality_spec import ModalitySpec, check_names
from gapless.manifest.options import BuildOptions
from gapless.manifest.raw_rows import RawRow, forget_links
from gapless.manifest.read_back import Identities, check_copies, check_files
from gapless.manifest.resume_journal import Journal
from gapless.manifest.split import one_group_sentence
from gapless.manifest.verify import Source
from gapless.manifest.verify_views import RowViews
from gapless.manifest.workers import ROWS_PER_CHUNK, check_in_order
from gapless.manifest.workers_ray import check_on_ray
from gapless.manifest.writer import ManifestWriter

NUM_NAMED = 10
TEXT_LABEL = "burned_in_text"
_SAFE_NAME = re.compile(r"(?![0-9a-f]{24}$)[A-Za-z0-9][A-Za-z0-9_-]{0,63}")  # a name that is not the hash of another id

RawRows = Iterable[RawRow] | Callable[[Path], Iterable[RawRow]]

logger = logging.getLogger(__name__)


def build_manifest(rows: RawRows, out: str | Path, options: BuildOptions) -> Manifest:
    """Verify raw rows, write them as a manifest, and read it back: arguments and errors are those of `write_manifest`.

    Returns:
        The manifest, with all rows in memory.
    """
    return Manifest.read(write_manifest(rows, out, options))


def write_manifest(rows: RawRows, out: str | Path, options: BuildOptions) -> Path:
    """Verify raw rows and write them as a manifest, a few rows in memory at a time.

    What grows with the rows is 8 bytes for each file, and what Parquet notes of each 2,048 rows until the end.

    Args:
        rows: as a reader yields them; or a function that yields them, given a folder for files that are fetched: it
            stays when the build is interrupted, and is removed when the manifest is written or refused.
        out: the manifest's directory; must be new.
        options: what the manifest is, and how strictly it is made.

    Returns:
        The manifest's directory.

    Raises:
        UsageError: `out` is in use, a label has the name of a fixed column, or an option is out of range.
        DataRefused: no row is left, or more than `max_bad` of the rows are bad; their list is then in
            `<out>.skipped.jsonl`.
    """
    out = Path(out)
    check_names(options.images.modalities, options.labels)
    if not 0 <= options.max_bad <= 1:
        raise UsageError(f"--max-bad is a share between 0 and 1, got {options.max_bad}")
    if options.workers is not None and options.workers < 1:
        raise UsageError(f"--workers must be at least 1, got {options.workers}")
    if options.workers is not None and options.ray is not None:
        raise UsageError("--workers counts processes of this machine, and --ray names a cluster: give one of them")
    files.check_new_directory(out)
    forget_links()
    refused_list = out.with_name(f"{out.name}.{SKIPPED_FILE}")
    with (
        only_writer(directory_beside(out), named=str(out)),
        Journal.beside(out, options.images) as journal,
        files.new_directory(out) as partial,
    ):
        given = rows(journal.fetched) if callable(rows) else rows
        books = _write_rows(given, partial, options, journal)
        if problem := books.refusal(options.max_bad):
            journal.discard()
            listed = (partial / SKIPPED_FILE).read_bytes()
            if not listed:
                raise DataRefused(problem)
            files.write_bytes(refused_list, listed)
            raise DataRefused("; ".join((f"{problem}; all are listed in {refused_list}", *books.hints(options))))
        journal.move_images(partial)
        specs = options.images.modalities
        if options.images.root is None:
            check_copies(partial, specs)
        else:
            check_files(partial, options.images.root.resolve(), books.identities, specs)
        journal.discard()
    refused_list.unlink(missing_ok=True)
    if sentence := one_group_sentence(books.num_grouped, books.largest_group):
        logger.warning(f"{out}: {sentence}")
    return out


def _write_rows(rows: Iterable[RawRow], directory: Path, options: BuildOptions, journal: Journal) -> "_Books":
    with (
        ManifestWriter(
            directory,
            labels=options.labels,
            signals=options.signals,
            with_licence=options.with_licence,
            modalities=options.images.modalities,
        ) as writer,
        NameCounts() as groups,
    ):
        books = _Books(writer, options.leaves_out_text, groups)
        for row, result in _checked(rows, options, journal):
            books.enter(row, result)
        image_root = "." if options.images.root is None else str(options.images.root.resolve())
        writer.finish(source=options.source, image_root=image_root, licence=options.licence, **(options.details or {}))
    return books


class _Books:
    """Counts what is kept and skipped: rows read = rows kept + rows skipped."""

    def __init__(self, writer: ManifestWriter, leaves_out_text: bool, groups: NameCounts) -> None:
        self.writer = writer
        self.leaves_out_text = leaves_out_text
        self.bad: Counter[str] = Counter()
        self.named: list[str] = []
        self.left_out: Counter[str] = Counter()  # reasons of rows that are left out by the user's wish
        self.identities = Identities()
        self.num_grouped = 0  # rows whose group the data name
        self.largest_group = 0
        self._groups = groups

    def enter(self, row: RawRow, result: Mapping[str, Any]) -> None:
        if "reason" not in result:
            finished = _finished_row(row, result, self.writer.modalities)
            flag = finished.get(TEXT_LABEL)
            if self.leaves_out_text and flag in ("declared", "suspected"):
                self.writer.skip(row.origin, "burned-in text", str(flag))
                self.left_out["burned-in text"] += 1
            else:
                self.writer.keep(finished)
                self.identities.add(result)
                if row.group is not None:
                    self.num_grouped += 1
                    self.largest_group = max(self.largest_group, self._groups.add(finished["group"]))
            return
        reason, detail = result["reason"], result.get("detail", "")
        self.writer.skip(row.origin, reason, detail)
        if row.expected or result.get("expected"):
            self.left_out[reason] += 1
            return
        self.bad[reason] += 1
        if len(self.named) < NUM_NAMED:
            self.named.append(f"{row.origin} ({reason}{': ' + detail if detail else ''})")

    def refusal(self, max_bad: float) -> str | None:
        num_bad, kept = self.bad.total(), self.writer.kept
        considered = kept + num_bad
        if kept and num_bad <= max_bad * considered:
            return None
        if considered + self.left_out.total() == 0:
            return "there is not a single row to read"
        reasons = ", ".join(f"{count} {reason}" for reason, count in self.bad.most_common())
        first = f"; the first: {'; '.join(self.named)}" if self.named else ""
        if not kept and not num_bad:
            left_out = ", ".join(f"{count} {reason}" for reason, count in self.left_out.most_common())
            return f"none of {self.left_out.total()} rows is selected: {left_out}"
        return (
            f"{num_bad} of {considered} rows ({num_bad / considered:.1%}) are bad, more than the {max_bad:.1%} that "
            f"--max-bad allows: {reasons}{first}"
        )

    def hints(self, options: BuildOptions) -> list[str]:
        """What to do about the reasons for which rows are bad."""
        return [hint for reason, hint in (options.hints or {}).items() if self.bad[reason]]


def _finished_row(row: RawRow, result: Mapping[str, Any], specs: Sequence[ModalitySpec]) -> dict[str, Any]:
    if row.views is not None:
        return _finished_views(row, row.views, result["views"], specs)
    # Pixels that look like text turn "unknown" into "suspected"; what a header declares stays.
    suspected = {TEXT_LABEL: "suspected"} if result.get("text") and row.labels[TEXT_LABEL] == "unknown" else {}
    return {
        **_identity(row, f"image-{result['sha256'][:24]}"),
        "image": row.image_name if result["image"] is None else f"{STORED}/{result['image']}",
        "captions": clean_captions(row.captions),
        "licence": row.licence,
        "width": result["width"],
        "height": result["height"],
        "sha256": result["sha256"],
        **_labels(row),
        **suspected,
        **{name: list(values) for name, values in row.signals.items()},
    }


def _finished_views(
    row: RawRow,
    views: Mapping[str, Sequence[Any]],
    checked: Mapping[str, Sequence[Mapping[str, Any]]],
    specs: Sequence[ModalitySpec],
) -> dict[str, Any]:
    """The row of a manifest with modalities; without a group it shares one with the rows of the same first file."""
    named = next((f"{name}-{of[0]['sha256'][:24]}" for name, of in checked.items() if "file" in of[0]), None)
    alone = f"row-{hashlib.sha256(row.id.encode()).hexdigest()[:24]}"
    suspected = any(view.get("text") for of in checked.values() for view in of)
    is_unknown = suspected and row.labels.get(TEXT_LABEL) == "unknown"
    return {
        **_identity(row, named or alone),
        **modality_cells(specs, views, checked),
        "licence": row.licence,
        **_labels(row),
        **({TEXT_LABEL: "suspected"} if is_unknown else {}),
    }


def _identity(row: RawRow, group: str) -> dict[str, Any]:
    """Id, group and split; `group` where the data name none."""
    return {
        "id": row.id,
        "group": group if row.group is None else _name(row.group),
        "split": "train" if row.split is None else split_named(clean_text(row.split)),
    }


def _labels(row: RawRow) -> dict[str, str | None]:
    return {label: _name(value or "") or None for label, value in row.labels.items()}


def _name(text: str) -> str:
    """The name of a group or a class, without invisible characters and with composed accents."""
    return name_of(unicodedata.normalize("NFC", clean_text(text)))


def _find_fault(row: RawRow) -> tuple[str, str] | None:
    """What is wrong with a row before its image is opened."""
    if row.fault is not None:
        return row.fault
    if not _is_unicode(row):
        return "not UTF-8", ""
    if row.views is None and not clean_captions(row.captions):
        return "empty caption", ""
    if row.split is not None and is_missing(clean_text(row.split)):
        return "empty split", "its cell names no split"
    if row.split is not None and split_named(clean_text(row.split)) is None:
        return "unknown split", repr(row.split)
    if row.group is not None and not _name(row.group):
        return "empty group", "its cell does not say what it belongs to"
    if row.views is None and row.image is None:
        return "missing image", "no image is named"
    return None


def _find_absence(row: RawRow, options: BuildOptions) -> tuple[str, str] | None:
    """Why a row has too little, which is no fault of it."""
    if row.views is None:
        return None
    absent = [spec.name for spec in options.images.modalities if spec.name not in row.views]
    if len(row.views) < options.min_present:
        return f"fewer than {options.min_present} modalities", f"it has {', '.join(row.views) or 'none'}"
    if options.drops_incomplete and absent:
        return "incomplete row", f"it lacks {', '.join(absent)}"
    return None


def _is_unicode(row: RawRow) -> bool:
    texts = (row.id, row.image_name, row.group or "", row.licence or "", *row.captions, *map(str, row.labels.values()))
    return is_unicode("".join(texts if row.views is None else (*texts, *_words_in(row.views))))


def _words_in(views: Mapping[str, Sequence[Any]]) -> Iterator[str]:
    """Every text of a row's views: names of files, texts, the words of a table."""
    for of in views.values():
        for view in of:
            if isinstance(view, str):
                yield view
            elif isinstance(view, FileView):
                yield view.name
            elif isinstance(view, Mapping):
                yield from (value for value in view.values() if isinstance(value, str))


def _source_of(row: RawRow, options: BuildOptions) -> Source | None:
    """What a worker verifies: the row's image, or the views of its modalities."""
    return row.image if row.views is None else RowViews(options.images.modalities, row.views)


def _checked(
    rows: Iterable[RawRow], options: BuildOptions, journal: Journal
) -> Iterator[tuple[RawRow, Mapping[str, Any]]]:
    """Each row with its result, in the order of the rows."""
    store = journal.images if options.images.root is None else None
    rows = iter(rows)
    head = list(itertools.islice(rows, MIN_IMAGES_FOR_WORKERS))
    num_workers = options.workers
    if num_workers is None:
        num_workers = available_cores() if len(head) == MIN_IMAGES_FOR_WORKERS else 1
    waiting: deque[list[tuple[RawRow, Mapping[str, Any] | None]]] = deque()

    def work() -> Iterator[list[tuple[Any, str]]]:
        for chunk in _judged(itertools.chain(head, rows), journal, store, options):
            waiting.append(chunk)
            yield [(_source_of(row, options), stored_name(row.id)) for row, result in chunk if result is None]

    with progress_bar(what="verifying images", unit="image") as shown:
        if options.ray is None:
            checked = check_in_order(work(), options.images, store, num_workers)
        else:
            checked = check_on_ray(work(), options.images, store, options.ray)
        for results in checked:
            journal.add(results)
            fresh = iter(results)
            chunk = waiting.popleft()
            for row, result in chunk:
                yield row, result if result is not None else next(fresh)
            shown.update(len(chunk))


def _judged(
    rows: Iterable[RawRow], journal: Journal, store: Path | None, options: BuildOptions
) -> Iterator[list[tuple[RawRow, Mapping[str, Any] | None]]]:
    """Chunks of rows with their results as far as no image must be opened: a fault, or that of an interrupted run."""
    rows = iter(rows)
    with NameCounts() as kept_ids:
        while chunk := list(itertools.islice(rows, ROWS_PER_CHUNK)):
            judged: list[tuple[RawRow, Mapping[str, Any] | None]] = []
            for row in chunk:
                result = _judge(row, kept_ids, journal, store, options)
                if not (result and "reason" in result):
                    kept_ids.add(row.id)
                judged.append((row, result))
            yield judged


def _judge(
    row: RawRow, kept_ids: NameCounts, journal: Journal, store: Path | None, options: BuildOptions
) -> Mapping[str, Any] | None:
    """The result of a row for which nothing must be opened; None for one that a worker verifies."""
    if fault := _find_fault(row):
        return {"reason": fault[0], "detail": fault[1]}
    if row.id in kept_ids:
        return {"reason": "duplicate id", "detail": row.id}
    if absence := _find_absence(row, options):
        return {"reason": absence[0], "detail": absence[1], "expected": True}
    source = _source_of(row, options)
    return None if source is None else journal.find(stored_name(row.id), source, store)


def stored_name(id: str) -> str:
    """A file name for a row's stored image: the id when it is a plain word, else its hash; in 256 folders."""
    digest = hashlib.sha256(id.encode()).hexdigest()
    return f"{digest[:2]}/{id if _SAFE_NAME.fullmatch(id) else digest[:24]}"
