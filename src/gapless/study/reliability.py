"""Notes on the reliability of a table: gallery size, split, groups, seeds, leakage."""

from collections.abc import Mapping
from typing import Any, NamedTuple

from gapless.study.table import SEEDS_FOR_A_CLAIM

# Keys of leakage in result files: the share of rows whose group or image is in train, as the audit counts it. Older
# files hold the share of groups instead.
LEAKAGE_KEYS = {"_rows_in_train_share": "rows", "_groups_in_train_share": "groups"}


class Note(NamedTuple):
    """A sentence on one topic; `state` is "good", "warn" or "unknown"."""

    state: str
    topic: str
    text: str


def reliability_notes(comparison: Mapping[str, Any]) -> list[Note]:
    """One note per topic, from the contents of the result files."""
    return [
        _gallery_note(comparison),
        _seeds_note(comparison),
        leakage_note(comparison),
        _interval_note(comparison),
        _size_note(comparison),
        *([_differ_note(comparison)] if comparison.get("differ") else []),
    ]


def _gallery_note(comparison: Mapping[str, Any]) -> Note:
    size, split = comparison.get("gallery_size"), comparison.get("split")
    if not size and comparison.get("pairs"):
        galleries = [one["gallery_size"] for one in comparison["pairs"].values() if "left_out" not in one]
        text = (
            f"Rows lack modalities, so that each pair ranks the rows that have both, {min(galleries):,} to "
            f"{max(galleries):,} candidates: recalls of two pairs compare on the complete rows only."
        )
        return Note("warn", "Gallery", text)
    if not size:
        return Note("unknown", "Gallery", "The gallery size was not recorded: the recalls cannot be compared.")
    where = f"the whole {split} split" if split else "all rows"
    text = f"Every recall ranks {where}, {size:,} candidates; a recall from another gallery size does not compare."
    return Note("good", "Gallery", text)


def _seeds_note(comparison: Mapping[str, Any]) -> Note:
    seeds = list(comparison.get("seeds") or [])
    if not seeds:
        return Note("unknown", "Seeds", "The seeds were not recorded.")
    if len(seeds) < SEEDS_FOR_A_CLAIM:
        count = f"{len(seeds)} seed{'s' * (len(seeds) > 1)}"
        return Note("warn", "Seeds", f"Only {count}: a difference is claimed from {SEEDS_FOR_A_CLAIM} seeds on.")
    return Note("good", "Seeds", f"Mean and standard deviation over {len(seeds)} seeds at equal budget.")


def leakage_note(comparison: Mapping[str, Any]) -> Note:
    """A note on the share of test rows that leak from train."""
    leakage = (comparison.get("data") or {}).get("leakage") or {}
    shares = {
        f"{name.removesuffix(suffix)} {what}": share
        for suffix, what in LEAKAGE_KEYS.items()
        for name, share in leakage.items()
        if name.endswith(suffix)
    }
    if not shares:
        return Note("unknown", "Leakage", "Whether train and test share groups or images was not recorded.")
    leaking = ", ".join(f"{share:.1%} of the {what}" for what, share in shares.items() if share)
    if leaking:
        return Note("warn", "Leakage", f"{leaking} also occur in train: the figures are higher than on unseen groups.")
    if any(name.endswith("_rows_in_train_share") for name in leakage):
        text = "No row of the test split has its group (article, patient, case) or its image in train."
    else:
        text = "No group (article, patient, case) of the test split occurs in train; images were not compared."
    return Note("good", "Leakage", text)


def _interval_note(comparison: Mapping[str, Any]) -> Note:
    groups = (comparison.get("data") or {}).get("groups")
    among = f" of {groups:,}" if isinstance(groups, int) else ""
    if comparison.get("differences"):
        text = f"95 % intervals of differences resample whole groups{among} and keep the gallery fixed."
        return Note("good", "Intervals", text)
    if any("low" in figure for figures in comparison["table"].values() for figure in figures.values()):
        return Note("good", "Intervals", f"95 % intervals resample whole groups{among}; see all figures.")
    return Note("unknown", "Intervals", "No intervals were computed: read small differences as noise.")


def _size_note(comparison: Mapping[str, Any]) -> Note:
    size = comparison.get("n")
    text = "The plain centroid distance is biased upward, more so on few pairs; the unbiased one stands beside it."
    return Note("good" if size else "unknown", "Centroid distance", text)


def _differ_note(comparison: Mapping[str, Any]) -> Note:
    return Note("warn", "Rows", f"The rows were measured with different {', '.join(comparison['differ'])}.")
