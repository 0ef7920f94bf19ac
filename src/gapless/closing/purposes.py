"""Which of several judged candidates is taken, by what the embeddings are for.

    choose([judged_center, judged_cca], "balanced")

A candidate's figures come from rows that it was not fitted on, with their values under draws of groups; all candidates
see the same draws, so that a difference of two of them has a paired interval.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from gapless.core.errors import DataRefused, unknown_name
from gapless.metrics.catalogue import label_of, required_entry
from gapless.metrics.uncertainty import Interval, percentile_interval

RECALL = "retrieval/mean/R@10"
V_MEASURE = "grouping/v_measure"
MARGIN = "gap/margin"
MIXING = "gap/mixing@10"
BALANCED = "balanced"


@dataclass(frozen=True)
class Judged:
    """A candidate and its figures on held-out groups.

    Args:
        name: in the table.
        figures: key -> [1 + replicate]: the mean over the folds, then the same under each draw of groups. Empty for a
            candidate that has none.
        seconds: of fitting and judging, over all folds.
        reason: why it has no figures; "" where it has.
        is_reference: the embeddings as they are: in the table, and never chosen.
    """

    name: str
    figures: Mapping[str, np.ndarray]
    seconds: float
    reason: str = ""
    is_reference: bool = False

    def value(self, key: str) -> float:
        """The figure; NaN where the candidate has none of that key."""
        return float(self.figures[key][0]) if key in self.figures else float("nan")

    def interval(self, key: str) -> Interval:
        """The figure with its 95 % interval over groups."""
        return percentile_interval(self.figures[key])


@dataclass(frozen=True)
class Choice:
    """The candidate that is taken.

    Args:
        name: of the candidate.
        why: one sentence with the figures that decided.
        tied: other candidates whose deciding figure is not surely worse (the paired 95 % interval of the difference
            holds 0).
    """

    name: str
    why: str
    tied: tuple[str, ...]


@dataclass(frozen=True)
class Purpose:
    """What counts for one use.

    Args:
        summary: for the help and the docs.
        keys: the figures that decide, the first that the candidates have.
    """

    summary: str
    keys: tuple[str, ...] = ()


PURPOSES: dict[str, Purpose] = {
    BALANCED: Purpose("recall that is not surely below the best candidate's; then margin times mixing"),
    "retrieval": Purpose("the mean reciprocal rank between modalities", ("retrieval/mean/MRR",)),
    "mixed-search": Purpose("recall in one gallery of all modalities", ("mixed/R@10",)),
    "clustering": Purpose("the V-measure over the labels; without labels, mixing", (V_MEASURE, MIXING)),
    "thresholds": Purpose("d', how far true pairs stand out from false ones", ("gap/d_prime", MARGIN)),
    "captions": Purpose("the residual of true pairs after centring", ("gap/pair_residual_ratio", MARGIN)),
}


def choose(judged: Sequence[Judged], purpose: str) -> Choice:
    """The best candidate for a purpose of `PURPOSES`.

    Raises:
        UsageError: no such purpose. DataRefused: no candidate has figures; the sentence has every reason.
    """
    if purpose not in PURPOSES:
        raise unknown_name("purpose", purpose, PURPOSES)
    able = [one for one in judged if one.figures and not one.is_reference]
    if not able:
        reasons = "; ".join(f"{one.name}: {one.reason}" for one in judged if one.reason)
        raise DataRefused(f"no closing method could be fitted ({reasons})")
    if purpose == BALANCED:
        return _balanced(able, [one for one in judged if one.figures])
    key = next((key for key in PURPOSES[purpose].keys if any(np.isfinite(one.value(key)) for one in able)), None)
    if key is None:
        raise DataRefused(f"none of {', '.join(PURPOSES[purpose].keys)} could be computed; choose another purpose")
    sign = -1 if required_entry(key).better == "lower" else 1
    best, tied = _best(able, lambda one: sign * one.figures[key])
    return Choice(best.name, f"{best.name} has the best {label_of(key)}: {_shown(best, key)}", tied)


def _balanced(able: Sequence[Judged], measured: Sequence[Judged]) -> Choice:
    """The largest margin times mixing among those whose recall is not surely below the best recall.

    A product takes two figures of unlike scales alike: doubling either counts the same.
    """
    best_recall = max(measured, key=lambda one: one.value(RECALL))
    equal = [one for one in able if not surely_above(best_recall.figures[RECALL], one.figures[RECALL])]
    passed = equal or [max(able, key=lambda one: one.value(RECALL))]
    best, tied = _best(passed, lambda one: np.clip(one.figures[MARGIN], 0, None) * one.figures[MIXING])
    bound = f"not surely below the best, {best_recall.name} with {_shown(best_recall, RECALL)}"
    if not equal:
        bound = f"below that of {best_recall.name}, {_shown(best_recall, RECALL)}; no candidate reaches it"
    return Choice(
        best.name,
        f"{best.name}: {label_of(RECALL)} {_shown(best, RECALL)} ({bound}), and of the "
        f"{len(passed)} such candidates the largest margin times mixing: "
        f"{_shown(best, MARGIN)} times {_shown(best, MIXING)}",
        tied,
    )


def _best(judged: Sequence[Judged], score: Callable[[Judged], np.ndarray]) -> tuple[Judged, tuple[str, ...]]:
    """The candidate of the largest score, and those that are not surely below it."""
    scores = {one.name: np.nan_to_num(score(one)[:1], nan=-np.inf)[0] for one in judged}
    best = max(judged, key=lambda one: scores[one.name])
    others = [one for one in judged if one is not best and np.isfinite(scores[one.name])]
    return best, tuple(one.name for one in others if not surely_above(score(best), score(one)))


def surely_above(first: np.ndarray, second: np.ndarray) -> bool:
    """Whether the paired 95 % interval of first minus second lies above 0.

    Args:
        first, second: [1 + replicate] under the same draws. Without replicates the values alone decide.
    """
    low = percentile_interval(first - second)["low"]
    return bool(first[0] > second[0]) if low is None else low > 0


def _shown(judged: Judged, key: str) -> str:
    return required_entry(key).shown(judged.value(key))
