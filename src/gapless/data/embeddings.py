"""Embeddings on disk: what `embed` writes, and what everything that takes embeddings reads, plain arrays included.

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
from dataclasses import dataclass, field, replace
from functools import reduce
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from safetensors import safe_open
from safetensors.numpy import save

from gapless import files
from gapless.data.arrays import ID_NAMES, ArrayFile, read_array_file, read_lines, read_matrix
from gapless.errors import DataRefused, UsageError

FORMAT = "gapless-embeddings"
VERSION = 1
PLAN_FILE = "plan.json"
INDEX_FILE = "embeddings.json"
SHARD_SIZE = 8192
DTYPES = ("float16", "float32")
ROWS_AT_ONCE = 8192
GROUP_NAMES = ("group", "groups")
SPLIT_NAMES = ("split", "splits")
CAPTION_NAMES = ("caption", "captions")


@dataclass(frozen=True)
class EmbeddingSet:
    """Paired embeddings: row i of every matrix is one pair.

    Args:
        ids: one name per row.
        embeddings: modality -> [pair, dim] array or memory map, in the precision it was stored in.
        groups: what must not be split, or None.
        labels: name -> one value per row; "" or None where missing.
        splits: or None.
        captions: the caption that was embedded, or None.
        info: what is known of the model and the data.
    """

    ids: list[str]
    embeddings: dict[str, np.ndarray]
    groups: list[str] | None = None
    labels: dict[str, list[Any]] = field(default_factory=dict)
    splits: list[str] | None = None
    captions: list[str] | None = None
    info: dict[str, Any] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def modalities(self) -> tuple[str, ...]:
        return tuple(self.embeddings)

    def take(self, rows: Sequence[int] | np.ndarray) -> "EmbeddingSet":
        """These rows, in this order."""
        rows = np.asarray(rows, dtype=np.int64)
        return replace(
            self,
            ids=_pick(self.ids, rows),
            embeddings={name: matrix[rows] for name, matrix in self.embeddings.items()},
            groups=None if self.groups is None else _pick(self.groups, rows),
            labels={name: _pick(values, rows) for name, values in self.labels.items()},
            splits=None if self.splits is None else _pick(self.splits, rows),
            captions=None if self.captions is None else _pick(self.captions, rows),
        )

    def select(self, split: str) -> "EmbeddingSet":
        """The rows of one split.

        Raises:
            UsageError: no splits, or none of that name.
        """
        known = sorted(set(self.splits or []))
        if split not in known:
            raise UsageError(f"the embeddings have no split {split!r}; known: {', '.join(known) or 'none'}")
        assert self.splits is not None
        return self.take([row for row, name in enumerate(self.splits) if name == split])


def _pick(values: Sequence[Any], rows: np.ndarray) -> list[Any]:
    return [values[row] for row in rows.tolist()]


@dataclass(frozen=True)
class Shard:
    """A range of rows that is written, or redone, as a whole."""

    index: int
    start: int
    stop: int

    def file(self, directory: Path, suffix: str) -> Path:
        return directory / f"shard-{self.index:05d}.{suffix}"


class EmbeddingsWriter:
    """Writes a directory of embeddings shard by shard; what is there is kept, so that a run resumes.

    Args:
        path: the directory; one that holds the same plan is continued.
        num_rows: rows in all.
        info: what must be the same for a run to continue another: the model's and the data's fingerprint, the source.
        dtype: float32, or float16 for half the disk.
        shard_size: rows of a shard.

    Raises:
        UsageError: the directory holds something else, or embeddings of another model, data or precision.
    """

    def __init__(
        self,
        path: Path,
        *,
        num_rows: int,
        info: Mapping[str, Any],
        dtype: str = "float32",
        shard_size: int = SHARD_SIZE,
    ) -> None:
        if dtype not in DTYPES:
            raise UsageError(f"embeddings are stored as {' or '.join(DTYPES)}, not {dtype}")
        if num_rows < 1 or shard_size < 1:
            raise UsageError(f"expected at least 1 row and 1 row per shard, got {num_rows} and {shard_size}")
        self.path = path
        self.dtype = np.dtype(dtype)
        self.shards = [
            Shard(index, start, min(start + shard_size, num_rows))
            for index, start in enumerate(range(0, num_rows, shard_size))
        ]
        plan = {
            "format": FORMAT,
            "version": VERSION,
            "num_rows": num_rows,
            "dtype": dtype,
            "shard_size": shard_size,
            "info": dict(info),
        }
        if (path / PLAN_FILE).exists():
            self._check_same(files.read_json(path / PLAN_FILE), plan)
        else:
            files.check_new_directory(path)
            path.mkdir(parents=True, exist_ok=True)
            files.write_json(path / PLAN_FILE, plan)
        self.plan = plan

    def _check_same(self, there: Any, plan: dict[str, Any]) -> None:
        for key, value in plan.items():
            held = there.get(key) if isinstance(there, dict) else None
            if held != value:
                raise UsageError(
                    f"{self.path} holds other embeddings ({key} is {held!r}, not {value!r}); choose another --out"
                )

    def pending(self, part: int = 0, num_parts: int = 1) -> list[Shard]:
        """Shards not yet written; of `num_parts` processes, number `part` takes every num_parts-th."""
        return [
            shard
            for shard in self.shards
            if shard.index % num_parts == part and not shard.file(self.path, "json").exists()
        ]

    def write(self, shard: Shard, embeddings: Mapping[str, np.ndarray], rows: Mapping[str, Sequence[Any]]) -> None:
        """One shard whole: matrices, the rows' columns, and last its checksums, which make it count.

        Args:
            embeddings: modality -> [row, dim] finite floats.
            rows: `id` and any of `group`, `split`, `captions`, label columns; one value per row.

        Raises:
            DataRefused: NaN or infinite values, or values beyond the range of the stored precision.
        """
        count = shard.stop - shard.start
        lengths = {name: len(values) for name, values in {**embeddings, **rows}.items()}
        if set(lengths.values()) != {count} or "id" not in rows:
            raise ValueError(f"shard {shard.index} takes {count} rows of every matrix and an id column, got {lengths}")
        stored = {}
        for name, matrix in embeddings.items():
            with np.errstate(over="ignore"):
                stored[name] = np.ascontiguousarray(matrix, dtype=self.dtype)
            bad = ~np.isfinite(stored[name]).all(axis=1)
            refuse_rows(name, "hold NaN, infinite values or values too large for the precision", bad, rows["id"])
        table = pa.table({name: pa.array(list(values)) for name, values in rows.items()})
        sink = pa.BufferOutputStream()
        pq.write_table(table, sink, compression="zstd")
        files.write_bytes(shard.file(self.path, "safetensors"), save(stored))
        files.write_bytes(shard.file(self.path, "parquet"), sink.getvalue().to_pybytes())
        summary = {
            "rows": count,
            "dims": {name: int(matrix.shape[1]) for name, matrix in stored.items()},
            "sha256": {suffix: files.sha256_of(shard.file(self.path, suffix)) for suffix in ("safetensors", "parquet")},
        }
        files.write_json(shard.file(self.path, "json"), summary)

    def finish(self) -> bool:
        """Write the index when every shard is there; False while some are missing (other processes write them)."""
        if self.pending():
            return False
        shards = [files.read_json(shard.file(self.path, "json")) for shard in self.shards]
        for shard, summary in zip(self.shards, shards, strict=True):
            if summary["dims"] != shards[0]["dims"]:
                raise DataRefused(f"{self.path}: shard {shard.index} has {summary['dims']}, not {shards[0]['dims']}")
        files.write_json(self.path / INDEX_FILE, {**self.plan, "dims": shards[0]["dims"], "shards": shards})
        return True


def read_embeddings(*paths: str | Path) -> EmbeddingSet:
    """Embeddings directories and files (.npz, .safetensors, .parquet with a matrix per modality), read as one.

    Sets of the same modalities are put end to end; sets of other modalities are joined by id, whatever their order.

    Raises:
        UsageError: nothing there, an unfinished directory, sets that overlap in some modalities only.
        DataRefused: damage, ids that repeat or do not match, row counts that differ, rows of NaN or zeros.
    """
    if not paths:
        raise UsageError("no embeddings given")
    by_modalities: dict[tuple[str, ...], list[EmbeddingSet]] = {}
    for path in map(Path, paths):
        found = _read_directory(path) if path.is_dir() else _from_file(path)
        by_modalities.setdefault(tuple(sorted(found.modalities)), []).append(found)
    whole = reduce(_join, [_end_to_end(parts) for parts in by_modalities.values()])
    check_rows(whole)
    return whole


def read_arrays(
    modalities: Mapping[str, str | Path],
    labels: str | Path | None = None,
    groups: str | Path | None = None,
) -> EmbeddingSet:
    """One file per modality (`--image A.npy --text B.npy`), rows aligned; labels and groups with one line per row.

    Raises:
        UsageError: a missing file, an unknown format.
        DataRefused: row counts that differ, ids that do not match, rows of NaN or zeros, integers, objects.
    """
    found = {name: read_matrix(Path(path), name) for name, path in modalities.items()}
    counts = {name: len(one.matrices[name]) for name, one in found.items()}
    if len(set(counts.values())) > 1:
        listed = ", ".join(f"{name} {count} ({modalities[name]})" for name, count in counts.items())
        raise DataRefused(f"row counts differ: {listed}; row i of every file must be one pair")
    parts = [_as_set(one, Path(modalities[name])) for name, one in found.items()]
    named = [part for part, one in zip(parts, found.values(), strict=True) if one.ids is not None]
    for part in named[1:]:
        _check_same_ids(named[0].ids, part.ids)
    first = named[0] if named else parts[0]
    whole = replace(
        first,
        embeddings={name: one.matrices[name] for name, one in found.items()},
        info={"source": {name: str(path) for name, path in modalities.items()}},
    )
    if labels is not None:
        whole = replace(whole, labels={"label": read_lines(Path(labels), "labels", len(whole))})
    if groups is not None:
        whole = replace(whole, groups=read_lines(Path(groups), "groups", len(whole)))
        missing = [row for row, value in enumerate(whole.groups or []) if value == ""]
        if missing:
            raise DataRefused(f"{groups}: {len(missing)} rows have no group (first line {missing[0] + 1})")
    check_rows(whole)
    return whole


def check_rows(embeddings: EmbeddingSet) -> None:
    """Refuse rows without a direction and ids that repeat, named and counted."""
    seen: set[str] = set()
    twice = [name for name in embeddings.ids if name in seen or seen.add(name)]  # type: ignore[func-returns-value]
    if twice:
        raise DataRefused(f"{len(twice)} ids occur more than once (first {_listed(twice)}); ids name one row each")
    for name, matrix in embeddings.embeddings.items():
        if len(matrix) != len(embeddings):
            raise DataRefused(f"{name} has {len(matrix)} rows, but there are {len(embeddings)} ids")
        broken, zero = np.zeros(len(matrix), dtype=bool), np.zeros(len(matrix), dtype=bool)
        for start in range(0, len(matrix), ROWS_AT_ONCE):
            rows = np.asarray(matrix[start : start + ROWS_AT_ONCE])
            broken[start : start + len(rows)] = ~np.isfinite(rows).all(axis=1)
            zero[start : start + len(rows)] = ~rows.any(axis=1)
        refuse_rows(name, "hold NaN or infinite values", broken, embeddings.ids)
        refuse_rows(name, "are all zeros and have no direction", zero, embeddings.ids)


def refuse_rows(name: str, what: str, bad: np.ndarray, ids: Sequence[Any]) -> None:
    """Raise DataRefused that counts the marked rows and names the first ten, when there are any."""
    marked = np.flatnonzero(bad)
    if len(marked):
        raise DataRefused(f"{name}: {len(marked)} of {len(bad)} rows {what} ({_listed(_pick(ids, marked))})")


def _listed(names: Sequence[Any]) -> str:
    return ", ".join(map(str, names[:10]))


def _read_directory(path: Path) -> EmbeddingSet:
    if not (path / INDEX_FILE).is_file():
        if not (path / PLAN_FILE).is_file():
            raise UsageError(f"{path} is no embeddings directory ({INDEX_FILE} is missing); 'gapless embed' writes one")
        plan = files.read_json(path / PLAN_FILE)
        num_shards = -(-plan["num_rows"] // plan["shard_size"])
        done = len(list(path.glob("shard-*.json")))
        raise UsageError(f"{path} is unfinished ({done} of {num_shards} shards); run the same 'gapless embed' again")
    index = files.read_json(path / INDEX_FILE)
    if index.get("format") != FORMAT or index.get("version") != VERSION:
        raise UsageError(f"{path} is no embeddings directory that this gapless reads ({index.get('version')!r})")
    num_rows = index["num_rows"]
    matrices = {name: np.empty((num_rows, dim), dtype=index["dtype"]) for name, dim in index["dims"].items()}
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
        tables.append(pq.read_table(shard.file(path, "parquet")))
        start = shard.stop
    table = pa.concat_tables(tables, promote_options="default")
    columns = {name: table[name].to_pylist() for name in table.column_names}
    return replace(_as_set(ArrayFile(matrices, columns), path), info=index["info"])


def _from_file(path: Path) -> EmbeddingSet:
    found = read_array_file(path)
    if not found.matrices:
        raise DataRefused(f"{path} holds no [row, dim] matrix")
    return _as_set(found, path)


def _as_set(found: ArrayFile, path: Path) -> EmbeddingSet:
    """Columns by their names: id, group, split, caption; all others are labels."""
    counts = {name: len(matrix) for name, matrix in found.matrices.items()}
    counts |= {name: len(values) for name, values in found.columns.items()}
    if len(set(counts.values())) > 1:
        listed = ", ".join(f"{name} {count}" for name, count in counts.items())
        raise DataRefused(f"{path}: row counts differ: {listed}")
    num_rows = next(iter(counts.values()))

    def column(names: tuple[str, ...]) -> list[str] | None:
        values = next((found.columns[name] for name in names if name in found.columns), None)
        return None if values is None else [_text(value) for value in values]

    taken = {*ID_NAMES, *GROUP_NAMES, *SPLIT_NAMES, *CAPTION_NAMES}
    return EmbeddingSet(
        ids=column(ID_NAMES) or [str(row) for row in range(num_rows)],
        embeddings=found.matrices,
        groups=column(GROUP_NAMES),
        labels={name: values for name, values in found.columns.items() if name not in taken},
        splits=column(SPLIT_NAMES),
        captions=column(CAPTION_NAMES),
        info={"source": str(path)},
    )


def _text(value: Any) -> str:
    """A caption column may hold lists; the first one is the one that is embedded."""
    if isinstance(value, (list, tuple)):
        value = value[0] if value else ""
    return "" if value is None else str(value)


def _end_to_end(parts: list[EmbeddingSet]) -> EmbeddingSet:
    """Sets of the same modalities, one after the other; a column stays when all have it."""
    if len(parts) == 1:
        return parts[0]
    names = parts[0].modalities
    dims = {tuple(part.embeddings[name].shape[1] for name in names) for part in parts}
    if len(dims) > 1:
        raise DataRefused(
            f"the embeddings differ in dim ({' and '.join(map(str, sorted(dims)))}) for {', '.join(names)}"
        )

    def column(get: Any) -> Any:
        values = [get(part) for part in parts]
        return None if any(value is None for value in values) else [one for value in values for one in value]

    shared = [name for name in parts[0].labels if all(name in part.labels for part in parts)]
    return EmbeddingSet(
        ids=column(lambda part: part.ids),
        embeddings={name: np.concatenate([part.embeddings[name] for part in parts]) for name in names},
        groups=column(lambda part: part.groups),
        labels={name: column(lambda part, name=name: part.labels[name]) for name in shared},
        splits=column(lambda part: part.splits),
        captions=column(lambda part: part.captions),
        info={"parts": [part.info for part in parts]},
    )


def _join(first: EmbeddingSet, second: EmbeddingSet) -> EmbeddingSet:
    """Sets of different modalities, matched by id."""
    both = set(first.modalities) & set(second.modalities)
    if both:
        raise UsageError(
            f"cannot combine embeddings of {', '.join(first.modalities)} with {', '.join(second.modalities)}: "
            f"they share {', '.join(sorted(both))}"
        )
    _check_same_ids(sorted(first.ids), sorted(second.ids))
    if first.ids != second.ids:
        row_of = {name: row for row, name in enumerate(second.ids)}
        second = second.take([row_of[name] for name in first.ids])
    return EmbeddingSet(
        ids=first.ids,
        embeddings={**first.embeddings, **second.embeddings},
        groups=first.groups or second.groups,
        labels={**second.labels, **first.labels},
        splits=first.splits or second.splits,
        captions=first.captions or second.captions,
        info={"parts": [first.info, second.info]},
    )


def _check_same_ids(first: list[str], second: list[str]) -> None:
    if first == second:
        return
    only_first, only_second = sorted(set(first) - set(second)), sorted(set(second) - set(first))
    if only_first or only_second:
        raise DataRefused(
            f"ids do not match: {len(only_first)} only in the first ({_listed(only_first) or 'none'}), "
            f"{len(only_second)} only in the second ({_listed(only_second) or 'none'})"
        )
    row = next((row for row, pair in enumerate(zip(first, second, strict=False)) if pair[0] != pair[1]), len(first))
    raise DataRefused(f"ids stand in another order or repeat: row {row} differs; row i of every file must be one pair")
