"""Does presence alone tell something? Whether which modalities a row has goes with its label, or with its split.

Who gets an ECG is not random. A model can learn the label from what is absent, and figures of two splits with other
absences cannot be compared. Both are tested over groups, since the rows of one patient are no independent cases: a
group counts once, with its most frequent pattern and label, and labels are permuted between groups.

An audit asks this of every label and of every modality. Its p-values are adjusted together by Holm's step-down method
(Scandinavian Journal of Statistics 6, 1979), so that an audit of unrelated data warns at all in about 1 of 100 cases.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gapless.auditing.row_sets import Codes

PERMUTATIONS = 199
MAX_PERMUTATIONS = 9_999
MAX_P = 0.01
# Presence tells a label when it removes at least this share of the label's uncertainty, beyond chance.
MIN_SHARE = 0.05
# Presence differs between splits when the shares of rows that have a modality differ by at least this much.
MIN_DIFFERENCE = 0.1
MIN_GROUPS = 10
UNKNOWN = -1


def label_figures(
    present: Mapping[str, NDArray[np.bool_]], labels: Codes, groups: Codes, tests: int = 1
) -> dict[str, Any] | None:
    """How much of a label the pattern of presence tells, and which modality tells most.

    Args:
        present: modality -> [row] whether the row has it.
        labels: [row] number of the label, `UNKNOWN` where it is missing.
        groups: [row] number of the group.
        tests: how many p-values will be adjusted together; the more, the smaller they must be able to get.

    Returns:
        `share`: of the label's entropy that the pattern removes, in [0, 1]; what labels permuted between groups give
        is subtracted, so that it is about 0 for unrelated ones. `p_value` of that, `groups`: how many were compared,
        `most_by`: the modality whose presence alone removes most. None with fewer than 10 groups, one label, or one
        pattern.
    """
    known = labels != UNKNOWN
    patterns = _codes(np.stack([present[name] for name in present], axis=1)[known])
    units = _codes(groups[known][:, None])
    if not len(units) or units.max() + 1 < MIN_GROUPS:
        return None
    label = _most_frequent(units, _codes(labels[known][:, None]))
    pattern = _most_frequent(units, patterns)
    if len(np.unique(label)) < 2 or len(np.unique(pattern)) < 2:
        return None
    share, p_value = _share_told(pattern, label, tests)
    alone = {
        name: _share_told(_most_frequent(units, has[known].astype(np.int64)), label)[0] for name, has in present.items()
    }
    most = max(alone, key=lambda name: alone[name])
    return {"share": share, "p_value": p_value, "groups": int(units.max()) + 1, "most_by": most}


def _share_told(pattern: Codes, label: Codes, tests: int = 1) -> tuple[float, float]:
    """(share of the label's entropy that the pattern removes beyond chance, p-value by permutation)."""
    pattern, label = _codes(pattern[:, None]), _codes(label[:, None])
    told = _mutual_information(pattern, label)
    random = np.random.default_rng(0)
    by_chance, p_value = _permuted(told, lambda: _mutual_information(pattern, random.permutation(label)), tests)
    rest = _entropy(np.bincount(label)) - by_chance.mean()
    share = 0.0 if rest <= 1e-12 else (told - by_chance.mean()) / rest
    return float(np.clip(share, 0.0, 1.0)), p_value


def _permuted(observed: float, draw: Callable[[], float], tests: int) -> tuple[NDArray[np.float64], float]:
    """([PERMUTATIONS] values by chance, the p-value of what was observed).

    A p-value that may remain below `MAX_P` after its adjustment is drawn more finely: of 199 permutations the smallest
    is 0.005, and no two tests could pass together.
    """
    values = np.array([draw() for _ in range(PERMUTATIONS)])
    as_large = int((values >= observed - 1e-12).sum())
    drawn = PERMUTATIONS
    if tests > 1 and (1 + as_large) / (1 + drawn) <= MAX_P:
        drawn = min((1 + PERMUTATIONS) * tests - 1, MAX_PERMUTATIONS)
        as_large += sum(draw() >= observed - 1e-12 for _ in range(drawn - PERMUTATIONS))
    return values, (1 + as_large) / (1 + drawn)


def holm(p_values: Sequence[float]) -> list[float]:
    """p-values adjusted for their number by Holm's step-down method; at most 1, in the order given.

    >>> [round(value, 3) for value in holm([0.01, 0.04, 0.03])]
    [0.03, 0.06, 0.06]
    """
    order = np.argsort(p_values, kind="stable")
    steps = np.asarray(p_values, dtype=np.float64)[order] * np.arange(len(order), 0, -1)
    adjusted = np.empty(len(order))
    adjusted[order] = np.minimum(np.maximum.accumulate(steps), 1.0) if len(order) else steps
    return [float(value) for value in adjusted]


def adjust(figures: Mapping[str, Mapping[str, Any]], others: Mapping[str, Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Both sets of figures of an audit with `p_adjusted` beside each `p_value`, adjusted together."""
    adjusted = iter(holm([one["p_value"] for part in (figures, others) for one in part.values()]))
    return [{name: {**one, "p_adjusted": next(adjusted)} for name, one in part.items()} for part in (figures, others)]


def _mutual_information(a: Codes, b: Codes) -> float:
    """In nats; H(a) + H(b) - H(a, b)."""
    joint = np.bincount(a * (b.max() + 1) + b)
    return _entropy(np.bincount(a)) + _entropy(np.bincount(b)) - _entropy(joint)


def _entropy(counts: NDArray[Any]) -> float:
    shares = counts[counts > 0] / counts.sum()
    return float(-(shares * np.log(shares)).sum())


def split_figures(
    present: Mapping[str, NDArray[np.bool_]], splits: Sequence[str], groups: Codes, tests: int = 1
) -> dict[str, dict[str, Any]]:
    """Modality -> `share_difference`: the largest difference between two splits of the share of rows that have it,
    and its `p_value` when groups are dealt to splits at random. Without two splits or 10 groups there is nothing.
    """
    names, split = np.unique(np.asarray(splits), return_inverse=True)
    if len(names) < 2:
        return {}
    units = _codes(np.stack([groups, split], axis=1))  # a group in two splits is two units
    unit_split = _most_frequent(units, split)
    if len(unit_split) < MIN_GROUPS:
        return {}
    rows = np.bincount(units)
    figures = {}
    for name, has in present.items():
        having = np.bincount(units, weights=has)
        difference = _largest_difference(having, rows, unit_split)
        random = np.random.default_rng(0)

        def draw(having: NDArray[Any] = having, random: np.random.Generator = random) -> float:
            return _largest_difference(having, rows, random.permutation(unit_split))

        figures[name] = {"share_difference": difference, "p_value": _permuted(difference, draw, tests)[1]}
    return figures


def _largest_difference(having: NDArray[Any], rows: NDArray[Any], split: Codes) -> float:
    shares = np.bincount(split, weights=having) / np.bincount(split, weights=rows)
    return float(shares.max() - shares.min())


def presence_notes(presence: Mapping[str, Any]) -> Iterator[str]:
    """Sentences on what presence tells, of the figures of an audit."""
    for label, figures in presence.get("labels", {}).items():
        p = figures["p_adjusted"]
        if figures["share"] >= MIN_SHARE and p <= MAX_P:
            yield (
                f"presence alone tells {figures['share']:.0%} of the label {label!r} (p {p:.3f} over "
                f"{figures['groups']:,} groups; {figures['most_by']} tells most): a model can learn who was examined "
                "instead of what was seen; compare with rows that have the same modalities"
            )
    for name, figures in presence.get("between_splits", {}).items():
        p = figures["p_adjusted"]
        if figures["share_difference"] >= MIN_DIFFERENCE and p <= MAX_P:
            yield (
                f"{name} is present in {figures['share_difference']:.0%} more of the rows of one split than of another "
                f"(p {p:.3f} over groups): figures of these splits are of other cases; 'gapless data "
                "split' deals them anew"
            )
    rows = presence["rows"]
    for name, count in presence["present"].items():
        if count == 0:
            yield f"no row has {name}: look whether its column is right"
        elif 2 * count < rows:
            yield f"{name} is present in {count:,} of {rows:,} rows, fewer than half"


def _codes(keys: NDArray[Any]) -> Codes:
    """[row] numbers from 0, equal where rows of [row, column] keys are equal."""
    _, codes = np.unique(keys, axis=0, return_inverse=True)
    return np.asarray(codes, dtype=np.int64).reshape(-1)


def _most_frequent(units: Codes, values: Codes) -> Codes:
    """[unit] the most frequent value of the rows of each unit; the smallest of equally frequent ones."""
    width = int(values.max(initial=0)) + 1
    pairs, counts = np.unique(units * width + values, return_counts=True)
    owner, value = pairs // width, pairs % width
    order = np.lexsort((value, -counts, owner))
    _, first = np.unique(owner[order], return_index=True)
    return np.asarray(value[order][first], dtype=np.int64)
