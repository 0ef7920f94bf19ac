"""`gapless index, index delete, index export, search`: a collection of embeddings, and what is near a query in it."""

from pathlib import Path
from typing import Any

from gapless.cli.model_options import workers_argument
from gapless.cli.verb import SEARCH, Arguments, Outcome, Parser, Verb, terminal_width


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
    parser.add_argument("--bank", type=Path, default=None, help="queries to balance mixed search with, one a line")
    parser.add_argument(
        "--hub_correction", type=float, default=0.0, help="lower rows that are near to every query: 0 (no) to 1"
    )
    parser.add_argument("--seed", type=int, default=0, help="of the rows that the balance is learnt from")
    parser.add_argument("--ann", default=None, help="approximate index: ivf-flat, ivf-rq, ivf-pq or hnsw")
    parser.add_argument("--ann_above", type=int, default=None, help="rows above which one is made without --ann")
    parser.add_argument("--ann_recall", type=float, default=0.95, help="its least recall@10, measured as it is built")
    parser.add_argument("--staging", type=Path, default=None, help="where to prepare rows; needed for an object store")
    parser.add_argument("--ray", default=None, help="embed on a Ray cluster: its address, 'auto', or 'local'")
    parser.add_argument("--batch_size", type=int, default=256, help="rows that the model reads at once")
    workers_argument(parser)


def index(args: Arguments) -> Outcome:
    import gapless

    given = {} if args.ann_above is None else {"ann_above": args.ann_above}
    indexed = gapless.index(
        args.model,
        data=args.data,
        out=args.out,
        split=args.split,
        update=args["update"],  # `args.update` is a method of the namespace, and so always true
        restore_deleted=args.restore_deleted,
        text_labels=args.text_labels,
        bank=args.bank,
        hub_correction=args.hub_correction,
        seed=args.seed,
        ann=args.ann,
        ann_recall=args.ann_recall,
        staging=args.staging,
        ray=args.ray,
        batch_size=args.batch_size,
        workers=args.workers,
        **given,
    )
    made = indexed.index
    note = ""
    if made:
        asked = ", ".join(f"{name} {made[name]}" for name in ("nprobes", "ef", "candidates") if made[name] is not None)
        short = "" if made["recall@10"] >= made["target"] else f", below the {made['target']:g} that was wanted"
        note = (
            f"\napproximate index ({made['kind']}, {asked}): recall@10 {made['recall@10']:.3f} of exact search{short}"
        )
    counts = f"{indexed.added:,} samples added, {indexed.updated:,} updated, {indexed.unchanged:,} unchanged"
    counts += f", {indexed.extended:,} with a modality that they lacked" if indexed.extended else ""
    counts += f", {indexed.restored:,} restored" if indexed.restored else ""
    counts += f"; {indexed.withdrawn:,} rows removed" if indexed.withdrawn else ""
    if indexed.unbalanced is not None:
        note += f"\nmixed search goes by cosine, not balanced: the collection has {indexed.unbalanced}"
    text = f"{counts}; {indexed.rows:,} rows{note}\n{indexed.collection}"
    return Outcome(indexed.as_json(), text, notes=indexed.notes)


def delete_arguments(parser: Parser) -> None:
    parser.add_argument("collection", help="what 'gapless index' wrote")
    parser.add_argument("--where", required=True, help="which rows, as in search: \"group = 'case 17'\"")


def delete(args: Arguments) -> Outcome:
    from gapless.search.queries import delete

    gone = delete(args.collection, where=args.where)
    return Outcome(gone.as_json(), f"{gone.deleted:,} rows deleted, {gone.rows:,} left")


def export_arguments(parser: Parser) -> None:
    parser.add_argument("collection", help="what 'gapless index' wrote")
    parser.add_argument("--out", type=Path, required=True, help=".csv or .parquet file; one that exists is replaced")
    parser.add_argument("--where", default=None, help="only these rows, as in search: \"split = 'test'\"")
    parser.add_argument("--no_vectors", action="store_true", help="leave the embeddings out")


def export(args: Arguments) -> Outcome:
    from gapless.search.export import export_collection

    written = export_collection(args.collection, out=args.out, where=args.where, vectors=not args.no_vectors)
    text = f"{written.rows:,} rows, {len(written.columns)} columns\n{written.export}"
    return Outcome(written.as_json(), text)


def search_arguments(parser: Parser) -> None:
    parser.add_argument("collection", help="what 'gapless index' wrote")
    parser.add_argument("words", nargs="?", default=None, help="what to search for, in quotes")
    parser.add_argument("--image", type=Path, default=None, help="an image to search with, alone or beside words")
    parser.add_argument("--image_weight", type=float, default=0.5, help="with both: 0 is words alone, 1 image alone")
    parser.add_argument(
        "--query", type=str, action="append", default=None, help="NAME=TEXT, FILE or FIELDS of any modality; again"
    )
    parser.add_argument(
        "--weight", type=str, action="append", default=None, help="NAME=W: how much that part counts; default 1; again"
    )
    parser.add_argument("--k", type=int, default=10, help="how many hits")
    parser.add_argument("--modality", "--to", default=None, help="only rows of this modality; default all, mixed")
    parser.add_argument("--where", default=None, help="filter: \"modality_type = 'CT' AND age > 60\"")
    parser.add_argument("--hybrid", action="store_true", help="also search the captions for the words")
    parser.add_argument("--raw", action="store_true", help="do not balance the modalities of a mixed search")
    parser.add_argument("--exact", action="store_true", help="score every row even where an approximate index is")
    parser.add_argument("--in_memory", action="store_true", help="hold the vectors in memory, also beyond 4 GiB")
    parser.add_argument("--model", nargs="+", default=None, help="where the collection's model is now")


def search(args: Arguments) -> Outcome:
    from gapless.search.arguments import inputs_in, weights_in
    from gapless.search.queries import search

    result = search(
        args.collection,
        args.words,
        image=args.image,
        image_weight=args.image_weight,
        query=inputs_in(args.query or ()),
        weights=weights_in(args.weight) if args.weight else None,
        k=args.k,
        modality=args.modality,
        where=args.where,
        hybrid=args.hybrid,
        exact=True if args.exact else None,
        raw=args.raw,
        in_memory=args.in_memory,
        model=args.model,
    )
    return Outcome(result.as_json(), hits_to_text(result.hits, terminal_width()), notes=result.notes)


def hits_to_text(hits: Any, width: int) -> str:
    """One line per hit: rank, score, modality, id, the labels, the caption or the row's own text as far as it goes.

    A balanced hit shows two numbers, its balanced score and the cosine.
    """
    if not hits:
        return "nothing found"
    ids = max(len(hit.id) for hit in hits)
    modalities = max(len(hit.modality) for hit in hits)
    lines = []
    for rank, hit in enumerate(hits, 1):
        labels = ", ".join(value for value in hit.labels.values() if value)
        description = " ".join(f"[{labels}] {hit.preview or hit.caption or ''}".split())
        scores = f"{hit.score:6.3f}" if hit.balanced is None else f"{hit.balanced:6.2f}  {hit.similarity:6.3f}"
        line = f"{rank:>3}  {scores}  {hit.modality:<{modalities}}  {hit.id:<{ids}}  {description}"
        lines.append(line if len(line) <= width else line[: width - 3] + "...")
    return "\n".join(lines)


VERBS = {
    "index": Verb(
        SEARCH,
        "a model over a manifest -> a collection",
        "index runs/model --data manifest --out collection",
        index_arguments,
        index,
    ),
    "index delete": Verb(
        SEARCH,
        "rows of a collection that a filter names",
        """index delete collection --where "group = 'case-17'\"""",
        delete_arguments,
        delete,
    ),
    "index export": Verb(
        SEARCH,
        "a collection -> one CSV or Parquet file",
        "index export collection --out rows.parquet",
        export_arguments,
        export,
    ),
    "search": Verb(
        SEARCH,
        "words, an image or other parts of a case -> what is nearest",
        'search collection "left pleural effusion"',
        search_arguments,
        search,
    ),
}
