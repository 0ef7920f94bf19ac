"""`gapless data ...`: manifests."""

import os
from pathlib import Path
from typing import Any

from gapless.verbs.verb import Arguments, Outcome, Parser, Verb


def data_phantom_arguments(parser: Parser) -> None:
    parser.add_argument("--out", type=Path, required=True, help="manifest directory to write")
    parser.add_argument("--num_pairs", type=int, default=5000, help="images in all")
    parser.add_argument("--num_validation", type=int, default=None, help="of them for validation; default about 5 %%")
    parser.add_argument("--num_test", type=int, default=None, help="of them for testing; default about 20 %%")
    parser.add_argument("--image_size", type=int, default=64, help="side of the images in pixels")
    parser.add_argument("--seed", type=int, default=0, help="the same seed gives the same bytes")


def data_phantom(args: Arguments) -> Outcome:
    from gapless.data.readers.phantom import write_phantom

    manifest = write_phantom(
        args.out,
        num_pairs=args.num_pairs,
        num_validation=args.num_validation,
        num_test=args.num_test,
        image_size=args.image_size,
        seed=args.seed,
    )
    return manifest_outcome(manifest)


def data_table_arguments(parser: Parser) -> None:
    parser.add_argument("source", nargs="+", help="FILE (CSV, TSV, JSONL, Parquet), or several SPLIT=FILE")
    parser.add_argument("--out", type=Path, required=True, help="manifest directory to write")
    parser.add_argument("--image-key", default="image", help="column of image paths")
    parser.add_argument("--caption-key", default="caption", help="column of captions: a text, or a list of texts")
    parser.add_argument("--group-key", default=None, help="column of what must not be split (article, patient, case)")
    parser.add_argument(
        "--label-key", default=None, help="label columns, separated by commas; the first is the main one"
    )
    parser.add_argument("--split-key", default=None, help="column that names the split")
    parser.add_argument(
        "--image-root", type=Path, default=None, help="where image paths start; default: the file's folder"
    )
    add_reader_arguments(parser)


def add_reader_arguments(parser: Parser) -> None:
    parser.add_argument("--max-bad", type=float, default=0.01, help="share of rows that may be skipped")
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1, help="processes that verify images")


def data_table(args: Arguments) -> Outcome:
    from gapless.data.readers.table import read_table

    manifest = read_table(
        args.source,
        args.out,
        image_key=args.image_key,
        caption_key=args.caption_key,
        group_key=args.group_key,
        label_keys=tuple(args.label_key.split(",")) if args.label_key else (),
        split_key=args.split_key,
        image_root=args.image_root,
        max_bad=args.max_bad,
        workers=args.workers,
    )
    return manifest_outcome(manifest)


def manifest_outcome(manifest: Any) -> Outcome:
    info = manifest.info
    splits = ", ".join(f"{name} {count}" for name, count in manifest.rows_per_split().items())
    counts = info["counts"]
    reasons = "".join(f"\n  skipped {count}: {reason}" for reason, count in info["skipped"].items())
    counted = f"read {counts['read']}, kept {counts['kept']}, skipped {counts['skipped']}"
    text = f"{counted} ({splits}){reasons}\n{manifest.path}"
    return Outcome({"manifest": str(manifest.path), **info}, text)


VERBS = {
    "data phantom": Verb("write the procedural radiology set", data_phantom_arguments, data_phantom),
    "data table": Verb("a table of images and captions -> manifest", data_table_arguments, data_table),
}
