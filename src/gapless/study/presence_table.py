"""Which rows have which modality, as the report shows it: by split, and by pattern."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from gapless.manifest.manifest import SPLITS
from gapless.manifest.presence import PATTERN_SEPARATOR

MAX_PATTERNS = 16  # rows of the table of patterns; the last one counts the others


@dataclass(frozen=True)
class PresenceTable:
    """The rows that have each modality.

    Args:
        splits: names of the columns, "all" last where there are several.
        modalities: (name, (count, share in [0, 1]) for each of the splits).
        patterns: (which of the modalities a row of the pattern has, how many rows have it), the most frequent first.
        num_other: rows of patterns that are not shown.
        notes: what presence alone tells.
    """

    splits: list[str]
    modalities: list[tuple[str, list[tuple[int, float]]]]
    patterns: list[tuple[list[bool], int]]
    num_other: int
    notes: list[str]

    @property
    def names(self) -> list[str]:
        return [name for name, _ in self.modalities]


def presence_table(comparison: Mapping[str, Any]) -> PresenceTable | None:
    """The table of a comparison, which counts its manifest, or of measured rows; None where every row has everything.

    Args:
        comparison: `presence` (as `gapless data audit` gives it) or `present` (modality -> rows) with `n`, if any.
    """
    presence = comparison.get("presence")
    if not presence:
        if not comparison.get("present"):
            return None
        rows = max(comparison.get("n") or 0, *comparison["present"].values())
        presence = {"rows": rows, "present": comparison["present"], "patterns": {}, "splits": {}}
    of_splits = presence["splits"]
    ordered = sorted(of_splits, key=lambda split: (SPLITS.index(split) if split in SPLITS else len(SPLITS), split))
    columns: dict[str, Any] = {split: of_splits[split] for split in ordered} if len(ordered) > 1 else {}
    columns["all" if columns else comparison.get("split") or "all"] = presence
    names = list(presence["present"])
    modalities = [
        (name, [(one["present"][name], one["present"][name] / max(1, one["rows"])) for one in columns.values()])
        for name in names
    ]
    patterns = [
        ([name in pattern.split(PATTERN_SEPARATOR) for name in names], count)
        for pattern, count in sorted(presence["patterns"].items(), key=lambda entry: (-entry[1], entry[0]))
    ]
    return PresenceTable(
        list(columns),
        modalities,
        patterns[:MAX_PATTERNS],
        sum(count for _, count in patterns[MAX_PATTERNS:]),
        list(presence.get("notes", ())),
    )
