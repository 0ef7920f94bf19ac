"""`gapless close, export`: a model whose gap is closed, and a model for elsewhere."""

from collections.abc import Mapping, Sequence
from dataclasses import fields, is_dataclass, replace
from pathlib import Path
from typing import Any

from gapless.cli.arrays import array_arguments, further_modalities, given_beside, given_source
from gapless.cli.loss_options import add_loss_arguments, value_of
from gapless.cli.verb import EMBEDDINGS, Arguments, Outcome, Parser, Verb
from gapless.core.errors import UsageError

DEFAULT_LOSS = "gapless"
HEADLINES = (
    "gap/centroid_distance_unbiased",
    "gap/true_pair_cosine",
    "gap/margin",
    "gap/margin_centred",
    "gap/d_prime",
    "gap/d_prime_centred",
    "gap/mixing@10",
    "retrieval/mean/R@1",
    "retrieval/mean/R@10",
    "retrieval/mean/MRR",
    "mixed/R@10",
    "grouping/v_measure",
)


def close_arguments(parser: Parser) -> None:
    from gapless.closing.base import CLOSING_METHODS, DEFAULT_METHOD
    from gapless.closing.purposes import PURPOSES

    parser.add_argument("source", nargs="*", type=Path, help="embeddings directories or files; several are read as one")
    parser.add_argument("--out", type=Path, required=True, help="model directory to write")
    known = ", ".join(sorted(CLOSING_METHODS))
    purposes = "; ".join(f"{name} ({purpose.summary})" for name, purpose in PURPOSES.items())
    parser.add_argument(
        "--method", default=DEFAULT_METHOD, help=f"one of {known}; `--method NAME --help` shows its options"
    )
    parser.add_argument("--for", dest="purpose", default=None, help=f"what the choice of auto is for: {purposes}")
    parser.add_argument("--seed", type=int, default=0)
    array_arguments(parser)


def method_arguments(parser: Parser, words: Sequence[str]) -> None:
    """The fields of the chosen method's settings as options `--NAME.field`; then the further modalities."""
    from gapless.closing.base import CLOSING_METHODS, closing_method

    chosen = closing_method(named_method(words))
    parser.set_defaults({"method": chosen.name})
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
    has_loss = takes_loss(chosen)
    parser.add_class_arguments(chosen.settings, prefix, skip={"loss"} if has_loss else set())
    if has_loss:
        from gapless.losses.base import METHODS

        parser.add_argument("--loss", default=DEFAULT_LOSS, help=f"of the adapter: one of {', '.join(METHODS)}")
        add_loss_arguments(parser, [value_of("loss", words, DEFAULT_LOSS)], f"{prefix}.loss")
    further_modalities(parser, words)


def named_method(words: Sequence[str]) -> str:
    """The method that the command line names, with --method or by an option of one method; else the default."""
    from gapless.closing.base import CLOSING_METHODS, DEFAULT_METHOD
    from gapless.closing.trained_heads import TrainedHeads

    owners = {option_prefix(name): name for name in CLOSING_METHODS}
    options = [word.partition("=")[0].removeprefix("--") for word in words if word.startswith("--")]
    dotted = [option.partition(".")[0] for option in options if "." in option]
    by_option = [owners[prefix] for prefix in dotted if prefix in owners]
    if "loss" in options:
        by_option.append(TrainedHeads.name)
    return value_of("method", words, by_option[0] if by_option else DEFAULT_METHOD)


def option_prefix(method: str) -> str:
    """What stands before the dot in the options of a method; the parser takes dashes in options as underscores."""
    return method.replace("-", "_")


def takes_loss(method: Any) -> bool:
    """Whether the method trains with a loss, so that `--loss` can name its settings."""
    from gapless.closing.trained_heads import AdapterSettings

    return method.settings is AdapterSettings


def close_defaults(args: Arguments) -> dict[str, Any]:
    """The adapter's settings with the loss that `--loss` names; single --adapter options then override them."""
    from gapless.closing.base import closing_method

    method = closing_method(args.method)
    return flat(default_settings(args), option_prefix(method.name)) if takes_loss(method) else {}


def default_settings(args: Arguments) -> Any:
    """The settings of the chosen method before single options change them."""
    from gapless.closing.base import closing_method
    from gapless.closing.trained_heads import adapter_settings

    method = closing_method(args.method)
    return adapter_settings(args.loss) if takes_loss(method) else method.settings()


def flat(settings: Any, prefix: str) -> dict[str, Any]:
    """The fields of a dataclass as dotted options, those of dataclasses inside it too."""
    values: dict[str, Any] = {}
    for one in fields(settings):
        value = getattr(settings, one.name)
        values |= flat(value, f"{prefix}.{one.name}") if is_dataclass(value) else {f"{prefix}.{one.name}": value}
    return values


def changed(settings: Any, options: Arguments) -> Any:
    """The dataclass with the values of dotted options, those of dataclasses inside it too."""
    values = {}
    for name, value in vars(options).items():
        inside = getattr(settings, name)
        values[name] = changed(inside, value) if is_dataclass(inside) else value
    return replace(settings, **values)


def close(args: Arguments) -> Outcome:
    import gapless
    from gapless.closing.auto import AutoSettings
    from gapless.closing.base import closing_method
    from gapless.models.choice import choice_table

    method = closing_method(args.method)
    settings = changed(default_settings(args), getattr(args, option_prefix(method.name)))
    if args.purpose is not None:
        if not isinstance(settings, AutoSettings):
            raise UsageError(f"--for says how auto chooses, and the method is {method.name}; leave one of them out")
        settings = replace(settings, purpose=args.purpose)
    closed = gapless.close(
        given_source(args, args.source),
        out=args.out,
        method=method.name,
        settings=settings,
        seed=args.seed,
        **given_beside(args),
    )
    parts = [choice_table(closed.results["choice"])] if "choice" in closed.results else []
    text = "\n".join([*parts, before_and_after(closed.results), closed.note, str(closed.path)])
    return Outcome(closed.as_json(), text, notes=closed.notes)


def before_and_after(results: Mapping[str, Any]) -> str:
    """The figures that closing is about, on the validation part."""
    from gapless.study.renderings import figure_text

    lines = [f"{results['n']:,} held-back pairs{'':<18}before    after"]
    for key in HEADLINES:
        if key in results["figures"]:
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
    import gapless
    from gapless.captioning.runs import is_captioner

    if args.to == "onnx" and Path(args.model).is_dir() and is_captioner(Path(args.model)):
        from gapless.captioning import export_captioner

        made = export_captioner(args.model, out=args.out)
        parts = "; ".join(f"{name} differs by {value:.1e}" for name, value in made.largest_difference.items())
        return Outcome(made.as_json(), f"{parts}; {made.captions} greedy captions are the same\n{made.export}")
    exported = gapless.export(args.model, to=args.to, out=args.out, data=args.data, name=args.name, push_to=args.push)
    if exported.largest_difference is None:
        return Outcome(exported.as_json(), exported.address or f"{exported.export}\nnothing was sent")
    differences = exported.largest_difference.items()
    text = "\n".join(f"{name}.onnx differs by at most {value:.1e}" for name, value in differences)
    return Outcome(exported.as_json(), f"{text}\n{exported.export}")


VERBS = {
    "close": Verb(
        EMBEDDINGS,
        "close the gap of frozen embeddings",
        "close embeddings --out models/closed",
        close_arguments,
        close,
        close_defaults,
        method_arguments,
    ),
    "export": Verb(
        EMBEDDINGS,
        "a model as ONNX graphs, or as a directory for a hub",
        "export runs/model --to onnx --out exported",
        export_arguments,
        export,
    ),
}
