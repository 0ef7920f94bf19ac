"""Tables of single pairs of modalities, and of joint queries, beside the paper's table of the means over pairs.

Every pair stands on the rows that have both modalities, with their number and its gallery in its title. Beside its
figures are those of the rows that have every modality, on which the pairs can be compared with each other.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import combinations
from typing import Any

from gapless.metrics.catalogue import COMPLETE, required_entry
from gapless.study.table import SEEDS_FOR_A_CLAIM, Column, Table, best_of, cell, modalities_of, number_of

GAP_OF_PAIR = ("gap/centroid_distance_unbiased", "gap/true_pair_cosine", "gap/margin_centred")
RECALLS_OF_PAIR = ("R@1", "R@10")
RECALLS_OF_JOINT = ("R@1", "R@5", "R@10", "MRR")


@dataclass(frozen=True)
class PairColumn(Column):
    """A column of one pair; the pair and the rows stand in the title and the heading, not in the name."""

    @property
    def short_name(self) -> str:
        direction = f"{self.group.removesuffix(' %')} " if "→" in self.group else ""
        return direction + self.label + (", complete rows" if self.key.endswith(COMPLETE) else "")


@dataclass(frozen=True)
class Pair:
    """Two modalities with the rows that both are in."""

    first: str
    second: str
    n: int | None
    gallery_size: int | None
    left_out: str = ""

    @property
    def name(self) -> str:
        return f"{self.first}-{self.second}"

    @property
    def title(self) -> str:
        return f"{self.first} and {self.second}: {self.sizes}"

    @property
    def sizes(self) -> str:
        """`84 rows, gallery 84`, or why the pair has no figures."""
        if self.left_out:
            return f"left out, {self.left_out} ({self.n})"
        return "rows unknown" if self.n is None else f"{self.n:,} rows, gallery {self.gallery_size or self.n:,}"


def pairs_of_modalities(comparison: Mapping[str, Any]) -> list[Pair]:
    """All pairs of modalities, those with the anchor first."""
    anchor = comparison.get("anchor")
    sizes = comparison.get("pairs") or {}
    whole = {"n": comparison.get("n"), "gallery_size": comparison.get("gallery_size")}
    named = {key.rpartition("/")[2] for figures in comparison["table"].values() for key in figures} | set(sizes)
    pairs = []
    for first, second in combinations(modalities_of(comparison), 2):
        if f"{second}-{first}" in named:  # files list modalities by their names, keys have them in their order
            first, second = second, first
        one = sizes.get(f"{first}-{second}", whole)
        pairs.append(Pair(first, second, one.get("n"), one.get("gallery_size"), one.get("left_out", "")))
    return sorted(pairs, key=lambda pair: anchor not in (pair.first, pair.second))


def pair_tables(comparison: Mapping[str, Any]) -> list[tuple[str, Table]]:
    """(title, table) of every pair of three modalities or more, then of the joint queries.

    Of two modalities the paper's table says all, so that there are no tables of pairs.
    """
    pairs = pairs_of_modalities(comparison)
    tables = []
    keys = {key for figures in comparison["table"].values() for key in figures}
    if len(pairs) > 1:
        for pair in pairs:
            columns = [] if pair.left_out else _columns_of(pair, keys, comparison.get("complete"))
            tables.append((pair.title, _table(comparison, columns)))
    for direction, one in (comparison.get("joint") or {}).items():
        left_out = f"left out, {one['left_out']}" if "left_out" in one else f"gallery {one['gallery_size']:,}"
        title = f"{direction_title(direction, one)}: {one['n']:,} rows, {left_out}; {one['all_parts']:,} have all parts"
        tables.append((title, _table(comparison, _columns_of_joint(direction, keys, one["n"], comparison))))
    return tables


def direction_title(direction: str, one: Mapping[str, Any]) -> str:
    """`image+history → text` of the direction of a joint query.

    Args:
        one: its entry under `joint`, whose weights name the parts: a name of a modality may hold "_to_" itself.
    """
    parts = len("+".join(one.get("weights") or {})) or direction.index("_to_")
    return f"{direction[:parts]} → {direction[parts + len('_to_') :]}"


def _columns_of(pair: Pair, keys: set[str], complete: Mapping[str, Any] | None) -> list[Column]:
    """The gap and both directions of retrieval on the pair's own rows, then on the complete rows where there are."""
    groups = [("", "own rows" if complete else "modality gap")]
    if complete and "left_out" not in complete:
        groups.append((COMPLETE, f"complete rows ({complete['n']:,})"))
    columns: list[Column] = []
    for suffix, heading in groups:
        columns += [PairColumn(f"{key}/{pair.name}{suffix}", heading) for key in GAP_OF_PAIR]
        for a, b in ((pair.first, pair.second), (pair.second, pair.first)):
            columns += [
                PairColumn(f"retrieval/{a}_to_{b}/{recall}{suffix}", f"{a}→{b} %") for recall in RECALLS_OF_PAIR
            ]
    return [column for column in columns if column.key in keys]


def _columns_of_joint(direction: str, keys: set[str], num_rows: int, comparison: Mapping[str, Any]) -> list[Column]:
    complete = (comparison.get("complete") or {}).get("n")
    parts = [("", f"{num_rows:,} rows"), (COMPLETE, f"complete rows ({complete})")]
    columns = [
        PairColumn(f"retrieval/{direction}/{recall}{suffix}", heading)
        for suffix, heading in parts
        for recall in RECALLS_OF_JOINT
    ]
    return [column for column in columns if column.key in keys]


def _table(comparison: Mapping[str, Any], columns: Iterable[Column]) -> Table:
    columns = list(columns)
    table, methods = comparison["table"], list(comparison["methods"])
    best = {column.key: best_of(column, methods, table) for column in columns}
    differences = comparison.get("differences") or {}
    may_claim = len(comparison.get("seeds") or []) >= SEEDS_FOR_A_CLAIM
    rows = {
        method: [
            cell(
                column,
                table.get(method, {}).get(column.key),
                best,
                differences.get(method, {}).get(column.key),
                may_claim,
            )
            for column in columns
        ]
        for method in methods
    }
    return Table(columns, rows)


MATRIX_FIGURES = ("gap/centroid_distance_unbiased", "gap/true_pair_cosine")


@dataclass(frozen=True)
class MatrixCell:
    """A cell of the pair matrix: row looks for column.

    Args:
        recall: R@10 as printed. share: the same in [0, 1], for the shade; None where there is none.
        gap, cosine: of the pair, as printed.
        n: the rows that have both; on the diagonal those that have the modality.
    """

    recall: str
    share: float | None
    gap: str
    cosine: str
    n: str
    is_diagonal: bool = False


def pair_matrix(comparison: Mapping[str, Any], method: str) -> dict[str, list[MatrixCell]]:
    """modality -> a cell for each modality that it looks for; empty with fewer than three modalities."""
    names = modalities_of(comparison)
    if len(names) < 3:
        return {}
    figures = comparison["table"].get(method, {})
    pairs = {frozenset((pair.first, pair.second)): pair for pair in pairs_of_modalities(comparison)}
    present = comparison.get("present") or {}

    def cell_of(a: str, b: str) -> MatrixCell:
        if a == b:
            n = present.get(a, comparison.get("n"))
            return MatrixCell("", None, "", "", "" if n is None else f"{n:,}", is_diagonal=True)
        pair = pairs[frozenset((a, b))]
        recall_key = f"retrieval/{a}_to_{b}/R@10"
        recall = _number(figures, recall_key)
        gap, cosine = (required_entry(key).shown(_number(figures, f"{key}/{pair.name}")) for key in MATRIX_FIGURES)
        n = "" if pair.n is None else f"{pair.n:,}"
        return MatrixCell(required_entry(recall_key).shown(recall), recall, gap, cosine, n)

    return {a: [cell_of(a, b) for b in names] for a in names}


def _number(figures: Mapping[str, Any], key: str) -> float | None:
    return number_of(figures.get(key))
