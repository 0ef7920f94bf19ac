"""Writes embeddings directories, and reads them and plain array files as one set of embeddings.

    writer = EmbeddingsWriter(out, num_rows=len(rows), info={"model": fingerprint})
    for shard in writer.pending():
        writer.write(shard, {"image": z, "text": w}, rows={"id": ids, "group": groups, "captions": texts})
    writer.finish()
    read_embeddings(out).embeddings["image"]          # [pair, dim]

A directory holds `plan.json` (what is being written), one `shard-00000.safetensors`, `.parquet` and `.json` (checksums,
written last) per shard, and `embeddings.json` once all shards are there. Shards are fixed ranges of rows, so that
an interrupted run, or several processes, write the rest.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import reduce
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from safetensors import safe_open
from safetensors.numpy import save

from gapless.core import files
from gapless.core.errors import DataRefused, UsageError, one_line
from gapless.core.plan import PLAN, check_same
from gapless.embeddings.array_files import DAMAGE, ArrayFile
from gapless.embeddings.array_sets import set_of, set_of_file, with_files
from gapless.embeddings.combined import end_to_end, join, join_any
from gapless.embeddings.embedding_set import EmbeddingSet, refuse_rows
from gapless.embeddings.missing import MIN_MODALITIES, settled

FORMAT = "gapless-embeddings"
VERSION = 1
MASKED_VERSION = 2  # of directories that say which rows are absent; whoever reads only version 1 refuses them
INDEX_FILE = "embeddings.json"
SHARD_SIZE = 8192
DTYPES = ("float16", "float32")
PRESENT = "present/"  # before the name of a modality: the mask of its rows, in the file of its matrix


@dataclass(frozen=True)
class Shard:
    """A range of rows that is written together, and written again after an interruption.

    Args:
        index: its number, from 0.
        start, stop: the first row, and the row after the last.
    """

    index: int
    start: int
    stop: int

    def file(self, directory: Path, suffix: str) -> Path:
        """The path of one of its files: safetensors, parquet or json."""
        return directory / f"shard-{self.index:05d}.{suffix}"


class EmbeddingsWriter:
    """Writes a directory of embeddings shard by shard; a run that was interrupted continues with the missing shards.

    Args:
        path: the directory; one that holds the same plan is continued.
        num_rows: rows in all.
        info: facts that must be equal to continue a run, as JSON holds them: fingerprints of model and data. A
            `source` beside a fingerprint may be spelt in another way.
        dtype: float32, or float16 for half the disk.
        shard_size: rows of a shard.
        has_masks: whether every shard is written with `present`, which rows have a modality.

    Raises:
        UsageError: the directory holds something else, or embeddings of another model, data or precision.
        DataRefused: the plan in the directory is damaged.
    """

    def __init__(
        self,
        path: Path,
        *,
        num_rows: int,
        info: Mapping[str, Any],
        dtype: str = "float32",
        shard_size: int = SHARD_SIZE,
        has_masks: bool = False,
    ) -> None:
        if dtype not in DTYPES:
            raise UsageError(f"embeddings are stored as {' or '.join(DTYPES)}, not {dtype}")
        if num_rows < 1 or shard_size < 1:
            raise UsageError(f"expected at least 1 row and 1 row per shard, got {num_rows} and {shard_size}")
        self.path = path
        self.dtype = np.dtype(dtype)
        self.has_masks = has_masks
        self.shards = [
            Shard(index, start, min(start + shard_size, num_rows))
            for index, start in enumerate(range(0, num_rows, shard_size))
        ]
        plan = {
            "format": FORMAT,
            "version": MASKED_VERSION if has_masks else VERSION,
            "num_rows": num_rows,
            "dtype": dtype,
            "shard_size": shard_size,
            "info": dict(info),
        }
        if not path.exists():
            path.mkdir(parents=True, exist_ok=True)
        # Processes that start together all write the same plan, so a half-written plan does not occupy the directory.
        is_free = path.is_dir() and all(entry.name.startswith(f".{PLAN}") for entry in path.iterdir())
        if (path / PLAN).exists():
            started = files.read_object(path / PLAN)
            check_same(started, plan, f"{path} holds other embeddings", "choose another --out")
        else:
            if not is_free:
                files.check_new_directory(path)
            files.write_json(path / PLAN, plan)
        self.plan = plan

    def pending(self, part: int = 0, num_parts: int = 1) -> list[Shard]:
        """Shards not yet written; of `num_parts` processes, number `part` takes every num_parts-th."""
        return [
            shard
            for shard in self.shards
            if shard.index % num_parts == part and not shard.file(self.path, "json").exists()
        ]

    def write(
        self,
        shard: Shard,
        embeddings: Mapping[str, np.ndarray],
        rows: Mapping[str, Sequence[Any]],
        present: Mapping[str, np.ndarray] | None = None,
    ) -> None:
        """Write one shard: matrices, columns, and last the checksums, without which a shard is written again.

        Args:
            embeddings: modality -> [row, dim] finite floats; rows that are absent may hold anything, and are stored as
                zeros.
            rows: `id` and any of `group`, `split`, `captions`, label columns; one value per row.
            present: modality -> [row] bool, for a writer that has masks; a modality that is not named is in every row.

        Raises:
            DataRefused: NaN or infinite values, or values beyond the range of the stored precision.
            ValueError: another number of rows than the shard has, or no ids; `present` without `has_masks`.
        """
        if present is not None and not self.has_masks:
            raise ValueError("present is for a writer that was made with has_masks")
        count = shard.stop - shard.start
        masks = {name: np.ones(count, dtype=bool) for name in embeddings} if self.has_masks else {}
        masks |= {name: np.asarray(mask, dtype=bool) for name, mask in (present or {}).items()}
        lengths = {name: len(values) for name, values in {**embeddings, **rows}.items()}
        lengths |= {f"present {name}": len(mask) for name, mask in masks.items()}
        if set(lengths.values()) != {count} or "id" not in rows:
            raise ValueError(f"shard {shard.index} takes {count} rows of every matrix and an id column, got {lengths}")
        stored = {}
        for name, matrix in embeddings.items():
            if name in masks and not masks[name].all():
                matrix = np.where(masks[name][:, None], matrix, 0)
            with np.errstate(over="ignore"):
                stored[name] = np.ascontiguousarray(matrix, dtype=self.dtype)
            bad = ~np.isfinite(stored[name]).all(axis=1)
            refuse_rows(name, "hold NaN, infinite values or values too large for the precision", bad, rows["id"])
        table = pa.table({name: pa.array(list(values)) for name, values in rows.items()})
        sink = pa.BufferOutputStream()
        pq.write_table(table, sink, compression="zstd")
        tensors = stored | {f"{PRESENT}{name}": mask for name, mask in masks.items()}
        files.write_bytes(shard.file(self.path, "safetensors"), save(tensors))
        files.write_bytes(shard.file(self.path, "parquet"), sink.getvalue().to_pybytes())
        summary = {
            "rows": count,
            "dims": {name: int(matrix.shape[1]) for name, matrix in stored.items()},
            **({"present": {name: int(mask.sum()) for name, mask in masks.items()}} if self.has_masks else {}),
            "sha256": {suffix: files.sha256_of(shard.file(self.path, suffix)) for suffix in ("safetensors", "parquet")},
        }
        files.write_json(shard.file(self.path, "json"), summary)

    def finish(self) -> bool:
        """Write the index when all shards are written; False while other processes have not written theirs."""
        if self.pending():
            return False
        shards = [files.read_json(shard.file(self.path, "json")) for shard in self.shards]
        for shard, summary in zip(self.shards, shards, strict=True):
            if summary["dims"] != shards[0]["dims"]:
                raise DataRefused(f"{self.path}: shard {shard.index} has {summary['dims']}, not {shards[0]['dims']}")
        files.remove_leftovers(self.path)
        files.write_json(self.path / INDEX_FILE, {**self.plan, "dims": shards[0]["dims"], "shards": shards})
        return True


def read_embeddings(
    *paths: str | Path, missing: str | None = None, least: int = MIN_MODALITIES, **beside: str | Path | None
) -> EmbeddingSet:
    """Embeddings directories and files (.npz, .safetensors, .parquet with a matrix per modality), read as one.

    Sets of the same modalities are put end to end; sets of other modalities are joined by id, whatever their order.
    A column that only one set has is used; `notes` names columns that are not used.

    Args:
        paths: directories that `EmbeddingsWriter` wrote, or files.
        missing: keep or drop rows that lack a modality; None refuses them. See `missing.settled`.
        least: modalities that a row must have to be kept.
        beside: `labels`, `groups`, `positives` of `with_files`.

    Raises:
        UsageError: no such path, an unfinished directory, sets that overlap in some modalities only.
        DataRefused: damage, ids that repeat or do not match, groups that are missing or disagree, row counts that
            differ, rows of NaN or zeros.
    """
    if not paths:
        raise UsageError("no embeddings given")
    by_modalities: dict[tuple[str, ...], list[EmbeddingSet]] = {}
    for path in map(Path, paths):
        embeddings = _read_directory(path) if path.is_dir() else set_of_file(path)
        by_modalities.setdefault(tuple(sorted(embeddings.modalities)), []).append(embeddings)
    matched = reduce(join if missing is None else join_any, [end_to_end(parts) for parts in by_modalities.values()])
    return settled(with_files(matched, **beside), missing, least)


def _read_directory(path: Path) -> EmbeddingSet:
    if not (path / INDEX_FILE).is_file():
        if not (path / PLAN).is_file():
            raise UsageError(f"{path} is no embeddings directory ({INDEX_FILE} is missing); 'gapless embed' writes one")
        plan = files.read_object(path / PLAN)
        num_shards = -(-plan["num_rows"] // plan["shard_size"])
        done = len(list(path.glob("shard-*.json")))
        raise UsageError(f"{path} is unfinished ({done} of {num_shards} shards); run the same 'gapless embed' again")
    index = files.read_object(path / INDEX_FILE)
    if index.get("format") != FORMAT or index.get("version") not in (VERSION, MASKED_VERSION):
        raise UsageError(f"{path} is no embeddings directory that this gapless reads ({index.get('version')!r})")
    try:
        _check_index(path, index)
        return _read_shards(path, index)
    except DAMAGE as error:
        if isinstance(error, DataRefused):
            raise
        raise DataRefused(f"{path} is damaged ({one_line(error)}); embed again") from None


def _check_index(path: Path, index: Mapping[str, Any]) -> None:
    """Raise DataRefused for an index that does not fit its shards, before memory is allocated for it."""
    dims, shards = index["dims"], index["shards"]
    counts = [index["num_rows"], *dims.values(), *(summary["rows"] for summary in shards)]
    if index["dtype"] not in DTYPES or not all(type(count) is int and count >= 0 for count in counts):
        raise DataRefused(f"{path} is damaged: {INDEX_FILE} describes no rows of numbers; embed again")
    row_bytes = sum(dims.values()) * np.dtype(index["dtype"]).itemsize
    start = 0
    for number, summary in enumerate(shards):
        shard = Shard(number, start, start + summary["rows"])
        file = shard.file(path, "safetensors")
        if file.is_file() and file.stat().st_size < summary["rows"] * row_bytes:
            raise DataRefused(f"{path} is damaged: {file.name} is too small for its rows; embed again")
        start = shard.stop
    if start != index["num_rows"]:
        raise DataRefused(f"{path} is damaged: its shards hold {start} rows, not {index['num_rows']}; embed again")


def _read_shards(path: Path, index: Mapping[str, Any]) -> EmbeddingSet:
    num_rows = index["num_rows"]
    matrices = {name: np.empty((num_rows, dim), dtype=index["dtype"]) for name, dim in index["dims"].items()}
    has_masks = index["version"] == MASKED_VERSION
    present = {name: np.empty(num_rows, dtype=bool) for name in matrices} if has_masks else {}
    tables = []
    start = 0
    for number, summary in enumerate(index["shards"]):
        shard = Shard(number, start, start + summary["rows"])
        for suffix, expected in summary["sha256"].items():
            file = shard.file(path, suffix)
            if not file.is_file():
                raise DataRefused(f"{path} is damaged: {file.name} is missing; embed again")
            if files.sha256_of(file) != expected:
                raise DataRefused(f"{file} is damaged (its checksum differs); embed again")
        with safe_open(shard.file(path, "safetensors"), framework="np") as archive:
            for name, matrix in matrices.items():
                matrix[shard.start : shard.stop] = archive.get_tensor(name)
            for name, mask in present.items():
                mask[shard.start : shard.stop] = archive.get_tensor(f"{PRESENT}{name}")
                if int(mask[shard.start : shard.stop].sum()) != summary["present"][name]:
                    raise DataRefused(f"{path} is damaged: {name} has other rows than its index says; embed again")
        tables.append(pq.read_table(shard.file(path, "parquet")))
        start = shard.stop
    table = pa.concat_tables(tables, promote_options="default")
    columns = {name: table[name].to_pylist() for name in table.column_names}
    return replace(set_of(ArrayFile(matrices, columns, present), path), info=index["info"])
