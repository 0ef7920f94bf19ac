"""`gapless index` as one call: a model over a manifest, or embeddings of that model, into a collection."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gapless.core.errors import UsageError, listed
from gapless.core.results import Result
from gapless.embeddings.dataset import VectorPairs
from gapless.embeddings.embedding_set import EmbeddingSet
from gapless.inference.embed import Source, check_complete, columns_of, write_embeddings
from gapless.inference.embed_data import RowsToEmbed, opened_rows
from gapless.manifest.manifest import Manifest
from gapless.models.aligner import GaplessModel
from gapless.models.fingerprint import fingerprint_of
from gapless.models.load import load_model
from gapless.models.safe_loading import on_accelerator
from gapless.search.balance import checked_correction
from gapless.search.balance_store import BalanceSettings
from gapless.search.build import Chunk, label_columns, ready_chunks, staged, write_collection
from gapless.search.changes import Changes, missing_from
from gapless.search.collection import FORMAT, VERSION, key_of
from gapless.search.indices import ANN_ABOVE, check_kind, update_indices
from gapless.search.rebalance import encoded, texts_of, update_balance
from gapless.search.samples import Samples


@dataclass(frozen=True)
class Indexed(Result):
    """What a run did to a collection; samples are counted, but for `rows`.

    Args:
        collection: its directory or address.
        rows: of the collection now, one for each sample and modality.
        added, updated, unchanged: samples of the data.
        restored: samples whose rows were deleted and came back.
        deleted: samples with rows that were deleted from the collection and stay out.
        not_in_data: samples of the collection that its data do not hold any more; they stay.
        labels: label -> "number", "text" or "empty", which says how a filter compares it.
        index: `{"recall@10": share}` of an approximate index against exact search, in [0, 1]; None without one.
        balance: modality asked with -> modality held -> offset of the balanced scores of a mixed search; None where
            the collection has no balance.
        unbalanced: why it has none, as the end of a sentence; None where it has one.
        notes: rows that stay out, and rows that stay in, although the data say otherwise.
    """

    collection: str
    rows: int
    added: int
    updated: int
    unchanged: int
    restored: int
    deleted: int
    not_in_data: int
    labels: Mapping[str, str]
    index: Mapping[str, float] | None
    balance: Mapping[str, Mapping[str, float]] | None
    unbalanced: str | None
    notes: tuple[str, ...] = ()


def index(
    model: str | Path | Sequence[str | Path],
    *,
    data: RowsToEmbed,
    out: str | Path,
    split: str | None = None,
    update: bool = False,
    restore_deleted: bool = False,
    text_labels: Sequence[str] = (),
    bank: str | Path | Sequence[str] | None = None,
    hub_correction: float = 0.0,
    seed: int = 0,
    ann: str | None = None,
    ann_above: int = ANN_ABOVE,
    staging: str | Path | None = None,
    ray: str | None = None,
    batch_size: int = 256,
    workers: int = 0,
) -> Indexed:
    """Make a collection of a data set, or bring what is new into one that is there, in one commit.

    Example:
        >>> import gapless
        >>> indexed = gapless.index("run", data="data", out="collection")
        >>> indexed.rows == 2 * indexed.added
        True

    Args:
        model: a run or model directory, or whatever `gapless.models.load_model` takes; several for separate encoders.
        data: a manifest, or embeddings; those of this very model are taken as they are. Or the directory of either.
        out: the collection: a directory, or s3://...
        split: only these rows; by default all.
        update: samples that differ from the collection's replace them.
        restore_deleted: rows that were deleted from the collection come back.
        text_labels: labels that hold numbers alone and may take words from now on.
        bank: queries to learn the balance of a mixed search with, one a line of a file, or a list; by default the
            collection's own texts are asked.
        hub_correction: how much of what the bank's queries score with a row is taken from it in a mixed search, from
            0 (nothing) to 1.
        seed: of the draw of the rows that the balance is learnt from.
        ann: approximate index of the vectors: hnsw, ivf-pq or ivf-flat.
        ann_above: rows above which one is made without `ann`.
        staging: where to prepare rows; needed for an object store.
        ray: embed on a Ray cluster: its address, "auto", or "local".
        batch_size: rows that the model reads at once.
        workers: processes that read images.

    Raises:
        UsageError: no such model, encoders without a common space, or `out` is another model's or no collection.
        DataRefused: samples that differ from the collection's without `update`, words for a label of numbers.
    """
    check_kind(ann)
    hub_correction = checked_correction(hub_correction)
    texts = texts_of(bank)
    names = [str(name) for name in ([model] if isinstance(model, str | Path) else model)]
    loaded = load_model(names)
    if loaded.config.embedding_dim is None:
        raise UsageError("the encoders have no space in common; 'gapless close' makes one")
    loaded = on_accelerator(loaded)
    fingerprint = fingerprint_of(loaded)
    samples, ready = _samples_of(opened_rows(data, split), _name_of(data), loaded, fingerprint)

    def embed(source: Source, directory: Path, shard_size: int) -> None:
        options: dict[str, Any] = {"names": names, "shard_size": shard_size, "batch_size": batch_size}
        if ray:
            from gapless.inference.embed_ray import write_embeddings_on_ray

            write_embeddings_on_ray(ray, loaded, source, directory, **options)
        else:
            write_embeddings(loaded, source, directory, num_workers=workers, **options)

    def chunks(part: Samples, place: Path) -> Iterator[Chunk]:
        return ready_chunks(part, ready) if ready is not None else staged(part, place, fingerprint, embed)

    collection, changes = write_collection(
        str(out),
        samples,
        {
            "format": FORMAT,
            "version": VERSION,
            "model": {"source": names, "fingerprint": fingerprint},
            "embedding_dim": loaded.config.embedding_dim,
            "modalities": list(loaded.modalities),
            "labels": label_columns(samples.labels),
        },
        chunks,
        update=update,
        restore_deleted=restore_deleted,
        text_labels=text_labels,
        staging=None if staging is None else Path(staging),
    )
    made = update_indices(collection, ann, ann_above)
    vectors = None if texts is None else encoded(loaded, texts, batch_size)
    replaced = frozenset(
        key_of(samples.ids[number], name) for number in changes.updated for name in collection.info["modalities"]
    )
    balancing = update_balance(collection, BalanceSettings(hub_correction, vectors, seed), replaced)
    missing = missing_from(collection, samples.ids, samples.origin, split)
    return Indexed(
        collection=str(out),
        rows=collection.count(),
        added=len(changes.added),
        updated=len(changes.updated),
        unchanged=changes.unchanged,
        restored=len(changes.restored),
        deleted=len(changes.deleted),
        not_in_data=len(missing),
        labels={label: collection.label_kind(label) for label in collection.info["labels"]},
        index=made,
        balance=balancing.offsets,
        unbalanced=balancing.reason,
        notes=_notes_on(samples.ids, changes, missing),
    )


def _samples_of(
    rows: Manifest | EmbeddingSet, name: str, model: GaplessModel, fingerprint: str
) -> tuple[Samples, EmbeddingSet | None]:
    """The samples of the rows, and the embeddings themselves where this model has made them already."""
    if isinstance(rows, Manifest):
        check_complete(model, rows)
        return Samples.of_manifest(Source.of_manifest(model, rows), rows), None
    origin = str((rows.info.get("data") or {}).get("source") or name)
    if (rows.info.get("model") or {}).get("fingerprint") == fingerprint:
        source = Source(VectorPairs(rows.embeddings, rows.ids), columns_of(rows), {})
        return Samples.of_embeddings(source, rows, origin), rows
    return Samples.of_embeddings(Source.of_embeddings(model, rows), rows, origin), None


def _name_of(data: RowsToEmbed) -> str:
    return Path(data).name if isinstance(data, str | Path) else "embeddings"


def _notes_on(ids: Sequence[str], changes: Changes, missing: Sequence[str]) -> tuple[str, ...]:
    """What a run left as it was although the data say otherwise: rows that stay out, and rows that stay in."""
    notes = []
    if changes.deleted:
        named = listed([ids[number] for number in changes.deleted])
        since = f", {changes.changed_since:,} of them changed since," if changes.changed_since else ""
        notes.append(
            f"{len(changes.deleted):,} samples have rows that were deleted from this collection{since} and stay out "
            f"({named}); --restore_deleted brings them back"
        )
    if missing:
        notes.append(
            f"{len(missing):,} samples of the collection are no longer in its data and stay ({listed(missing)}); "
            "'gapless index delete' removes rows"
        )
    return tuple(notes)
