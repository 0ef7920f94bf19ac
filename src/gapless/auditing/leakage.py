"""Leakage: the share of held-out rows whose group or image is also in train; used by the audit and by results."""

from collections.abc import Hashable, Mapping, Sequence
from typing import Any

from gapless.manifest.manifest import Manifest
from gapless.manifest.split import copied_contents

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
    items = {} if images is None else {"images": [None if image is None else [image] for image in images]}
    return content_leakage(groups, splits, items)


def content_leakage(
    groups: Sequence[Hashable], splits: Sequence[str], contents: Mapping[str, Sequence[Sequence[Hashable] | None]]
) -> dict[str, dict[str, Any]]:
    """As `leakage`, of rows that have several items: a row leaks when any of them is also in the other split.

    Args:
        groups: one per row.
        splits: one per row.
        contents: modality -> for each row the checksums of its items, or None where it has none.

    Returns:
        As `leakage`; beside `groups` the shared items of each modality.
    """
    rows_of: dict[str, list[int]] = {}
    for row, split in enumerate(splits):
        rows_of.setdefault(split, []).append(row)
    report = {}
    for held_out, other in PAIRS:
        if held_out in rows_of and other in rows_of:
            counts, affected = _shared(groups, contents, rows_of[held_out], rows_of[other])
            share = len(affected) / len(rows_of[held_out])
            report[f"{held_out} in {other}"] = {**counts, "rows": len(affected), "share": share}
    return report


def _shared(
    groups: Sequence[Hashable],
    contents: Mapping[str, Sequence[Sequence[Hashable] | None]],
    held_out: Sequence[int],
    other: Sequence[int],
) -> tuple[dict[str, int], set[int]]:
    """How many groups and items two sets of rows share, and the rows of the first that are affected."""
    other_groups = {groups[row] for row in other} - {None}
    shared_groups = {groups[row] for row in held_out} & other_groups
    affected = {row for row in held_out if groups[row] in other_groups}
    # An item that stands in two modalities (a frontal and a lateral view, say) is the same item.
    there = {item for of_rows in contents.values() for row in other for item in of_rows[row] or ()}
    counts = {"groups": len(shared_groups)}
    for name, of_rows in contents.items():
        shared = {item for row in held_out for item in of_rows[row] or () if item in there}
        affected |= {row for row in held_out if any(item in shared for item in of_rows[row] or ())}
        counts[name] = len(shared)
    return counts, affected


def share_in_train(
    groups: Sequence[str], splits: Sequence[str], images: Sequence[str | None], split: str
) -> float | None:
    """The figure that results record: the share of a split's rows that leak from train; None without rows in train."""
    if split == "train":
        return 1.0
    entry = leakage(groups, splits, images).get(f"{split} in train")
    return None if entry is None else float(entry["share"])


def manifest_share_in_train(manifest: Manifest, split: str) -> float | None:
    """As `share_in_train`, of a manifest of any version: rows leak by their group, or by a copy of any of their items.

    Args:
        manifest: all its rows, not one split of them.
        split: whose rows are counted.
    """
    if split == "train":
        return 1.0
    leaks = leaking_rows(manifest, split)
    return None if leaks is None else sum(leaks) / len(leaks)


def leaking_rows(manifest: Manifest, split: str) -> list[bool] | None:
    """Whether each row of a split shares its group, or a copy of any of its items, with a training row.

    Args:
        manifest: all its rows, not one split of them.
        split: another one than train.

    Returns:
        One answer per row of `manifest.select(split)`, in its order; None without rows in the split or in train.
    """
    groups, splits = manifest.table["group"].to_pylist(), manifest.table["split"].to_pylist()
    held_out, train = ([row for row, name in enumerate(splits) if name == one] for one in (split, "train"))
    if not held_out or not train:
        return None
    affected = _shared(groups, copied_contents(manifest), held_out, train)[1]
    return [row in affected for row in held_out]
