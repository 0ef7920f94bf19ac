"""`gapless demo, train, evaluate, compare, report`."""

import shlex
import time
from collections.abc import Mapping, Sequence
from copy import deepcopy
from dataclasses import fields
from pathlib import Path
from typing import Any

from gapless.cli.loss_options import add_loss_arguments, changed_settings, value_of
from gapless.cli.verb import FIRST, TRAINING, Arguments, Outcome, Parser, Verb, ascii_only, terminal_width

# Of the last evaluation, in the summary of a training.
SUMMARY_FIGURES = ("gap/centroid_distance", "gap/true_pair_cosine", "retrieval/mean/R@10")


def add_recipe_arguments(parser: Parser, default: str) -> None:
    """The fields of a recipe as options; `recipe_defaults` then puts the named recipe's values in.

    The options of the loss follow when its method is known (`cli.loss_options`).
    """
    from gapless.losses.base import METHODS
    from gapless.training.recipes import RECIPES, Recipe, get_recipe

    parser.add_class_arguments(Recipe, skip={"loss"})
    parser.set_defaults(flat(get_recipe(default)))
    parser.epilog = f"recipes: {', '.join(RECIPES)}. methods: {', '.join(METHODS)}."


def flat(recipe: Any) -> dict[str, Any]:
    """A recipe but for its loss, as defaults for the parser."""
    return {f.name: getattr(recipe, f.name) for f in fields(recipe) if f.name != "loss"}


def recipe_defaults(args: Arguments) -> dict[str, Any]:
    from gapless.training.recipes import get_recipe

    return flat(get_recipe(args.recipe))


def recipe_from(args: Arguments, loss: Any) -> Any:
    from gapless.training.recipes import Recipe, get_recipe

    own = {f.name: getattr(args, f.name) for f in fields(Recipe) if f.name != "loss"}
    own["modalities"] = merged(own["modalities"], get_recipe(args.recipe).modalities)
    return Recipe(**own, loss=loss)


def merged(given: Mapping[str, Any], recipe: Mapping[str, Any]) -> dict[str, Any]:
    """`--modalities.image.input.size 96` changes one entry of the recipe's; a whole modality replaces the recipe's."""
    result = {}
    for name, spec in given.items():
        dotted = {key: value for key, value in spec.items() if "." in key} if isinstance(spec, Mapping) else {}
        base: Any = deepcopy(dict(recipe.get(name, {}))) if dotted else {}
        base |= {key: value for key, value in spec.items() if key not in dotted}
        for key, value in dotted.items():
            *parents, last = key.split(".")
            place = base
            for parent in parents:
                place = place.setdefault(parent, {})
            place[last] = value
        result[name] = base
    return result


def train_arguments(parser: Parser) -> None:
    parser.add_argument("recipe", help="a name below")
    parser.add_argument("--data", type=Path, required=True, help="manifest directory")
    parser.add_argument("--out", type=Path, required=True, help="run directory to write")
    parser.add_argument("--method", default="gapless", help="a name below; single --loss options override it")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--resume", choices=["latest"], default=None, help="continue from the newest whole checkpoint")
    add_recipe_arguments(parser, "phantom-small")


def method_arguments(parser: Parser, words: Sequence[str]) -> None:
    """The settings of the loss that `--method` names, as options."""
    add_loss_arguments(parser, [value_of("method", words, parser.get_default("method"))])


def train(args: Arguments) -> Outcome:
    import gapless
    from gapless.losses.base import METHODS

    started = time.monotonic()
    trained = gapless.train(
        args.recipe,
        data=args.data,
        out=args.out,
        method=args.method,
        seed=args.seed,
        settings=recipe_from(args, type(METHODS[args.method].settings)(**vars(args.loss))),
        resume=args.resume == "latest",
    )
    text = run_text(trained, f"{trained_line(trained, time.monotonic() - started)}\n{next_line(args)}\n")
    return Outcome(trained.as_json(), text, is_shared=True)


def run_text(trained: Any, summary: str = "") -> str:
    """A finished training: the checkpoints that could not be used, a summary, and the directory in the last line."""
    notes = "".join(f"passed over {name}: {fault}\n" for name, fault in trained.passed_over.items())
    return f"{notes}{summary}{trained.run}"


def trained_line(trained: Any, seconds: float) -> str:
    """How long a training took, where its model is, and the main figures of its last evaluation."""
    from gapless.core.progress import duration
    from gapless.metrics.catalogue import label_of

    done = f"trained in {duration(seconds)}; the model is in {trained.run / 'model'}"
    figures = [f"{label_of(key)} {trained.validation[key]:.3f}" for key in SUMMARY_FIGURES if key in trained.validation]
    return f"{done}\nvalidation rows: {'; '.join(figures)}" if figures else done


def next_line(args: Arguments) -> str:
    """The command that measures what was trained."""
    return f"next: gapless evaluate {shlex.quote(str(args.out))} --data {shlex.quote(str(args.data))}"


def evaluate_arguments(parser: Parser) -> None:
    parser.add_argument("run", type=Path, help="run directory")
    parser.add_argument("--data", type=Path, required=True, help="manifest directory")
    parser.add_argument("--out", type=Path, default=None, help="where to write; default: the run")
    parser.add_argument("--split", default="test", help="which rows are the gallery")
    parser.add_argument("--num_bootstrap", type=int, default=1000, help="resamples of groups for the intervals")


def evaluate(args: Arguments) -> Outcome:
    import gapless
    from gapless.study.disjoint_table import disjoint_to_terminal
    from gapless.study.pair_blocks import results_to_terminal
    from gapless.study.renderings import counts_to_terminal

    evaluation = gapless.evaluate(
        args.run, data=args.data, split=args.split, num_bootstrap=args.num_bootstrap, out=args.out
    )
    results = evaluation.as_json()
    counts = f"{counts_to_terminal(results)}\n\n" if evaluation.pairs else ""
    beside = disjoint_to_terminal(results, ascii_only())
    return Outcome(results, counts + results_to_terminal(results, ascii_only()) + (f"\n\n{beside}" if beside else ""))


def compare_arguments(parser: Parser) -> None:
    parser.add_argument("--data", type=Path, required=True, help="manifest directory")
    parser.add_argument("--recipe", default="phantom-small", help="a name below")
    parser.add_argument("--methods", default="clip,clip-fixed,gapless", help="names below, separated by commas")
    parser.add_argument("--baseline", default="clip", help="the method that differences are taken from")
    parser.add_argument("--seeds", type=int, default=3, help="runs of each method, with seeds 0, 1, ...")
    parser.add_argument("--split", default="test", help="which rows are the gallery")
    parser.add_argument("--num_bootstrap", type=int, default=1000, help="resamples of groups for the intervals")
    parser.add_argument(
        "--joint", action="append", default=[], help="a joint query, such as image+history->text; again for several"
    )
    parser.add_argument(
        "--closed_afterwards",
        default="center,cca",
        help="closing methods that train nothing: rows of the clip runs closed afterwards; none leaves them out",
    )
    parser.add_argument("--out", type=Path, required=True, help="directory to write; finished runs in it are kept")
    add_recipe_arguments(parser, "phantom-small")


def methods_arguments(parser: Parser, words: Sequence[str]) -> None:
    """The settings of the losses that `--methods` names, as options."""
    add_loss_arguments(parser, value_of("methods", words, parser.get_default("methods")).split(","))


def compare(args: Arguments) -> Outcome:
    import gapless
    from gapless.training.recipes import get_recipe

    methods = args.methods.split(",")
    comparison = gapless.compare(
        args.recipe,
        data=args.data,
        out=args.out,
        methods=methods,
        seeds=range(args.seeds),
        baseline=args.baseline,
        split=args.split,
        num_bootstrap=args.num_bootstrap,
        settings=recipe_from(args, get_recipe(args.recipe).loss),
        loss=changed_settings(methods, vars(args.loss)),
        joint=args.joint,
        closed_afterwards=[] if args.closed_afterwards in ("", "none") else args.closed_afterwards.split(","),
    )
    return Outcome(comparison.as_json(), comparison_text(comparison, args.out))


def comparison_text(comparison: Any, written: Path) -> str:
    """The paper's table, a table for each pair of several modalities, and what was written."""
    from gapless.study.pair_tables import pair_tables
    from gapless.study.renderings import pairs_to_terminal, to_terminal
    from gapless.study.table import paper_table

    contents = comparison.as_json()
    table = to_terminal(paper_table(contents), terminal_width(), ascii_only())
    pairs = pairs_to_terminal(pair_tables(contents), terminal_width(), ascii_only())
    return "\n".join(part for part in (table, pairs, str(written)) if part)


def demo_arguments(parser: Parser) -> None:
    parser.add_argument("--out", type=Path, default=Path("runs/demo"), help="directory to write")
    parser.add_argument("--seed", type=int, default=0)


def demo(args: Arguments) -> Outcome:
    import gapless

    done = gapless.demo(args.out, args.seed)
    return Outcome(done.as_json(), comparison_text(done, done.report))


def report_arguments(parser: Parser) -> None:
    parser.add_argument(
        "source", type=Path, nargs="+", help="directories of `compare`, `evaluate` or `measure`, caption runs"
    )
    parser.add_argument("--out", type=Path, required=True, help="the file to write")
    parser.add_argument("--figures", type=Path, default=None, help="new directory for the figures as SVG, PDF and PNG")
    parser.add_argument("--data", type=Path, default=None, help="manifest, to show examples of its cases")
    parser.add_argument("--audit", type=Path, default=None, help="manifest, to show the counts of its audit, no row")
    parser.add_argument("--format", choices=["html", "latex"], default="html", help="the page, or its tables alone")


def report(args: Arguments) -> Outcome:
    import gapless

    written = gapless.report(
        args.source, out=args.out, figures=args.figures, data=args.data, audit=args.audit, format=args.format
    )
    return Outcome(written.as_json(), "\n".join(written.written))


VERBS = {
    "demo": Verb(
        FIRST,
        "phantom data -> clip and gapless -> table and report",
        "demo --out demo",
        demo_arguments,
        demo,
    ),
    "train": Verb(
        TRAINING,
        "train one model on a manifest",
        "train table-small --data manifest --out runs/model",
        train_arguments,
        train,
        recipe_defaults,
        method_arguments,
    ),
    "evaluate": Verb(
        TRAINING,
        "measure a run on a split",
        "evaluate runs/model --data manifest --split test",
        evaluate_arguments,
        evaluate,
    ),
    "compare": Verb(
        TRAINING,
        "methods x seeds at equal budget -> the table",
        "compare --data manifest --methods clip,gapless --seeds 3 --out study",
        compare_arguments,
        compare,
        recipe_defaults,
        methods_arguments,
    ),
    "report": Verb(
        TRAINING,
        "one HTML file from finished directories",
        "report study --out report.html",
        report_arguments,
        report,
    ),
}
