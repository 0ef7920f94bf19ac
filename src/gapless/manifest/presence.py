"""Counts which modalities rows have: per modality, per pattern, and both per split."""

from collections import Counter
from collections.abc import Iterable
from typing import Any

PATTERN_SEPARATOR = " + "
NOTHING = "none"


def pattern_of(names: Iterable[str]) -> str:
    """The name of a pattern of presence.

    >>> pattern_of(["image", "labs"]), pattern_of([])
    ('image + labs', 'none')
    """
    return PATTERN_SEPARATOR.join(names) or NOTHING


class PresenceCount:
    """Adds up rows.

    Args:
        names: of all modalities, in their order.
    """

    def __init__(self, names: Iterable[str]) -> None:
        self.names = tuple(names)
        self._rows: Counter[tuple[str, str]] = Counter()  # of each (split, pattern)
        self._present: Counter[tuple[str, str]] = Counter()  # of each (split, modality)

    def add(self, split: str, present: Iterable[str]) -> None:
        """Count a row with the modalities that it has."""
        there = set(present)
        names = [name for name in self.names if name in there]
        self._rows[split, pattern_of(names)] += 1
        self._present.update((split, name) for name in names)

    def of(self, name: str) -> int:
        """How many rows have a modality."""
        return sum(count for (_, one), count in self._present.items() if one == name)

    def as_json(self, splits: Iterable[str]) -> dict[str, Any]:
        """`rows`, `present` (modality -> rows) and `patterns` (pattern -> rows, the most frequent first), of all rows
        and, under `splits`, of each split that has rows.
        """
        there = {split for split, _ in self._rows}
        return {
            **self._figures(there),
            "splits": {split: self._figures({split}) for split in splits if split in there},
        }

    def _figures(self, splits: Iterable[str]) -> dict[str, Any]:
        chosen = set(splits)
        patterns: Counter[str] = Counter()
        present = dict.fromkeys(self.names, 0)
        for (split, pattern), count in self._rows.items():
            patterns[pattern] += count if split in chosen else 0
        for (split, name), count in self._present.items():
            present[name] += count if split in chosen else 0
        ordered = sorted(((n, p) for p, n in patterns.items() if n), key=lambda entry: (-entry[0], entry[1]))
        return {"rows": sum(n for n, _ in ordered), "present": present, "patterns": {p: n for n, p in ordered}}
