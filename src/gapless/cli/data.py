"""`gapless data ...`: manifests from any layout, their audit and their split; a verb for each registered reader."""

from dataclasses import fields
from pathlib import Path
from typing import Any

from gapless.cli.reader_summaries import reader_summaries
from gapless.cli.verb import DATA, Arguments, Outcome, Parser, Verb
from gapless.core.errors import DataRefused, UsageError


def reader_verbs() -> dict[str, Verb]:
    """A verb for each registered reader, by name; none of the readers is imported."""
    return {f"data {name}": reader_verb(name, *lines) for name, lines in reader_summaries().items()}


def reader_verb(name: str, summary: str, example: str) -> Verb:
    """The verb of a registered reader, which is imported when the verb is used.

    Its words are the reader's sources, `--out`, and an option for each field of the reader's options.
    """

    def add_arguments(parser: Parser) -> None:
        reader = registered_reader(name)
        several = reader.options.several_names()
        if reader.source is not None:
            parser.add_argument("source", nargs="+" if reader.takes_several else None, help=reader.source)
        parser.add_argument("--out", type=Path, required=True, help="manifest directory to write")
        for option in several.values():
            parser.add_argument(f"--{option.name}", type=NameOrNames(), action="append", default=None, help=option.text)
        parser.add_class_arguments(reader.options, skip={*several}, fail_untyped=False)

    def run(args: Arguments) -> Outcome:
        reader = registered_reader(name)
        several = reader.options.several_names()
        options = {
            field.name: getattr(args, field.name) for field in fields(reader.options) if field.name not in several
        }
        for field_name, option in several.items():
            given = getattr(args, option.name)
            if given is not None:
                options[field_name] = names_given(option.name, given, option.is_divided)
        return manifest_outcome(reader.write([] if reader.source is None else args.source, args.out, **options))

    return Verb(DATA, summary, example, add_arguments, run)


def registered_reader(name: str) -> Any:
    """The `Reader` of that name.

    Raises:
        UsageError: the package that brings it cannot be loaded.
    """
    from gapless.manifest.readers.base import READERS

    return READERS[name]


class NameOrNames:
    """The type of an option of several names: a text on the command line; in a YAML file also a list of texts."""

    def __call__(self, value: Any) -> str | list[str]:
        """Raises ValueError for anything else."""
        if isinstance(value, str) or (isinstance(value, list) and all(isinstance(item, str) for item in value)):
            return value
        raise ValueError(f"expected a name or a list of names, got {value!r}")

    def __repr__(self) -> str:
        """What the help shows."""
        return "name"


def names_given(option: str, given: str | list[str], is_divided: bool = True) -> list[str]:
    """The names of an option, each once, in the order in which they were given; with commas between them or not."""
    words = [given] if isinstance(given, str) else given
    if not is_divided:
        return [word.strip() for word in words]
    names = [part.strip() for word in words for part in word.split(",")]
    if not all(names):
        raise UsageError(f"--{option.replace('_', '-')} has an empty name among {', '.join(map(repr, names))}")
    return list(dict.fromkeys(names))


def manifest_outcome(path: Path) -> Outcome:
    """What was read, kept and skipped, and why, of a manifest that was just written."""
    from gapless.core.files import read_json
    from gapless.manifest.manifest import INFO_FILE, written_columns, written_rows_per_split

    info = read_json(path / INFO_FILE)
    splits = ", ".join(f"{name} {count}" for name, count in written_rows_per_split(path).items())
    counts = info["counts"]
    reasons = "".join(f"\n  skipped {count}: {reason}" for reason, count in info["skipped"].items())
    reasons += "".join(f"\n  passed over {count}: {what}" for what, count in info.get("passed_over", {}).items())
    counted = f"read {counts['read']}, kept {counts['kept']}, skipped {counts['skipped']}"
    present = info["presence"]["present"] if "presence" in info else {}
    present_texts = [f"{name} {present[name]}" for name in written_columns(path) if name in present]
    presence = f"\npresent: {', '.join(present_texts)}" if present else ""
    return Outcome({"manifest": str(path), **info}, f"{counted} ({splits}){reasons}{presence}\n{path}")


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


def shares(given: Any) -> tuple[float, ...]:
    """Numbers with commas between them, in brackets or not; or a list of them, of a file of options.

    >>> shares("0.6, 0.2, 0.2"), shares([0.6, 0.2, 0.2])
    ((0.6, 0.2, 0.2), (0.6, 0.2, 0.2))
    """
    numbers = given.strip(" []()").split(",") if isinstance(given, str) else given
    return tuple(float(number) for number in numbers)


def split_arguments(parser: Parser) -> None:
    from gapless.manifest.split import FRACTIONS, split_manifest

    parser.add_argument("manifest", help="manifest directory")
    parser.add_argument("--out", type=Path, required=True, help="manifest directory to write")
    parser.add_argument(
        "--fractions", type=shares, default=FRACTIONS, help="of train, validation and test, with commas between"
    )
    parser.add_function_arguments(split_manifest, skip={"manifest", "out", "fractions"}, fail_untyped=False)


def split(args: Arguments) -> Outcome:
    from gapless.manifest.split import split_manifest

    if args.seed < 0:
        raise UsageError(f"--seed must be 0 or more, got {args.seed}")
    made = split_manifest(args.manifest, args.out, fractions=args.fractions, stratify=args.stratify, seed=args.seed)
    return manifest_outcome(made.path)


VERBS = {
    "data audit": Verb(
        DATA, "leakage, duplicates, captions, licences, coverage", "data audit manifest", audit_arguments, audit
    ),
    "data split": Verb(
        DATA, "a group-disjoint split", "data split manifest --out manifest-split", split_arguments, split
    ),
}
