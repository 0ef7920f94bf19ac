"""How strongly a training may close the gap, from what held-out pairs say: a small state machine, no I/O.

    control = ClosingControl()
    weight = control.observe(figures, limit=8.0, logit_scale=14.3, step=20)    # after each measurement

A clock that raises the weight of alignment whatever the encoders have learnt costs recall where they have learnt
little. Here the weight follows the readiness of held-out pairs, `1 - loss / log(gallery)`: the part of the uncertainty
about a query's partner that contrast has removed. The rules of `ClosingControl.observe` say the rest.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

NOISE = 2.0  # standard errors of a paired difference


@dataclass(frozen=True)
class ControlSettings:
    """How the weight of alignment follows held-out pairs.

    Args:
        multiple: the weight is at most this times readiness times the factor on the cosines (1 / temperature), by which
            the contrastive gradient is multiplied.
        target_gap: the unbiased centroid distance that is held; at or below it the weight rests.
        tolerance: the part of the best readiness that may be lost.
        rise: how much of a lowered weight comes back with each measurement that has no objection.
        patience: objections in a row before closing stops for good.
    """

    multiple: float = 5.0
    target_gap: float = 0.05
    tolerance: float = 0.1
    rise: float = 0.1
    patience: int = 4


@dataclass(frozen=True)
class HeldOutFigures:
    """What held-out pairs say at one step.

    Args:
        losses: of each query, its contrastive loss / log(gallery) at the temperature that suits the held-out pairs
            best; at least one.
        recall: the mean reciprocal rank, in [0, 1].
        gap: the unbiased centroid distance, at least 0.
    """

    losses: Sequence[float]
    recall: float
    gap: float

    @property
    def readiness(self) -> float:
        """1 less the mean loss: 0 where nothing is told apart, 1 where every pair is found with certainty."""
        return max(0.0, 1 - sum(self.losses) / len(self.losses))


@dataclass(frozen=True)
class ControlState:
    """What a controller remembers; plain values, so that a checkpoint holds it.

    Args:
        weight: of alignment, in force until the next measurement.
        share: of what the limits allow; halved by an objection, at most 1.
        best_losses: of each query at the best readiness so far, and `best_readiness` itself.
        best_recall: the highest so far.
        objections: measurements in a row that found less readiness than may be lost.
        stopped_at: the step at which closing stopped for good.
        held_gap: the gap of a model that was closed before, which is the target where that is smaller; None for others.
        at_target: whether the last gap was at or below the target.
    """

    weight: float = 0.0
    share: float = 1.0
    best_losses: tuple[float, ...] = ()
    best_readiness: float = 0.0
    best_recall: float = 0.0
    objections: int = 0
    stopped_at: int | None = None
    held_gap: float | None = None
    at_target: bool = False


class ClosingControl:
    """Turns measurements of held-out pairs into the weight of alignment.

    Args:
        settings: how the weight follows.

    Attributes:
        state: what it remembers.
    """

    def __init__(self, settings: ControlSettings | None = None) -> None:
        self.settings = settings or ControlSettings()
        self.state = ControlState()

    def observe(self, figures: HeldOutFigures, limit: float, logit_scale: float, step: int) -> float:
        """The weight of alignment until the next measurement.

        1. While the limit is 0, only the best readiness is noted.
        2. A loss of readiness beyond the tolerance and beyond its noise halves the weight; `patience` of them in a row
           end the closing, because it does not pay.
        3. At or below the target gap the weight rests, so that the gap is held and not driven to 0.
        4. Otherwise it is the least of the limit and `multiple * readiness * logit_scale`, times the share that
           earlier objections have left, which grows back.

        Args:
            figures: of the held-out pairs, the same ones each time.
            limit: the most that the weight may be now, at least 0; the clock's own weight.
            logit_scale: the factor on the cosines of the loss, 1 / temperature.
            step: of the training, for `stopped_at`.
        """
        before, settings = self.state, self.settings
        after = self._with_best(figures)
        if limit <= 0:
            after = replace(after, weight=0.0)
        elif before.stopped_at is None:
            allowed = min(limit, settings.multiple * figures.readiness * logit_scale)
            if self.has_lost(figures):
                objections, share = before.objections + 1, before.share / 2
                ends = objections >= settings.patience
                weight = 0.0 if ends else share * allowed
                stopped_at = step if ends else None
            else:
                objections, share, stopped_at = 0, min(1.0, before.share + settings.rise), None
                weight = share * allowed
                if figures.gap <= self.target_gap:
                    weight = min(weight, before.weight)
            after = replace(
                after,
                weight=weight,
                share=share,
                objections=objections,
                stopped_at=stopped_at,
            )
        self.state = replace(after, at_target=figures.gap <= self.target_gap)
        return after.weight

    @property
    def target_gap(self) -> float:
        """The gap that is held."""
        return max(self.settings.target_gap, self.state.held_gap or 0.0)

    def limit_that_holds(self, figures: HeldOutFigures, limit: float) -> float:
        """The limit of `observe` for a model that was closed before and now trains for something else too.

        The gap of the first call is held, by as much weight as it takes: the limit is the weight in force and `rise` of
        the most above the target, less that part at or below it. What held-out pairs lose while alignment has no weight
        is no fault of alignment, so that they are compared with figures since it has some.

        Args:
            figures: of the held-out pairs now.
            limit: the most that the weight may be.
        """
        if self.state.held_gap is None:
            self.state = replace(self.state, held_gap=figures.gap)
        if self.state.weight <= 0 and self.state.stopped_at is None:
            self.state = ControlState(held_gap=self.state.held_gap)
        step = self.settings.rise * limit
        wanted = self.state.weight + (step if figures.gap > self.target_gap else -step)
        return min(limit, max(0.0, wanted))

    def has_lost(self, figures: HeldOutFigures) -> bool:
        """Whether readiness is below its best by more than the tolerance, and the loss by more than its noise."""
        best = self.state.best_losses
        if not best or len(best) != len(figures.losses):
            return False
        worse = [now - then for now, then in zip(figures.losses, best, strict=True)]
        mean = sum(worse) / len(worse)
        variance = sum((value - mean) ** 2 for value in worse) / max(1, len(worse) - 1)
        allowed = self.settings.tolerance * self.state.best_readiness
        return mean > max(allowed, NOISE * math.sqrt(variance / len(worse)))

    def _with_best(self, figures: HeldOutFigures) -> ControlState:
        state = replace(self.state, best_recall=max(self.state.best_recall, figures.recall))
        if figures.readiness > state.best_readiness or not state.best_losses:
            return replace(state, best_readiness=figures.readiness, best_losses=tuple(figures.losses))
        return state

    def state_dict(self) -> dict[str, Any]:
        """The state as plain values."""
        return {**asdict(self.state), "best_losses": list(self.state.best_losses)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from a state that `state_dict` gave."""
        self.state = ControlState(**{**state, "best_losses": tuple(state["best_losses"])})

    def summary(self) -> dict[str, Any]:
        """What the training's files say of it: how far closing went, why, and a sentence."""
        state = self.state
        pays = state.stopped_at is None and (state.weight > 0 or state.at_target)
        return {
            "pays": pays,
            "alignment_weight": state.weight,
            "readiness": state.best_readiness,
            "stopped_at": state.stopped_at,
            "sentence": self._sentence(),
        }

    def _sentence(self) -> str:
        state = self.state
        told_apart = f"held-out readiness reached {state.best_readiness:.3f}"
        if state.stopped_at is not None:
            return (
                f"Closing stopped at step {state.stopped_at}, because it did not pay: {told_apart}, and fell "
                "as alignment grew. The rest of the training was contrast alone"
            )
        if state.weight <= 0 and state.at_target:
            return f"The gap stayed at most {self.target_gap:.3f} without alignment: {told_apart}"
        if state.weight <= 0:
            return f"The gap was not closed: {told_apart}, which earns alignment no weight"
        return f"Closing followed held-out pairs: {told_apart}, alignment ended at weight {state.weight:.2f}"
