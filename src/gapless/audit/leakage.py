"""Leakage: the share of held-out rows whose group or image is also in train; used by the audit and by results."""

from collections.abc import Hashable, Sequence
from typing import Any

PAIRS = (("test", "train"), ("validation", "train"), ("test", "validation"))


def leakage(
    groups: Sequence[Hashable], splits: Sequence[str], images: Sequence[Hashable] | None = None
) -> dict[str, dict[str, Any]]:
    """The rows of each held-out split whose group or identical image is also in train, and of test in validation.

    Near copies are not counted because they are an estimate, and equal captions because many healthy patients share
    one. The audit reports both beside this figure.

    Args:
        groups: one per row.
        splits: one per row.
        images: a checksum of each row's image; None where there is none. Without them groups alone count.

    Returns:
        "test in train", "validation in train", "test in validation" -> `groups` and `images` (shared by the two
        splits), `rows` (of the first split that are affected), `share` of its rows, in [0, 1]; 0 is a clean split.
        Only pairs of splits that have rows.
    """
    kinds = {"groups": groups, **({} if images is None else {"images": images})}
    rows_of: dict[str, list[int]] = {}
    for row, split in enumerate(splits):
        rows_of.setdefault(split, []).append(row)
    report = {}
    for held_out, other in PAIRS:
        if held_out in rows_of and other in rows_of:
            affected: set[int] = set()
            counts = {}
            for kind, keys in kinds.items():
                shared = {keys[row] for row in rows_of[held_out]} & {keys[row] for row in rows_of[other]} - {None}
                affected |= {row for row in rows_of[held_out] if keys[row] in shared}
                counts[kind] = len(shared)
            share = len(affected) / len(rows_of[held_out])
            report[f"{held_out} in {other}"] = {**counts, "rows": len(affected), "share": share}
    return report


def share_in_train(
    groups: Sequence[str], splits: Sequence[str], images: Sequence[str | None], split: str
) -> float | None:
    """The figure that results record: the share of a split's rows that leak from train; None without rows in train."""
    if split == "train":
        return 1.0
    entry = leakage(groups, splits, images).get(f"{split} in train")
    return None if entry is None else float(entry["share"])
