"""`gapless index, index delete, search`: a collection of embeddings, and what is near a query in it."""

from pathlib import Path
from typing import Any

from gapless.cli.verb import Arguments, Outcome, Parser, Verb, terminal_width
from gapless.core.errors import UsageError, listed


def index_arguments(parser: Parser) -> None:
    parser.add_argument("model", nargs="+", help="what 'gapless embed' takes")
    parser.add_argument("--data", type=Path, required=True, help="manifest, or embeddings of this model")
    parser.add_argument("--out", required=True, help="collection: a directory or s3://..., made or added to")
    parser.add_argument("--split", default=None, help="only these rows; default all")
    parser.add_argument("--update", action="store_true", help="replace samples that differ from the collection's")
    parser.add_argument("--restore_deleted", action="store_true", help="bring rows back that were deleted")
    parser.add_argument(
        "--text_labels", nargs="+", default=[], help="labels of numbers that may take words from now on"
    )
    parser.add_argument("--ann", default=None, help="approximate index of the vectors: hnsw, ivf-pq or ivf-flat")
    parser.add_argument("--ann_above", type=int, default=None, help="rows above which one is made without --ann")
    parser.add_argument("--staging", type=Path, default=None, help="where to prepare rows; needed for an object store")
    parser.add_argument("--ray", default=None, help="embed on a Ray cluster: its address, 'auto', or 'local'")
    parser.add_argument("--batch_size", type=int, default=256, help="rows that the model reads at once")
    parser.add_argument("--workers", type=int, default=0, help="processes that read images")


def index(args: Arguments) -> Outcome:
    import torch

    from gapless.inference.embed import write_embeddings
    from gapless.models.foreign import fingerprint_of, load_model
    from gapless.search.build import STAGED_ROWS, label_columns, ready_chunks, staged, write_collection
    from gapless.search.changes import missing_from
    from gapless.search.collection import FORMAT, VERSION
    from gapless.search.indices import ANN_ABOVE, check_kind, update_indices

    check_kind(args.ann)
    model = load_model(args.model)
    if model.config.embedding_dim is None:
        raise UsageError("the encoders have no space in common; 'gapless close' makes one")
    model.to(torch.device("cuda" if torch.cuda.is_available() else "cpu"))  # type: ignore[arg-type]
    fingerprint = fingerprint_of(model)
    samples, ready = samples_of(args, model, fingerprint)

    def embed(source: Any, directory: Path) -> None:
        options = {"names": args.model, "shard_size": STAGED_ROWS, "batch_size": args.batch_size}
        if args.ray:
            from gapless.inference.embed_ray import write_embeddings_on_ray

            write_embeddings_on_ray(args.ray, model, source, directory, **options)
        else:
            write_embeddings(model, source, directory, num_workers=args.workers, **options)

    def chunks(part: Any, place: Path) -> Any:
        return ready_chunks(part, ready) if ready else staged(part, place, fingerprint, embed)

    info = {
        "format": FORMAT,
        "version": VERSION,
        "model": {"source": list(args.model), "fingerprint": fingerprint},
        "embedding_dim": model.config.embedding_dim,
        "modalities": list(model.modalities),
        "labels": label_columns(samples.labels),
    }
    collection, changes = write_collection(
        args.out,
        samples,
        info,
        chunks,
        update=args["update"],  # `args.update` is a method of the namespace, and so always true
        restore_deleted=args.restore_deleted,
        text_labels=args.text_labels,
        staging=args.staging,
    )
    recall = update_indices(collection, args.ann, ANN_ABOVE if args.ann_above is None else args.ann_above)
    missing = missing_from(collection, samples.ids, samples.origin, args.split)
    value = {
        "collection": args.out,
        "rows": collection.count(),
        "added": len(changes.added),
        "updated": len(changes.updated),
        "unchanged": changes.unchanged,
        "restored": len(changes.restored),
        "deleted": len(changes.deleted),
        "not_in_data": len(missing),
        "labels": {label: collection.label_kind(label) for label in collection.info["labels"]},
        "index": recall,
    }
    note = f"\napproximate index: recall@10 {recall['recall@10']:.3f} of exact search" if recall else ""
    counts = f"{value['added']:,} samples added, {value['updated']:,} updated, {value['unchanged']:,} unchanged"
    counts += f", {value['restored']:,} restored" if changes.restored else ""
    text = f"{counts}; {value['rows']:,} rows{note}\n{args.out}"
    return Outcome(value, text, notes=index_notes(samples.ids, changes, missing))


def index_notes(ids: Any, changes: Any, missing: Any) -> tuple[str, ...]:
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


def samples_of(args: Arguments, model: Any, fingerprint: str) -> Any:
    """The samples of `--data`, and the embeddings themselves where this model has made them already."""
    from gapless.embeddings.dataset import VectorPairs
    from gapless.embeddings.store import PLAN_FILE, read_embeddings
    from gapless.inference.embed import Source, columns_of
    from gapless.manifest.manifest import Manifest
    from gapless.search.build import Samples

    if not (args.data / PLAN_FILE).exists():
        manifest = Manifest.read(args.data)
        manifest = manifest.select(args.split) if args.split else manifest
        return Samples.of_manifest(Source.of_manifest(model, manifest), manifest), None
    embeddings = read_embeddings(args.data)
    embeddings = embeddings.select(args.split) if args.split else embeddings
    origin = str((embeddings.info.get("data") or {}).get("source") or args.data.name)
    if (embeddings.info.get("model") or {}).get("fingerprint") == fingerprint:
        source = Source(VectorPairs(embeddings.embeddings, embeddings.ids), columns_of(embeddings), {})
        return Samples.of_embeddings(source, embeddings, origin), embeddings
    return Samples.of_embeddings(Source.of_embeddings(model, embeddings), embeddings, origin), None


def delete_arguments(parser: Parser) -> None:
    parser.add_argument("collection", help="what 'gapless index' wrote")
    parser.add_argument("--where", required=True, help="which rows, as in search: \"group = 'case 17'\"")


def delete(args: Arguments) -> Outcome:
    from gapless.search.build import delete_rows
    from gapless.search.collection import Collection

    collection = Collection.open(args.collection)
    deleted = delete_rows(collection, args.where)
    left = collection.count()
    return Outcome({"deleted": deleted, "rows": left}, f"{deleted:,} rows deleted, {left:,} left")


def search_arguments(parser: Parser) -> None:
    parser.add_argument("collection", help="what 'gapless index' wrote")
    parser.add_argument("words", nargs="?", default=None, help="what to search for, in quotes")
    parser.add_argument("--image", type=Path, default=None, help="an image to search with, alone or beside words")
    parser.add_argument("--image_weight", type=float, default=0.5, help="with both: 0 is words alone, 1 image alone")
    parser.add_argument("--k", type=int, default=10, help="how many hits")
    parser.add_argument("--modality", default=None, help="only rows of this modality; default all, mixed")
    parser.add_argument("--where", default=None, help="filter: \"modality_type = 'CT' AND age > 60\"")
    parser.add_argument("--hybrid", action="store_true", help="also search the captions for the words")
    parser.add_argument("--exact", action="store_true", help="score every row even where an approximate index is")
    parser.add_argument("--model", nargs="+", default=None, help="where the collection's model is now")


def search(args: Arguments) -> Outcome:
    import warnings
    from dataclasses import asdict

    from gapless.search.query_length import QueryCut
    from gapless.search.searcher import Searcher

    searcher = Searcher.open(args.collection, args.model)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", QueryCut)  # the outcome says it
        hits = searcher.search(
            text=args.words,
            image=args.image,
            image_weight=args.image_weight,
            k=args.k,
            modality=args.modality,
            where=args.where,
            hybrid=args.hybrid,
            exact=True if args.exact else None,
        )
    cut = None if args.words is None else searcher.cut(args.words)
    value = {
        "hits": [{"rank": rank, **asdict(hit)} for rank, hit in enumerate(hits, 1)],
        "model": searcher.collection.info["model"],
        "cut": None if cut is None else asdict(cut),
    }
    return Outcome(value, hits_to_text(hits, terminal_width()), notes=() if cut is None else (str(cut),))


def hits_to_text(hits: Any, width: int) -> str:
    """One line per hit: rank, score, modality, id, the labels, the caption as far as the line goes."""
    if not hits:
        return "nothing found"
    ids = max(len(hit.id) for hit in hits)
    modalities = max(len(hit.modality) for hit in hits)
    lines = []
    for rank, hit in enumerate(hits, 1):
        labels = ", ".join(value for value in hit.labels.values() if value)
        said = " ".join(f"[{labels}] {hit.caption or ''}".split())
        line = f"{rank:>3}  {hit.score:6.3f}  {hit.modality:<{modalities}}  {hit.id:<{ids}}  {said}"
        lines.append(line if len(line) <= width else line[: width - 3] + "...")
    return "\n".join(lines)


VERBS = {
    "index": Verb("a model over a manifest -> a collection", index_arguments, index),
    "index delete": Verb("rows of a collection that a filter names", delete_arguments, delete),
    "search": Verb("words or an image -> the nearest images and texts", search_arguments, search),
}
