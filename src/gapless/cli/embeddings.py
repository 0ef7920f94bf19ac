"""`gapless embed, measure`: embeddings of any model, and every figure of them."""

from pathlib import Path
from typing import Any

from gapless.cli.arrays import array_arguments, further_modalities, given_beside, given_source, modality_files
from gapless.cli.model_options import workers_argument
from gapless.cli.verb import EMBEDDINGS, Arguments, Outcome, Parser, Verb, ascii_only
from gapless.core.errors import UsageError


def embed_arguments(parser: Parser) -> None:
    parser.add_argument(
        "model",
        nargs="+",
        help="a run or model directory; a transformers CLIP or SigLIP directory; local-dir:DIR or NAME@CHECKPOINT of "
        "open_clip; or separate encoders image=DIR text=DIR",
    )
    parser.add_argument("--data", type=Path, default=None, help="manifest, or embeddings for a model of vectors")
    parser.add_argument("--out", type=Path, required=True, help="embeddings directory; an unfinished one is continued")
    parser.add_argument("--split", default=None, help="only these rows; default all")
    parser.add_argument("--dtype", choices=["float32", "float16"], default="float32", help="how rows are stored")
    parser.add_argument("--shard", default=None, help="I/N: this process writes part I of N (1 to N)")
    parser.add_argument(
        "--ray", default=None, help="address of a Ray cluster, 'auto', or 'local' for this machine's cores"
    )
    parser.add_argument("--shard_size", type=int, default=8192, help="rows of a shard, the unit of a resume")
    parser.add_argument("--batch_size", type=int, default=256)
    parser.add_argument(
        "--precision",
        choices=["float32", "bfloat16"],
        default="float32",
        help="in which the encoders compute; bfloat16 is for accelerators",
    )
    workers_argument(parser)
    parser.add_argument(
        "--pseudonyms",
        type=Path,
        default=None,
        help="file of a key, made where there is none: no captions, labels and paths, ids and groups as keyed hashes",
    )
    array_arguments(parser)


def embed(args: Arguments) -> Outcome:
    import gapless

    embedded = gapless.embed(
        args.model,
        data=rows_to_embed(args),
        out=args.out,
        split=args.split,
        dtype=args.dtype,
        shard=args.shard,
        ray=args.ray,
        shard_size=args.shard_size,
        batch_size=args.batch_size,
        precision=args.precision,
        workers=args.workers,
        pseudonyms=args.pseudonyms,
    )
    left = "\nother parts are still missing; the last one to finish completes the directory"
    text = f"{embedded.rows:,} rows of {', '.join(embedded.modalities)}{'' if embedded.finished else left}"
    text = f"{text}\n{embedded.embeddings}"
    return Outcome(embedded.as_json(), text, notes=embedded.notes, is_shared=args.shard is None)


def rows_to_embed(args: Arguments) -> Any:
    """`--data`, or the plain arrays in place of it; files of labels and groups go with embeddings alone."""
    from gapless.embeddings.sources import is_embeddings_directory, read_rows

    if args.data is not None and not modality_files(args) and not is_embeddings_directory(args.data):
        if args.missing is not None:
            raise UsageError("--missing is for embeddings; a manifest says itself which rows lack a modality")
        return args.data
    return read_rows(given_source(args, [args.data] if args.data else []), **given_beside(args), least=1)


def measure_arguments(parser: Parser) -> None:
    parser.add_argument("source", nargs="*", type=Path, help="embeddings directories or files; several are read as one")
    parser.add_argument("--split", default=None, help="which rows; default test where there is one, else all ('all')")
    parser.add_argument(
        "--label", default=None, help="which column of labels; default the first of two classes or more"
    )
    parser.add_argument(
        "--predict", action="store_true", help="also fit quick closing methods on folds: what closing would bring"
    )
    parser.add_argument(
        "--joint",
        action="append",
        default=None,
        help="a query of several modalities, image+history:text or with weights image=2+history:text (again for more)",
    )
    parser.add_argument("--exact", action="store_true", help="every pair is a query; default up to 100,000 pairs")
    parser.add_argument("--queries", type=int, default=None, help="draw so many pairs as queries; 2,000 of more pairs")
    parser.add_argument("--num_bootstrap", type=int, default=1000, help="resamples of groups for the intervals, or 0")
    parser.add_argument("--seed", type=int, default=0, help="of the bootstrap, the folds and k-means")
    parser.add_argument("--html", type=Path, default=None, help="also write an interactive map")
    parser.add_argument("--data", type=Path, default=None, help="manifest, for the map's captions and thumbnails")
    parser.add_argument("--out", type=Path, default=None, help="also write a directory that 'gapless report' reads")
    array_arguments(parser)


def measure(args: Arguments) -> Outcome:
    from gapless.study.measured import measure_embeddings
    from gapless.study.pair_blocks import results_to_terminal
    from gapless.study.renderings import counts_to_terminal, verdict_to_terminal

    measurement = measure_embeddings(
        given_source(args, args.source),
        **given_beside(args),
        split=args.split,
        label=args.label,
        num_bootstrap=args.num_bootstrap,
        seed=args.seed,
        out=args.out,
        html=args.html,
        data=args.data,
        predict=args.predict,
        joint=args.joint or (),
        exact=args.exact,
        queries=args.queries,
    )
    written = "".join(f"\n{path}" for path in (args.html, args.out) if path)
    head = counts_to_terminal(measurement.as_json())
    text = f"{head}\n\n{results_to_terminal(measurement.as_json(), ascii_only())}"
    text += f"\n\n{verdict_to_terminal(measurement.verdict, ascii_only())}{written}"
    return Outcome(measurement.as_json(), text, notes=measurement.notes)


VERBS = {
    "embed": Verb(
        EMBEDDINGS,
        "a model over a manifest -> embeddings",
        "embed runs/model --data manifest --out embeddings",
        embed_arguments,
        embed,
        None,
        further_modalities,
    ),
    "measure": Verb(
        EMBEDDINGS,
        "every figure of any embeddings",
        "measure --image images.npy --text texts.npy --groups cases.txt",
        measure_arguments,
        measure,
        None,
        further_modalities,
    ),
}
