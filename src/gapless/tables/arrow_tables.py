"""Reads Parquet files row by row: columns of any Arrow type of text, bytes or list; other types are refused."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from gapless.core.errors import DataRefused, UsageError, one_line
from gapless.tables.table_format import Line, LineCount

# Small, because a cell can be an image.
ROWS_PER_BATCH = 64


def arrow_columns(path: Path) -> list[str]:
    """The names of the columns. Raises DataRefused for a damaged file."""
    return list(_open(path).schema_arrow.names)


def arrow_lines(path: Path, count: LineCount) -> Iterator[Line]:
    """Every row with its origin; the number is that of the row.

    Raises:
        DataRefused: the file is damaged, with the row up to which it could be read.
    """
    import pyarrow as pa

    file = _open(path)
    count.lines = file.metadata.num_rows
    try:
        for batch in file.iter_batches(batch_size=ROWS_PER_BATCH):
            for cells, fault in _rows_of(batch):
                count.rows += 1
                yield f"{path.name}:{count.rows}", cells, fault
    except (pa.ArrowException, OSError) as error:
        raise DataRefused(f"{path} is damaged after row {count.rows} ({one_line(error)}); get it again") from None
    if count.rows != count.lines:
        raise DataRefused(f"{path} promises {count.lines} rows and holds {count.rows}; get it again")


def holds_bytes(path: Path, column: str) -> bool:
    """Whether a column may hold images as bytes, rather than their paths."""
    import pyarrow as pa

    kind = _value_type(_open(path).schema_arrow.field(column).type)
    return _is_bytes(kind) or (pa.types.is_struct(kind) and kind.get_field_index("bytes") >= 0)


def check_types(path: Path, names: Sequence[str], image: str | None = None) -> None:
    """Refuse columns whose cells could not be read as text or, for `image`, as an image or its path.

    Raises:
        UsageError: naming the column and its type.
    """
    schema = _open(path).schema_arrow
    for name in names:
        kind = schema.field(name).type
        usable = _is_image(kind) if name == image else _is_text(kind)
        if not usable:
            wanted = "bytes, a path or both as {bytes, path}" if name == image else "text, a number or a list of them"
            raise UsageError(f"{path}: the column {name!r} is {kind}, which is not {wanted}; convert it")


def _open(path: Path) -> Any:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        return pq.ParquetFile(path)
    except (pa.ArrowException, OSError) as error:
        raise DataRefused(f"{path} is not a readable Parquet file ({one_line(error)})") from None


def _rows_of(batch: Any) -> Iterator[tuple[dict[str, Any] | None, str]]:
    """The rows of a batch; a value without a Python form (a date of year 10000) makes only its own row faulty."""
    try:
        rows = batch.to_pylist()
    except (ValueError, OverflowError, TypeError):
        pass
    else:
        yield from ((row, "") for row in rows)
        return
    for number in range(batch.num_rows):
        try:
            yield batch.slice(number, 1).to_pylist()[0], ""
        except (ValueError, OverflowError, TypeError) as error:
            yield None, f"a cell cannot be read ({one_line(error)})"


def _value_type(kind: Any) -> Any:
    """The type of a column's values, inside dictionaries, extension types and lists."""
    import pyarrow as pa

    while True:
        if pa.types.is_dictionary(kind) or _is_list(kind):
            kind = kind.value_type
        elif isinstance(kind, pa.BaseExtensionType):
            kind = kind.storage_type
        elif pa.types.is_run_end_encoded(kind):
            kind = kind.value_type
        else:
            return kind


def _is_list(kind: Any) -> bool:
    import pyarrow as pa

    tests = (
        pa.types.is_list,
        pa.types.is_large_list,
        pa.types.is_fixed_size_list,
        pa.types.is_list_view,
        pa.types.is_large_list_view,
    )
    return any(test(kind) for test in tests)


def _is_bytes(kind: Any) -> bool:
    import pyarrow as pa

    tests = (pa.types.is_binary, pa.types.is_large_binary, pa.types.is_binary_view, pa.types.is_fixed_size_binary)
    return any(test(kind) for test in tests)


def _is_string(kind: Any) -> bool:
    import pyarrow as pa

    return any(test(kind) for test in (pa.types.is_string, pa.types.is_large_string, pa.types.is_string_view))


def _is_text(kind: Any) -> bool:
    import pyarrow as pa

    return not (pa.types.is_nested(kind := _value_type(kind)) or pa.types.is_map(kind) or pa.types.is_union(kind))


def _is_image(kind: Any) -> bool:
    import pyarrow as pa

    kind = _value_type(kind)
    if pa.types.is_struct(kind):
        fields = {field.name: field.type for field in kind}
        content = fields.get("bytes", pa.null())
        return bool(fields.keys() & {"bytes", "path"}) and (_is_bytes(content) or pa.types.is_null(content))
    return _is_bytes(kind) or _is_string(kind) or pa.types.is_null(kind)
