"""`gapless caption train, generate, evaluate`: captions from the aligned space, and what they are worth."""

from pathlib import Path
from typing import Any

from gapless.cli.verb import CAPTIONS, Arguments, Outcome, Parser, Verb, ascii_only, terminal_width
from gapless.core.errors import DataRefused


def route_arguments(parser: Parser, sources: str, target: str) -> None:
    """`--from` and `--to`, with their help."""
    parser.add_argument("--from", default=None, help=sources)
    parser.add_argument("--to", default=None, help=target)


def train_arguments(parser: Parser) -> None:
    from gapless.captioning.settings import CaptionSettings

    parser.add_argument(
        "aligner", help="what encodes: a run or model directory, or any MODEL that 'gapless embed' takes"
    )
    parser.add_argument("--data", type=Path, required=True, help="manifest directory")
    parser.add_argument("--out", type=Path, required=True, help="run directory to write")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--resume", choices=["latest"], default=None, help="continue from the newest whole checkpoint")
    route_arguments(
        parser,
        "modalities to caption from, joined: image,history or, with weights, image=2,history; default: image",
        "the modality of texts to write; default: text",
    )
    parser.add_class_arguments(CaptionSettings, skip={"sources", "target"})
    parser.epilog = "modes: frozen, joint (the encoder learns too), text (learns from text embeddings alone)."


def train(args: Arguments) -> Outcome:
    import gapless
    from gapless.cli.training import run_text

    trained = gapless.train_captioner(
        args.aligner,
        data=args.data,
        out=args.out,
        settings=settings_from(args),
        seed=args.seed,
        resume=args.resume == "latest",
    )
    return Outcome(trained.as_json(), run_text(trained))


def settings_from(args: Arguments) -> Any:
    """The settings; `--decoder.KEY` and `--training.KEY` change one entry and keep the others."""
    from dataclasses import fields

    from gapless.captioning.route import Route, route_of
    from gapless.captioning.settings import CaptionSettings

    route = route_of(getattr(args, "from"), args.to, Route())
    others = [f.name for f in fields(CaptionSettings) if f.name not in ("sources", "target")]
    return CaptionSettings(**{name: getattr(args, name) for name in others}, sources=route.sources, target=route.target)


def generate_arguments(parser: Parser) -> None:
    from gapless.captioning.generation import GenerationSettings

    parser.add_argument("model", type=Path, help="caption run or model directory")
    parser.add_argument("--data", type=Path, default=None, help="manifest directory")
    parser.add_argument("--split", default="test", help="which rows of the manifest")
    route_arguments(
        parser,
        "modalities to caption from, as in training; default: those of the training",
        "the text to write; default, and only choice: that of the training",
    )
    parser.add_argument("--image", type=Path, nargs="+", default=[], help="image files in place of a manifest")
    parser.add_argument(
        "--out", type=Path, default=None, help="JSONL to write; an unfinished one is continued; default: in the run"
    )
    parser.add_argument("--batch_size", type=int, default=64)
    parser.add_argument("--workers", type=int, default=0, help="processes that read images")
    parser.add_class_arguments(GenerationSettings)


def generate(args: Arguments) -> Outcome:
    """Images that could not be read are refused after the others were captioned and printed."""
    from dataclasses import fields

    import gapless
    from gapless.captioning.generation import GenerationSettings

    captions = gapless.caption(
        args.model,
        data=args.data,
        split=args.split,
        images=args.image,
        out=args.out,
        settings=GenerationSettings(**{f.name: getattr(args, f.name) for f in fields(GenerationSettings)}),
        batch_size=args.batch_size,
        workers=args.workers,
        sources=getattr(args, "from"),
        target=args.to,
    )
    refusal = None
    try:
        captions.refuse_unreadable()
    except DataRefused as error:
        refusal = error
    text = [f"{line['id']}: {line['caption']} ({line['score']:.2f})" for line in captions.lines]
    text += [f"{captions.captions:,} captions\n{captions.out}"] if captions.out else []
    return Outcome(captions.as_json(), "\n".join([*text, captions.notice]), refusal, captions.notes)


def evaluate_arguments(parser: Parser) -> None:
    parser.add_argument("source", type=Path, help="caption run with generated captions, or a JSONL with id and caption")
    parser.add_argument("--data", type=Path, required=True, help="manifest directory with the references")
    parser.add_argument("--split", default="test", help="which rows are the references")
    route_arguments(
        parser,
        "modalities that the captions were made from; default: as their file says, else image",
        "the modality of the references; default: as their file says, else text",
    )
    parser.add_argument(
        "--judge", default=None, help="MODEL for the figures that need encoders; default: the run's own"
    )
    parser.add_argument("--out", type=Path, default=None, help="directory to write; default: the run")
    parser.add_argument("--num_bootstrap", type=int, default=1000, help="resamples of groups for the intervals, or 0")
    parser.add_argument("--seed", type=int, default=0, help="of the bootstrap and of the random baseline")


def evaluate(args: Arguments) -> Outcome:
    import gapless
    from gapless.study.caption_table import caption_table
    from gapless.study.renderings import to_terminal

    found = gapless.evaluate_captions(
        args.source,
        data=args.data,
        split=args.split,
        judge=args.judge,
        out=args.out,
        num_bootstrap=args.num_bootstrap,
        seed=args.seed,
        sources=getattr(args, "from"),
        target=args.to,
    )
    scores = found.as_json()
    table = to_terminal(caption_table({scores["method"]: scores}), terminal_width(), ascii_only())
    out = args.out or (args.source if args.source.is_dir() else None)
    return Outcome(scores, f"{table}\n{out}" if out else table, notes=found.notes)


VERBS = {
    "caption train": Verb(
        CAPTIONS,
        "a captioner around a trained model",
        "caption train runs/model --data manifest --out runs/captioner",
        train_arguments,
        train,
    ),
    "caption generate": Verb(
        CAPTIONS,
        "captions of a split or of image files -> JSONL",
        "caption generate runs/captioner --data manifest --split test --out captions.jsonl",
        generate_arguments,
        generate,
    ),
    "caption evaluate": Verb(
        CAPTIONS,
        "scores of captions, with baselines beside",
        "caption evaluate runs/captioner --data manifest --split test",
        evaluate_arguments,
        evaluate,
    ),
}
