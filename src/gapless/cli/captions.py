"""`gapless caption train, generate, evaluate`: captions from the aligned space, and what they are worth."""

from pathlib import Path
from typing import Any

from gapless.cli.verb import Arguments, Outcome, Parser, Verb, ascii_only, terminal_width
from gapless.core.errors import DataRefused, UsageError, listed


def train_arguments(parser: Parser) -> None:
    from gapless.captioning.training import CaptionSettings

    parser.add_argument(
        "aligner", help="what encodes: a run or model directory, or any MODEL that 'gapless embed' takes"
    )
    parser.add_argument("--data", type=Path, required=True, help="manifest directory")
    parser.add_argument("--out", type=Path, required=True, help="run directory to write")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--resume", choices=["latest"], default=None, help="continue from the newest whole checkpoint")
    parser.add_class_arguments(CaptionSettings)
    parser.epilog = "modes: frozen, joint (the encoder learns too), text (learns from text embeddings alone)."


def train(args: Arguments) -> Outcome:
    from gapless.captioning.training import CaptionRun, train_captioner
    from gapless.manifest.manifest import Manifest
    from gapless.models.foreign import load_model

    settings = settings_from(args)
    manifest = Manifest.read(args.data)
    aligner = load_model([args.aligner])
    run = CaptionRun.around(aligner, args.aligner, args.seed, settings, manifest)
    passed_over = train_captioner(run, aligner, manifest, args.out, resume=args.resume == "latest")
    notes = "".join(f"passed over {name}: {fault}\n" for name, fault in passed_over.items())
    return Outcome({"run": str(args.out), "passed_over": passed_over}, f"{notes}{args.out}")


def settings_from(args: Arguments) -> Any:
    """The settings; `--decoder.KEY` and `--training.KEY` change one entry and keep the others."""
    from dataclasses import fields

    from gapless.captioning.training import CaptionSettings

    return CaptionSettings(**{f.name: getattr(args, f.name) for f in fields(CaptionSettings)})


def generate_arguments(parser: Parser) -> None:
    from gapless.captioning.generation import GenerationSettings

    parser.add_argument("model", type=Path, help="caption run or model directory")
    parser.add_argument("--data", type=Path, default=None, help="manifest directory")
    parser.add_argument("--split", default="test", help="which rows of the manifest")
    parser.add_argument("--image", type=Path, nargs="+", default=[], help="image files in place of a manifest")
    parser.add_argument(
        "--out", type=Path, default=None, help="JSONL to write; an unfinished one is continued; default: in the run"
    )
    parser.add_argument("--batch_size", type=int, default=64)
    parser.add_argument("--workers", type=int, default=0, help="processes that read images")
    parser.add_class_arguments(GenerationSettings)


def model_directory(path: Path) -> Path:
    """The model of a run, or the directory itself; a run that is not finished has none."""
    if (path / "config.yaml").exists() and not (path / "model" / "config.json").exists():
        raise UsageError(f"{path} has no finished model; continue it with --resume latest")
    return path / "model" if (path / "model" / "config.json").exists() else path


def load_captioner(path: Path) -> Any:
    import torch

    from gapless.captioning.captioner import Captioner

    if not path.exists():
        raise UsageError(f"{path} does not exist")
    model = Captioner.from_pretrained(model_directory(path))
    model.to(torch.device("cuda" if torch.cuda.is_available() else "cpu"))  # type: ignore[arg-type]
    return model.train(False)


def generate(args: Arguments) -> Outcome:
    from dataclasses import fields

    from gapless.captioning.generation import GenerationSettings

    if (args.data is None) == (not args.image):
        raise UsageError("give either --data MANIFEST or --image FILE...")
    settings = GenerationSettings(**{f.name: getattr(args, f.name) for f in fields(GenerationSettings)})
    model = load_captioner(args.model)
    return generate_for_files(args, model, settings) if args.image else generate_for_rows(args, model, settings)


def about_model(args: Arguments, model: Any) -> dict[str, Any]:
    from gapless.models.foreign import weights_digest

    config = model.config
    description = [config.aligner_spec["modalities"], config.decoder_spec, config.max_tokens]
    return {"model": {"source": str(args.model), "fingerprint": weights_digest(description, model.state_dict())}}


def generate_for_rows(args: Arguments, model: Any, settings: Any) -> Outcome:
    from gapless.captioning.caption_files import images_of, read_captions, write_captions
    from gapless.manifest.manifest import Manifest

    manifest = Manifest.read(args.data)
    rows = manifest.select(args.split)
    if args.out is None and not (args.model / "config.yaml").exists():
        raise UsageError(f"{args.model} is a model directory, not a run; say where to write with --out")
    out = args.out or captions_of(args.model, args.split)
    data = {"source": manifest.info["source"], "fingerprint": manifest.fingerprint, "split": args.split}
    about = about_model(args, model) | {"data": data}
    write_captions(model, images_of(model, rows), out, settings, about, args.batch_size, args.workers)
    lines = list(read_captions(out).values())
    return outcome(lines[:3], {}, out, len(lines))


def generate_for_files(args: Arguments, model: Any, settings: Any) -> Outcome:
    from gapless.captioning.caption_files import ImageFiles, generate_lines, read_captions, readable, write_captions

    twice = sorted({str(path) for path in args.image if args.image.count(path) > 1})
    if twice:
        raise UsageError(f"--image names a file more than once ({listed(twice)})")
    good, bad = readable(args.image)
    lines: list[dict[str, Any]] = []
    if good:
        dataset = ImageFiles(good, model)
        if args.out is not None:
            about = about_model(args, model) | {"data": {"images": dataset.described()}}
            write_captions(model, dataset, args.out, settings, about, args.batch_size, args.workers)
            lines = list(read_captions(args.out).values())
        else:
            batches = generate_lines(model, dataset, settings, args.batch_size, args.workers, "caption")
            lines = [line for batch in batches for line in batch]
    return outcome(lines, bad, args.out if good else None, len(lines))


def captions_of(run: Path, split: str) -> Path:
    """Where the captions of a split lie in a run."""
    return run / f"captions-{split}.jsonl"


def outcome(shown: list[dict[str, Any]], bad: dict[str, str], out: Path | None, count: int) -> Outcome:
    """Some captions to look at; images that could not be read are refused after the others were captioned."""
    from gapless.captioning.generation import NOTICE

    refusal = None
    if bad:
        reasons = listed([f"{name}: {why}" for name, why in bad.items()])
        refusal = DataRefused(f"{len(bad)} of {count + len(bad)} images cannot be read ({reasons})")
    text = [f"{line['id']}: {line['caption']} ({line['score']:.2f})" for line in shown]
    text += [f"{count:,} captions\n{out}"] if out else []
    value = {"captions": count, "out": str(out) if out else None, "lines": shown, "unreadable": bad, "notice": NOTICE}
    return Outcome(value, "\n".join([*text, NOTICE]), refusal)


def evaluate_arguments(parser: Parser) -> None:
    parser.add_argument("source", type=Path, help="caption run with generated captions, or a JSONL with id and caption")
    parser.add_argument("--data", type=Path, required=True, help="manifest directory with the references")
    parser.add_argument("--split", default="test", help="which rows are the references")
    parser.add_argument(
        "--judge", default=None, help="MODEL for the figures that need encoders; default: the run's own"
    )
    parser.add_argument("--out", type=Path, default=None, help="directory to write; default: the run")
    parser.add_argument("--num_bootstrap", type=int, default=1000, help="resamples of groups for the intervals, or 0")
    parser.add_argument("--seed", type=int, default=0, help="of the bootstrap and of the random baseline")


def evaluate(args: Arguments) -> Outcome:
    from gapless.captioning.caption_files import check_made_from, read_captions
    from gapless.captioning.names import KIND
    from gapless.captioning.scores import samples_of, score_captions, write_scores
    from gapless.manifest.manifest import Manifest
    from gapless.study.caption_table import OWN_ENCODERS, caption_table
    from gapless.study.renderings import to_terminal
    from gapless.training.evaluate import refuse_other_figures

    is_run = args.source.is_dir()
    manifest = Manifest.read(args.data)
    source = captions_of(args.source, args.split) if is_run else args.source
    lines = read_captions(source)
    check_made_from(source, manifest.fingerprint, args.split)
    out = args.out or (args.source if is_run else None)
    if out is not None:
        refuse_other_figures(out, args.split, manifest.fingerprint, KIND)
    judge = load_judge(args.judge or (args.source if is_run else None))
    about = {**about_run(args.source), **about_file(source), "judge": args.judge or (OWN_ENCODERS if is_run else None)}
    results = score_captions(lines, manifest, args.split, judge, args.num_bootstrap, args.seed, about)
    if out is not None:
        write_scores(out, results, samples_of(lines, manifest.select(args.split)))
    table = to_terminal(caption_table({name_of(args.source): results}), terminal_width(), ascii_only())
    return Outcome(results, f"{table}\n{out}" if out else table)


def name_of(source: Path) -> str:
    return source.resolve().name


def load_judge(source: Any) -> Any:
    """An aligner, or the one inside a captioner."""
    from gapless.captioning.captioner import CaptionerConfig
    from gapless.core.files import read_object
    from gapless.models.foreign import load_model

    if source is None:
        return None
    config = model_directory(Path(source)) / "config.json"
    if config.exists() and read_object(config).get("model_type") == CaptionerConfig.model_type:
        return load_captioner(Path(source)).aligner
    return load_model([source])


def about_run(source: Path) -> dict[str, Any]:
    """What a caption run was asked for; of a caption file its name."""
    from gapless.training.evaluate import budget_of, read_config

    if source.is_dir():
        if not (source / "config.yaml").exists():
            raise UsageError(f"{source} is not a run: it has no config.yaml")
        config = read_config(source, ("aligner", "seed", "settings"))
        settings = {"mode": config["settings"]["mode"], "aligner": config["aligner"]["source"]}
        return {"seed": config["seed"], "method": name_of(source), "budget": budget_of(source, config), **settings}
    return {"method": name_of(source)}


def about_file(captions: Path) -> dict[str, Any]:
    """How a caption file was generated, as far as it stands beside it."""
    from gapless.captioning.caption_files import how_made

    made = how_made(captions)
    model = made.get("model")
    found = {"settings": made.get("settings"), "model": model.get("fingerprint") if isinstance(model, dict) else None}
    known = {name: value for name, value in found.items() if value is not None}
    return {"generation": known} if known else {}


VERBS = {
    "caption train": Verb("a captioner around a trained model", train_arguments, train),
    "caption generate": Verb("captions of a split or of image files -> JSONL", generate_arguments, generate),
    "caption evaluate": Verb("scores of captions, with baselines beside", evaluate_arguments, evaluate),
}
