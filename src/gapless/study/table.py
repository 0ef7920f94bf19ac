"""The paper's table: methods as rows, the gap, retrieval and grouping as columns.

The numbers come from compare.json unchanged; a missing figure is shown as a dash.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from typing import Any

from gapless.metrics.catalogue import COMPLETE, FigureEntry, further_figures, label_of, required_entry

SEEDS_FOR_A_CLAIM = 3  # a difference is marked as significant only with at least 3 seeds and an interval
GAP_COLUMNS = (
    "gap/centroid_distance",
    "gap/centroid_distance_unbiased",
    "gap/true_pair_cosine",
    "gap/true_pair_angle_deg",
)
CENTRED_COLUMNS = ("gap/margin_centred", "gap/d_prime_centred")  # beside every cosine: it may be a common mean
RECALLS = ("R@1", "R@5", "R@10")
OF_ONE_MODALITY = "gap/within_cosine/"
GROUPING_COLUMNS = ("grouping/v_measure", "grouping/ami", "grouping/knn_accuracy")


@dataclass(frozen=True)
class Column:
    """One figure of the table, under the heading of its `group`; its catalogue entry has label, unit and direction."""

    key: str
    group: str

    @property
    def entry(self) -> FigureEntry:
        return required_entry(self.key)

    @property
    def label(self) -> str:
        """The column's name under its heading."""
        tail = self.key.removesuffix(COMPLETE).rsplit("/", 1)[1]
        return self.entry.short or (tail if "<k>" in self.entry.key else self.entry.label)

    @property
    def percent(self) -> bool:
        return self.entry.is_percent

    @property
    def arrow(self) -> str:
        return self.entry.arrow

    @property
    def has_direction(self) -> bool:
        return self.entry.better != "neither"

    @property
    def short_name(self) -> str:
        """The column's name where there is no heading above it."""
        if self.key.startswith("retrieval/"):
            return f"{self.group.removesuffix(' %').removesuffix(' recall')} {self.label}"
        return label_of(self.key)

    def shown(self, number: float | None) -> str:
        """The number as printed; a dash where there is none."""
        return self.entry.shown(number)


@dataclass(frozen=True)
class Cell:
    """One entry: mean and sd as text, whether it is the best of its column, and its difference to the baseline."""

    mean: str
    sd: str = ""
    is_best: bool = False
    is_significant: bool = False
    difference: str = ""

    @property
    def text(self) -> str:
        return (f"{self.mean} ±{self.sd}" if self.sd else self.mean) + ("*" if self.is_significant else "")


@dataclass(frozen=True)
class Table:
    columns: list[Column]
    rows: dict[str, list[Cell]]
    notes: list[str] = field(default_factory=list)

    def names_of(self, columns: Sequence[int]) -> list[str]:
        """The rows that have a value in these columns; chance levels exist for some columns only."""
        return [name for name, row in self.rows.items() if any(row[column].mean for column in columns)]

    def groups(self) -> list[tuple[str, list[int]]]:
        """Headings with the indices of the columns under them."""
        indices = range(len(self.columns))
        return [(name, list(group)) for name, group in groupby(indices, key=lambda i: self.columns[i].group)]


def paper_table(comparison: Mapping[str, Any]) -> Table:
    """The table of a comparison (the content of compare.json).

    Args:
        comparison: `methods`, `table` {method: {key: {"mean", "sd"}}} and, where known, `baseline`, `differences`,
            `random`, `seeds`, `n`, `gallery_size`, `split`, `data`, `versions`.

    Returns:
        a Table; rates are percent in it, and `Cell.is_significant` says that the 95 % interval of the difference to
        the baseline excludes zero and that there are seeds enough to say so.
    """
    table, methods = comparison["table"], list(comparison["methods"])
    keys = [key for method in methods for key in table.get(method, {})]
    columns = columns_for(keys, modalities_of(comparison))
    best = {column.key: best_of(column, methods, table) for column in columns}
    differences = comparison.get("differences") or {}
    may_claim = len(comparison.get("seeds") or []) >= SEEDS_FOR_A_CLAIM
    rows = {
        method: [
            cell(column, figures.get(column.key), best, differences.get(method, {}).get(column.key), may_claim)
            for column in columns
        ]
        for method, figures in ((method, table.get(method, {})) for method in methods)
    }
    random = comparison.get("random") or {}
    if any(column.key in random for column in columns):
        rows["random labels"] = [
            Cell(column.shown(number_of(random[column.key])) if column.key in random else "") for column in columns
        ]
    return Table(columns, rows, notes_of(comparison, rows))


def modalities_of(comparison: Mapping[str, Any]) -> list[str]:
    """The modalities of a comparison, in their order.

    Files name them under `modalities`, or where rows lack some under `present`. Of other files the keys of figures tell
    them: first those of figures of one modality, because a name may hold "_to_", which stands between two in a
    direction of retrieval.
    """
    for part in ("modalities", "present"):
        if comparison.get(part):
            return list(comparison[part])
    ordered: dict[str, None] = {}
    for figures in comparison["table"].values():
        keys = [key.removesuffix(COMPLETE) for key in figures]
        single = [key.removeprefix(OF_ONE_MODALITY) for key in keys if key.startswith(OF_ONE_MODALITY)]
        ordered.update(dict.fromkeys(single or _named_by_directions(keys)))
    return list(ordered)


def _named_by_directions(keys: Iterable[str]) -> list[str]:
    parts = [key.split("/") for key in keys]
    directions = [part[1] for part in parts if part[0] == "retrieval" and "_to_" in part[1] and "+" not in part[1]]
    return [name for direction in directions for name in direction.split("_to_")]


def columns_for(keys: Iterable[str], modalities: Sequence[str] = ()) -> list[Column]:
    """The paper's columns; retrieval between the two modalities there are, of several the mean over all directions.

    Args:
        modalities: in their order; image and text where none are named.
    """
    keys = list(keys)
    gap = [Column(key, "modality gap") for key in GAP_COLUMNS]
    gap += [Column(key, "without the means") for key in CENTRED_COLUMNS if key in keys]
    a, b = sorted(modalities) if len(modalities) == 2 else ("image", "text")
    directions = {f"{a}_to_{b}": f"{a}→{b} %", f"{b}_to_{a}": f"{b}→{a} %", "mean": "mean recall %"}
    if len(modalities) > 2:
        directions = {"mean": "mean recall %"}
    retrieval = [
        Column(f"retrieval/{direction}/{recall}", heading)
        for direction, heading in directions.items()
        for recall in RECALLS
    ]
    grouping = [Column(key, "grouping %") for key in GROUPING_COLUMNS]
    further = [
        Column(entry.key, entry.family)
        for entry in further_figures()
        if entry.key in keys and entry.in_tables and entry.key not in CENTRED_COLUMNS
    ]
    return gap + retrieval + grouping + further


def number_of(figure: Any) -> float | None:
    """The number of a figure, whatever its form (plain, over seeds, with an interval); None where there is none."""
    if isinstance(figure, Mapping):
        figure = figure.get("mean", figure.get("value"))
    return None if figure is None else float(figure)


def best_of(column: Column, methods: Sequence[str], table: Mapping[str, Any]) -> str | None:
    """The best mean of a column as printed, so that all ties are marked; None when no method can be best."""
    means = [number_of(table.get(method, {}).get(column.key)) for method in methods]
    present = [mean for mean in means if mean is not None and math.isfinite(mean)]
    if len({column.shown(mean) for mean in present}) < 2:
        return None
    return column.shown(min(present) if column.entry.better == "lower" else max(present))


def excludes_zero(interval: Mapping[str, Any] | None) -> bool:
    """Whether an interval {"value", "low", "high"} lies on one side of zero."""
    if not interval or interval.get("low") is None or interval.get("high") is None:
        return False
    return bool(interval["low"] > 0 or interval["high"] < 0)


def cell(
    column: Column,
    figure: Any,
    best: Mapping[str, str | None],
    difference: Mapping[str, Any] | None,
    may_claim: bool,
) -> Cell:
    mean = column.shown(number_of(figure))
    sd = figure.get("sd") if isinstance(figure, Mapping) else None
    return Cell(
        mean=mean,
        sd="" if sd is None or mean == "–" else column.shown(float(sd)),
        is_best=mean != "–" and mean == best[column.key],
        is_significant=may_claim and mean != "–" and excludes_zero(difference),
        difference=difference_text_of(column, difference),
    )


def difference_text_of(column: Column, difference: Mapping[str, Any] | None) -> str:
    """`+3.1 [1.2, 5.0]` (with true minus signs), in the unit of the column."""
    if not difference or difference.get("value") is None:
        return ""
    value, low, high = (column.shown(difference.get(end)) for end in ("value", "low", "high"))
    signed = value if value.startswith("-") else f"+{value}"
    return f"{signed} [{low}, {high}]".replace("-", "−")


def _gallery_text(comparison: Mapping[str, Any]) -> str:
    if comparison.get("gallery_size"):
        return f"gallery {comparison['gallery_size']:,}"
    return "each pair of modalities its own gallery" if comparison.get("pairs") else "gallery size unknown"


def closed_note(comparison: Mapping[str, Any]) -> str | None:
    """The sentence that marks the rows which were closed afterwards; None where a comparison has none."""
    rows = [row for row in comparison["methods"] if row in (comparison.get("closed_afterwards") or {})]
    if not rows:
        return None
    return (
        f"{' and '.join(rows)}: closed afterwards. Nothing is trained for them: the gap of the finished runs is closed "
        "on training and validation rows."
    )


def notes_of(comparison: Mapping[str, Any], rows: Mapping[str, Sequence[Cell]]) -> list[str]:
    """Notes below the table: gallery, split, seeds, groups, significance, versions."""
    data, seeds = comparison.get("data") or {}, list(comparison.get("seeds") or [])
    facts = [
        f"split {comparison['split']}" if comparison.get("split") else "",
        f"{comparison['n']:,} {'rows' if comparison.get('pairs') else 'pairs'}" if comparison.get("n") else "",
        _gallery_text(comparison),
        f"{data['groups']:,} groups" if isinstance(data.get("groups"), int) else "",
        f"{len(seeds)} seed{'s' * (len(seeds) != 1)} ({', '.join(map(str, seeds))})" if seeds else "",
    ]
    has_sd = any(entry.sd for row in rows.values() for entry in row)
    notes = [f"{'Mean ±sd over seeds; ' if has_sd else ''}{', '.join(fact for fact in facts if fact)}."]
    if any(entry.is_significant for row in rows.values() for entry in row):
        baseline = comparison.get("baseline", "the baseline")
        notes.append(f"* the 95 % interval of the difference to {baseline} (bootstrap over groups) excludes zero.")
    elif comparison.get("differences") and len(seeds) < SEEDS_FOR_A_CLAIM:
        notes.append(f"Differences are marked from {SEEDS_FOR_A_CLAIM} seeds on.")
    if (closed := closed_note(comparison)) is not None:
        notes.append(closed)
    if any(entry.mean == "–" for row in rows.values() for entry in row):
        notes.append("– not measured.")
    if comparison.get("differ"):
        notes.append(f"The rows differ in {', '.join(comparison['differ'])}: compare them with care.")
    versions = comparison.get("versions") or {}
    if versions:
        notes.append(f"Versions: {', '.join(f'{name} {version}' for name, version in sorted(versions.items()))}.")
    return notes
