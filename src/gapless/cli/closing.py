"""`gapless close, export`: a model whose gap is closed, and a model for elsewhere."""

from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

from gapless.cli.arrays import array_arguments, further_modalities, read_given
from gapless.cli.verb import Arguments, Outcome, Parser, Verb
from gapless.core.errors import GaplessError

HEADLINES = (
    "gap/centroid_distance_unbiased",
    "gap/true_pair_cosine",
    "gap/mixing@10",
    "retrieval/mean/R@1",
    "retrieval/mean/R@10",
    "mixed/R@10",
)


def close_arguments(parser: Parser) -> None:
    from gapless.closing.close import ADAPTER, CLOSE_METHODS
    from gapless.closing.trained_heads import AdapterSettings
    from gapless.training.recipes import METHODS

    parser.add_argument("source", nargs="*", type=Path, help="embeddings directories or files; several are read as one")
    parser.add_argument("--out", type=Path, required=True, help="model directory to write")
    parser.add_argument("--method", default=ADAPTER, help=f"one of {', '.join(CLOSE_METHODS)}")
    parser.add_argument("--loss", default="gapless", help=f"of the adapter: one of {', '.join(METHODS)}")
    parser.add_argument("--seed", type=int, default=0)
    array_arguments(parser)
    parser.add_class_arguments(AdapterSettings, "adapter")


def close_defaults(args: Arguments) -> dict[str, Any]:
    """The adapter's settings with the loss that `--loss` names; single --adapter options then override them."""
    from gapless.closing.trained_heads import adapter_settings

    settings = adapter_settings(args.loss)
    values = {f"adapter.{f.name}": getattr(settings, f.name) for f in fields(settings) if f.name != "loss"}
    return values | {f"adapter.loss.{f.name}": getattr(settings.loss, f.name) for f in fields(settings.loss)}


def close(args: Arguments) -> Outcome:
    from gapless.closing.close import close_gap
    from gapless.closing.trained_heads import AdapterSettings
    from gapless.core.files import check_new_directory, read_json
    from gapless.training.recipes import LossConfig

    check_new_directory(args.out)
    rows = read_given(args, args.source)
    given = vars(args.adapter)
    settings = AdapterSettings(**{**given, "loss": LossConfig(**vars(args.adapter.loss))})
    frozen, note = frozen_model(rows.info)
    close_gap(
        rows.embeddings,
        rows.groups,
        settings,
        args.method,
        args.seed,
        out=args.out,
        ids=rows.ids,
        splits=rows.splits,
        captions=rows.captions,
        positives=rows.positives,
        frozen=frozen,
        data=rows.info.get("data") or {"source": rows.info.get("source")},
    )
    results = read_json(args.out / "results.json")
    value = {"model": str(args.out), "takes": "raw inputs" if frozen else "vectors", **results}
    return Outcome(value, f"{before_and_after(results)}\n{note}\n{args.out}", notes=rows.notes)


def frozen_model(info: Mapping[str, Any]) -> tuple[Any, str]:
    """The model that made the embeddings, where it is known and still the same; and a line that says which."""
    from gapless.models.foreign import fingerprint_of, load_model

    known = [part.get("model") for part in info.get("parts", [info])]
    if not known[0] or any(one != known[0] for one in known):
        return None, "the model takes embeddings (nothing is known of one encoder that made them)"
    source = " ".join(known[0]["source"])
    try:
        model = load_model(known[0]["source"])
    except GaplessError as error:
        return None, f"the model takes embeddings: {source} cannot be loaded ({error})"
    if fingerprint_of(model) != known[0]["fingerprint"]:
        return None, f"the model takes embeddings: {source} is no longer the model that made them"
    return model, f"the model takes raw inputs: {source} is inside, frozen"


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
    import gapless

    exported = gapless.export(args.model, to=args.to, out=args.out, data=args.data, name=args.name, push_to=args.push)
    if exported.largest_difference is None:
        return Outcome(exported.as_json(), exported.address or f"{exported.export}\nnothing was sent")
    differences = exported.largest_difference.items()
    text = "\n".join(f"{name}.onnx differs by at most {value:.1e}" for name, value in differences)
    return Outcome(exported.as_json(), f"{text}\n{exported.export}")


VERBS = {
    "close": Verb("close the gap of frozen embeddings", close_arguments, close, close_defaults, further_modalities),
    "export": Verb("a model as ONNX graphs, or as a directory for a hub", export_arguments, export),
}
