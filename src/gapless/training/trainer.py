"""The training loop: `transformers.Trainer` with any loss and evaluator, and with checkpoints that are complete."""

import math
import shutil
from collections.abc import Callable, Mapping, Sequence, Sized
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, Sampler
from transformers import PreTrainedModel, PrinterCallback, ProgressCallback, Trainer, TrainingArguments
from transformers.trainer import TRAINER_STATE_NAME
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR

from gapless.core.errors import GaplessError, listed
from gapless.core.files import PARTIAL_MARK, read_json, sync_path, write_json
from gapless.inference.embed import Collator, embed_dataset, preprocessors_of
from gapless.inference.pairs import EpochSampler
from gapless.losses.base import check_takes_present, logit_scale_of, parameter_rules, takes_reference
from gapless.losses.closing_control import ClosingControl
from gapless.models.aligner import GaplessModel
from gapless.training.callbacks import (
    EpochBeforeCheckpoint,
    LossRules,
    MetricsFile,
    ProgressBar,
    StopRequest,
    ignore_stop_request,
)
from gapless.training.checkpoint import fault_of, publish, remove_unfinished, rotate
from gapless.training.closing import FollowHeldOut
from gapless.training.evaluator import Evaluator, GapAndRetrieval
from gapless.training.first_rank import by_first, in_every

METRICS_FILE = "metrics.jsonl"
SUMS_FILE = "sums.json"
CONTROL_FILE = "closing_control.json"


def _plain_floats(values: Mapping[str, Tensor | float]) -> dict[str, float]:
    """The values as floats, sorted by name: sums that were read from a file are then logged in the same order."""
    return {name: float(values[name]) for name in sorted(values)}


def _check_best(checkpoint: Path) -> None:
    """Refuse a best checkpoint that is missing or damaged, because the end of the training loads it.

    Raises:
        GaplessError: it cannot be used. The training would otherwise end with a model that is not the best.
    """
    fault = fault_of(checkpoint)
    if fault is not None:
        raise GaplessError(
            f"{checkpoint} holds the best model so far and cannot be used ({fault}); "
            "remove the checkpoints after it to go on from an older one, or start a new run"
        )


class RunTrainer(Trainer):
    """`transformers.Trainer` with the checkpoints, logs and order of rows of gapless, for any model.

    The model's output has `loss` and unweighted `terms`; a batch has `ids`.

    Args:
        model: the model to train.
        args: as transformers takes them.
        train_dataset: rows, by `(epoch, row)` keys. Where its `lacks_modalities` is true, rows lack modalities and
            each batch says which.
        run: the run's directory; checkpoints go to `run/checkpoints`, logs to `run/metrics.jsonl`.
        label: of the progress bar.
        collator: samples to the model's keyword arguments and `ids`.
        evaluation: what is measured during training, or None.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        args: TrainingArguments,
        train_dataset: Dataset[Any],
        run: Path,
        label: str,
        collator: Callable[[Any], dict[str, Any]],
        evaluation: Dataset[Any] | None,
    ) -> None:
        # We rotate checkpoints ourselves: transformers deletes by age, and drops the newest one to keep the best.
        self.num_kept, args.save_total_limit = args.save_total_limit, None
        super().__init__(
            model=model,
            args=args,
            train_dataset=train_dataset,
            eval_dataset=evaluation,
            data_collator=collator,
        )
        self.run = run
        self.whole_model, self.evaluation = model, evaluation
        self.sums: dict[str, Tensor | float] = {}  # name -> sum of the loss or a term since the last log
        self.num_summed = 0
        self.partial_directory: Path | None = None  # where a checkpoint is being written
        self.model_accepts_loss_kwargs = False  # the loss is a mean over the batch
        self.follower: FollowHeldOut | None = None
        self.remove_callback(PrinterCallback)
        self.remove_callback(ProgressCallback)
        self.stop_request, self.epoch_first = StopRequest(), EpochBeforeCheckpoint()
        for callback in (self.stop_request, self.epoch_first, MetricsFile(run / METRICS_FILE), ProgressBar(label)):
            self.add_callback(callback)

    def compute_loss(
        self,
        model: nn.Module,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: Tensor | int | None = None,
    ) -> Any:
        """The loss of a batch; its terms are summed for the next log.

        Raises:
            GaplessError: a loss that is not finite; the rows of the batch are named.
        """
        ids = inputs.pop("ids")
        try:
            output = model(**inputs)
        except ValueError as error:  # on the CPU the loss itself refuses rows that are not finite
            raise self.unusable(ids, str(error)) from None
        if not torch.isfinite(output.loss):
            raise self.unusable(ids, "the loss is not finite")
        values = {"loss": output.loss.detach(), **{f"loss/{name}": value for name, value in output.terms.items()}}
        for name, value in values.items():
            self.sums[name] = self.sums.get(name, 0.0) + value.double()
        self.num_summed += 1
        return (output.loss, output) if return_outputs else output.loss

    def unusable(self, ids: Sequence[str], what: str) -> GaplessError:
        """The error for a batch that has no usable loss."""
        shown = listed(ids)
        return GaplessError(
            f"stopped at step {self.state.global_step} on the batch of {shown}: {what}; "
            "lower training.learning_rate, or look at these rows"
        )

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Log the means of the summed terms since the last log."""
        if "loss" in logs and self.num_summed:
            # The loss is among the sums: the sum of transformers is lost at a resume.
            logs |= {name: value / self.num_summed for name, value in _plain_floats(self.sums).items()}
            self.sums, self.num_summed = {}, 0
        super().log(logs, start_time)

    def evaluate(self, *args: Any, **kwargs: Any) -> dict[str, float]:
        """The figures of the evaluation data, as `eval_<key>`."""
        metrics = {f"eval_{key}": value for key, value in self.evaluation_figures().items()}
        self.log(metrics)
        self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, metrics)
        return metrics

    def evaluation_figures(self) -> dict[str, Any]:
        """Key -> figure of the evaluation data; a subclass computes them."""
        raise NotImplementedError

    def get_decay_parameter_names(self, model: nn.Module) -> list[str]:
        """The parameters with weight decay: those of transformers but `logit_scale`."""
        return [name for name in super().get_decay_parameter_names(model) if not name.endswith("logit_scale")]

    def floating_point_ops(self, inputs: dict[str, Any]) -> int:
        """0: the Trainer's estimate does not hold for these encoders."""
        return 0

    def _get_train_sampler(self, train_dataset: Dataset[Any] | None = None) -> Sampler[Any]:
        assert isinstance(self.train_dataset, Sized)
        self.epoch_sampler = EpochSampler(
            len(self.train_dataset), self.args.seed if self.args.data_seed is None else self.args.data_seed
        )
        return self.epoch_sampler

    def get_train_dataloader(self) -> DataLoader[Any]:
        """The loader of transformers, whose workers ignore SIGTERM."""
        loader: Any = super().get_train_dataloader()
        inner = loader.base_dataloader  # accelerate's wrapper starts no workers itself
        inner.worker_init_fn = partial(ignore_stop_request, start=inner.worker_init_fn)
        prepared: DataLoader[Any] = loader
        return prepared

    def _init_training_state(
        self, max_steps: int, steps_in_epoch: int, num_epochs: int, resume_from_checkpoint: str | None, trial: Any
    ) -> Any:
        """Look for the best checkpoint of a resumed run in its own folder: the recorded path may be of another one."""
        started = super()._init_training_state(max_steps, steps_in_epoch, num_epochs, resume_from_checkpoint, trial)
        if resume_from_checkpoint is None:
            return started
        recorded = read_json(Path(resume_from_checkpoint) / TRAINER_STATE_NAME)["best_model_checkpoint"]
        if recorded is not None:
            best = Path(str(self.args.output_dir)) / Path(recorded).name
            self.state.best_model_checkpoint = str(best) if best.is_dir() else None
            if self.args.load_best_model_at_end:
                _check_best(best)
        return started

    def _load_best_model(self) -> None:
        _check_best(Path(str(self.state.best_model_checkpoint)))
        super()._load_best_model()

    def _run_epoch(self, model: nn.Module, epoch: int, *args: Any, **kwargs: Any) -> None:
        """Run an epoch; a run that is resumed after its last step ends at once, also in the middle of an epoch.

        The epoch of the sampler is set here, because transformers does not reach it where several processes resume in
        the middle of an epoch: it lies in one more wrapper then, and would give the rows of the first epoch.
        """
        if self.state.global_step >= self.state.max_steps:
            self.control.should_training_stop = True
            return
        self.epoch_sampler.set_epoch(epoch)
        super()._run_epoch(model, epoch, *args, **kwargs)  # type: ignore[no-untyped-call]

    def _maybe_log_save_evaluate(
        self, tr_loss: Tensor, grad_norm: Any, model: nn.Module, trial: Any, *args: Any, **kwargs: Any
    ) -> None:
        super()._maybe_log_save_evaluate(tr_loss, grad_norm, model, trial, *args, **kwargs)
        is_last = self.control.should_training_stop and not self.epoch_first.is_waiting
        if self.stop_request.was_made and is_last:
            self._save_checkpoint(model, trial)  # save_strategy "best" saves only when the figure improved

    def _save_checkpoint(self, model: nn.Module, trial: Any) -> None:
        """Save into a temporary sibling, seal it, then rename it, so that a checkpoint is complete or absent."""
        final = Path(str(self.args.output_dir)) / f"{PREFIX_CHECKPOINT_DIR}-{self.state.global_step}"
        if final.exists() and fault_of(final) is None:
            return
        partial = final.parent / f"{PARTIAL_MARK}{final.name}"
        by_first(self.args, lambda: remove_unfinished(final.parent))
        self.partial_directory = partial
        try:
            in_every(self.args, lambda: super(RunTrainer, self)._save_checkpoint(model, trial))
            if self.state.best_global_step == self.state.global_step:
                self.state.best_model_checkpoint = str(final)  # every process loads it at the end
            by_first(self.args, lambda: self.finish_checkpoint(partial / final.name, final))
        finally:
            self.partial_directory = None
            if self.is_world_process_zero():
                shutil.rmtree(partial, ignore_errors=True)  # empty, unless something failed
        by_first(self.args, lambda: self.rotate(final.parent))

    def save_model(self, output_dir: str | None = None, _internal_call: bool = False) -> None:
        """Save the model, or fail in every process: transformers has them wait for each other after this."""
        in_every(self.args, lambda: super(RunTrainer, self).save_model(output_dir, _internal_call))

    def finish_checkpoint(self, written: Path, final: Path) -> None:
        """Add the files of gapless to those of transformers, and move the checkpoint to its final name."""
        state = written / TRAINER_STATE_NAME
        if state.exists():  # again with the final place of the best checkpoint, as strict JSON: transformers writes NaN
            self.state.save_to_json(str(state))
            write_json(state, read_json(state))
        write_json(written / SUMS_FILE, {"num_summed": self.num_summed, "sums": _plain_floats(self.sums)})
        if self.follower is not None:
            write_json(written / CONTROL_FILE, self.follower.control.state_dict())
        if (self.run / METRICS_FILE).exists():
            sync_path(self.run / METRICS_FILE)
        publish(written, final)

    def follow(self, aligner: GaplessModel, held_out: Dataset[Any], **options: Any) -> None:
        """Have the weights of the aligner's loss follow held-out pairs; options of `FollowHeldOut`.

        It comes after the callback that sets the progress of the loss.
        """
        self.follower = FollowHeldOut(aligner, held_out, ClosingControl(), self.log, **options)
        self.add_callback(self.follower)

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: nn.Module | None = None) -> None:
        super()._load_from_checkpoint(resume_from_checkpoint, model)
        if self.follower is not None:
            self.follower.control.load_state_dict(read_json(Path(resume_from_checkpoint) / CONTROL_FILE))
        saved = read_json(Path(resume_from_checkpoint) / SUMS_FILE)
        self.num_summed = saved["num_summed"]
        self.sums = {name: math.nan if value is None else value for name, value in saved["sums"].items()}

    def _get_output_dir(self, trial: Any) -> str:
        return str(self.partial_directory or super()._get_output_dir(trial))

    def _save(self, output_dir: str | None = None, state_dict: dict[str, Any] | None = None) -> None:
        """Save the model without the pickled arguments that transformers adds: gapless never unpickles."""
        if self.args.should_save:
            self.whole_model.save_pretrained(str(output_dir or self.args.output_dir), state_dict=state_dict)

    def rotate(self, directory: Path) -> None:
        """Remove old checkpoints, but not the best one."""
        best = self.state.best_model_checkpoint
        if self.num_kept:
            rotate(directory, self.num_kept, None if best is None else Path(best).name)


def split_by_learning_rate(optimizer: torch.optim.Optimizer, loss: nn.Module) -> None:
    """Move the parameters of a loss with another learning rate into groups of their own.

    A scheduler multiplies the learning rate that a group starts with, so that the factor holds throughout.
    """
    for parameter, rule in parameter_rules(loss).items():
        if rule.learning_rate_factor == 1.0:
            continue
        for group in list(optimizer.param_groups):
            others = [one for one in group["params"] if one is not parameter]
            if len(others) < len(group["params"]):
                group["params"] = others
                own = {key: value for key, value in group.items() if key != "params"}
                optimizer.add_param_group(own | {"params": [parameter], "lr": group["lr"] * rule.learning_rate_factor})


class AlignerTrainer(RunTrainer):
    """Trains an aligner under its loss, and measures validation pairs meanwhile.

    Args:
        evaluation: pairs to measure during training, or None.
        mask_duplicates: give the loss `positives`: pairs of one caption are then not negatives of each other.
        evaluator: embeddings of the validation pairs to figures; by default the gap and retrieval.
        held_out: pairs that the weights of a loss follow which is set so (`follows_held_out`); rows may lack
            modalities.

    Further arguments as in `RunTrainer`.
    """

    def __init__(
        self,
        model: GaplessModel,
        args: TrainingArguments,
        train_dataset: Dataset[Any],
        run: Path,
        label: str = "train",
        evaluation: Dataset[Any] | None = None,
        mask_duplicates: bool = False,
        evaluator: Evaluator | None = None,
        held_out: Dataset[Any] | None = None,
    ) -> None:
        assert model.loss is not None
        lacks_modalities = bool(getattr(train_dataset, "lacks_modalities", False))
        if lacks_modalities:
            check_takes_present(model.loss)
        collator = Collator(preprocessors_of(model), mask_duplicates, with_presence=lacks_modalities)
        super().__init__(model, args, train_dataset, run, label, collator, evaluation)
        self.aligner, self.loss = model, model.loss
        if takes_reference(model.loss):
            model.keep_reference()
        self.evaluator = evaluator or GapAndRetrieval()
        self.add_callback(LossRules(self.loss))
        if held_out is not None:
            self.follow(model, held_out)

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Log the factor on the cosines beside the terms."""
        scale = logit_scale_of(self.loss)
        if "loss" in logs and self.num_summed and scale is not None:
            logs["logit_scale"] = scale
        super().log(logs, start_time)

    def get_decay_parameter_names(self, model: nn.Module) -> list[str]:
        """The parameters with weight decay: those of transformers, less those that the loss frees of it."""
        free = {parameter for parameter, rule in parameter_rules(self.loss).items() if not rule.weight_decay}
        parameters = dict(model.named_parameters())
        return [name for name in super().get_decay_parameter_names(model) if parameters.get(name) not in free]

    def create_optimizer(self, model: nn.Module | None = None) -> torch.optim.Optimizer:
        """The optimizer, with a group of their own for parameters of the loss that have another learning rate.

        The groups follow from the model alone, so that a resumed run loads the saved state into the same ones.
        """
        is_new = self.optimizer is None
        optimizer: torch.optim.Optimizer = super().create_optimizer(model)
        if is_new:
            split_by_learning_rate(optimizer, self.loss)
        return optimizer

    def evaluation_figures(self) -> dict[str, Any]:
        """The evaluator's figures of the evaluation pairs."""
        assert self.evaluation is not None
        embeddings = embed_dataset(self.aligner, self.evaluation, batch_size=self.args.eval_batch_size)
        if len(embeddings) > 2:  # keys of pairs as `evaluate` has them: a saved model lists its modalities by name
            embeddings = {name: embeddings[name] for name in sorted(embeddings)}
        return dict(self.evaluator(embeddings))
