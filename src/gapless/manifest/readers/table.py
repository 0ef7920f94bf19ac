"""`gapless data table`: CSV, TSV, JSONL or Parquet with one image-caption pair per row.

read_table(["train=train.csv", "test=test.csv"], "manifest", image_key="file", caption_key="report")
"""

import os
import posixpath
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import starmap
from pathlib import Path
from typing import Annotated, Any

from gapless.core.errors import UsageError
from gapless.core.values import name_of, text_of
from gapless.manifest.image_paths import SeveralFiles, name_below
from gapless.manifest.manifest import Manifest, split_named
from gapless.manifest.options import MAX_BAD, BuildOptions, ImageOptions
from gapless.manifest.raw_rows import BytesSource, FileSource, RawRow, faulty_row
from gapless.manifest.readers.base import (
    CAPTION_HELP,
    LABEL_HELP,
    MANY,
    READERS,
    Names,
    Option,
    Reader,
    ReaderOptions,
    Reading,
)
from gapless.tables.table_format import DETECT, Cells, LineCount, TextOptions
from gapless.tables.tables import check_columns, find_cell_fault, holds_bytes, image_cell, read_lines, texts_of

OTHER_ROOT = "image paths start at the folder of their own table: --image-root gives another"


@dataclass(frozen=True)
class TableFile:
    """One source: a file, the split that its rows belong to unless a column says so, and how its text is read."""

    path: Path
    split: str | None
    text: TextOptions = DETECT

    @classmethod
    def parse(cls, text: str | Path, options: TextOptions = DETECT) -> "TableFile":
        """`FILE` or `SPLIT=FILE`; a file whose own name has an equals sign is taken as it is."""
        name, equals, path = str(text).partition("=")
        if not equals or Path(text).exists():
            return cls(Path(text), None, options)
        split = split_named(name)
        if split is None:
            raise UsageError(f"{text}: {name!r} is no split; write train=, validation= or test= before the file")
        return cls(Path(path.strip()), split, options)


@dataclass(frozen=True)
class ImageFolders:
    """Where the image paths of several tables start.

    Args:
        root: the one folder that the manifest's names start from.
        below: for each table, the folder below `root` where its own paths start; "" is `root` itself.
        tables: for each table, the folder below their common one in which it lies, to tell tables of one name apart.
    """

    root: Path
    below: tuple[str, ...]
    tables: tuple[str, ...]

    @classmethod
    def of(cls, tables: Sequence[TableFile], image_root: str | Path | None) -> "ImageFolders":
        """The paths of a table start at its own folder, unless one root is given for all."""
        folders = [os.path.abspath(table.path.parent) for table in tables]
        common = os.path.commonpath(folders)
        lies_in = tuple("" if folder == common else Path(folder).relative_to(common).as_posix() for folder in folders)
        if image_root is not None:
            return cls(Path(image_root), ("",) * len(tables), lies_in)
        return cls(Path(common) if any(lies_in) else tables[0].path.parent, lies_in, lies_in)


@dataclass(frozen=True, kw_only=True)
class TableOptions(ReaderOptions):
    """Build a manifest from tables.

    Args:
        image_key: column with the image's path, or (Parquet) its bytes.
        caption_key: column, or columns, with a caption or a list of captions.
        group_key: column of what must not be split (case, patient, article), in which no cell may be empty; by
            default each image is its own group, and rows of the same image share one.
        label_keys: columns to keep as labels.
        split_key: column with train / validation / test, in which no cell may be empty; by default the source's
            split, else train.
        id_key: column with a unique name per row; by default the image's name.
        licence_key: column with each image's licence.
        image_root: where image paths start; by default the folder of the table they stand in. No path may leave it.
        store_images: copy the images into the manifest (always so for images inside Parquet).
        licence: of the whole data set.
        encoding: of CSV, TSV and JSON: utf-8, cp1252, ...; by default UTF-8, or what a byte-order mark says.
        separator: between the cells of CSV and TSV, a character or "tab"; by default what the header shows.
        max_bad: the largest share of bad rows.
        workers: processes that verify; None uses all cores.
    """

    image_key: str = "image"
    caption_key: Annotated[Names, Option("caption_key", CAPTION_HELP)] = ("caption",)
    group_key: str | None = None
    label_keys: Annotated[Names, Option("label_key", LABEL_HELP)] = ()
    split_key: str | None = None
    id_key: str | None = None
    licence_key: str | None = None
    image_root: str | Path | None = None
    store_images: bool = False
    licence: str | None = None
    encoding: str | None = None
    separator: str | None = None
    max_bad: float = MAX_BAD
    workers: int | None = None

    def columns(self) -> list[str]:
        """Every column that must exist."""
        one_each = (self.image_key, self.group_key, self.split_key, self.id_key, self.licence_key)
        return [*(key for key in one_each if key is not None), *self.caption_key, *self.label_keys]


def read_table(sources: str | Path | Sequence[str | Path], out: str | Path, **options: Any) -> Manifest:
    """Build a manifest from tables, with the options of `TableOptions`.

    Args:
        sources: `FILE` or `SPLIT=FILE`, several are read one after the other.
        out: the manifest's directory; must be new.
        options: the fields of `TableOptions`.

    Raises:
        UsageError: a missing file, an unknown column or format, `out` in use.
        DataRefused: a damaged file, or too many bad rows.
    """
    return READER.build(sources, out, **options)


def _read(sources: Sequence[str | Path], options: TableOptions) -> Reading:
    if not sources:
        raise UsageError("name at least one table: FILE or SPLIT=FILE")
    tables = [TableFile.parse(name, TextOptions(options.encoding, options.separator)) for name in sources]
    for table in tables:
        check_columns(table.path, options.columns(), table.text, image=options.image_key)
    folders = ImageFolders.of(tables, options.image_root)
    if not folders.root.is_dir():
        raise UsageError(f"the image root {folders.root} is not a directory")
    store = options.store_images or any(holds_bytes(table.path, options.image_key) for table in tables)
    counts = [LineCount(table.path.name) for table in tables]
    build = BuildOptions(
        source=", ".join(starmap(posixpath.join, zip(folders.tables, (t.path.name for t in tables), strict=True))),
        labels=options.label_keys,
        images=ImageOptions(None if store else folders.root),
        licence=options.licence,
        with_licence=options.licence_key is not None,
        max_bad=options.max_bad,
        workers=options.workers,
        details={"lines": [vars(count) for count in counts]},  # they are filled while the rows are read
        hints={"missing image": OTHER_ROOT} if any(folders.below) else None,
    )
    return Reading(table_rows(tables, options, folders, counts), build)


def table_rows(
    tables: Sequence[TableFile], keys: TableOptions, folders: ImageFolders, counts: Sequence[LineCount]
) -> Iterator[RawRow]:
    """The raw rows of the tables, in their order; `counts` says afterwards where the lines of each table went."""
    uses: Counter[str] = Counter()
    for table, below, lies_in, count in zip(tables, folders.below, folders.tables, counts, strict=True):
        for line, cells, fault in read_lines(table.path, table.text, count):
            origin = posixpath.join(lies_in, line)
            if cells is None:
                yield faulty_row(origin, "malformed row", fault)
                continue
            try:
                yield _raw_row(origin, cells, keys, table.split, folders.root, below, uses)
            except ValueError as error:  # a cell that is no text
                others = [key for key in keys.columns() if key != keys.image_key]
                fault = find_cell_fault(cells, others) or f"column {keys.image_key!r}: {error}"
                yield faulty_row(origin, "malformed row", fault)


def _raw_row(
    origin: str, cells: Cells, keys: TableOptions, split: str | None, root: Path, below: str, uses: Counter[str]
) -> RawRow:
    content, name = image_cell(cells.get(keys.image_key), origin)
    if content is None and not name:
        return faulty_row(origin, "missing image", f"column {keys.image_key!r} is empty")
    try:
        file_name = name_below(root / below, name) if content is None else name
    except SeveralFiles as error:
        return faulty_row(origin, "ambiguous image name", f"{name}: {error}")
    image_name = file_name if name == origin else posixpath.join(below, file_name)
    id = name_of(cells.get(keys.id_key)) if keys.id_key else image_name
    if not id:
        return faulty_row(origin, "empty id", f"column {keys.id_key!r} is empty")
    if keys.id_key is None:
        uses[id] += 1
        id = id if uses[id] == 1 else f"{id}#{uses[id]}"
    return RawRow(
        origin=origin,
        id=id,
        image=FileSource(root / below, file_name) if content is None else BytesSource(content, image_name),
        image_name=image_name,
        captions=[text for key in keys.caption_key for text in texts_of(cells.get(key))],
        split=text_of(cells.get(keys.split_key)) if keys.split_key else split,
        group=name_of(cells.get(keys.group_key)) if keys.group_key else None,
        labels={key: name_of(cells.get(key)) or None for key in keys.label_keys},
        licence=(text_of(cells.get(keys.licence_key)) or None) if keys.licence_key else None,
    )


READER = READERS.add(
    "table",
    Reader("table", "a table of images and captions -> manifest", TableOptions, _read, MANY, takes_several=True),
)
