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

from gapless.core.errors import DataRefused, UsageError
from gapless.core.values import name_of, text_of
from gapless.manifest.build import MAX_BAD, BuildOptions, build_manifest
from gapless.manifest.image_paths import SeveralFiles, name_below
from gapless.manifest.manifest import Manifest, split_named
from gapless.manifest.rows import BytesSource, FileSource, RawRow, faulty_row
from gapless.tables.table_format import DETECT, Cells, LineCount, TextOptions
from gapless.tables.tables import check_columns, find_cell_fault, holds_bytes, image_cell, read_lines, texts_of


@dataclass(frozen=True)
class TableKeys:
    """Which column holds what."""

    image: str = "image"
    captions: tuple[str, ...] = ("caption",)
    group: str | None = None
    split: str | None = None
    labels: tuple[str, ...] = ()
    id: str | None = None
    licence: str | None = None

    def named(self) -> list[str]:
        """Every column that must exist."""
        one_each = [key for key in (self.image, self.group, self.split, self.id, self.licence) if key is not None]
        return [*one_each, *self.captions, *self.labels]


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


def read_table(
    sources: str | Path | Sequence[str | Path],
    out: str | Path,
    image_key: str = "image",
    caption_key: str | Sequence[str] = "caption",
    group_key: str | None = None,
    label_keys: Sequence[str] = (),
    split_key: str | None = None,
    id_key: str | None = None,
    licence_key: str | None = None,
    image_root: str | Path | None = None,
    store_images: bool = False,
    licence: str | None = None,
    encoding: str | None = None,
    separator: str | None = None,
    max_bad: float = MAX_BAD,
    workers: int | None = None,
) -> Manifest:
    """Build a manifest from tables.

    Args:
        sources: `FILE` or `SPLIT=FILE`, several are read one after the other.
        out: the manifest's directory; must be new.
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

    Raises:
        UsageError: a missing file, an unknown column or format, `out` in use.
        DataRefused: a damaged file, or too many bad rows.
    """
    names = [sources] if isinstance(sources, str | Path) else list(sources)
    if not names:
        raise UsageError("name at least one table: FILE or SPLIT=FILE")
    tables = [TableFile.parse(name, TextOptions(encoding, separator)) for name in names]
    captions = (caption_key,) if isinstance(caption_key, str) else tuple(caption_key)
    keys = TableKeys(image_key, captions, group_key, split_key, tuple(label_keys), id_key, licence_key)
    for table in tables:
        check_columns(table.path, keys.named(), table.text, image=image_key)
    folders = ImageFolders.of(tables, image_root)
    if not folders.root.is_dir():
        raise UsageError(f"the image root {folders.root} is not a directory")
    store = store_images or any(holds_bytes(table.path, image_key) for table in tables)
    places = list(starmap(posixpath.join, zip(folders.tables, (table.path.name for table in tables), strict=True)))
    counts = [LineCount(place) for place in places]
    options = BuildOptions(
        source=", ".join(places),
        labels=keys.labels,
        image_root=None if store else folders.root,
        licence=licence,
        with_licence=licence_key is not None,
        max_bad=max_bad,
        workers=workers,
        details={"lines": [vars(count) for count in counts]},  # they are filled while the rows are read
    )
    try:
        return build_manifest(table_rows(tables, keys, folders, counts), out, options)
    except DataRefused as error:
        if not any(folders.below) or "missing image" not in str(error):
            raise
        raise DataRefused(
            f"{error}; image paths start at the folder of their own table: --image-root gives another"
        ) from None


def table_rows(
    tables: Sequence[TableFile], keys: TableKeys, folders: ImageFolders, counts: Sequence[LineCount]
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
                others = [key for key in keys.named() if key != keys.image]
                fault = find_cell_fault(cells, others) or f"column {keys.image!r}: {error}"
                yield faulty_row(origin, "malformed row", fault)


def _raw_row(
    origin: str, cells: Cells, keys: TableKeys, split: str | None, root: Path, below: str, uses: Counter[str]
) -> RawRow:
    content, name = image_cell(cells.get(keys.image), origin)
    if content is None and not name:
        return faulty_row(origin, "missing image", f"column {keys.image!r} is empty")
    try:
        found = name_below(root / below, name) if content is None else name
    except SeveralFiles as error:
        return faulty_row(origin, "ambiguous image name", f"{name}: {error}")
    image_name = found if name == origin else posixpath.join(below, found)
    id = name_of(cells.get(keys.id)) if keys.id else image_name
    if not id:
        return faulty_row(origin, "empty id", f"column {keys.id!r} is empty")
    if keys.id is None:
        uses[id] += 1
        id = id if uses[id] == 1 else f"{id}#{uses[id]}"
    return RawRow(
        origin=origin,
        id=id,
        image=FileSource(root / below, found) if content is None else BytesSource(content, image_name),
        image_name=image_name,
        captions=[text for key in keys.captions for text in texts_of(cells.get(key))],
        split=text_of(cells.get(keys.split)) if keys.split else split,
        group=name_of(cells.get(keys.group)) if keys.group else None,
        labels={key: name_of(cells.get(key)) or None for key in keys.labels},
        licence=(text_of(cells.get(keys.licence)) or None) if keys.licence else None,
    )
