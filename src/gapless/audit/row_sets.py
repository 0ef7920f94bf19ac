"""Figures on sets of rows that share an image, a near copy of one, or a caption."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gapless.audit.leakage import leakage

NUM_EXAMPLES = 5
NO_SET = -1

Codes = NDArray[np.int64]


def set_figures(sets: Codes, splits: Sequence[str], groups: Codes, id_of: Callable[[int], str]) -> dict[str, Any]:
    """How many sets of two rows or more there are, how many cross splits or groups, and the largest of them by name.

    Args:
        sets: [row] the number of the row's set; `NO_SET` for a row that is in none.
        splits: one per row.
        groups: [row] numbers of groups.
        id_of: the id of a row.

    Returns:
        `sets`, `rows` (in them), `largest` (rows of the largest), `sets_across_splits`, `sets_across_groups`,
        `held_out` (as `leakage`: the rows whose set reaches into the other split), `examples` (up to 5 sets, those
        across splits before the others and large ones first, by the ids of up to 5 rows), `example_sizes` (how many
        rows each of these has).
    """
    rows, number = _members(sets)
    sizes = np.bincount(number)
    across_splits = _is_mixed(number, np.unique(np.asarray(splits), return_inverse=True)[1][rows])
    across_groups = _is_mixed(number, groups[rows])
    shown = np.lexsort((-sizes, ~across_splits))[:NUM_EXAMPLES]
    shared = leakage(np.where(sets == NO_SET, np.arange(-2, -2 - len(sets), -1), sets).tolist(), splits)
    return {
        "sets": len(sizes),
        "rows": len(rows),
        "largest": int(sizes.max(initial=0)),
        "sets_across_splits": int(across_splits.sum()),
        "sets_across_groups": int(across_groups.sum()),
        "held_out": {pair: {"rows": entry["rows"], "share": entry["share"]} for pair, entry in shared.items()},
        "examples": [[id_of(int(row)) for row in rows[number == one][:NUM_EXAMPLES]] for one in shown],
        "example_sizes": [int(sizes[one]) for one in shown],
    }


def count_mixed(sets: Codes, codes: Codes) -> tuple[int, int]:
    """(sets, rows) of the sets whose rows have different codes."""
    rows, number = _members(sets)
    mixed = _is_mixed(number, codes[rows])
    return int(mixed.sum()), int(mixed[number].sum())


def _members(sets: Codes) -> tuple[Codes, Codes]:
    """The rows that are in a set of two or more, in order; and for each the number of its set, from 0."""
    sizes = np.bincount(sets[sets != NO_SET], minlength=1)
    rows = np.flatnonzero((sets != NO_SET) & (sizes[sets] > 1))
    _, first, number = np.unique(sets[rows], return_index=True, return_inverse=True)
    by_first_row = np.empty(len(first), np.int64)
    by_first_row[np.argsort(first)] = np.arange(len(first))
    return rows, by_first_row[number]


def _is_mixed(number: Codes, codes: Codes) -> NDArray[np.bool_]:
    """Whether the rows of each set have different codes."""
    _, first = np.unique(number, return_index=True)
    differs = codes != codes[first][number]
    return np.bincount(number, weights=differs, minlength=len(first)) > 0
