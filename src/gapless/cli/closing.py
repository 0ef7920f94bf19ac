"""`gapless close, export`: a model whose gap is closed, and a model for elsewhere."""

from collections.abc import Mapping, Sequence
from dataclasses import fields, is_dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any, get_type_hints

from gapless.cli.arrays import array_arguments, further_modalities, read_given
from gapless.cli.verb import Arguments, Outcome, Parser, Verb
from gapless.core.errors import UsageError

HEADLINES = (
    "gap/centroid_distance_unbiased",
    "gap/true_pair_cosine",
    "gap/mixing@10",
    "retrieval/mean/R@1",
    "retrieval/mean/R@10",
    "mixed/R@10",
)


def close_arguments(parser: Parser) -> None:
    from gapless.closing.base import CLOSING_METHODS, DEFAULT_METHOD

    parser.add_argument("source", nargs="*", type=Path, help="embeddings directories or files; several are read as one")
    parser.add_argument("--out", type=Path, required=True, help="model directory to write")
    known = ", ".join(sorted(CLOSING_METHODS))
    parser.add_argument(
        "--method", default=DEFAULT_METHOD, help=f"one of {known}; `--method NAME --help` shows its options"
    )
    parser.add_argument("--seed", type=int, default=0)
    array_arguments(parser)


def method_arguments(parser: Parser, words: Sequence[str]) -> None:
    """The fields of the chosen method's settings as options `--NAME.field`; then the further modalities."""
    from gapless.closing.base import CLOSING_METHODS, closing_method

    chosen = closing_method(chosen_method(words))
    prefix = option_prefix(chosen.name)
    prefixes = {option_prefix(name): name for name in CLOSING_METHODS}
    for word in words:
        option = word.partition("=")[0]
        owner = prefixes.get(option.removeprefix("--").partition(".")[0]) if "." in option else None
        if option.startswith("--") and owner not in (None, chosen.name):
            raise UsageError(
                f"{option} is an option of the method {owner}, and the method is {chosen.name} "
                f"(gapless close --method {chosen.name} --help shows its options)"
            )
    parser.description = f"{parser.description}; {chosen.name}: {chosen.summary} ({chosen.source})"
    parser.add_class_arguments(chosen.settings, prefix)
    if takes_loss(chosen):
        from gapless.closing.trained_heads import losses_of_heads

        known = ", ".join(losses_of_heads())
        parser.add_argument("--loss", default="gapless", help=f"of the adapter: one of {known}")
    further_modalities(parser, words)


def option_prefix(method: str) -> str:
    """What stands before the dot in the options of a method; the parser takes dashes in options as underscores."""
    return method.replace("-", "_")


def takes_loss(method: Any) -> bool:
    """Whether the method trains with a loss, so that `--loss` can name its settings."""
    from gapless.closing.trained_heads import AdapterSettings

    return method.settings is AdapterSettings


def chosen_method(words: Sequence[str]) -> str:
    """The method that the words or a configuration file among them name; the last one counts."""
    from gapless.closing.base import DEFAULT_METHOD
    from gapless.core.files import read_yaml

    method = DEFAULT_METHOD
    for word, following in pairwise([*words, ""]):
        option, equals, attached = word.partition("=")
        value = attached if equals else following
        if option == "--method" and value:
            method = value
        elif option == "--config" and Path(value).is_file():
            method = str(read_yaml(Path(value)).get("method", method))
    return method


def close_defaults(args: Arguments) -> dict[str, Any]:
    """The adapter's settings with the loss that `--loss` names; single --adapter options then override them."""
    from gapless.closing.trained_heads import TrainedHeads, adapter_settings

    return flat(adapter_settings(args.loss), option_prefix(TrainedHeads.name)) if "loss" in vars(args) else {}


def flat(settings: Any, prefix: str) -> dict[str, Any]:
    """The fields of a dataclass as dotted options, those of dataclasses inside it too."""
    values: dict[str, Any] = {}
    for one in fields(settings):
        value = getattr(settings, one.name)
        values |= flat(value, f"{prefix}.{one.name}") if is_dataclass(value) else {f"{prefix}.{one.name}": value}
    return values


def filled(settings: type, options: Arguments) -> Any:
    """The dataclass that dotted options fill, with the dataclasses inside it."""
    hints = get_type_hints(settings)
    values = vars(options)
    return settings(
        **{key: filled(hints[key], value) if is_dataclass(hints[key]) else value for key, value in values.items()}
    )


def close(args: Arguments) -> Outcome:
    from gapless.closing.base import closing_method
    from gapless.closing.close import close_set
    from gapless.core.files import check_new_directory

    check_new_directory(args.out)
    method = closing_method(args.method)
    settings = filled(method.settings, getattr(args, option_prefix(method.name)))
    rows = read_given(args, args.source)
    closed = close_set(rows, settings, method.name, args.seed, out=args.out)
    value = {"model": str(args.out), "takes": closed.takes, **closed.results}
    return Outcome(value, f"{before_and_after(closed.results)}\n{closed.note}\n{args.out}", notes=rows.notes)


def before_and_after(results: Mapping[str, Any]) -> str:
    """The figures that closing is about, on the validation part."""
    from gapless.study.renderings import figure_text

    lines = [f"{results['n']:,} held-back pairs{'':<18}before    after"]
    for key in HEADLINES:
        before = figure_text((results["before"] or {}).get(key))
        lines.append(f"{key:<34}{before:>8} {figure_text(results['figures'][key]):>8}")
    return "\n".join(lines)


def export_arguments(parser: Parser) -> None:
    parser.add_argument("model", help="a run or model directory")
    parser.add_argument("--to", choices=["onnx", "hub"], required=True, help="graphs, or a directory for a model hub")
    parser.add_argument("--out", type=Path, required=True, help="directory to write")
    parser.add_argument("--data", type=Path, default=None, help="manifest, for the licences that the card names")
    parser.add_argument("--name", default=None, help="title of the card; default the directory's name")
    parser.add_argument("--push", default=None, help="also send it to the hub under this name (needs the network)")


def export(args: Arguments) -> Outcome:
    from gapless.core.files import check_new_directory
    from gapless.models.card import model_card
    from gapless.models.export import export_hub, export_onnx, push
    from gapless.models.foreign import load_model

    if args.push and args.to != "hub":
        raise UsageError("--push goes with --to hub")
    check_new_directory(args.out)
    facts = card_facts(args) if args.to == "hub" else None
    model = load_model([args.model])
    if facts is None:
        differences = export_onnx(model, args.out)
        told = "\n".join(f"{name}.onnx differs by at most {value:.1e}" for name, value in differences.items())
        return Outcome({"export": str(args.out), "largest_difference": differences}, f"{told}\n{args.out}")
    export_hub(model, model_card(model, facts), args.out)
    address = push(args.out, args.push) if args.push else None
    return Outcome({"export": str(args.out), "address": address}, address or f"{args.out}\nnothing was sent")


def card_facts(args: Arguments) -> Any:
    """What the run says of itself; a card without figures would hide the gap that it is about."""
    from gapless.core.files import read_json
    from gapless.models.card import CardFacts

    path = Path(args.model)
    if not (path / "results.json").exists():
        raise UsageError(f"{path} has no results.json, and the card shows its figures; run 'gapless evaluate' first")
    results = read_json(path / "results.json")
    label, before = before_figures(path, results)
    licences: dict[str, int | None] = {}
    if args.data:
        from collections import Counter

        from gapless.manifest.manifest import Manifest

        manifest = Manifest.read(args.data)
        if "licence" in manifest.table.column_names:
            licences |= Counter(value or "unknown" for value in manifest.table["licence"].to_pylist())
        if manifest.info.get("licence"):
            licences.setdefault(manifest.info["licence"], None)
    name = args.name or args.push or args.out.name
    return CardFacts(name, results, before, label, licences)


def before_figures(run: Path, results: Mapping[str, Any]) -> tuple[str, Mapping[str, Any]]:
    """The frozen model that was closed, or the baseline of the comparison that the run belongs to."""
    from gapless.core.files import read_json

    if results.get("before"):
        return "frozen model", results["before"]
    comparison = run.resolve().parent.parent / "compare.json"
    if comparison.exists():
        compared = read_json(comparison)
        baseline = compared["baseline"]
        return f"baseline {baseline}", compared["table"].get(baseline, {})
    return "before", {}


VERBS = {
    "close": Verb("close the gap of frozen embeddings", close_arguments, close, close_defaults, method_arguments),
    "export": Verb("a model as ONNX graphs, or as a directory for a hub", export_arguments, export),
}
