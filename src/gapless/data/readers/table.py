"""`gapless data table`: CSV, TSV, JSONL or Parquet with one image-caption pair per row.

read_table(["train=train.csv", "test=test.csv"], "manifest", image_key="file", caption_key="report")
"""

import csv
import json
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gapless.data.build import MAX_BAD, SPLIT_NAMES, BuildOptions, build_manifest
from gapless.data.manifest import Manifest
from gapless.data.rows import BytesSource, FileSource, RawRow, faulty_row
from gapless.errors import DataRefused, UsageError

# How far a column may first appear in a JSONL file, where rows need not have every key.
JSONL_HEAD = 1000
MAX_CELL = 16 * 1024 * 1024

Cells = Mapping[str, Any]
Line = tuple[str, Cells | None, str]  # origin, cells, what is wrong when there are none


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
    """One source: a file, and the split that its rows belong to unless a column says so."""

    path: Path
    split: str | None

    @classmethod
    def parse(cls, text: str | Path) -> "TableFile":
        """`FILE` or `SPLIT=FILE`; a file whose own name has an equals sign is taken as it is."""
        name, equals, path = str(text).partition("=")
        if not equals or Path(text).exists():
            return cls(Path(text), None)
        if name.lower() not in SPLIT_NAMES:
            raise UsageError(f"{text}: {name!r} is no split; write train=, validation= or test= before the file")
        return cls(Path(path), SPLIT_NAMES[name.lower()])


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
    max_bad: float = MAX_BAD,
    workers: int | None = None,
) -> Manifest:
    """Build a manifest from tables.

    Args:
        sources: `FILE` or `SPLIT=FILE`, several are read one after the other.
        out: the manifest's directory; must be new.
        image_key: column with the image's path, or (Parquet) its bytes.
        caption_key: column, or columns, with a caption or a list of captions.
        group_key: column of what must not be split (case, patient, article); by default each image is its own group.
        label_keys: columns to keep as labels.
        split_key: column with train / validation / test; by default the source's split, else train.
        id_key: column with a unique name per row; by default the image's name.
        licence_key: column with each image's licence.
        image_root: where image paths start; by default the folder of the first source. No path may leave it.
        store_images: copy the images into the manifest (always so for images inside Parquet).
        licence: of the whole data set.
        max_bad: the largest share of bad rows.
        workers: processes that verify; None uses all cores.

    Raises:
        UsageError: a missing file, an unknown column or format, `out` in use.
        DataRefused: too many bad rows.
    """
    names = [sources] if isinstance(sources, str | Path) else list(sources)
    if not names:
        raise UsageError("name at least one table: FILE or SPLIT=FILE")
    tables = [TableFile.parse(name) for name in names]
    captions = (caption_key,) if isinstance(caption_key, str) else tuple(caption_key)
    keys = TableKeys(image_key, captions, group_key, split_key, tuple(label_keys), id_key, licence_key)
    for table in tables:
        check_columns(table.path, keys)
    root = Path(image_root) if image_root is not None else tables[0].path.parent
    if not root.is_dir():
        raise UsageError(f"the image root {root} is not a directory")
    store = store_images or any(_holds_bytes(table.path, image_key) for table in tables)
    options = BuildOptions(
        source=", ".join(table.path.name for table in tables),
        labels=keys.labels,
        image_root=None if store else root,
        licence=licence,
        with_licence=licence_key is not None,
        max_bad=max_bad,
        workers=workers,
    )
    return build_manifest(table_rows(tables, keys, root), out, options)


def table_rows(tables: Sequence[TableFile], keys: TableKeys, root: Path) -> Iterator[RawRow]:
    """The raw rows of the tables, in their order."""
    uses: Counter[str] = Counter()
    for table in tables:
        for origin, cells, fault in read_lines(table.path):
            if cells is None:
                yield faulty_row(origin, "malformed row", fault)
                continue
            yield _raw_row(origin, cells, keys, table.split, root, uses)


def _raw_row(origin: str, cells: Cells, keys: TableKeys, split: str | None, root: Path, uses: Counter[str]) -> RawRow:
    image = cells.get(keys.image)
    content, name = image_cell(image, origin)
    if content is None and not name:
        return faulty_row(origin, "missing image", f"column {keys.image!r} is empty")
    captions = [text for key in keys.captions for text in texts_of(cells.get(key))]
    id = text_of(cells.get(keys.id)) if keys.id else name
    if not id:
        return faulty_row(origin, "empty id", f"column {keys.id!r} is empty")
    if keys.id is None:
        uses[id] += 1
        id = id if uses[id] == 1 else f"{id}#{uses[id]}"
    own_split = text_of(cells.get(keys.split)) if keys.split else None
    return RawRow(
        origin=origin,
        id=id,
        image=FileSource(root, name) if content is None else BytesSource(content, name),
        image_name=name,
        captions=captions,
        split=(own_split or "") if keys.split and split is None else own_split or split,
        group=text_of(cells.get(keys.group)) if keys.group else None,
        labels={key: text_of(cells.get(key)) or None for key in keys.labels},
        licence=(text_of(cells.get(keys.licence)) or None) if keys.licence else None,
    )


def image_cell(value: Any, origin: str) -> tuple[bytes | None, str]:
    """(bytes, name) of an image cell: a path, bytes, or the {bytes, path} of Hugging Face datasets."""
    if isinstance(value, Mapping):
        content, name = value.get("bytes"), text_of(value.get("path"))
        return (content, name or origin) if isinstance(content, bytes) else (None, name)
    if isinstance(value, bytes):
        return value, origin
    return None, text_of(value)


def text_of(value: Any) -> str:
    """A cell as text; nothing is empty text, so is what JSON calls null."""
    if value is None or isinstance(value, bytes | list | dict):
        return ""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float):
        return "" if value != value else str(int(value)) if value.is_integer() and abs(value) < 2**53 else str(value)
    return str(value).strip()


def texts_of(value: Any) -> list[str]:
    return [text_of(item) for item in value] if isinstance(value, list | tuple) else [text_of(value)]


# ---- files ----------------------------------------------------------------------------------------------------------


def read_lines(path: Path) -> Iterator[Line]:
    """Every row of a table file with its origin; a row that cannot be parsed comes with the fault instead of cells."""
    return _reader(path)(path)


def check_columns(path: Path, keys: TableKeys) -> None:
    """Refuse a table that lacks a named column, before any row is read.

    Raises:
        UsageError: naming the column and those that exist.
    """
    if not path.is_file():
        raise UsageError(f"{path} does not exist")
    columns = columns_of(path)
    for key in keys.named():
        if key not in columns:
            raise UsageError(f"{path} has no column {key!r}; it has {', '.join(map(repr, columns)) or 'none'}")


def columns_of(path: Path) -> list[str]:
    """The names of a table's columns (of JSONL: the keys of its first 1,000 rows)."""
    if _reader(path) is _parquet_lines:
        return list(_parquet_file(path).schema_arrow.names)
    if _reader(path) is _jsonl_lines:
        names: dict[str, None] = {}
        for number, (_, cells, _) in enumerate(_jsonl_lines(path)):
            if number >= JSONL_HEAD:
                break
            names.update(dict.fromkeys(cells or ()))
        return list(names)
    with _open_text(path) as stream:
        return _header(csv.reader(stream, delimiter=_delimiter(path)))


def _reader(path: Path) -> Callable[[Path], Iterator[Line]]:
    suffix = path.suffix.lower()
    if suffix not in _READERS:
        raise UsageError(f"{path}: {suffix or 'no suffix'} is no table format; known: {', '.join(_READERS)}")
    return _READERS[suffix]


def _open_text(path: Path) -> Any:
    # Bytes that are not UTF-8 become lone surrogates, so that only their own row is lost.
    return path.open(encoding="utf-8-sig", errors="surrogateescape", newline="")


def _is_utf8(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _delimiter(path: Path) -> str:
    return "," if path.suffix.lower() == ".csv" else "\t"


def _header(reader: Iterator[list[str]]) -> list[str]:
    return [name.strip() for name in next(reader, [])]


def _csv_lines(path: Path) -> Iterator[Line]:
    csv.field_size_limit(MAX_CELL)
    with _open_text(path) as stream:
        reader = csv.reader(stream, delimiter=_delimiter(path))
        header = _header(reader)
        while True:
            origin = f"{path.name}:{reader.line_num + 1}"
            try:
                cells = next(reader)
            except StopIteration:
                return
            except csv.Error as error:
                yield origin, None, str(error)
                continue
            if not cells:
                continue
            if len(cells) != len(header):
                yield origin, None, f"{len(cells)} cells under {len(header)} columns"
            elif not _is_utf8("".join(cells)):
                yield origin, None, "not UTF-8"
            else:
                yield origin, dict(zip(header, cells, strict=True)), ""


def _jsonl_lines(path: Path) -> Iterator[Line]:
    with _open_text(path) as stream:
        for number, line in enumerate(stream, start=1):
            origin = f"{path.name}:{number}"
            if not line.strip():
                continue
            try:
                cells = json.loads(line)
            except (ValueError, RecursionError) as error:
                yield origin, None, f"not JSON: {error}"[:200]
                continue
            if not isinstance(cells, dict):
                yield origin, None, "not a JSON object"
            elif not _is_utf8(line) or not _is_utf8(json.dumps(cells, ensure_ascii=False)):
                yield origin, None, "not UTF-8"
            else:
                yield origin, cells, ""


def _parquet_file(path: Path) -> Any:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        return pq.ParquetFile(path)
    except (pa.ArrowException, OSError) as error:
        raise DataRefused(f"{path} is not a readable Parquet file ({str(error)[:200]})") from None


def _parquet_lines(path: Path) -> Iterator[Line]:
    number = 0
    # Small batches: a cell can be an image.
    for batch in _parquet_file(path).iter_batches(batch_size=64):
        for cells in batch.to_pylist():
            number += 1
            yield f"{path.name}:{number}", cells, ""


def _holds_bytes(path: Path, image_key: str) -> bool:
    if _reader(path) is not _parquet_lines:
        return False
    import pyarrow as pa

    kind = _parquet_file(path).schema_arrow.field(image_key).type
    return bool(pa.types.is_struct(kind) or pa.types.is_binary(kind) or pa.types.is_large_binary(kind))


_READERS: dict[str, Callable[[Path], Iterator[Line]]] = {
    ".csv": _csv_lines,
    ".tsv": _csv_lines,
    ".jsonl": _jsonl_lines,
    ".parquet": _parquet_lines,
}
