"""Caption runs: `gapless caption train` as one call, and what a run directory holds."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gapless.captioning.captioner import Captioner, CaptionerConfig
from gapless.captioning.route import Route, trainable
from gapless.captioning.settings import CaptionSettings
from gapless.captioning.training import CaptionRun, train_caption_run
from gapless.core.errors import UsageError
from gapless.core.files import read_object
from gapless.core.results import Result
from gapless.manifest.manifest import Manifest
from gapless.models.load import load_model
from gapless.models.safe_loading import on_accelerator
from gapless.training.evaluate import budget_of, read_config


@dataclass(frozen=True)
class TrainedCaptioner(Result):
    """A finished training of a captioner.

    Args:
        run: the directory, with the model in `model/`.
        passed_over: checkpoints that a resume could not use -> why.
    """

    run: Path
    passed_over: Mapping[str, str]


def train_captioner(
    aligner: str | Path,
    *,
    data: str | Path | Manifest,
    out: str | Path,
    settings: CaptionSettings | None = None,
    seed: int = 0,
    resume: bool = False,
) -> TrainedCaptioner:
    """Train a captioner around a trained aligner and write its run directory.

    Examples:
        >>> from gapless.captioning import CaptionSettings
        >>> trained = gapless.train_captioner("run", data="data", out="captioner",
        ...     settings=CaptionSettings(mode="text"))                                   # doctest: +SKIP

    Args:
        aligner: the model that encodes: a run or model directory, or any model that `gapless.embed` takes.
        data: the manifest, or its directory.
        out: run directory to write; with `resume` one that was begun with the same arguments.
        settings: mode, sources, target, decoder and training; by default those of `CaptionSettings`.
        seed: of the weights and of the order of the rows, at least 0.
        resume: continue from the newest checkpoint of `out` that verifies; without one, start again.

    Raises:
        UsageError: an unknown name or modality, a target that is no text, an output directory in use, a setting that
            differs on resume, a model without the sources or, in mode joint, without a weight that can learn.
        DataRefused: no row with both, fewer rows than a batch.
    """
    manifest, settings = Manifest.of(data), settings or CaptionSettings()
    trainable(manifest, settings.route, needs_sources=settings.mode != "text")  # before the model is loaded
    model = load_model([aligner])
    run = CaptionRun.around(model, str(aligner), seed, settings, manifest)
    return TrainedCaptioner(Path(out), train_caption_run(run, model, manifest, Path(out), resume=resume))


def model_directory(path: Path) -> Path:
    """The model of a run, or the directory itself.

    Raises:
        UsageError: a run that is not finished has no model.
    """
    if (path / "config.yaml").exists() and not (path / "model" / "config.json").exists():
        raise UsageError(f"{path} has no finished model; continue it with --resume latest")
    return path / "model" if (path / "model" / "config.json").exists() else path


def is_captioner(path: Path) -> bool:
    """Whether a run or model directory holds a captioner, and no model without one."""
    config = model_directory(path) / "config.json"
    return config.exists() and read_object(config).get("model_type") == CaptionerConfig.model_type


def load_captioner(path: Path) -> Captioner:
    """The captioner of a run or model directory, ready to caption.

    Raises:
        UsageError: nothing is there, or an unfinished run. DataRefused: a damaged model.
    """
    if not path.exists():
        raise UsageError(f"{path} does not exist")
    model: Captioner = on_accelerator(Captioner.from_pretrained(model_directory(path)))
    return model.train(False)


def trained_route(path: Path) -> Route:
    """The sources and the target of a saved captioner, without its weights; the usual ones where nothing is said.

    Raises:
        UsageError: nothing is there, or an unfinished run.
    """
    if not path.exists():
        raise UsageError(f"{path} does not exist")
    file = model_directory(path) / "config.json"
    if not file.is_file():
        return Route()
    config = read_object(file)
    return Route.of_json({"from": config.get("sources"), "to": config.get("target")})


def captions_of(run: Path, split: str) -> Path:
    """Where the captions of a split lie in a run."""
    return run / f"captions-{split}.jsonl"


def about_run(source: Path) -> dict[str, Any]:
    """What a caption run was asked for; of a caption file its name.

    Raises:
        UsageError: a directory that is no run.
    """
    name = source.resolve().name
    if not source.is_dir():
        return {"method": name}
    if not (source / "config.yaml").exists():
        raise UsageError(f"{source} is not a run: it has no config.yaml")
    config = read_config(source, ("aligner", "seed", "settings"))
    asked = config["settings"]
    route = Route.of_json({"from": asked.get("sources"), "to": asked.get("target")})
    settings = {"mode": asked["mode"], "aligner": config["aligner"]["source"], **route.as_json()}
    return {"seed": config["seed"], "method": name, "budget": budget_of(source, config), **settings}
