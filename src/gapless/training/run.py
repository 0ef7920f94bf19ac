"""Runs: training writes one directory with `config.yaml, metrics.jsonl, results.json, checkpoints/, model/`."""

import logging
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol

import pyarrow as pa
import torch
import yaml
from transformers import PreTrainedModel, TrainingArguments, set_seed

from gapless.core.errors import DataRefused, GaplessError, Interrupted, UsageError, unknown_name
from gapless.core.files import PARTIAL_MARK, check_new_directory, new_directory, plain, read_yaml, write_text
from gapless.core.locks import only_writer
from gapless.core.plan import check_same
from gapless.inference.embed import evaluation_dataset, preprocessors_of
from gapless.inference.label_rows import labels_for
from gapless.inference.pairs import PairDataset
from gapless.inference.presence import MIN_MODALITIES, common_rows, comparable_part, complete_rows
from gapless.losses.base import masks_duplicates, method_of
from gapless.losses.gap_closing_methods import CLOCK
from gapless.losses.pairs import ANCHOR
from gapless.losses.saved import describe_loss
from gapless.manifest.manifest import TRAIN, VALIDATION, VERSION, Manifest
from gapless.metrics.inputs import MIN_ROWS
from gapless.modalities.base import TEXTS
from gapless.models.aligner import GaplessConfig, GaplessModel, assemble, text_modalities
from gapless.models.lora import merge_lora
from gapless.models.safe_loading import network_or_usage, saved_tokenizer
from gapless.models.tokenizers import train_tokenizer
from gapless.training.checkpoint import checkpoints_of, newest_valid
from gapless.training.closing import enough_to_follow, follows_held_out
from gapless.training.evaluator import Evaluator, GapAndRetrieval, higher_is_better
from gapless.training.first_rank import by_first, entered_by_first
from gapless.training.from_manifest import fitted_recipe
from gapless.training.presence import trainable_rows, usual_anchor
from gapless.training.recipes import Recipe
from gapless.training.trainer import AlignerTrainer, RunTrainer

logger = logging.getLogger(__name__)


class Settings(Protocol):
    """The part of the settings that every kind of run has."""

    @property
    def training(self) -> Mapping[str, Any]:
        """Arguments of `transformers.TrainingArguments`, by their own names."""
        ...


class Request:
    """The base of what describes a run: a frozen dataclass. `config.yaml` holds it, and a resumed run must match it."""

    def to_dict(self) -> dict[str, Any]:
        """The description as lists and dictionaries of plain values, as YAML and JSON write them."""
        described: dict[str, Any] = plain(asdict(self))  # type: ignore[call-overload]
        return described

    def to_yaml(self) -> str:
        """The text of `config.yaml`."""
        return str(yaml.safe_dump(self.to_dict(), sort_keys=False))


@dataclass(frozen=True)
class Run(Request):
    """The training of an aligner.

    Args:
        recipe: the name of the recipe that the settings come from.
        method: the name of the method whose loss they hold.
        seed: of the weights and of the order of the rows.
        settings: what is trained.
        data_fingerprint: of the manifest.
    """

    recipe: str
    method: str
    seed: int
    settings: Recipe
    data_fingerprint: str


def training_arguments(
    settings: Settings, out: Path, seed: int, has_evaluation: bool, primary: str = GapAndRetrieval.primary
) -> TrainingArguments:
    """The `TrainingArguments` of a run: those of its settings, and those that gapless does not leave open.

    Args:
        settings: the run's settings.
        out: the run's directory.
        seed: at least 0.
        has_evaluation: whether there are validation rows; without them nothing is evaluated.
        primary: the key of the figure by which the best model is chosen, where the settings ask for the best and name
            no figure.

    Raises:
        UsageError: an unknown argument, a value of another type, or another value than the one that is fixed here.
    """
    argument_types = {name: field.type for name, field in TrainingArguments.__dataclass_fields__.items() if field.init}
    for name, value in settings.training.items():
        if name not in argument_types:
            raise unknown_name("training argument", name, tuple(argument_types))
        if argument_types[name] in (int, float) and (isinstance(value, bool) or not isinstance(value, int | float)):
            raise UsageError(f"training.{name} must be a number, got {value!r}")
    fixed = {
        "output_dir": str(out / "checkpoints"),
        "seed": seed,
        "remove_unused_columns": False,
        "dataloader_drop_last": True,
        "save_only_model": False,  # an exact resume needs the optimizer, and skips rows that it saw
        "ignore_data_skip": False,
        "logging_nan_inf_filter": False,
        "label_names": [],
        "disable_tqdm": True,
    }
    for name in settings.training.keys() & fixed.keys():
        if settings.training[name] != fixed[name]:
            raise UsageError(f"training.{name} is always {fixed[name]!r} here, got {settings.training[name]!r}")
    chosen = {
        "report_to": [],
        "log_level_replica": "error",  # a further process of torchrun is as quiet as the first
        "dataloader_pin_memory": torch.cuda.is_available(),
        # The pooler of a BERT whose first token is taken never gets a gradient. Transformers lets several processes
        # look for such weights except under checkpointing, whose reentrant form cannot bear it; the default is another.
        "ddp_find_unused_parameters": True,
        **settings.training,
    }
    if not has_evaluation:
        chosen["eval_strategy"] = "no"
    chosen |= _selection(chosen, primary)
    # YAML reads a bare `no` as False.
    chosen = {k: "no" if v is False and k.endswith("_strategy") else v for k, v in chosen.items()}
    try:
        return TrainingArguments(**{**chosen, **fixed})
    except (ValueError, TypeError) as error:
        raise UsageError(f"training: {error}") from None


def _selection(chosen: Mapping[str, Any], primary: str) -> dict[str, Any]:
    """The arguments that select the best checkpoint: the figure, and whether higher is better.

    The defaults of transformers do not fit: it selects by a validation loss, which gapless does not compute, and takes
    any other figure to be better when it is higher.
    """
    wants_best = chosen.get("load_best_model_at_end") or chosen.get("save_strategy") == "best"
    figure = chosen.get("metric_for_best_model") or (primary if wants_best else None)
    if figure is None:
        return {}
    asked_direction = chosen.get("greater_is_better")
    better = higher_is_better(str(figure).removeprefix("eval_")) if asked_direction is None else asked_direction
    return {"metric_for_best_model": figure, "greater_is_better": better}


def new_model(settings: Recipe, captions: list[str], method: str | None = None) -> GaplessModel:
    """A new model of a recipe, with the weights of its `pretrained` encoders or fresh ones.

    Args:
        captions: texts to train a tokenizer on, where the text encoder brings none.
        method: the method that the model's configuration names; by default one with these settings.

    Raises:
        UsageError: a recipe from which no model can be built. NeedsNetwork: an encoder that only the hub has.
    """
    config = GaplessConfig(
        modalities=plain(settings.modalities),
        embedding_dim=settings.embedding_dim,
        loss=describe_loss(
            method_of(settings.loss, method), settings.loss, settings.anchor or usual_anchor(settings.modalities)
        ),
    )
    specs, tokenizers = config.specs(), {}
    for name in text_modalities(config):
        spec = specs[name]
        source = getattr(spec.encoder, "pretrained", None)
        if source and spec.input.tokenizer != "open_clip":
            tokenizers[name] = _pretrained_tokenizer(source)
        elif not source:
            tokenizers[name] = train_tokenizer(captions, settings.vocab_size, spec.input.max_length)
            encoder = config.modalities[name]["encoder"]
            encoder["config"] = {**(encoder.get("config") or {}), "vocab_size": len(tokenizers[name])}
    try:
        return assemble(config, tokenizers)
    except GaplessError:
        raise
    except (ValueError, TypeError, KeyError, RuntimeError) as error:
        raise UsageError(f"the recipe cannot be built ({type(error).__name__}: {error})") from None


def _pretrained_tokenizer(source: str) -> Any:
    try:
        return saved_tokenizer(source)
    except (OSError, ValueError) as error:
        raise network_or_usage(source, error) from None


def all_captions(manifest: Manifest) -> list[str]:
    """Every caption of every row, in the order of the rows, then the texts of other modalities."""
    if manifest.version == VERSION:
        columns = {manifest.column_of(name): None for name in ("text", *manifest.modalities)}
        named = [name for name in columns if name in manifest.table.column_names and name != "image"]
        texts = [name for name in named if _holds_texts(manifest.table[name].type)]
    else:
        texts = [spec.name for spec in manifest.specs if spec.form == TEXTS]
    cells = (cell for name in texts for cell in manifest.table[name].to_pylist() if cell)
    return [text for cell in cells for text in ([cell] if isinstance(cell, str) else cell)]


def _holds_texts(kind: pa.DataType) -> bool:
    """Whether the cells of a column are texts or lists of texts."""
    return bool(pa.types.is_string(kind) or (pa.types.is_list(kind) and pa.types.is_string(kind.value_type)))


def train_run(
    run: Run,
    manifest: Manifest,
    out: Path,
    resume: bool = False,
    label: str | None = None,
    evaluator: Evaluator | None = None,
) -> dict[str, str]:
    """Train one model and write its run directory.

    Args:
        resume: continue from the newest checkpoint of `out` that verifies; without one, start again.
        label: of the progress bar.
        evaluator: what is measured on the validation rows; default: the gap and retrieval.

    Returns:
        The checkpoints that a resume could not use -> why.

    Raises:
        UsageError: an unknown name, an output directory in use, a recipe that differs on resume.
        DataRefused: fewer rows than a batch, or an input that statistics are taken from and that cannot be used.
        Interrupted: stopped by SIGTERM, and saved.
        GaplessError: a loss that is not finite.
    """
    seed, evaluator = run.seed, evaluator or GapAndRetrieval()
    settings, train_rows = trainable_rows(run.settings, manifest.select(TRAIN))
    validation = _evaluated_rows(manifest, settings, getattr(evaluator, "takes_absent", False))
    has_evaluation = validation is not None
    arguments = training_arguments(settings, out, seed, has_evaluation, evaluator.primary)
    check_enough(train_rows, arguments)
    with claimed(out, arguments, resume):
        checkpoint, passed_over = resumed(run, out) if resume else (None, {})
        settings = fitted_recipe(settings, train_rows, arguments, checkpoint)
        set_seed(seed)
        model = new_model(settings, all_captions(train_rows), run.method)
        model.micro_batch_size = settings.micro_batch_size
        write_request(run, arguments, out)
        if arguments.process_index == 0:
            _say_where_nothing_is_evaluated(manifest, settings, has_evaluation)
        trainer = AlignerTrainer(
            model,
            arguments,
            PairDataset(
                train_rows,
                preprocessors_of(model),
                training_seed=seed,
                augment_images=settings.augment_images,
                modality_dropout=settings.modality_dropout,
                labels=labels_for(settings.loss, train_rows),
            ),
            run=out,
            label=label or f"{run.method} seed {seed}",
            evaluation=None if validation is None else evaluation_dataset(model, validation),
            mask_duplicates=masks_duplicates(settings.loss),
            evaluator=evaluator,
            held_out=_followed_rows(manifest, settings, model) if follows_held_out(settings.loss) else None,
        )
        train_and_save(trainer, out, checkpoint, resume)
    return passed_over


def initial_model(run: Run, manifest: Manifest) -> GaplessModel:
    """The model that a run on this manifest starts from, before its first step."""
    settings, rows = trainable_rows(run.settings, manifest.select(TRAIN))
    settings = fitted_recipe(settings, rows)
    set_seed(run.seed)
    return new_model(settings, all_captions(rows), run.method)


def _evaluated_rows(manifest: Manifest, settings: Recipe, takes_absent: bool) -> Manifest | None:
    """The validation rows that an evaluator is given; None where they are too few for figures.

    Args:
        takes_absent: rows may lack modalities of the recipe.
    """
    if VALIDATION not in manifest.rows_per_split():
        return None
    rows = manifest.select(VALIDATION)
    if takes_absent and len(settings.modalities) >= MIN_MODALITIES:
        part = comparable_part(rows, settings.modalities)
        return part if max(common_rows(part, settings.modalities).values()) >= MIN_ROWS else None
    rows = complete_rows(rows, settings.modalities)
    return rows if len(rows) >= MIN_ROWS else None


def _followed_rows(manifest: Manifest, settings: Recipe, model: GaplessModel) -> PairDataset | None:
    """The validation rows that have two modalities or more of the recipe; None where they are too few to follow."""
    rows = None
    if VALIDATION in manifest.rows_per_split():
        rows = evaluation_dataset(model, comparable_part(manifest.select(VALIDATION), settings.modalities))
    return rows if enough_to_follow(rows) else None


def _say_where_nothing_is_evaluated(manifest: Manifest, settings: Settings, has_evaluation: bool) -> None:
    """Log a warning when evaluations are asked for and the validation split has too few rows for one."""
    count = manifest.rows_per_split().get(VALIDATION, 0)
    if not has_evaluation and settings.training.get("eval_strategy", "no") not in ("no", False):
        few = "one validation row" if count else "no validation rows"
        present = few if count < MIN_ROWS else f"fewer than {MIN_ROWS} validation rows that can be compared"
        logger.warning(
            f"nothing is evaluated during this training: {manifest.path} has {present}, "
            f"and figures compare at least {MIN_ROWS} rows with each other; 'gapless data split' makes a split"
        )


@contextmanager
def claimed(out: Path, arguments: TrainingArguments, resume: bool) -> Iterator[None]:
    """Give the run's directory, new unless it is resumed, to this training alone.

    Raises:
        UsageError: it is in use, is no run where one is to be resumed, or another process is writing it.
    """
    with entered_by_first(arguments, _locked(out, resume)):
        yield


@contextmanager
def _locked(out: Path, resume: bool) -> Iterator[None]:
    if resume:
        _check_is_run(out)
    else:
        check_new_directory(out)
    with only_writer(out):
        if not resume:
            check_new_directory(out)  # again: another process may have made it
        yield


def write_request(run: Request, arguments: TrainingArguments, out: Path) -> None:
    """Write `config.yaml` of a run; of the processes that torchrun started, the first one does."""

    def write() -> None:
        out.mkdir(parents=True, exist_ok=True)
        write_text(out / "config.yaml", run.to_yaml())

    by_first(arguments, write)


def train_and_save(trainer: RunTrainer, out: Path, checkpoint: Path | None, resume: bool) -> None:
    """Train from a checkpoint or from the start, and write the model.

    A new run that fails before its first checkpoint is removed.

    Raises:
        Interrupted: stopped by SIGTERM, and saved.
    """
    is_writer = trainer.args.process_index == 0
    try:
        with trainer.stop_request.listening():
            trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
    except BaseException:
        if is_writer and not resume and not checkpoints_of(out / "checkpoints"):
            shutil.rmtree(out)  # this call made it, and it holds nothing to resume from
        raise
    if trainer.stop_request.was_made and trainer.state.global_step < trainer.state.max_steps:
        raise Interrupted(f"stopped by SIGTERM at step {trainer.state.global_step} and saved; --resume latest goes on")
    by_first(trainer.args, lambda: _save_whole(trainer.whole_model, out / "model"))


def _save_whole(model: PreTrainedModel, directory: Path) -> None:
    """Write a model directory that is complete or absent; one of an earlier, unfinished call is replaced.

    Low-rank adapters are merged into the model's weights.
    """
    if isinstance(model, GaplessModel):
        merge_lora(model)
    for unfinished in (directory, *directory.parent.glob(f".{directory.name}{PARTIAL_MARK}*")):
        shutil.rmtree(unfinished, ignore_errors=True)
    with new_directory(directory) as partial:
        model.save_pretrained(partial)


def check_enough(rows: Manifest, arguments: TrainingArguments) -> None:
    """Raise UsageError for a batch of one row, DataRefused for fewer rows than one batch of all processes."""
    batch = arguments.train_batch_size * arguments.world_size
    if batch < 2:
        raise UsageError(f"training.per_device_train_batch_size must be at least 2, got {arguments.train_batch_size}")
    if len(rows) < batch:
        raise DataRefused(
            f"{rows.path} has {len(rows)} {TRAIN} rows, fewer than one batch of {batch}; "
            "lower training.per_device_train_batch_size"
        )


def resumed(run: Request, out: Path) -> tuple[Path | None, dict[str, str]]:
    """The checkpoint to continue from, and the newer ones that cannot be used -> why.

    Raises:
        UsageError: no run is there, or its recipe, method, seed or data differ; the message names the key.
        DataRefused: a damaged `config.yaml`.
    """
    _check_is_run(out)
    try:
        started = read_yaml(out / "config.yaml")
    except DataRefused as error:
        raise DataRefused(f"{error}; start a new run") from None
    now = run.to_dict()
    check_same(_with_new_settings(started, now), now, f"{out} was started with another configuration")
    return newest_valid(out / "checkpoints")


NEW_SETTINGS: dict[str, dict[str, Any]] = {
    "settings": {"modality_dropout": {}},
    "loss": {"pairs": ANCHOR, "modality_weights": {}, "alignment_modality_weights": None, "follow": CLOCK},
}


def _with_new_settings(started: Any, now: dict[str, Any]) -> Any:
    """A run's configuration with the settings that came after it was written, at the values that change nothing.

    A run of an earlier version can so be continued; a setting that the new call has otherwise still differs.
    """
    if not isinstance(started, dict) or not isinstance(started.get("settings"), dict):
        return started
    asked = now["settings"]
    if "modalities" not in asked:  # a captioner's settings
        return started
    settings = {**NEW_SETTINGS["settings"], **started["settings"]}
    if asked["anchor"] is None and settings.get("anchor") == usual_anchor(asked["modalities"]):
        settings["anchor"] = None  # earlier recipes named the anchor that is now found where none is named
    if isinstance(settings.get("loss"), dict) and isinstance(asked["loss"], dict):
        added = {key: value for key, value in NEW_SETTINGS["loss"].items() if key in asked["loss"]}
        settings["loss"] = {**added, **settings["loss"]}
    return {**started, "settings": settings}


def _check_is_run(out: Path) -> None:
    if not (out / "config.yaml").exists():
        raise UsageError(f"{out} is not a run (it has no config.yaml), so there is nothing to resume")
