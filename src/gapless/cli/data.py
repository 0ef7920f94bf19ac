"""`gapless data ...`: manifests from any layout, their audit and their split.

The options of a reader are the parameters of its function, with their descriptions.
"""

from collections.abc import Callable
from importlib import import_module
from inspect import signature
from pathlib import Path
from typing import Any

from gapless.cli.verb import Arguments, Outcome, Parser, Verb
from gapless.core.errors import DataRefused, UsageError

MANY = "FILE, or several SPLIT=FILE"

# parameters that take several names: their option (given several times, or with commas) and its help
LISTS = {
    "image_keys": ("image_key", "suffix of the member to read as the image, where a sample has several: png"),
    "caption_key": ("caption_key", "column or key of captions: a text, or a list of texts (default: the reader's)"),
    "label_keys": ("label_key", "columns to keep as labels; the first is the main one"),
    "licences": ("licence", 'keep only images under these licences: "CC BY,CC0"'),
    "splits": ("splits", "which of the official splits to read (default: all)"),
    "kinds": ("kinds", "radiology, non-radiology or both (default: radiology)"),
}


def reader_verb(summary: str, reader: str, source: str | None = None) -> Verb:
    """A verb around `gapless.manifest.readers.<module>:<function>`, which takes what it reads, `out` and options.

    Args:
        source: what the positional argument is; None for a reader that needs no input.
    """
    module, _, name = reader.partition(":")

    def function() -> Callable[..., Any]:
        found: Callable[..., Any] = getattr(import_module(f"gapless.manifest.readers.{module}"), name)
        return found

    def add_arguments(parser: Parser) -> None:
        read = function()
        lists = [name for name in LISTS if name in signature(read).parameters]
        if source is not None:
            parser.add_argument("source", nargs="+" if source == MANY else None, help=source)
        parser.add_argument("--out", type=Path, required=True, help="manifest directory to write")
        for option, text in (LISTS[name] for name in lists):
            parser.add_argument(f"--{option}", type=NameOrNames(), action="append", default=None, help=text)
        parser.add_function_arguments(read, skip={"source", "sources", "out", *lists}, fail_untyped=False)

    def run(args: Arguments) -> Outcome:
        read = function()
        parameters = [name for name in signature(read).parameters if name not in LISTS and name in args]
        options = {name: getattr(args, name) for name in parameters if name not in ("source", "out")}
        for name in LISTS.keys() & signature(read).parameters.keys():
            given = getattr(args, LISTS[name][0])
            if given is not None:
                options[name] = names_given(LISTS[name][0], given)
        inputs = [] if source is None else [args.source]
        return manifest_outcome(read(*inputs, out=args.out, **options))

    return Verb(summary, add_arguments, run)


class NameOrNames:
    """The type of an option of `LISTS`: a text on the command line; in a YAML file also a list of texts."""

    def __call__(self, value: Any) -> str | list[str]:
        """Raises ValueError for anything else."""
        if isinstance(value, str) or (isinstance(value, list) and all(isinstance(item, str) for item in value)):
            return value
        raise ValueError(f"expected a name or a list of names, got {value!r}")

    def __repr__(self) -> str:
        """What the help shows."""
        return "name"


def names_given(option: str, given: str | list[str]) -> list[str]:
    """The names of an option, each once, in the order in which they were given."""
    words = [given] if isinstance(given, str) else given
    names = [part.strip() for word in words for part in word.split(",")]
    if not all(names):
        raise UsageError(f"--{option.replace('_', '-')} has an empty name among {', '.join(map(repr, names))}")
    return list(dict.fromkeys(names))


def manifest_outcome(manifest: Any) -> Outcome:
    """What was read, kept and skipped, and why."""
    info = manifest.info
    splits = ", ".join(f"{name} {count}" for name, count in manifest.rows_per_split().items())
    counts = info["counts"]
    reasons = "".join(f"\n  skipped {count}: {reason}" for reason, count in info["skipped"].items())
    reasons += "".join(f"\n  passed over {count}: {what}" for what, count in info.get("passed_over", {}).items())
    counted = f"read {counts['read']}, kept {counts['kept']}, skipped {counts['skipped']}"
    return Outcome({"manifest": str(manifest.path), **info}, f"{counted} ({splits}){reasons}\n{manifest.path}")


def audit_arguments(parser: Parser) -> None:
    parser.add_argument(
        "source", nargs="+", help="manifests, looked at together; or a ROCO tree, of which text is read"
    )
    parser.add_argument("--near_duplicates", type=bool, default=True, help="decode every image to find changed copies")
    parser.add_argument(
        "--fail_on",
        default="",
        help="end with code 3 on any of these, comma between: leakage, duplicates, near-duplicates",
    )


def audit(args: Arguments) -> Outcome:
    import gapless

    report = gapless.audit(args.source, near_duplicates=args.near_duplicates)
    refusal = None
    try:
        report.refuse([name.strip() for name in args.fail_on.split(",") if name.strip()])
    except DataRefused as error:
        refusal = error
    return Outcome(report.as_json(), str(report), refusal)


def split_arguments(parser: Parser) -> None:
    from gapless.manifest.split import split_manifest

    parser.add_argument("manifest", help="manifest directory")
    parser.add_argument("--out", type=Path, required=True, help="manifest directory to write")
    parser.add_function_arguments(split_manifest, skip={"manifest", "out"}, fail_untyped=False)


def split(args: Arguments) -> Outcome:
    from gapless.manifest.split import split_manifest

    if args.seed < 0:
        raise UsageError(f"--seed must be 0 or more, got {args.seed}")
    return manifest_outcome(
        split_manifest(args.manifest, args.out, fractions=args.fractions, stratify=args.stratify, seed=args.seed)
    )


VERBS = {
    "data phantom": reader_verb("the procedural radiology set -> manifest", "phantom:write_phantom"),
    "data table": reader_verb("a table of images and captions -> manifest", "table:read_table", MANY),
    "data roco": reader_verb("ROCO's own layout -> manifest", "roco:read_roco", "the folder that holds data/"),
    "data rocov2": reader_verb("ROCOv2, CSV or Parquet -> manifest", "rocov2:read_rocov2", "the folder"),
    "data shards": reader_verb("tar shards (WebDataset) -> manifest", "shards:read_shards", MANY),
    "data dicom": reader_verb(
        "DICOM files and a table of reports -> manifest", "dicom_folder:read_dicom", "the folder"
    ),
    "data audit": Verb("leakage, duplicates, captions, licences, coverage", audit_arguments, audit),
    "data split": Verb("a group-disjoint split", split_arguments, split),
}
