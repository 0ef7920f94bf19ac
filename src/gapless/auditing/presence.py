"""Does presence alone tell something? Whether which modalities a row has goes with its label, or with its split.

Who gets an ECG is not random. A model can learn the label from what is absent, and figures of two splits with other
absences cannot be compared. Both are tested over groups, since the rows of one patient are no independent cases: a
group counts once, with its most frequent pattern and label, and labels are permuted between groups.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gapless.auditing.row_sets import Codes

PERMUTATIONS = 199
MAX_P = 0.01
# Presence tells a label when it removes at least this share of the label's uncertainty, beyond chance.
MIN_SHARE = 0.05
# Presence differs between splits when the shares of rows that have a modality differ by at least this much.
MIN_DIFFERENCE = 0.1
MIN_GROUPS = 10
UNKNOWN = -1


def label_figures(present: Mapping[str, NDArray[np.bool_]], labels: Codes, groups: Codes) -> dict[str, Any] | None:
    """How much of a label the pattern of presence tells, and which modality tells most.

    Args:
        present: modality -> [row] whether the row has it.
        labels: [row] number of the label, `UNKNOWN` where it is missing.
        groups: [row] number of the group.

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
    share, p_value = _share_told(pattern, label)
    alone = {
        name: _share_told(_most_frequent(units, has[known].astype(np.int64)), label)[0] for name, has in present.items()
    }
    most = max(alone, key=lambda name: alone[name])
    return {"share": share, "p_value": p_value, "groups": int(units.max()) + 1, "most_by": most}


def _share_told(pattern: Codes, label: Codes) -> tuple[float, float]:
    """(share of the label's entropy that the pattern removes beyond chance, p-value by permutation)."""
    pattern, label = _codes(pattern[:, None]), _codes(label[:, None])
    told = _mutual_information(pattern, label)
    random = np.random.default_rng(0)
    by_chance = np.array([_mutual_information(pattern, random.permutation(label)) for _ in range(PERMUTATIONS)])
    p_value = (1 + int((by_chance >= told - 1e-12).sum())) / (1 + PERMUTATIONS)
    rest = _entropy(np.bincount(label)) - by_chance.mean()
    share = 0.0 if rest <= 1e-12 else (told - by_chance.mean()) / rest
    return float(np.clip(share, 0.0, 1.0)), p_value


def _mutual_information(a: Codes, b: Codes) -> float:
    """In nats; H(a) + H(b) - H(a, b)."""
    joint = np.bincount(a * (b.max() + 1) + b)
    return _entropy(np.bincount(a)) + _entropy(np.bincount(b)) - _entropy(joint)


def _entropy(counts: NDArray[Any]) -> float:
    shares = counts[counts > 0] / counts.sum()
    return float(-(shares * np.log(shares)).sum())


def split_figures(
    present: Mapping[str, NDArray[np.bool_]], splits: Sequence[str], groups: Codes
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
        as_large = sum(
            _largest_difference(having, rows, random.permutation(unit_split)) >= difference - 1e-12
            for _ in range(PERMUTATIONS)
        )
        figures[name] = {"share_difference": difference, "p_value": (1 + as_large) / (1 + PERMUTATIONS)}
    return figures


def _largest_difference(having: NDArray[Any], rows: NDArray[Any], split: Codes) -> float:
    shares = np.bincount(split, weights=having) / np.bincount(split, weights=rows)
    return float(shares.max() - shares.min())


def presence_notes(presence: Mapping[str, Any]) -> Iterator[str]:
    """Sentences on what presence tells, of the figures of an audit."""
    for label, figures in presence.get("labels", {}).items():
        if figures["share"] >= MIN_SHARE and figures["p_value"] <= MAX_P:
            yield (
                f"presence alone tells {figures['share']:.0%} of the label {label!r} (p {figures['p_value']:.3f} over "
                f"{figures['groups']:,} groups; {figures['most_by']} tells most): a model can learn who was examined "
                "instead of what was seen; compare with rows that have the same modalities"
            )
    for name, figures in presence.get("between_splits", {}).items():
        if figures["share_difference"] >= MIN_DIFFERENCE and figures["p_value"] <= MAX_P:
            yield (
                f"{name} is present in {figures['share_difference']:.0%} more of the rows of one split than of another "
                f"(p {figures['p_value']:.3f} over groups): figures of these splits are of other cases; 'gapless data "
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
