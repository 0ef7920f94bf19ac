"""`gapless index` as one call: a model over a manifest, or embeddings of that model, into a collection."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gapless.core.errors import UsageError, listed
from gapless.core.results import Result
from gapless.embeddings.dataset import VectorPairs
from gapless.embeddings.embedding_set import EmbeddingSet
from gapless.embeddings.missing import KEEP
from gapless.embeddings.sources import is_embeddings_directory
from gapless.embeddings.store import read_embeddings
from gapless.inference.embed import Source, check_names, columns_of, write_embeddings
from gapless.inference.embed_data import RowsToEmbed, opened_rows
from gapless.manifest.manifest import Manifest
from gapless.models.aligner import GaplessModel
from gapless.models.fingerprint import fingerprint_of
from gapless.models.load import load_model
from gapless.models.safe_loading import on_accelerator
from gapless.search.balance import checked_correction
from gapless.search.balance_store import BalanceSettings
from gapless.search.build import ready_chunks, staged, write_collection
from gapless.search.changes import Changes, missing_from
from gapless.search.collection import FORMAT, VERSION
from gapless.search.indices import ANN_ABOVE, RECALL, check_kind, checked_recall, update_indices
from gapless.search.query_length import words_modality
from gapless.search.rebalance import encoded, texts_of, update_balance
from gapless.search.samples import Samples
from gapless.search.table_rows import Chunk, label_columns


@dataclass(frozen=True)
class Indexed(Result):
    """What a run did to a collection; samples are counted, but for `rows`.

    Args:
        collection: its directory or address.
        rows: of the collection now, one for each modality that a sample has.
        modalities: modality -> how many of these rows it has.
        added, updated, unchanged: samples of the data.
        extended: samples that are there and bring a modality or a caption which they lacked; the row is added, and the
            others stay, but for the caption that they show.
        withdrawn: rows that left the collection, because their samples lack the modality now.
        restored: samples whose rows were deleted and came back.
        deleted: samples with rows that were deleted from the collection and stay out.
        not_in_data: samples of the collection that its data do not hold any more; they stay.
        labels: label -> "number", "text" or "empty", which says how a filter compares it.
        index: of an approximate index, `recall@10` against exact search in [0, 1], the `queries` that it was measured
            with, and how searches ask it (`kind`, `target`, `nprobes`, `ef`, `candidates`); None without one.
        balance: modality asked with -> modality held -> offset of the balanced scores of a mixed search; None where
            the collection has no balance.
        unbalanced: why it has none, as the end of a sentence; None where it has one.
        notes: modalities and samples without a row, rows that stay out, and rows that stay in, although the data say
            otherwise.
    """

    collection: str
    rows: int
    modalities: Mapping[str, int]
    added: int
    extended: int
    updated: int
    unchanged: int
    withdrawn: int
    restored: int
    deleted: int
    not_in_data: int
    labels: Mapping[str, str]
    index: Mapping[str, Any] | None
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
    ann_recall: float = RECALL,
    staging: str | Path | None = None,
    ray: str | None = None,
    batch_size: int = 256,
    workers: int | None = None,
) -> Indexed:
    """Make a collection of a data set, or bring what is new into one that is there, in one commit.

    Examples:
        >>> import gapless
        >>> indexed = gapless.index("run", data="data", out="collection")
        >>> indexed.rows == 2 * indexed.added
        True

    Args:
        model: a run or model directory, or whatever `gapless.models.load_model` takes; several for separate encoders.
        data: a manifest, or embeddings; those of this very model are taken as they are. Or the directory of either.
        out: the collection: a directory, or s3://...
        split: only these rows; by default all.
        update: samples that differ from the collection's replace them; a row whose modality they lack now goes.
        restore_deleted: rows that were deleted from the collection come back.
        text_labels: labels that hold numbers alone and may take words from now on.
        bank: queries to learn the balance of a mixed search with, one a line of a file, or a list; by default the
            collection's own texts are asked.
        hub_correction: how much of what the bank's queries score with a row is taken from it in a mixed search, from
            0 (nothing) to 1.
        seed: of the draw of the rows that the balance is learnt from.
        ann: approximate index of the vectors: ivf-flat, ivf-rq, ivf-pq or hnsw.
        ann_above: rows above which one is made without `ann`.
        ann_recall: the least recall@10 of it; it is asked more broadly until it reaches that.
        staging: where to prepare rows; needed for an object store.
        ray: embed on a Ray cluster: its address, "auto", or "local".
        batch_size: rows that the model reads at once.
        workers: processes that read images; by default as for `gapless.embed`.

    Raises:
        UsageError: no such model, encoders without a common space, an index that their dim cannot have, or `out` is
            another model's or no collection.
        DataRefused: samples that differ from the collection's without `update`, words for a label of numbers.
    """
    check_kind(ann)
    ann_recall = checked_recall(ann_recall)
    hub_correction = checked_correction(hub_correction)
    texts = texts_of(bank)
    names = [str(name) for name in ([model] if isinstance(model, str | Path) else model)]
    loaded = load_model(names)
    if loaded.config.embedding_dim is None:
        raise UsageError("the encoders have no space in common; 'gapless close' makes one")
    check_kind(ann, loaded.config.embedding_dim)
    loaded = on_accelerator(loaded)
    fingerprint = fingerprint_of(loaded)
    rows = _opened(data, split)
    samples, ready = _samples_of(rows, _name_of(data), loaded, fingerprint)

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
    made = update_indices(collection, ann, ann_above, ann_recall)
    words = words_modality(loaded)
    vectors = None if texts is None else encoded(loaded, words, texts, batch_size)
    settings = BalanceSettings(hub_correction, vectors, words or "text", seed)
    balancing = update_balance(collection, settings, changes.replaced(samples.ids))
    missing = missing_from(collection, samples.ids, samples.origin, split)
    return Indexed(
        collection=str(out),
        rows=collection.count(),
        modalities=collection.rows_per_modality(),
        added=len(changes.added),
        extended=len(changes.extended),
        updated=len(changes.updated),
        unchanged=changes.unchanged,
        withdrawn=len(changes.withdrawn),
        restored=len(changes.restored),
        deleted=len(changes.deleted),
        not_in_data=len(missing),
        labels={label: collection.label_kind(label) for label in collection.info["labels"]},
        index=made,
        balance=balancing.offsets,
        unbalanced=balancing.reason,
        notes=(*_notes_on_modalities(samples, loaded, rows), *samples.notes, *_notes_on(samples.ids, changes, missing)),
    )


def _opened(data: RowsToEmbed, split: str | None) -> Manifest | EmbeddingSet:
    """The rows of the data, any modality of them absent."""
    if isinstance(data, str | Path) and is_embeddings_directory(data):
        data = read_embeddings(data, missing=KEEP, least=1)
    return opened_rows(data, split)


def _samples_of(
    rows: Manifest | EmbeddingSet, name: str, model: GaplessModel, fingerprint: str
) -> tuple[Samples, EmbeddingSet | None]:
    """The samples of the rows, and the embeddings themselves where this model has made them already."""
    if isinstance(rows, Manifest):
        names = [name for name in model.modalities if name in rows.modalities]
        if not names:
            check_names(model.modalities, rows)
        source = Source.of_manifest(model, rows, names)
        return Samples.of_manifest(source, rows, {name: model.preprocessor(name) for name in names}), None
    origin = str((rows.info.get("data") or {}).get("source") or name)
    if (rows.info.get("model") or {}).get("fingerprint") == fingerprint:
        present = None if rows.is_complete else rows.presence
        source = Source(VectorPairs(rows.embeddings, rows.ids), columns_of(rows), {}, present=present)
        return Samples.of_embeddings(source, rows, origin), rows
    return Samples.of_embeddings(Source.of_embeddings(model, rows), rows, origin, model.modalities), None


def _name_of(data: RowsToEmbed) -> str:
    return Path(data).name if isinstance(data, str | Path) else "embeddings"


def _notes_on_modalities(samples: Samples, model: GaplessModel, rows: Manifest | EmbeddingSet) -> tuple[str, ...]:
    """Modalities of the model that no row has, and samples that have none of the model's modalities."""
    notes = []
    without = [name for name in model.modalities if name not in samples.contents or name in samples.without_rows]
    if without:
        where = str(rows.path) if isinstance(rows, Manifest) else rows.origin
        notes.append(
            f"no row of {where} has {listed(without)}, which the model takes, so none of it was indexed; the data have "
            f"{listed([name for name in rows.modalities if name not in without])}"
        )
    empty = [
        sample for sample, *digests in zip(samples.ids, *samples.contents.values(), strict=True) if not any(digests)
    ]
    if empty:
        notes.append(
            f"{len(empty):,} samples have none of the modalities that the model takes, and no row ({listed(empty)})"
        )
    return tuple(notes)


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
