"""`gapless VERB ...`: the only printer and the only exit codes.

0 done, 1 failure, 2 wrong usage or configuration, 3 data refused, 4 needs the network while offline, 130 interrupted.
With `--json` stdout holds one JSON object and nothing else; logs and progress go to stderr.
"""

import json
import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from gapless.errors import GaplessError, UsageError

Arguments = Any
Parser = Any


@dataclass(frozen=True)
class Outcome:
    """What a verb gives back: the object that `--json` prints, and the text that a person reads."""

    value: dict[str, Any]
    text: str


@dataclass(frozen=True)
class Verb:
    """One verb: its line in the help, what it takes, what it does."""

    summary: str
    add_arguments: Callable[[Parser], None]
    run: Callable[[Arguments], Outcome]
    late_defaults: Callable[[Arguments], dict[str, Any]] | None = None


# --- data -----------------------------------------------------------------------------------------------------------


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


# --- train, evaluate, compare, report ---------------------------------------------------------------------------------


def add_recipe_arguments(parser: Parser, default: str) -> None:
    """The fields of a recipe as options; `recipe_defaults` then puts the named recipe's values in."""
    from gapless.train.recipes import METHODS, RECIPES, Recipe, get_recipe

    parser.add_class_arguments(Recipe)
    parser.set_defaults(flat(get_recipe(default)))
    parser.epilog = f"recipes: {', '.join(RECIPES)}. methods: {', '.join(METHODS)}."


def flat(recipe: Any) -> dict[str, Any]:
    """A recipe as defaults for the parser: the loss by dotted keys, everything else whole."""
    values = {f.name: getattr(recipe, f.name) for f in fields(recipe) if f.name != "loss"}
    return values | {f"loss.{f.name}": getattr(recipe.loss, f.name) for f in fields(recipe.loss)}


def recipe_defaults(args: Arguments) -> dict[str, Any]:
    from gapless.train.recipes import apply_method, get_recipe

    recipe = get_recipe(args.recipe)
    return flat(apply_method(recipe, args.method) if "method" in args else recipe)


def recipe_from(args: Arguments) -> Any:
    from gapless.train.recipes import LossConfig, Recipe

    own = {f.name: getattr(args, f.name) for f in fields(Recipe) if f.name != "loss"}
    return Recipe(**own, loss=LossConfig(**{f.name: getattr(args.loss, f.name) for f in fields(LossConfig)}))


def train_arguments(parser: Parser) -> None:
    parser.add_argument("recipe", help="a name below")
    parser.add_argument("--data", type=Path, required=True, help="manifest directory")
    parser.add_argument("--out", type=Path, required=True, help="run directory to write")
    parser.add_argument("--method", default="gapless", help="a name below; single --loss options override it")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--resume", choices=["latest"], default=None, help="continue from the newest whole checkpoint")
    add_recipe_arguments(parser, "phantom-small")


def train(args: Arguments) -> Outcome:
    from gapless.data.manifest import Manifest
    from gapless.train import run as training

    manifest = Manifest.read(args.data)
    run = training.Run(args.recipe, args.method, args.seed, recipe_from(args), manifest.fingerprint)
    passed_over = training.train(run, manifest, args.out, resume=args.resume == "latest")
    notes = "".join(f"passed over {name}: {fault}\n" for name, fault in passed_over.items())
    return Outcome({"run": str(args.out), "passed_over": passed_over}, f"{notes}{args.out}")


def evaluate_arguments(parser: Parser) -> None:
    parser.add_argument("run", type=Path, help="run directory")
    parser.add_argument("--data", type=Path, required=True, help="manifest directory")
    parser.add_argument("--split", default="test", help="which rows are the gallery")
    parser.add_argument("--num_bootstrap", type=int, default=1000, help="resamples of groups for the intervals")


def evaluate(args: Arguments) -> Outcome:
    from gapless.data.manifest import Manifest
    from gapless.study.renderings import figures_to_terminal
    from gapless.train.evaluate import evaluate_run

    results = evaluate_run(args.run, Manifest.read(args.data), args.split, num_bootstrap=args.num_bootstrap)
    return Outcome(results, figures_to_terminal(results["figures"], ascii_only()))


def compare_arguments(parser: Parser) -> None:
    parser.add_argument("--data", type=Path, required=True, help="manifest directory")
    parser.add_argument("--recipe", default="phantom-small", help="a name below")
    parser.add_argument("--methods", default="clip,clip-fixed,gapless", help="names below, separated by commas")
    parser.add_argument("--baseline", default="clip", help="the method that differences are taken from")
    parser.add_argument("--seeds", type=int, default=3, help="runs of each method, with seeds 0, 1, ...")
    parser.add_argument("--split", default="test", help="which rows are the gallery")
    parser.add_argument("--num_bootstrap", type=int, default=1000, help="resamples of groups for the intervals")
    parser.add_argument("--out", type=Path, required=True, help="directory to write; finished runs in it are kept")
    add_recipe_arguments(parser, "phantom-small")


def compare(args: Arguments) -> Outcome:
    from gapless.data.manifest import Manifest
    from gapless.study.compare import compare as run_comparison

    return comparison_outcome(
        run_comparison(
            args.recipe,
            recipe_from(args),
            Manifest.read(args.data),
            methods=args.methods.split(","),
            seeds=range(args.seeds),
            out=args.out,
            baseline=args.baseline,
            split=args.split,
            num_bootstrap=args.num_bootstrap,
        ),
        args.out,
    )


def comparison_outcome(comparison: dict[str, Any], out: Path) -> Outcome:
    from gapless.study.renderings import to_terminal
    from gapless.study.table import paper_table

    return Outcome(comparison, f"{to_terminal(paper_table(comparison), terminal_width(), ascii_only())}\n{out}")


def demo_arguments(parser: Parser) -> None:
    parser.add_argument("--out", type=Path, default=Path("runs/demo"), help="directory to write")
    parser.add_argument("--seed", type=int, default=0)


def demo(args: Arguments) -> Outcome:
    from gapless.study.demo import run_demo

    comparison, report = run_demo(args.out, args.seed)
    outcome = comparison_outcome(comparison, report)
    return Outcome({**outcome.value, "report": str(report)}, outcome.text)


def report_arguments(parser: Parser) -> None:
    parser.add_argument("source", type=Path, nargs="+", help="directories of `compare`, `evaluate` or `measure`")
    parser.add_argument("--out", type=Path, required=True, help="the HTML file to write")


def report(args: Arguments) -> Outcome:
    from gapless.study.report import write_report

    write_report(args.source, args.out)
    return Outcome({"report": str(args.out)}, str(args.out))


VERBS: dict[str, Verb] = {
    "demo": Verb("phantom data -> clip and gapless -> table and report", demo_arguments, demo),
    "data phantom": Verb("write the procedural radiology set", data_phantom_arguments, data_phantom),
    "data table": Verb("a table of images and captions -> manifest", data_table_arguments, data_table),
    "train": Verb("train one model on a manifest", train_arguments, train, recipe_defaults),
    "evaluate": Verb("measure a run on a split", evaluate_arguments, evaluate),
    "compare": Verb("methods x seeds at equal budget -> the table", compare_arguments, compare, recipe_defaults),
    "report": Verb("one HTML file from finished directories", report_arguments, report),
}


def terminal_width() -> int:
    from shutil import get_terminal_size

    return get_terminal_size((110, 40)).columns


def ascii_only() -> bool:
    return (sys.stdout.encoding or "ascii").lower().replace("-", "") not in ("utf8", "utf16")


# --- the door ---------------------------------------------------------------------------------------------------------


def overview() -> str:
    width = max(map(len, VERBS))
    lines = "\n".join(f"  {name:<{width}}  {verb.summary}" for name, verb in VERBS.items())
    return (
        "usage: gapless VERB [options]      (gapless VERB --help says what a verb takes)\n\n"
        "Train, measure and use medical image-text embeddings whose modality gap is closed.\n\n"
        f"verbs:\n{lines}\n\n"
        "everywhere: --json, --debug, --config FILE.yaml, --print_config, --version\n"
        "Research use, not for diagnosis."
    )


def find_verb(argv: Sequence[str]) -> tuple[str, list[str]]:
    """The verb that the first one or two words name, and the words after it."""
    for length in (2, 1):
        name = " ".join(argv[:length])
        if len(argv) >= length and name in VERBS:
            return name, list(argv[length:])
    families = [name for name in VERBS if name.split()[0] == argv[0]]
    raise UsageError(f"unknown verb {' '.join(argv[:2])!r}; known: {', '.join(families or VERBS)}")


def build_parser(name: str, verb: Verb) -> Parser:
    from jsonargparse import ActionConfigFile, ArgumentParser

    parser = ArgumentParser(prog=f"gapless {name}", description=verb.summary, exit_on_error=False)
    parser.add_argument("--config", action=ActionConfigFile, help="YAML file with any of these options")
    parser.add_argument("--json", action="store_true", help="print one JSON object on stdout")
    parser.add_argument("--debug", action="store_true", help="show the traceback of an error")
    verb.add_arguments(parser)
    return parser


def parse(name: str, argv: Sequence[str]) -> Arguments:
    """The options of a verb; some defaults depend on others (a recipe's values on its name), hence the second pass."""
    from argparse import ArgumentError

    verb = VERBS[name]
    parser = build_parser(name, verb)
    try:
        if verb.late_defaults is None:
            return parser.parse_args(argv)
        first = parser.parse_args([word for word in argv if not word.startswith("--print_config")])
        parser.set_defaults(verb.late_defaults(first))
        return parser.parse_args(argv)
    except ArgumentError as error:
        raise UsageError(f"{' '.join(str(error).split())} (gapless {name} --help)") from None


def quiet_libraries() -> None:
    """Bars and notes of the libraries would stand between ours; set before they are imported."""
    for name, value in {"HF_HUB_DISABLE_PROGRESS_BARS": "1", "TRANSFORMERS_VERBOSITY": "error"}.items():
        os.environ.setdefault(name, value)


def run(argv: Sequence[str]) -> None:
    if not argv or argv[0] in ("-h", "--help", "help"):
        print(overview())
        return
    if argv[0] == "--version":
        from gapless import __version__

        print(__version__)
        return
    name, rest = find_verb(argv)
    quiet_libraries()
    args = parse(name, rest)
    outcome = VERBS[name].run(args)
    print(json.dumps(outcome.value, sort_keys=True) if args.json else outcome.text)


def main(argv: Sequence[str] | None = None) -> int:
    argv = sys.argv[1:] if argv is None else argv
    try:
        run(argv)
    except KeyboardInterrupt:
        print("gapless: interrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except Exception as error:
        if "--debug" in argv:
            raise
        known = isinstance(error, GaplessError)
        message = str(error) if known else f"{type(error).__name__}: {error} (--debug shows where)"
        print(f"gapless: {message}", file=sys.stderr)
        return error.exit_code if isinstance(error, GaplessError) else 1
    return 0
