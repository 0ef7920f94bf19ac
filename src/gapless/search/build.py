"""Writing a collection: the rows of a manifest, embedded by a model, as one new version of the table.

The rows are embedded into a staging directory first, shard by shard, so that an interrupted run goes on where it was.
Then all of them enter the table in one commit: a reader sees the collection as it was, or as it is.
"""

import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from safetensors.numpy import load_file

from gapless.core.errors import UsageError
from gapless.core.files import check_new_directory, read_json
from gapless.core.geometry import unit_norm
from gapless.core.locks import LOCK_FILE, only_writer
from gapless.core.values import name_of
from gapless.embeddings.embedding_set import EmbeddingSet
from gapless.embeddings.store import INDEX_FILE, PRESENT, Shard
from gapless.inference.embed import Source
from gapless.search.changes import Changes, changes_of, check_label_kinds
from gapless.search.collection import (
    TABLE,
    Collection,
    connect,
    is_remote,
    key_of,
    table_names,
)
from gapless.search.deleted_rows import forget, remember
from gapless.search.engine import reading
from gapless.search.facts import Facts, joined_kind
from gapless.search.filter_terms import of_keys
from gapless.search.kinds import kind_of
from gapless.search.rebalance import forget_deleted
from gapless.search.row_contents import digest
from gapless.search.samples import Samples
from gapless.search.table_rows import Chunk, batches_of, schema_of

STAGING = "staging"
STAGED_ROWS = 1024  # rows of a staged shard: what an interruption costs at most


def staged(part: Samples, place: Path, fingerprint: str, embed: Callable[[Source, Path, int], Any]) -> Iterator[Chunk]:
    """Samples embedded into a directory that is named after them: an interrupted run finds its own again.

    Args:
        embed: writes a source's embeddings into a directory in shards of so many rows, and keeps those that are there.
    """
    source = part.staged_source
    directory = place / digest([source.data, fingerprint])
    for other in place.iterdir():
        if other.is_dir() and other != directory:
            shutil.rmtree(other)  # what an interrupted run left for other rows or another model
    embed(source, directory, STAGED_ROWS)
    return staged_chunks(directory)


def staged_chunks(directory: Path) -> Iterator[Chunk]:
    """The shards of a finished staging directory."""
    start = 0
    for number, summary in enumerate(read_json(directory / INDEX_FILE)["shards"]):
        shard = Shard(number, start, start + summary["rows"])
        table = pq.read_table(shard.file(directory, "parquet"))
        tensors = load_file(shard.file(directory, "safetensors"))
        masks = {name.removeprefix(PRESENT): of for name, of in tensors.items() if name.startswith(PRESENT)}
        vectors = {name: of for name, of in tensors.items() if not name.startswith(PRESENT)}
        yield Chunk(vectors, {name: table[name].to_pylist() for name in table.column_names}, masks)
        start = shard.stop


def ready_chunks(samples: Samples, embeddings: EmbeddingSet) -> Iterator[Chunk]:
    """Samples whose embeddings are there already."""
    row_of = {sample: row for row, sample in enumerate(embeddings.ids)}
    for start in range(0, len(samples.ids), STAGED_ROWS):
        part = samples.take(range(start, min(start + STAGED_ROWS, len(samples.ids))))
        rows = [row_of[sample] for sample in part.ids]
        matrices = {}
        for name, matrix in embeddings.embeddings.items():
            vectors = np.asarray(matrix[rows], dtype=np.float32)
            rounded = matrix.dtype != np.float32  # rows stored in half precision have lost their norm
            matrices[name] = unit_norm(torch.from_numpy(vectors)).numpy() if rounded else vectors
        yield Chunk(matrices, part.columns, part.source.present or {})


def write_collection(
    uri: str,
    samples: Samples,
    info: Mapping[str, Any],
    chunks: Callable[[Samples, Path], Iterator[Chunk]],
    *,
    update: bool = False,
    restore_deleted: bool = False,
    text_labels: Sequence[str] = (),
    staging: Path | None = None,
) -> tuple[Collection, Changes]:
    """Bring the samples into a collection, in one commit; the collection is made if it is not there.

    Args:
        info: what a new collection records: model, embedding_dim, modalities, labels.
        chunks: embeds samples, with a directory to work in that an interrupted run finds again.
        update: samples that differ from those in the collection replace them; rows of modalities that they lack go.
        restore_deleted: rows that were deleted from the collection come back; they stay out without it.
        text_labels: labels that hold numbers alone and may take words from now on.
        staging: where to work; by default inside the collection, which must be a directory then.

    Raises:
        UsageError: the directory holds something else, a collection of another model or other labels, or another
            process is writing it. DataRefused: samples that differ from those in the collection, words for a label of
            numbers.
    """
    if staging is None and is_remote(uri):
        raise UsageError(f"{uri} is no directory: say with --staging where its rows may be prepared")
    collection = existing(uri)
    if collection is not None:
        collection.check_model(info["model"]["fingerprint"])
        unknown = [label for label in info["labels"] if label not in collection.info["labels"]]
        if unknown:
            known = ", ".join(collection.info["labels"]) or "none"
            raise UsageError(f"{uri} has no label {unknown[0]!r} (it has {known}); index into a new collection")
        info = collection.info
    with working_directory(uri, staging) as place:
        changes = changes_of(samples, collection, update=update, restore=restore_deleted)
        if collection is not None and changes.withdrawn:
            forget_deleted(collection, changes.withdrawn)
        if changes.written:
            part = samples.take(changes.written, changes.rows)
            if collection is not None:
                labels = {label: part.source.columns[label] for label in part.labels}
                check_label_kinds(collection, part.ids, labels, text_labels)
            schema = schema_of(info, collection is None or collection.has_previews)
            batches = pa.RecordBatchReader.from_batches(
                schema, batches_of(chunks(part, place), info, samples.origin, schema)
            )
            with reading(uri):
                before = None if collection is None or changes.replaces else collection.facts()
                commit(uri, collection, batches, changes.replaces, changes.withdrawn)
                if before is not None:
                    keep_kinds(uri, before, part)
        elif changes.withdrawn:
            assert collection is not None
            with reading(uri):
                collection.table.delete(of_keys(changes.withdrawn))
        if collection is not None and restore_deleted:
            back = [key_of(samples.ids[number], name) for number, names in changes.rows.items() for name in names]
            forget(collection, back)
    return Collection.open(uri), changes


def keep_kinds(uri: str, before: Facts, part: Samples) -> None:
    """Note what the labels hold now that samples were added, where it was known of the rows before.

    Without it every run would read the whole column of a label. Another process that wrote in between, and so made
    further versions, leaves nothing to note.
    """
    collection = Collection.open(uri)
    version = int(collection.table.version)
    if before.version != version - 1:
        return
    kinds = dict(before.kinds)
    for label, column in collection.info["labels"].items():
        if label in part.labels and column in kinds:
            values = [name_of(value) or None for value in part.source.columns[label]]
            kinds[column] = joined_kind(kinds[column], kind_of(pa.array(values, pa.string())))
    collection.keep_facts(replace(before, version=version, kinds=kinds))


def existing(uri: str) -> Collection | None:
    """The collection at an address, or None where one may be made.

    Raises:
        UsageError: a file, or a directory with something else in it.
    """
    if is_remote(uri):
        with reading(uri):
            return Collection.open(uri) if TABLE in table_names(connect(uri)) else None
    path = Path(uri)
    own = {STAGING, f"{TABLE}.lance"}
    if path.is_dir() and {entry.name for entry in path.iterdir()} <= own and not is_committed(path):
        return None
    if not path.exists():
        check_new_directory(path)
        return None
    if not (path / f"{TABLE}.lance").is_dir():
        raise UsageError(f"{uri} is in use and no collection; choose another --out or remove it")
    return Collection.open(uri)


def is_committed(path: Path) -> bool:
    """Whether the table of a directory has a version; a first commit that was killed leaves files without one."""
    return any((path / f"{TABLE}.lance" / "_versions").glob("*.manifest"))


@contextmanager
def working_directory(uri: str, staging: Path | None) -> Iterator[Path]:
    """A directory that one process at a time works in; it goes when the work is done, and stays when it is not.

    A directory that the user names holds other things: the work has one of its own in there.
    """
    place = Path(uri) / STAGING if staging is None else staging / f"gapless-{digest(uri)}"
    with only_writer(place, named=uri):
        yield place
        for entry in place.iterdir():
            if entry.name != LOCK_FILE:
                shutil.rmtree(entry)


def commit(
    uri: str, collection: Collection | None, rows: pa.RecordBatchReader, replaces: bool, withdrawn: Sequence[str] = ()
) -> None:
    """All rows enter the table, and those that are withdrawn leave it, or nothing happens.

    Args:
        replaces: whether some of the rows are in the table already.
        withdrawn: keys.
    """
    if collection is None:
        if not is_remote(uri):
            shutil.rmtree(Path(uri) / f"{TABLE}.lance", ignore_errors=True)  # of a first commit that was killed
        connect(uri).create_table(TABLE, data=rows, schema=rows.schema, mode="create")
    elif replaces:
        merge = collection.table.merge_insert("row").when_matched_update_all().when_not_matched_insert_all()
        if withdrawn:
            merge = merge.when_not_matched_by_source_delete(of_keys(withdrawn))
        merge.execute(rows)
    else:
        collection.table.add(rows)


def delete_rows(collection: Collection, where: str) -> int:
    """Delete the rows that a filter lets through; gives their number.

    They stay out of the collection: a later run of `gapless index` on the same data skips them and says so.
    """
    condition = collection.condition(where=where)
    with reading(collection.uri, where):
        rows = collection.table.search().where(condition.sql).select(["row", "content"]).to_arrow()
    remember(collection, dict(zip(rows["row"].to_pylist(), rows["content"].to_pylist(), strict=True)))
    forget_deleted(collection, rows["row"].to_pylist())
    with reading(collection.uri, where):
        return int(collection.table.delete(condition.sql).num_deleted_rows)
