"""`gapless data rocov2`: ROCOv2 as its authors publish it (CSV files and folders of images), or as Parquet.

    <root>/{train,valid,test}_captions.csv, *_concepts_manual.csv, cui_mapping.csv, license_information.csv,
           {train,valid,test}_images/ or {train,valid,test}/ with <ID>.jpg or <ID>.png
    <root>/**/train-*.parquet, validation-*.parquet, test-*.parquet    columns image, image_id, caption, cui

Copies of it disagree about counts and licence: neither is assumed. Nothing is downloaded.
"""

import logging
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from gapless.core.errors import UsageError, listed, unknown_name
from gapless.core.values import name_of
from gapless.manifest.manifest import SPLITS, Manifest, split_named
from gapless.manifest.options import MAX_BAD, BuildOptions, ImageOptions
from gapless.manifest.raw_rows import BytesSource, FileSource, RawRow, faulty_row, select_licences
from gapless.manifest.readers.base import LICENCE_HELP, READERS, Names, Option, Reader, ReaderOptions, Reading
from gapless.manifest.readers.image_folder import ImageFolder
from gapless.manifest.readers.passed_over import PassedOver, leftover, say_absent
from gapless.manifest.readers.rocov2_context import Context, columns, read_context
from gapless.tables.tables import columns_of, image_cell, read_lines, texts_of

logger = logging.getLogger(__name__)

LABELS = ("concept",)
# How the names of the files and folders of a split begin.
_STEMS = {"train": ("train",), "validation": ("valid", "validation", "val", "dev"), "test": ("test",)}
_NUMBERED = re.compile(r"(.*)-\d+-of-(\d+)")
_ID = re.compile(r"[A-Za-z0-9_-]+")


@dataclass(frozen=True, kw_only=True)
class Rocov2Options(ReaderOptions):
    """Build a manifest from a local copy of ROCOv2, in whichever of its two forms it is.

    The article, which must not be split, is in `license_information.csv`; put that file beside the Parquet files to
    have it there too. Without it every image is its own group, and `manifest.json` says `"groups": "image"`.

    Args:
        splits: which of the official splits to read.
        licences: keep only images under these ("CC BY", "CC BY-NC"); empty keeps all.
        store_images: copy the images into the manifest (always so for Parquet).
        max_bad: the largest share of bad rows; images that are not there are bad rows.
        workers: processes that verify; None uses all cores.
    """

    splits: Annotated[Names, Option("splits", "which of the official splits to read (default: all)")] = SPLITS
    licences: Annotated[Names, Option("licence", LICENCE_HELP)] = ()
    store_images: bool = False
    max_bad: float = MAX_BAD
    workers: int | None = None


def read_rocov2(source: str | Path, out: str | Path, **options: Any) -> Manifest:
    """Build a manifest from a local folder of ROCOv2, with the options of `Rocov2Options`."""
    return READER.build(source, out, **options)


def _read(sources: Sequence[str | Path], options: Rocov2Options) -> Reading:
    """The rows and the build options of a folder. Raises UsageError: neither form, or an unknown split."""
    splits, root = options.splits, Path(sources[0])
    for split in splits:
        if split not in SPLITS:
            raise unknown_name("split", split, SPLITS)
    tables = [(split, path) for split in splits for path in _caption_tables(root, split)]
    parquets = _parquet_files(root)
    if not tables and not parquets:
        raise UsageError(f"{root} is no ROCOv2 folder: neither train_captions.csv nor train-*.parquet is there")
    present = {split for split, _ in tables} or ({_split_of(path) for path in parquets} - {None})
    say_absent(root, [split for split in splits if present & set(splits) and split not in present])
    passed_over = PassedOver("files")
    context = read_context(root, [stem for split in splits for stem in _STEMS[split]])
    if tables:
        for path in parquets:
            passed_over.add("a Parquet file beside the CSV files, which are read", path.name)
        rows = _rows_of_tables(root, tables, context, passed_over)
    else:
        rows = _rows_of_parquet(root, _parquets_by_split(root, parquets, splits, passed_over), context)
    build = BuildOptions(
        source="ROCOv2",
        labels=LABELS,
        images=ImageOptions(None if options.store_images or not tables else root),
        with_licence=True,
        max_bad=options.max_bad,
        workers=options.workers,
        details={"groups": "article" if context.articles else "image", "passed_over": passed_over.counts},
    )
    return Reading(select_licences(_all_rows(context, rows, passed_over), options.licences), build)


def _all_rows(context: Context, rows: Iterable[RawRow], passed_over: PassedOver) -> Iterator[RawRow]:
    yield from context.odd
    yield from rows
    passed_over.say()


def _caption_tables(root: Path, split: str) -> list[Path]:
    paths = [path for stem in _STEMS[split] if (path := root / f"{stem}_captions.csv").is_file()]
    if len(paths) > 1:
        raise UsageError(f"{paths[0]} and {paths[1].name} are both of the split {split}: remove one")
    for path in paths:
        _check_columns(path, ("id", "caption"))
    return paths


def _check_columns(path: Path, needed: Sequence[str]) -> None:
    names = [str(name).strip().lower() for name in columns_of(path)]
    for name in needed:
        if names.count(name) != 1:
            what = "no column" if name not in names else "more than one column"
            raise UsageError(f"{path} has {what} {name!r}; it has {listed(names) or 'none'}")


def _parquet_files(root: Path) -> list[Path]:
    paths = (path for path in root.rglob("*") if path.suffix.lower() == ".parquet")
    return sorted(path for path in paths if path.is_file() and leftover(path.relative_to(root).as_posix()) is None)


def _parquets_by_split(
    root: Path, paths: Sequence[Path], splits: Sequence[str], passed_over: PassedOver
) -> list[tuple[str, Path]]:
    """(split, file): the split is in the name (train-00000-of-00027) or in the folder's (train/0000)."""
    of_splits = []
    for path in paths:
        split = _split_of(path)
        if split is None:
            passed_over.add("a Parquet file without a split in its name", path.relative_to(root).as_posix())
        elif split in splits:
            _check_columns(path, ("image", "caption"))
            of_splits.append((split, path))
    if not of_splits:
        raise UsageError(
            f"{root} is no ROCOv2 folder, or has none of {', '.join(splits)}: the name of a Parquet file, or of its "
            "folder, begins with the split, as in train-00000-of-00027.parquet or train/0000.parquet"
        )
    _say_missing_parts([path for _, path in of_splits])
    return of_splits


def _split_of(path: Path) -> str | None:
    words = (re.split(r"[-_.]", path.stem)[0].lower(), path.parent.name.lower())
    return next(filter(None, map(split_named, words)), None)


def _say_missing_parts(paths: Sequence[Path]) -> None:
    """Log one line when Parquet files are missing: `train-00003-of-00027.parquet` says how many there are."""
    parts = Counter(
        (path.parent, match[1], match[2]) for path in paths if (match := _NUMBERED.fullmatch(path.stem)) is not None
    )
    for (folder, stem, total), here in parts.items():
        if here < int(total):
            logger.warning("%s has %d of the %d files %s-*-of-%s.parquet", folder, here, int(total), stem, total)


def _rows_of_tables(
    root: Path, tables: Sequence[tuple[str, Path]], context: Context, passed_over: PassedOver
) -> Iterator[RawRow]:
    for split, path in tables:
        images = ImageFolder(_image_folder(root, split), passed_over)
        ids: set[str] = set()
        for origin, raw, fault in read_lines(path):
            try:
                cells = columns(raw) if raw is not None else {}
            except ValueError as error:
                raw, fault = None, str(error)[:200]
            if raw is None:
                yield faulty_row(origin, "malformed row", fault)
                continue
            id = cells.get("id", "")
            if not _ID.fullmatch(id):
                yield faulty_row(origin, "malformed row", f"ID {id[:80]!r}")
                continue
            ids.add(id)
            file = images.name_of(id)
            name = f"{images.folder.relative_to(root).as_posix()}/{file}"
            row = RawRow(origin, id, FileSource(images.folder, file), name, [cells.get("caption", "")], split)
            yield images.fault(origin, id) or context.complete(row)
        images.pass_over_unnamed(ids, passed_over)


def _image_folder(root: Path, split: str) -> Path:
    stems = _STEMS[split]
    names = [*(f"{stem}_images/{stem}" for stem in stems), *(f"{stem}_images" for stem in stems), *stems]
    return next((root / name for name in names if (root / name).is_dir()), root / f"{stems[0]}_images")


def _rows_of_parquet(root: Path, parquets: Sequence[tuple[str, Path]], context: Context) -> Iterator[RawRow]:
    for split, path in parquets:
        place = path.relative_to(root).as_posix()
        for number, (_, cells, fault) in enumerate(read_lines(path), start=1):
            # Files of two folders may have equal names, so that a row is named by the path of its file.
            origin = f"{place}:{number}"
            try:
                yield _parquet_row(origin, cells, fault, context, split)
            except ValueError as error:
                yield faulty_row(origin, "malformed row", str(error)[:200])


def _parquet_row(origin: str, cells: Mapping[str, object] | None, fault: str, context: Context, split: str) -> RawRow:
    if cells is None:
        return faulty_row(origin, "malformed row", fault)
    cells = {name.strip().lower(): value for name, value in cells.items()}
    content, _ = image_cell(cells.get("image"), origin)
    id = name_of(cells.get("image_id")) or origin
    if content is None:
        return faulty_row(origin, "missing image", "the column 'image' holds no bytes", id)
    row = RawRow(origin, id, BytesSource(content, origin), id, texts_of(cells.get("caption")), split)
    return context.complete(row, [text for text in texts_of(cells.get("cui")) if text])


READER = READERS.add(
    "rocov2",
    Reader(
        "rocov2",
        "ROCOv2, CSV or Parquet -> manifest",
        Rocov2Options,
        _read,
        "the folder",
        example="data rocov2 rocov2-folder --out manifest",
    ),
)
