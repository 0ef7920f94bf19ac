"""`gapless caption train, generate, evaluate`: captions from the aligned space, and what they are worth."""

from pathlib import Path
from typing import Any

from gapless.cli.model_options import workers_argument
from gapless.cli.verb import CAPTIONS, Arguments, Outcome, Parser, Verb, ascii_only, terminal_width
from gapless.core.errors import DataRefused, UsageError


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
    return Outcome(trained.as_json(), run_text(trained), is_shared=True)


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
    parser.add_argument("--nearest", type=int, default=0, help="training texts to show beside each caption")
    parser.add_argument(
        "--abstain", type=bool, default=False, help="leave captions of too little calibrated confidence empty"
    )
    parser.add_argument("--batch_size", type=int, default=64)
    workers_argument(parser)
    parser.add_class_arguments(GenerationSettings)


def generation_of(args: Arguments) -> Any:
    """The settings of the generation."""
    from dataclasses import fields

    from gapless.captioning.generation import GenerationSettings

    return GenerationSettings(**{field.name: getattr(args, field.name) for field in fields(GenerationSettings)})


def generate(args: Arguments) -> Outcome:
    """Images that could not be read are refused after the others were captioned and printed."""
    import gapless

    captions = gapless.caption(
        args.model,
        data=args.data,
        split=args.split,
        images=args.image,
        out=args.out,
        settings=generation_of(args),
        batch_size=args.batch_size,
        workers=args.workers,
        sources=getattr(args, "from"),
        target=args.to,
        nearest=args.nearest,
        abstain=args.abstain,
    )
    refusal = None
    try:
        captions.refuse_unreadable()
    except DataRefused as error:
        refusal = error
    text = [line_text(line) for line in captions.lines]
    text += [f"{captions.captions:,} captions\n{captions.out}"] if captions.out else []
    return Outcome(captions.as_json(), "\n".join([*text, captions.notice]), refusal, captions.notes)


def line_text(line: dict[str, Any]) -> str:
    """A caption as the terminal shows it."""
    text = f"{line['id']}: {'(does not know)' if line.get('does_not_know') else line['caption']} ({line['score']:.2f})"
    text += f", confidence {line['confidence']:.2f}" if "confidence" in line else ""
    text += ", repeats a training text" if line.get("repeats_training_text") else ""
    near = [f"  near: {one['text']} ({one['cosine']:.2f})" for one in line.get("nearest", [])]
    return "\n".join([text, *near])


def calibrate_arguments(parser: Parser) -> None:
    from gapless.captioning.confidence import LEVEL
    from gapless.captioning.generation import GenerationSettings

    parser.add_argument("model", type=Path, help="caption run or model directory")
    parser.add_argument("--data", type=Path, required=True, help="manifest directory with the references")
    parser.add_argument("--split", default="validation", help="rows that the captioner did not learn")
    parser.add_argument(
        "--level", type=float, default=LEVEL, help="a caption is right where the F1 of its findings is at least this"
    )
    parser.add_argument(
        "--least_right", type=float, default=0.8, help="share of right captions from the threshold on, for --abstain"
    )
    parser.add_argument(
        "--findings", type=Path, default=None, help="file of further findings: a name, a tab, its forms with | between"
    )
    parser.add_argument("--batch_size", type=int, default=64)
    workers_argument(parser)
    parser.add_class_arguments(GenerationSettings)


def calibrate(args: Arguments) -> Outcome:
    from gapless.captioning import calibrate_captions

    names = ("data", "split", "level", "least_right", "findings", "batch_size", "workers")
    made = calibrate_captions(args.model, settings=generation_of(args), **{name: getattr(args, name) for name in names})
    text = (
        f"{made.right:.0%} of {made.n:,} captions are right, {made.groups:,} groups; confidences are off by "
        f"{made.reliability['error']:.3f} in the mean\n"
    )
    text += (
        f"with --abstain true it answers {made.answered:.0%}, from a confidence of {made.threshold:.2f} on"
        if made.threshold <= 1
        else "no confidence reaches --least_right: with --abstain true it never answers"
    )
    return Outcome(made.as_json(), f"{text}\n{made.model}\n{made.notice}")


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
    parser.add_argument(
        "--findings", type=Path, default=None, help="file of further findings: a name, a tab, its forms with | between"
    )
    parser.add_argument(
        "--labeller",
        nargs="+",
        default=[],
        metavar="NAME=DIR",
        help="also score by chexbert or radgraph, whose weights lie in a directory",
    )
    parser.add_argument("--num_bootstrap", type=int, default=1000, help="resamples of groups for the intervals, or 0")
    parser.add_argument("--seed", type=int, default=0, help="of the bootstrap and of the random baseline")


def labellers_of(given: list[str]) -> dict[str, str]:
    """`--labeller NAME=DIR ...` as name -> directory."""
    parts = [one.partition("=") for one in given]
    wrong = [one for one, (name, equals, place) in zip(given, parts, strict=True) if not (name and equals and place)]
    if wrong:
        raise UsageError(f"--labeller is NAME=DIR, such as chexbert=weights/chexbert; got {wrong[0]!r}")
    return {name: place for name, _, place in parts}


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
        findings=args.findings,
        labellers=labellers_of(args.labeller),
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
    "caption calibrate": Verb(
        CAPTIONS,
        "how sure a captioner may be, from rows that it did not learn",
        "caption calibrate runs/captioner --data manifest --split validation",
        calibrate_arguments,
        calibrate,
    ),
    "caption evaluate": Verb(
        CAPTIONS,
        "scores of captions, with baselines beside",
        "caption evaluate runs/captioner --data manifest --split test",
        evaluate_arguments,
        evaluate,
    ),
}
