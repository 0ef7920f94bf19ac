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
        rank_tolerance: the part of the largest effective rank since closing began that may be lost.
        rise: how much of a lowered weight comes back with each measurement that has no objection.
        patience: objections in a row before closing stops for good.
    """

    multiple: float = 5.0
    target_gap: float = 0.05
    tolerance: float = 0.1
    rank_tolerance: float = 0.5
    rise: float = 0.1
    patience: int = 4


@dataclass(frozen=True)
class HeldOutFigures:
    """What held-out pairs say at one step.

    Args:
        losses: of each query, its contrastive loss / log(gallery) at the temperature that suits the held-out pairs
            best; at least one.
        reciprocal_ranks: of each query, in (0, 1].
        gap: the unbiased centroid distance, at least 0.
        effective_rank: of the centred rows of a modality, the least of all modalities, at least 1; 0 where the rows of
            one do not vary.
    """

    losses: Sequence[float]
    reciprocal_ranks: Sequence[float]
    gap: float
    effective_rank: float

    @property
    def readiness(self) -> float:
        """1 less the mean loss: 0 where nothing is told apart, 1 where every pair is found with certainty."""
        return max(0.0, 1 - sum(self.losses) / len(self.losses))

    @property
    def recall(self) -> float:
        """The mean reciprocal rank, in (0, 1]."""
        return sum(self.reciprocal_ranks) / len(self.reciprocal_ranks)


@dataclass(frozen=True)
class ControlState:
    """What a controller remembers; plain values, so that a checkpoint holds it.

    Args:
        weight: of alignment, in force until the next measurement.
        share: of what the limits allow; halved by an objection, at most 1.
        best_losses: of each query at the best readiness so far, and `best_readiness` itself.
        best_ranks: reciprocal ranks of each query at the best recall so far, and `best_recall` itself.
        best_effective_rank: the largest since alignment has a weight; 0 before.
        objections: measurements in a row of which one figure lost more than it may.
        fallen: the figure that lost it at the last objection.
        stopped_at: the step at which closing stopped for good.
        held_gap: the gap that a model had which was trained before; it is the target gap where it is larger than that
            of the settings. None for other models.
        at_target: whether the last gap was at or below the target.
    """

    weight: float = 0.0
    share: float = 1.0
    best_losses: tuple[float, ...] = ()
    best_readiness: float = 0.0
    best_ranks: tuple[float, ...] = ()
    best_recall: float = 0.0
    best_effective_rank: float = 0.0
    objections: int = 0
    fallen: str = "readiness"
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

        1. While the limit is 0, only the best readiness and recall are noted.
        2. Readiness or recall that lost more than the tolerance and than its noise, or an effective rank that lost more
           than `rank_tolerance`, halves the weight; `patience` of these in a row end the closing, because it does not
           pay.
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
        after = self._with_best(figures, is_closing=limit > 0)
        if limit <= 0:
            after = replace(after, weight=0.0)
        elif before.stopped_at is None:
            allowed = min(limit, settings.multiple * figures.readiness * logit_scale)
            if fallen := self.fallen(figures):
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
                fallen=fallen or before.fallen,
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

        The gap of the first call is held, by as much weight as it takes. With a gap above the target the limit is the
        weight in force plus `rise * limit`, with one at or below it minus as much. What held-out pairs lose while
        alignment has no weight is no fault of alignment, so that they are compared with figures since it has some.

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

    def fallen(self, figures: HeldOutFigures) -> str | None:
        """The first figure that lost more than it may against its best so far: readiness, recall, effective rank."""
        state, settings = self.state, self.settings
        if exceeds_noise(figures.losses, state.best_losses, settings.tolerance * state.best_readiness):
            return "readiness"
        if exceeds_noise(state.best_ranks, figures.reciprocal_ranks, settings.tolerance * state.best_recall):
            return "recall"
        if figures.effective_rank < (1 - settings.rank_tolerance) * state.best_effective_rank:
            return "effective rank"
        return None

    def _with_best(self, figures: HeldOutFigures, is_closing: bool) -> ControlState:
        state = self.state
        if figures.readiness > state.best_readiness or not state.best_losses:
            state = replace(state, best_readiness=figures.readiness, best_losses=tuple(figures.losses))
        if figures.recall > state.best_recall:
            state = replace(state, best_recall=figures.recall, best_ranks=tuple(figures.reciprocal_ranks))
        if is_closing and figures.effective_rank > state.best_effective_rank:
            state = replace(state, best_effective_rank=figures.effective_rank)
        return state

    def state_dict(self) -> dict[str, Any]:
        """The state as plain values."""
        state = asdict(self.state)
        return {**state, "best_losses": list(self.state.best_losses), "best_ranks": list(self.state.best_ranks)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from a state that `state_dict` gave."""
        lists = {name: tuple(state.get(name, ())) for name in ("best_losses", "best_ranks")}
        self.state = ControlState(**{**state, **lists})

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
            rest = "was contrast alone" if state.held_gap is None else "had no alignment"
            return (
                f"Closing stopped at step {state.stopped_at}, because it did not pay: {told_apart}, and "
                f"{state.fallen} fell as alignment grew. The rest of the training {rest}"
            )
        if state.weight <= 0 and state.at_target:
            return f"The gap stayed at most {self.target_gap:.3f} without alignment: {told_apart}"
        if state.weight <= 0:
            return f"The gap was not closed: {told_apart}, which earns alignment no weight"
        return f"Closing followed held-out pairs: {told_apart}, alignment ended at weight {state.weight:.2f}"


def exceeds_noise(larger: Sequence[float], smaller: Sequence[float], allowed: float) -> bool:
    """Whether the mean difference of two figures of the same queries is above `allowed` and above its own noise.

    Figures of other queries, or none, exceed nothing.
    """
    if not larger or len(larger) != len(smaller):
        return False
    differences = [one - other for one, other in zip(larger, smaller, strict=True)]
    mean = sum(differences) / len(differences)
    variance = sum((value - mean) ** 2 for value in differences) / max(1, len(differences) - 1)
    return mean > max(allowed, NOISE * math.sqrt(variance / len(differences)))
