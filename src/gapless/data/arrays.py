"""Plain arrays from files of common formats, never unpickled; big ones stay on the disk where the format can."""

import json
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from safetensors import SafetensorError, safe_open

from gapless.errors import DataRefused, UsageError, one_line

SUFFIXES = (".npy", ".npz", ".safetensors", ".parquet")
ID_NAMES = ("id", "ids")
BOMB_BYTES = 1 << 30
BOMB_RATIO = 100


# what the readers of these formats raise on files that are damaged, or made to break them
DAMAGE = (
    *(ValueError, OSError, EOFError, KeyError, TypeError, OverflowError, MemoryError, RecursionError),
    *(zipfile.BadZipFile, SafetensorError, pa.ArrowException),
)


@dataclass(frozen=True)
class ArrayFile:
    """What one file holds: matrices by name, and columns of one value per row (ids, groups, labels) by name."""

    matrices: dict[str, np.ndarray]
    columns: dict[str, list[Any]] = field(default_factory=dict)

    @property
    def ids(self) -> list[str] | None:
        for name in ID_NAMES:
            if name in self.columns:
                return [str(value) for value in self.columns[name]]
        return None


def read_array_file(path: Path) -> ArrayFile:
    """Every array of a .npy, .npz, .safetensors or .parquet file.

    Raises:
        UsageError: no such file, another format.
        DataRefused: a damaged file, objects (refused unread), rows of different lengths, integers.
    """
    if not path.is_file():
        raise UsageError(f"{path} does not exist" if not path.exists() else f"{path} is not a file")
    readers = {".npy": _read_npy, ".npz": _read_npz, ".safetensors": _read_safetensors, ".parquet": _read_parquet}
    reader = readers.get(path.suffix.lower())
    if reader is None:
        raise UsageError(f"{path} is of no known format; known: {', '.join(SUFFIXES)}")
    try:
        found = reader(path)
    except (DataRefused, UsageError):
        raise
    except DAMAGE as error:
        raise DataRefused(f"{path} cannot be read as {path.suffix} ({one_line(error)})") from None
    for name, matrix in found.matrices.items():
        if matrix.dtype.kind != "f":
            raise DataRefused(f"{path}: {name} holds {matrix.dtype} numbers; embeddings are floating point")
    return found


def read_matrix(path: Path, modality: str) -> ArrayFile:
    """One modality's matrix: the only one of the file, or the one of its name."""
    found = read_array_file(path)
    if len(found.matrices) == 1:
        return ArrayFile({modality: next(iter(found.matrices.values()))}, found.columns)
    if modality in found.matrices:
        return ArrayFile({modality: found.matrices[modality]}, found.columns)
    held = ", ".join(found.matrices) or "none"
    raise DataRefused(f"{path}: expected one [row, dim] matrix or one named {modality!r}, found {held}")


def read_lines(path: Path, what: str, num_rows: int) -> list[str]:
    """One value per line (or a one-dimensional .npy); an empty line is a missing value.

    Raises:
        UsageError: no such file.
        DataRefused: another number of lines than rows.
    """
    if path.suffix.lower() in (".npy", ".npz"):
        columns = read_array_file(path).columns
        if len(columns) != 1:
            raise DataRefused(f"{path}: expected one array of one value per row")
        values = [str(value) for value in next(iter(columns.values()))]
    elif not path.is_file():
        raise UsageError(f"{path} does not exist")
    else:
        try:
            values = path.read_text(encoding="utf-8-sig").splitlines()
        except UnicodeDecodeError as error:
            raise DataRefused(f"{path} is not UTF-8 text ({error})") from None
    if len(values) != num_rows:
        raise DataRefused(f"{path} has {len(values)} {what}, the embeddings have {num_rows} rows; one line per row")
    return [value.strip() for value in values]


def _sorted_out(path: Path, arrays: Mapping[str, np.ndarray]) -> ArrayFile:
    found = ArrayFile({})
    for name, value in arrays.items():
        if value.ndim == 2:
            found.matrices[name] = value
        elif value.ndim == 1:
            found.columns[name] = value.tolist()
        else:
            raise DataRefused(f"{path}: {name} has shape {value.shape}, expected [row, dim] or [row]")
    return found


def _read_npy(path: Path) -> ArrayFile:
    with path.open("rb") as stream:
        version = np.lib.format.read_magic(stream)
        read_header = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        dtype = read_header(stream)[2]
    if dtype.hasobject:
        raise DataRefused(f"{path} holds Python objects, which are refused unread; save a plain float array")
    return _sorted_out(path, {path.stem: np.load(path, mmap_mode="r", allow_pickle=False)})


def _read_npz(path: Path) -> ArrayFile:
    arrays = {}
    refuse_bombs(path)
    with np.load(path, allow_pickle=False) as archive:
        for name in archive.files:
            try:
                arrays[name] = archive[name]
            except ValueError as error:
                if "allow_pickle" not in str(error):
                    raise
                message = f"{path}: {name} holds Python objects, which are refused unread; save plain arrays"
                raise DataRefused(message) from None
            if not isinstance(arrays[name], np.ndarray):
                raise DataRefused(f"{path}: the member {name!r} is no array")
    return _sorted_out(path, arrays)


def refuse_bombs(path: Path) -> None:
    """Refuse a member that would swell: floating-point numbers do not pack a hundred to one."""
    with zipfile.ZipFile(path) as archive:
        for member in archive.infolist():
            if member.file_size > max(BOMB_BYTES, BOMB_RATIO * member.compress_size):
                raise DataRefused(
                    f"{path}: the member {member.filename!r} would grow from {member.compress_size:,} bytes to "
                    f"{member.file_size:,}; save the array without compression"
                )


def _read_safetensors(path: Path) -> ArrayFile:
    import torch

    arrays = {}
    with safe_open(path, framework="pt") as archive:
        for name in archive.keys():  # noqa: SIM118 (no mapping)
            tensor = archive.get_tensor(name)
            arrays[name] = (tensor.float() if tensor.dtype == torch.bfloat16 else tensor).numpy()
        metadata = archive.metadata() or {}
    found = _sorted_out(path, arrays)
    if "ids" in metadata:
        found.columns["ids"] = json.loads(metadata["ids"])
    return found


def _read_parquet(path: Path) -> ArrayFile:
    table = pq.read_table(path, memory_map=True)
    found = ArrayFile({})
    for name in table.column_names:
        column = table[name]
        kind = column.type
        if _is_numeric_list(kind):
            found.matrices[name] = _matrix_of(path, name, column)
        else:
            found.columns[name] = column.to_pylist()
    return found


def _is_numeric_list(kind: Any) -> bool:
    if not (pa.types.is_fixed_size_list(kind) or pa.types.is_list(kind) or pa.types.is_large_list(kind)):
        return False
    return bool(pa.types.is_floating(kind.value_type) or pa.types.is_integer(kind.value_type))


def _matrix_of(path: Path, name: str, column: Any) -> np.ndarray:
    """A list column as a matrix; every row must hold the same number of values, none missing."""
    if column.null_count:
        first = next(row for row, value in enumerate(column.is_null().to_pylist()) if value)
        raise DataRefused(f"{path}: {name} has {column.null_count} rows without a value (first row {first})")
    parts = []
    dim = None
    start = 0
    for chunk in column.chunks:
        lengths = pa.compute.list_value_length(chunk).to_numpy(zero_copy_only=False)
        if dim is None and len(lengths):
            dim = int(lengths[0])
        uneven = np.flatnonzero(lengths != dim)
        if len(uneven):
            row = start + int(uneven[0])
            raise DataRefused(
                f"{path}: {name} has rows of different lengths (row {row}: {lengths[uneven[0]]}, not {dim})"
            )
        values = chunk.flatten()
        if values.null_count:
            raise DataRefused(f"{path}: {name} has {values.null_count} missing numbers inside its rows")
        parts.append(values.to_numpy(zero_copy_only=False).reshape(len(chunk), -1))
        start += len(chunk)
    if not parts or dim == 0:
        raise DataRefused(f"{path}: {name} holds no values")
    return parts[0] if len(parts) == 1 else np.concatenate(parts)
