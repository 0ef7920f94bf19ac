"""The verdict of `gapless measure`: from the figures of embeddings, what the gap is, what closing helps, and with what.

Rules with stated thresholds on figures; no embeddings, no files. `docs/measure.md` shows how well it foretells.

    verdict_of({"gap/true_pair_cosine": 0.2, ...}, n=1000, source="EMB").sentences
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

# Below these there is nothing to judge by.
MIN_PAIRS = 50
MIN_GROUPS = 10
COLLAPSED_COSINE = 0.999  # mean cosine inside both modalities: every row is nearly one point
# A gap is closed when a probe can hardly tell the modalities, the neighbours are mixed, and pairs are near.
CLOSED_AUC = 0.65
CLOSED_MIXING = 0.4
CLOSED_SHARE = 0.05  # shift and difference of spread as shares of the pairs' distance
# Pairs agree when d' without the means is above this, or their neighbourhoods overlap this many times chance.
SOME_D_PRIME = 0.25
CHANCES = 2.0
# What closing is worth.
LOW_MIXING = 0.35  # below it, one list of both modalities shows hardly anything of the other
MORE_MARGIN = 1.15  # margin without the means over the margin as it is
MORE_D_PRIME = 1.1  # d' without the means over d' as it is
HIDDEN_RESIDUAL = 0.75  # pair residual above which pairs are hardly nearer than non-pairs
RECALL_TIMES = 2.5  # R@10 below so many times chance: retrieval hardly works as it is
MAIN_SHARE = 0.5  # a part above it is what the gap mainly is

SHIFT, SPREAD, RESIDUAL = "shift", "spread", "residual"
PART_NAMES = {
    SHIFT: "a shift of the means",
    SPREAD: "a difference of spread",
    RESIDUAL: "a residual of the pairs",
}


@dataclass(frozen=True)
class Verdict:
    """Three sentences and what they rest on.

    Args:
        kind: "shift", "spread", "residual" or "several parts" by the largest part; "closed", "collapsed", "unrelated",
            or "too few".
        shares: shift, spread, residual -> share of the mean squared distance of true pairs; they add up to 1. Empty
            where there is no distance.
        helps: retrieval, mixed search, clustering, thresholds -> "yes", "little" or "no".
        method: the closing method of the command, or None where closing does not help.
        sentences: what the gap is; what closing helps; the command.
        figures: for each sentence, the figures it rests on.
    """

    kind: str
    shares: Mapping[str, float]
    helps: Mapping[str, str]
    method: str | None
    sentences: tuple[str, str, str]
    figures: tuple[Mapping[str, float], Mapping[str, float], Mapping[str, float]]

    def as_json(self) -> dict[str, Any]:
        names = ("kind", "help", "command")
        stated = zip(names, self.sentences, self.figures, strict=True)
        return {
            "kind": self.kind,
            "shares": dict(self.shares),
            "helps": dict(self.helps),
            "method": self.method,
            "sentences": {name: {"text": text, "figures": dict(used)} for name, text, used in stated},
        }


@dataclass(frozen=True)
class _Values:
    """Figures by key, as numbers, with a note of which were used."""

    figures: Mapping[str, Any]

    def __getitem__(self, key: str) -> float:
        figure = self.figures.get(key)
        if isinstance(figure, Mapping):
            figure = figure.get("value", figure.get("mean"))
        return math.nan if figure is None else float(figure)

    def interval_holds_zero(self, key: str) -> bool:
        """Whether the 95 % interval holds 0; False without an interval."""
        figure = self.figures.get(key)
        if not isinstance(figure, Mapping) or figure.get("low") is None or figure.get("high") is None:
            return False
        return bool(figure["low"] <= 0 <= figure["high"])

    def used(self, *keys: str) -> dict[str, float]:
        return {key: self[key] for key in keys if not math.isnan(self[key])}

    @property
    def distance_key(self) -> str:
        """The centroid distance whose sampling bias is taken off by group, where groups are known."""
        key = "gap/centroid_distance_group_unbiased"
        return key if not math.isnan(self[key]) else "gap/centroid_distance_unbiased"


def shares_of(figures: Mapping[str, Any]) -> dict[str, float]:
    """The parts of the mean squared distance of true pairs, as shares that add up to 1; empty where all pairs coincide.

    `mean ||z - w||^2 = ||difference of the means||^2 + sum_k (sqrt l_k - sqrt m_k)^2 + residual`: the distance of the
    centroids without its sampling bias, the difference of the spectra, and the rest, which is not negative.

    >>> figures = {"gap/true_pair_cosine": 0.5, "gap/centroid_distance_unbiased": 0.5, "gap/spread_difference": 0.25}
    >>> shares_of(figures)
    {'shift': 0.25, 'spread': 0.25, 'residual': 0.5}
    """
    values = _Values(figures)
    total = 2 - 2 * values["gap/true_pair_cosine"]
    if not total > 1e-6:
        return {}
    shift = values[values.distance_key] ** 2 / total
    spread = values["gap/spread_difference"] / total
    return {SHIFT: shift, SPREAD: spread, RESIDUAL: max(0.0, 1 - shift - spread)}


def verdict_of(
    figures: Mapping[str, Any],
    n: int,
    *,
    source: str = "EMB",
    modalities: Sequence[str] = ("image", "text"),
    num_groups: int | None = None,
) -> Verdict:
    """The verdict on embeddings.

    Args:
        figures: key -> figure of `measure`, with the parts gap, retrieval, mixed, probe and further.
        n: pairs.
        source: the words of a command line that name the embeddings.
        modalities: their names; with three or more the figures are means over pairs, and the sentence says so.
        num_groups: of the rows; default: every pair is its own.
    """
    values = _Values(figures)
    groups = n if num_groups is None else num_groups
    shares = shares_of(figures)
    if n < MIN_PAIRS or groups < MIN_GROUPS:
        return _too_few(n, groups, shares)
    if min(values[f"gap/within_cosine/{name}"] for name in modalities) > COLLAPSED_COSINE:
        return _collapsed(values, modalities)
    is_joined = values["gap/d_prime_centred"] > SOME_D_PRIME and not values.interval_holds_zero("gap/margin_centred")
    if not _is_agreeing(values, n) and not is_joined:
        return _unrelated(values, shares, _chance_of_agreement(n))
    if not shares or _is_closed(values, shares):
        return _closed(values, shares)
    return _open(values, shares, n, source, modalities)


def _is_closed(values: _Values, shares: Mapping[str, float]) -> bool:
    auc = values["gap/separability_auc"]
    parts_are_small = shares.get(SHIFT, 0.0) + shares.get(SPREAD, 0.0) < CLOSED_SHARE
    hidden = values["gap/pair_residual_ratio"] > HIDDEN_RESIDUAL
    return (
        (math.isnan(auc) or auc < CLOSED_AUC)
        and values["gap/mixing@10"] > CLOSED_MIXING
        and parts_are_small
        and not hidden
    )


def _no_help(word: str = "no") -> dict[str, str]:
    return dict.fromkeys(("retrieval", "mixed search", "clustering", "thresholds"), word)


def _too_few(n: int, groups: int, shares: Mapping[str, float]) -> Verdict:
    counted = {"n": float(n), "groups": float(groups)}
    return Verdict(
        "too few",
        shares,
        {},
        None,
        (
            f"{n:,} pairs in {groups:,} groups are too few to say what kind of gap this is; "
            f"at least {MIN_PAIRS} pairs in {MIN_GROUPS} groups are needed.",
            "Whether closing it helps cannot be said either: the figures above are mostly chance.",
            "Measure more pairs first.",
        ),
        (counted, counted, {}),
    )


def _collapsed(values: _Values, modalities: Sequence[str]) -> Verdict:
    used = values.used(*(f"gap/within_cosine/{name}" for name in modalities))
    return Verdict(
        "collapsed",
        {},
        _no_help(),
        None,
        (
            "The space is collapsed: all rows of a modality are nearly one point "
            f"(cosine inside a modality {', '.join(f'{value:.4f}' for value in used.values())}).",
            "Closing a gap does not help: there is nothing in these rows that tells one pair from another.",
            "Train the encoders again, with a term that spreads rows out (uniformity), or embed with other ones.",
        ),
        (used, used, {}),
    )


def _unrelated(values: _Values, shares: Mapping[str, float], chance: float) -> Verdict:
    used = values.used("gap/d_prime_centred", "gap/margin_centred", "gap/mutual_knn@10")
    return Verdict(
        "unrelated",
        shares,
        _no_help(),
        None,
        (
            "The pairs hold nothing in common that these figures can see: without the modality means, true pairs are "
            f"no nearer than false ones (d' {used.get('gap/d_prime_centred', math.nan):.2f}) and their neighbourhoods "
            f"agree as by chance (mutual kNN {values['gap/mutual_knn@10']:.3f}, chance {chance:.3f}).",
            "Closing the gap would only mix the modalities at random; it helps neither retrieval nor mixed search, "
            "clustering or thresholds.",
            "Check that row i of every modality is one pair, as in a shuffled file it is not, before closing anything.",
        ),
        (used, used, {}),
    )


def _closed(values: _Values, shares: Mapping[str, float]) -> Verdict:
    kind = values.used(values.distance_key, "gap/separability_auc", "gap/mixing@10", "gap/spread_difference")
    helped = values.used("gap/margin", "gap/margin_centred", "gap/mixing@10")
    return Verdict(
        "closed",
        shares,
        _no_help(),
        None,
        (
            f"There is hardly a gap: the means are {values[values.distance_key]:.3f} apart, a probe tells the "
            f"modalities apart with an area of {values['gap/separability_auc']:.2f} (0.5 is chance), and "
            f"{values['gap/mixing@10']:.0%} of the nearest rows are of the other modality.",
            "Closing it further helps nothing: retrieval, mixed search, clustering and thresholds are as these pairs "
            f"allow (margin {values['gap/margin']:.2f}, {values['gap/margin_centred']:.2f} without the means).",
            "No command is needed; to rank better, train with more or better pairs.",
        ),
        (kind, helped, {}),
    )


def _open(values: _Values, shares: Mapping[str, float], n: int, source: str, modalities: Sequence[str]) -> Verdict:
    helps = _helps(values, n)
    needs_map = helps["retrieval"] == "yes" or shares[SHIFT] < MAIN_SHARE
    method = "auto" if needs_map else "center"
    kind, used = _kind_sentence(values, shares, n, modalities)
    help_used = values.used(
        "gap/mixing@10",
        "gap/margin",
        "gap/margin_centred",
        "gap/d_prime",
        "gap/d_prime_centred",
        "gap/mutual_knn@10",
        "gap/pair_residual_ratio",
        "retrieval/mean/R@10",
    )
    reason = "fits the methods on these pairs and takes one by held-out groups" if needs_map else "removes the means"
    start = (
        "To close it" if "yes" in helps.values() else "Little is to be gained; to see what held-out groups say of it"
    )
    command = f"{start}: gapless close {source} --out CLOSED --method {method} ({reason})."
    return Verdict(
        max(shares, key=lambda part: shares[part]) if max(shares.values()) > MAIN_SHARE else "several parts",
        shares,
        helps,
        method,
        (kind, _help_sentence(values, helps, n), command),
        (used, help_used, {**values.used("gap/pair_residual_ratio"), **{f"share/{k}": v for k, v in shares.items()}}),
    )


def _kind_sentence(
    values: _Values, shares: Mapping[str, float], n: int, modalities: Sequence[str]
) -> tuple[str, dict[str, float]]:
    largest = max(shares, key=lambda part: shares[part])
    start = f"is mainly {PART_NAMES[largest]}" if shares[largest] > MAIN_SHARE else "has several parts"
    listed = ", ".join(f"{shares[part]:.0%} {PART_NAMES[part]}" for part in (SHIFT, SPREAD, RESIDUAL))
    mean = f", mean over the pairs of {len(modalities)} modalities" if len(modalities) > 2 else ""
    total = 2 - 2 * values["gap/true_pair_cosine"]
    sentence = f"The gap {start}: of the mean squared distance of true pairs ({total:.2f}{mean}; 0 is perfect) {listed}"
    used = values.used("gap/true_pair_cosine", values.distance_key, "gap/spread_difference")
    if shares[RESIDUAL] > MAIN_SHARE and _is_hidden(values, n):
        sentence += (
            "; true pairs are nearly as far apart as false ones (pair residual "
            f"{values['gap/pair_residual_ratio']:.2f}) while neighbourhoods agree (mutual kNN "
            f"{values['gap/mutual_knn@10']:.3f}, chance {_chance_of_agreement(n):.3f}), so that a map fitted on pairs "
            "can undo a part of it"
        )
        used |= values.used("gap/pair_residual_ratio", "gap/mutual_knn@10")
    return f"{sentence}.", used


def _chance_of_agreement(n: int) -> float:
    """The mutual kNN of neighbourhoods that have nothing to do with each other."""
    return 10 / (n - 1)


def _is_agreeing(values: _Values, n: int) -> bool:
    """Whether the modalities agree on who is near whom more than by chance."""
    return values["gap/mutual_knn@10"] > CHANCES * _chance_of_agreement(n)


def _is_hidden(values: _Values, n: int) -> bool:
    """Whether the modalities agree on who is near whom while true pairs are hardly nearer than false ones."""
    return _is_agreeing(values, n) and values["gap/pair_residual_ratio"] > HIDDEN_RESIDUAL


def _helps(values: _Values, n: int) -> dict[str, str]:
    """What closing helps, by the thresholds above."""
    mixing = values["gap/mixing@10"]
    mixed = "yes" if mixing < LOW_MIXING else "little"
    more_margin = values["gap/margin_centred"] > MORE_MARGIN * max(values["gap/margin"], 0.0)
    more_d_prime = values["gap/d_prime_centred"] > MORE_D_PRIME * max(values["gap/d_prime"], 0.0)
    hidden = _is_hidden(values, n)
    ranks_badly = values["retrieval/mean/R@10"] < RECALL_TIMES * min(1.0, 10 / n)
    retrieval = "yes" if hidden and ranks_badly else "little"
    return {
        "retrieval": retrieval,
        "mixed search": mixed,
        "clustering": mixed,
        "thresholds": "yes" if more_margin or more_d_prime or hidden else "little",
    }


def _help_sentence(values: _Values, helps: Mapping[str, str], n: int) -> str:
    reasons = {
        "retrieval": f"R@10 {values['retrieval/mean/R@10']:.1%} where chance is {min(1.0, 10 / n):.1%}, d' "
        f"{values['gap/d_prime']:.2f}, {values['gap/d_prime_centred']:.2f} without the means, mutual kNN "
        f"{values['gap/mutual_knn@10']:.3f}",
        "mixed search": f"mixing {values['gap/mixing@10']:.2f}, 0.5 when closed",
        "thresholds": f"margin {values['gap/margin']:.2f}, {values['gap/margin_centred']:.2f} without the means",
    }
    reasons["mixed search and clustering"] = reasons.pop("mixed search")
    answers = {name: helps[name.split(" and ")[0]] for name in reasons}
    lists = [
        (f"{start} {_joined([f'{name} ({reasons[name]})' for name in reasons if answers[name] == answer])}")
        for answer, start in (("yes", "should help"), ("little", "should bring little to"))
        if answer in answers.values()
    ]
    return f"Closing it {' and '.join(lists)}."


def _joined(parts: Sequence[str]) -> str:
    return parts[0] if len(parts) == 1 else f"{', '.join(parts[:-1])} and {parts[-1]}"
