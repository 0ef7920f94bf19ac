"""`gapless data table`: CSV, TSV, JSONL or Parquet with one image-caption pair, or one sample of modalities, per row.

read_table(["train=train.csv", "test=test.csv"], "manifest", image_key="file", caption_key="report")
read_table("t.csv", "manifest", modality=["image=image:file", "ecg=waveform:path,rate=500", "labs=table:age,sex"])
"""

import os
import posixpath
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import starmap
from pathlib import Path
from typing import Annotated, Any, NamedTuple

from gapless.core.errors import UsageError
from gapless.core.name_counts import NameCounts
from gapless.core.values import name_of, text_of
from gapless.manifest.image_paths import SeveralFiles, name_below
from gapless.manifest.manifest import Manifest, split_named
from gapless.manifest.modality_cells import CellRefused, FileView, views_of
from gapless.manifest.modality_spec import ModalitySpec, nearest
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
from gapless.manifest.readers.modality_options import KEEP, MODALITY_HELP, given_modalities, presence_options
from gapless.manifest.survey import surveyed
from gapless.manifest.verify_views import MISSING
from gapless.modalities.base import FILES
from gapless.tables.table_format import DETECT, Cells, LineCount, TextOptions
from gapless.tables.tables import (
    check_columns,
    columns_of,
    find_cell_fault,
    holds_bytes,
    image_cell,
    read_lines,
    texts_of,
)

DEFAULT_IMAGE, DEFAULT_CAPTION = "image", "caption"

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
        image_key: column with the image's path, or (Parquet) its bytes; by default "image". Beside `modality` it stands
            for image=image:COLUMN.
        caption_key: column, or columns, with a caption or a list of captions; by default "caption". Beside `modality`
            it stands for text=text:COLUMN.
        modality: the modalities of a row, each NAME=KIND:COLUMN[,COLUMN...][,param=value...], any of them absent.
        missing: "keep" rows that lack a modality (the default with `modality`), or "drop" them.
        min_present: rows with fewer modalities are skipped and counted; by default 2.
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
        ray: address of a Ray cluster whose machines verify, "auto", or "local" for this machine's cores.
    """

    image_key: str | None = None
    caption_key: Annotated[Names, Option("caption_key", CAPTION_HELP)] = ()
    modality: Annotated[Names, Option("modality", MODALITY_HELP, is_divided=False)] = ()
    missing: str | None = None
    min_present: int | None = None
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
    ray: str | None = None

    def image_column(self) -> str:
        """The column of images of a table without modalities."""
        return DEFAULT_IMAGE if self.image_key is None else self.image_key

    def caption_columns(self) -> Names:
        """The columns of captions of a table without modalities."""
        return self.caption_key or (DEFAULT_CAPTION,)

    def key_columns(self) -> list[str]:
        """Every column that must exist and holds no modality."""
        one_each = (self.group_key, self.split_key, self.id_key, self.licence_key)
        return [*(key for key in one_each if key is not None), *self.label_keys]

    def columns(self) -> list[str]:
        """Every column that must exist in a table without modalities."""
        return [self.image_column(), *self.caption_columns(), *self.key_columns()]

    def specs(self) -> tuple[ModalitySpec, ...]:
        """The modalities, none for a table of images and captions. Raises UsageError."""
        is_asked = self.missing == KEEP
        shorthands = []
        if self.image_key is not None or (is_asked and not self.modality):
            shorthands.append(ModalitySpec("image", "image", (self.image_column(),)))
        if self.caption_key or (is_asked and not self.modality):
            shorthands.append(ModalitySpec("text", "text", self.caption_columns()))
        return given_modalities(self.modality, shorthands, self.label_keys, is_asked)


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
    specs = options.specs()
    presence = presence_options(specs, options.missing, options.min_present)
    for table in tables:
        if specs:
            check_modality_columns(table, specs, options.key_columns())
        else:
            check_columns(table.path, options.columns(), table.text, image=options.image_column())
    folders = ImageFolders.of(tables, options.image_root)
    if not folders.root.is_dir():
        raise UsageError(f"the image root {folders.root} is not a directory")
    files = [column for spec in specs if spec.form == FILES for column in spec.columns]
    with_bytes = files if specs else [options.image_column()]
    store = options.store_images or any(holds_bytes(table.path, column) for table in tables for column in with_bytes)
    specs = surveyed(specs, lambda: all_cells(tables))
    counts = [LineCount(table.path.name) for table in tables]
    build = BuildOptions(
        source=", ".join(starmap(posixpath.join, zip(folders.tables, (t.path.name for t in tables), strict=True))),
        labels=options.label_keys,
        images=ImageOptions(None if store else folders.root, modalities=specs),
        licence=options.licence,
        with_licence=options.licence_key is not None,
        max_bad=options.max_bad,
        workers=options.workers,
        ray=options.ray,
        **presence,
        details={"lines": [vars(count) for count in counts]},  # they are filled while the rows are read
        hints=dict.fromkeys(_missing_reasons(specs), OTHER_ROOT) if any(folders.below) else None,
    )
    return Reading(table_rows(tables, options, folders, counts, specs), build)


def _missing_reasons(specs: Sequence[ModalitySpec]) -> list[str]:
    """The reasons of bad rows whose files are not where they are looked for."""
    of_files = [f"{spec.name}: {'missing image' if spec.kind == 'image' else MISSING}" for spec in specs]
    return of_files if specs else ["missing image"]


def check_modality_columns(table: TableFile, specs: Sequence[ModalitySpec], keys: Sequence[str]) -> None:
    """Refuse a table that lacks a column of a modality, naming the nearest one it has; or a key, as `check_columns`.

    Raises:
        UsageError: naming the column.
    """
    check_columns(table.path, keys, table.text)
    columns = columns_of(table.path, table.text)
    for spec in specs:
        for column in spec.columns:
            if column not in columns:
                raise UsageError(
                    f"{table.path} has no column {column!r} for the modality {spec.name!r}{nearest(column, columns)}"
                )


def all_cells(tables: Sequence[TableFile]) -> Iterator[Cells]:
    """The cells of every row that can be parsed."""
    for table in tables:
        for _, cells, _ in read_lines(table.path, table.text):
            if cells is not None:
                yield cells


class FilesBelow(NamedTuple):
    """Where the names of a table's files start."""

    folder: Path
    below: str  # the folder's name below the image root


def table_rows(
    tables: Sequence[TableFile],
    keys: TableOptions,
    folders: ImageFolders,
    counts: Sequence[LineCount],
    specs: Sequence[ModalitySpec] = (),
) -> Iterator[RawRow]:
    """The raw rows of the tables, in their order; `counts` says afterwards where the lines of each table went."""
    with NameCounts() as uses:
        for table, below, lies_in, count in zip(tables, folders.below, folders.tables, counts, strict=True):
            base = FilesBelow(folders.root / below, below)
            for line, cells, fault in read_lines(table.path, table.text, count):
                origin = posixpath.join(lies_in, line) if lies_in else line
                if cells is None:
                    yield faulty_row(origin, "malformed row", fault)
                else:
                    yield _row_of(origin, cells, keys, table.split, base, uses, specs)


def _row_of(
    origin: str,
    cells: Cells,
    keys: TableOptions,
    split: str | None,
    base: FilesBelow,
    uses: NameCounts,
    specs: Sequence[ModalitySpec],
) -> RawRow:
    """The raw row of a line; a cell that cannot be used makes it a faulty one."""
    try:
        if specs:
            return _row_of_views(origin, cells, keys, split, base, uses, specs)
        return _raw_row(origin, cells, keys, split, base, uses)
    except CellRefused as error:
        return faulty_row(origin, error.reason, error.detail)
    except ValueError as error:  # a cell that is no text
        others = [key for key in keys.columns() if key != keys.image_column()]
        fault = find_cell_fault(cells, keys.key_columns() if specs else others)
        return faulty_row(origin, "malformed row", fault or f"column {keys.image_column()!r}: {error}")


def _raw_row(
    origin: str, cells: Cells, keys: TableOptions, split: str | None, base: FilesBelow, uses: NameCounts
) -> RawRow:
    try:
        file = _file_in(cells.get(keys.image_column()), origin, base)
    except SeveralFiles as error:
        return faulty_row(origin, "ambiguous image name", str(error))
    if file is None:
        return faulty_row(origin, "missing image", f"column {keys.image_column()!r} is empty")
    id = _id_of(cells, keys, file.name, uses)
    if not id:
        return faulty_row(origin, "empty id", f"column {keys.id_key!r} is empty")
    return RawRow(
        origin=origin,
        id=id,
        image=file.source,
        image_name=file.name,
        captions=[text for key in keys.caption_columns() for text in texts_of(cells.get(key))],
        **_named_cells(cells, keys, split),
    )


def _row_of_views(
    origin: str,
    cells: Cells,
    keys: TableOptions,
    split: str | None,
    base: FilesBelow,
    uses: NameCounts,
    specs: Sequence[ModalitySpec],
) -> RawRow:
    """The row of a table with modalities. Raises CellRefused, or ValueError for a key's cell that is no text."""

    def find_file(cell: Any) -> FileView | None:
        return _file_in(cell, origin, base)

    views = {spec.name: found for spec in specs if (found := views_of(spec, cells, find_file))}
    files = [views[spec.name][0].name for spec in specs if spec.form == FILES and spec.name in views]
    id = _id_of(cells, keys, files[0] if files else origin, uses)
    if not id:
        return faulty_row(origin, "empty id", f"column {keys.id_key!r} is empty")
    return RawRow(origin=origin, id=id, views=views, **_named_cells(cells, keys, split))


def _file_in(cell: Any, origin: str, base: FilesBelow) -> FileView | None:
    """The file of a cell; None for an empty one. Raises ValueError: a cell that names none, or several files fit."""
    content, name = image_cell(cell, origin)
    if content is None and not name:
        return None
    try:
        file_name = name_below(base.folder, name) if content is None else name
    except SeveralFiles as error:
        raise SeveralFiles(f"{name}: {error}") from None
    image_name = file_name if name == origin or not base.below else posixpath.join(base.below, file_name)
    source = FileSource(base.folder, file_name) if content is None else BytesSource(content, image_name)
    return FileView(source, image_name)


def _id_of(cells: Cells, keys: TableOptions, name: str, uses: NameCounts) -> str:
    """The id of a row: that of its column ("" where it is empty), else `name`, with a number from its second use on."""
    if keys.id_key is not None:
        return name_of(cells.get(keys.id_key))
    use = uses.add(name)
    return name if use == 1 else f"{name}#{use}"


def _named_cells(cells: Cells, keys: TableOptions, split: str | None) -> dict[str, Any]:
    """Split, group, labels and licence of a row."""
    return {
        "split": text_of(cells.get(keys.split_key)) if keys.split_key else split,
        "group": name_of(cells.get(keys.group_key)) if keys.group_key else None,
        "labels": {key: name_of(cells.get(key)) or None for key in keys.label_keys},
        "licence": (text_of(cells.get(keys.licence_key)) or None) if keys.licence_key else None,
    }


READER = READERS.add(
    "table",
    Reader(
        "table",
        "a table of images and captions -> manifest",
        TableOptions,
        _read,
        MANY,
        takes_several=True,
        example="data table cases.csv --image-key file --caption-key report --group-key patient --out manifest",
    ),
)
