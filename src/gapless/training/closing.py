"""Has the closing weights of a loss follow held-out pairs while it trains."""

import logging
import math
from collections.abc import Callable, Sequence
from typing import Any

from accelerate.utils import broadcast_object_list
from torch.utils.data import Dataset
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from gapless.core.progress import say
from gapless.inference.embed import embed_dataset
from gapless.losses.base import logit_scale_of
from gapless.losses.closing_control import ClosingControl, HeldOutFigures
from gapless.losses.gap_closing import GapClosingLoss
from gapless.losses.gap_closing_methods import HELD_OUT
from gapless.losses.pairs import pairs_of
from gapless.models.aligner import GaplessModel
from gapless.training.held_out import MIN_ROWS, figures_of_pairs, sample_of

logger = logging.getLogger(__name__)

FOLLOWED = "followed"  # what the controller did, in the entry `loss` of a model's configuration
LEAST_ROWS, MOST_ROWS = 128, 1024
ROWS_A_STEP = 0.1  # rows measured for each row trained on; measuring has no backward pass, so about 3 % of the time
WANTED_MEASUREMENTS = 20
LEAST_MEASUREMENTS = 5  # of a training that is too short for that share


def num_rows_measured(max_steps: int, batch_size: int) -> int:
    """How many held-out rows, so that a training has about `WANTED_MEASUREMENTS` at `ROWS_A_STEP`."""
    wanted = max_steps * batch_size * ROWS_A_STEP / WANTED_MEASUREMENTS
    return int(min(max(wanted, LEAST_ROWS), MOST_ROWS))


def follows_held_out(settings: Any) -> bool:
    """Whether the weights of a loss with these settings follow held-out pairs."""
    return getattr(settings, "follow", None) == HELD_OUT


def enough_to_follow(held_out: Dataset[Any] | None) -> bool:
    """Whether there are held-out rows enough; a warning says where the weights follow the clock instead."""
    num_rows = 0 if held_out is None else len(held_out)  # type: ignore[arg-type]
    if num_rows >= MIN_ROWS:
        return True
    logger.warning(
        f"the weights of the loss follow the clock: there are {num_rows} validation rows, and at least {MIN_ROWS} are "
        "needed to see whether closing pays; 'gapless data split' makes a split"
    )
    return False


class FollowHeldOut(TrainerCallback):
    """Measures a fixed sample of held-out pairs every few steps, and gives the loss the weight that they have earned.

    It comes after `LossRules`, which sets the progress. Several processes take the figures of the first one.

    Args:
        model: the aligner, with its loss.
        held_out: pairs that do not train.
        control: the rules.
        log: takes the figures of a measurement by key.
        is_trained: the model was trained before. The gap that it has before the first step is then held, by at most the
            weight at the end of that training, and uniformity keeps its own weight.
        modalities: those that the rows have; by default all of the model.
    """

    def __init__(
        self,
        model: GaplessModel,
        held_out: Dataset[Any],
        control: ClosingControl,
        log: Callable[[dict[str, float]], None],
        is_trained: bool = False,
        modalities: Sequence[str] | None = None,
    ) -> None:
        assert isinstance(model.loss, GapClosingLoss)
        self.model, self.loss, self.held_out = model, model.loss, held_out
        self.control, self.log = control, log
        self.is_trained, self.modalities = is_trained, modalities
        self.sample: Dataset[Any] | None = None
        self.every = 1

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        batch = args.train_batch_size * args.world_size * args.gradient_accumulation_steps
        self.sample = sample_of(self.held_out, num_rows_measured(state.max_steps, batch))
        affordable = math.ceil(len(self.sample) / batch / ROWS_A_STEP)  # type: ignore[arg-type]
        self.every = max(1, min(affordable, state.max_steps // LEAST_MEASUREMENTS))
        if self.is_trained and state.global_step == 0:
            self.observe(args, state)

    def on_step_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        limit = self.limit_of(state)
        share = min(1.0, self.control.state.weight / limit) if limit > 0 else 0.0
        self.loss.set_closing_share(share, keep_uniformity=self.is_trained)

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        if state.global_step % self.every == 0 or state.global_step >= state.max_steps:
            is_logged = control.should_log
            self.observe(args, state)
            control.should_log = is_logged  # every log resets it, and the losses of this step would not be logged

    def limit_of(self, state: TrainerState) -> float:
        """The most that alignment may weigh now."""
        return self.loss.closing_limit(1.0 if self.is_trained else progress_of(state))

    def observe(self, args: TrainingArguments, state: TrainerState) -> None:
        """Measure, set the weight until the next measurement, and log both."""
        figures = self.measured(args)
        if figures is None:
            return
        scale, limit = logit_scale_of(self.loss) or 1.0, self.limit_of(state)
        if self.is_trained:
            limit = self.control.limit_that_holds(figures, limit)
        weight = self.control.observe(figures, limit, scale, state.global_step)
        self.log(
            {
                "closing/readiness": figures.readiness,
                "closing/alignment_weight": weight,
                "closing/MRR": figures.recall,
                "closing/gap": figures.gap,
                "closing/effective_rank": figures.effective_rank,
            }
        )

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        summary = self.control.summary()
        self.model.config.loss = {**self.model.config.loss, FOLLOWED: summary}
        if args.process_index == 0:
            (say if summary["pays"] else logger.warning)(f"{summary['sentence']}.")

    def measured(self, args: TrainingArguments) -> HeldOutFigures | None:
        """The figures of the sample, those of the first process in all of them; None where it has too few pairs."""
        answer: list[HeldOutFigures | None] = [None]
        if args.process_index == 0:
            assert self.sample is not None
            rows = embed_dataset(self.model, self.sample, modalities=self.modalities, batch_size=args.eval_batch_size)
            answer = [figures_of_pairs(rows, pairs_of(self.loss.pairs, list(rows), self.loss.anchor))]
        if args.world_size > 1:
            broadcast_object_list(answer)
        (figures,) = answer
        return figures


def progress_of(state: TrainerState) -> float:
    return min(1.0, state.global_step / max(1, state.max_steps))
