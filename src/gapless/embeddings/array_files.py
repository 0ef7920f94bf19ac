"""Reads arrays from .npy, .npz, .safetensors and .parquet files, memory-mapped where possible, never unpickled."""

import json
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from safetensors import SafetensorError, safe_open

from gapless.core.errors import DataRefused, UsageError, one_line
from gapless.core.values import cells_of

SUFFIXES = (".npy", ".npz", ".safetensors", ".parquet")
# Members of an archive that inflate to more than both limits are refused: bytes, and times their compressed size.
BOMB_BYTES = 1 << 30
BOMB_RATIO = 100
# The exceptions that the readers of these formats raise on damaged or malicious files.
DAMAGE = (
    *(ValueError, OSError, EOFError, KeyError, TypeError, OverflowError, MemoryError, RecursionError),
    *(zipfile.BadZipFile, SafetensorError, pa.ArrowException),
)


@dataclass(frozen=True)
class ArrayFile:
    """The content of one file: matrices by name, and columns of one cell per row (ids, groups, labels) by name.

    `present` has a [row] bool for each matrix that lacks rows; those rows are NaN in it.
    """

    matrices: dict[str, np.ndarray]
    columns: dict[str, list[Any]] = field(default_factory=dict)
    present: dict[str, np.ndarray] = field(default_factory=dict)


def read_array_file(path: Path) -> ArrayFile:
    """Every array of a .npy, .npz, .safetensors or .parquet file.

    Matrices come in the byte order of this machine, long doubles as float64.

    Raises:
        UsageError: no such file, another format.
        DataRefused: a damaged file, objects (refused unread), rows of different lengths, integers.
    """
    array_file = read_columns(path)
    for name, matrix in array_file.matrices.items():
        if matrix.dtype.kind != "f":
            raise DataRefused(f"{path}: {name} holds {matrix.dtype} numbers; embeddings are floating point")
        array_file.matrices[name] = _native(matrix)
    return array_file


def read_columns(path: Path) -> ArrayFile:
    """As `read_array_file`, but matrices keep their type, which may be integers."""
    if not path.is_file():
        raise UsageError(f"{path} does not exist" if not path.exists() else f"{path} is not a file")
    readers = {".npy": _read_npy, ".npz": _read_npz, ".safetensors": _read_safetensors, ".parquet": _read_parquet}
    reader = readers.get(path.suffix.lower())
    if reader is None:
        raise UsageError(f"{path} is of no known format; known: {', '.join(SUFFIXES)}")
    try:
        return reader(path)
    except (DataRefused, UsageError):
        raise
    except DAMAGE as error:
        raise DataRefused(f"{path} cannot be read as {path.suffix} ({one_line(error)})") from None


def _native(matrix: np.ndarray) -> np.ndarray:
    """The matrix in this machine's byte order, long doubles as float64; PyTorch supports nothing else."""
    kind = matrix.dtype.newbyteorder("=")
    kind = np.dtype(np.float64) if kind.itemsize > np.dtype(np.float64).itemsize else kind
    return matrix if matrix.dtype == kind else matrix.astype(kind)


def read_matrix(path: Path, modality: str) -> ArrayFile:
    """The [row, dim] matrix of a modality, the only one of the file or the one of that name, with all columns.

    Raises:
        UsageError, DataRefused: as `read_array_file`; DataRefused also for several matrices of other names.
    """
    array_file = read_array_file(path)
    only = next(iter(array_file.matrices)) if len(array_file.matrices) == 1 else modality
    if only in array_file.matrices:
        present = {modality: array_file.present[only]} if only in array_file.present else {}
        return ArrayFile({modality: array_file.matrices[only]}, array_file.columns, present)
    names = ", ".join(array_file.matrices) or "none"
    raise DataRefused(f"{path}: expected one [row, dim] matrix or one named {modality!r}, found {names}")


def _sorted_out(path: Path, arrays: Mapping[str, np.ndarray]) -> ArrayFile:
    array_file = ArrayFile({})
    for name, value in arrays.items():
        if value.ndim == 2:
            array_file.matrices[name] = value
        elif value.ndim == 1:
            array_file.columns[name] = cells_of(value)
        else:
            raise DataRefused(f"{path}: {name} has shape {value.shape}, expected [row, dim] or [row]")
    return array_file


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
    _refuse_bombs(path)
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


def _refuse_bombs(path: Path) -> None:
    """Raise DataRefused for a member that inflates a hundredfold: floating-point numbers do not compress that much."""
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
    array_file = _sorted_out(path, arrays)
    if "ids" in metadata:
        array_file.columns["ids"] = json.loads(metadata["ids"])
    return array_file


def _read_parquet(path: Path) -> ArrayFile:
    return arrays_of_table(path, pq.read_table(path, memory_map=True))


def arrays_of_table(path: Path, table: pa.Table) -> ArrayFile:
    """Matrices of the columns whose cells are lists of floats, and columns of all others; a null is an absent row.

    Args:
        path: where the table is from, for messages.

    Raises:
        DataRefused: lists of different lengths, or of integers alone.
    """
    array_file = ArrayFile({})
    for name in table.column_names:
        column = table[name]
        kind = column.type
        if _is_list_of(kind, pa.types.is_floating):
            array_file.matrices[name] = _matrix_of(path, name, column)
            if column.null_count:
                array_file.present[name] = np.asarray(column.is_valid())
        else:
            array_file.columns[name] = column.to_pylist()
    integer_lists = [name for name in array_file.columns if _is_list_of(table[name].type, pa.types.is_integer)]
    # Beside a matrix of embeddings a list of integers is an ordinary column, such as codes of findings.
    if integer_lists and not array_file.matrices:
        raise DataRefused(
            f"{path}: {integer_lists[0]} holds {table[integer_lists[0]].type} numbers; embeddings are floating point"
        )
    return array_file


def _is_list_of(kind: Any, is_of: Callable[[Any], bool]) -> bool:
    is_list = pa.types.is_fixed_size_list(kind) or pa.types.is_list(kind) or pa.types.is_large_list(kind)
    return bool(is_list and is_of(kind.value_type))


def _matrix_of(path: Path, name: str, column: Any) -> np.ndarray:
    """A list column as a matrix, a null as a row of NaN; all other rows must hold the same number of values."""
    parts = []
    dim = None
    start = 0
    for chunk in column.chunks:
        valid = np.asarray(chunk.is_valid())
        rows = chunk.drop_null()
        lengths = pa.compute.list_value_length(rows).to_numpy(zero_copy_only=False)
        if dim is None and len(lengths):
            dim = int(lengths[0])
        uneven = np.flatnonzero(lengths != dim)
        if len(uneven):
            row = start + int(np.flatnonzero(valid)[uneven[0]])
            raise DataRefused(
                f"{path}: {name} has rows of different lengths (row {row}: {lengths[uneven[0]]}, not {dim})"
            )
        values = rows.flatten()
        if values.null_count:
            raise DataRefused(f"{path}: {name} has {values.null_count} missing numbers inside its rows")
        parts.append((valid, values.to_numpy(zero_copy_only=False)))
        start += len(chunk)
    if not dim:
        raise DataRefused(f"{path}: {name} holds no values")
    matrices = [_with_empty_rows(valid, values.reshape(-1, dim)) for valid, values in parts]
    return matrices[0] if len(matrices) == 1 else np.concatenate(matrices)


def _with_empty_rows(valid: np.ndarray, values: np.ndarray) -> np.ndarray:
    """The rows at their places, and NaN in the others; without a copy where there are no others."""
    if valid.all():
        return values
    matrix = np.full((len(valid), values.shape[1]), np.nan, dtype=values.dtype)
    matrix[valid] = values
    return matrix
