"""The figures of a split beside those of its rows that share no group and no item with training, where some rows do."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

from gapless.metrics.catalogue import label_of
from gapless.study.renderings import to_ascii
from gapless.study.table import number_of

KEYS = (
    "gap/centroid_distance_unbiased",
    "gap/true_pair_cosine",
    "gap/margin",
    "retrieval/mean/R@1",
    "retrieval/mean/R@10",
    "retrieval/mean/MRR",
)
COLUMNS = ("all rows", "rows that do not leak", "as many of all rows")


@dataclass(frozen=True)
class DisjointTable:
    """The table of one study.

    Args:
        columns: method and rows of each column of figures.
        rows: name of a figure, then its value in each column.
        sentences: what stands beside it.
    """

    columns: list[str]
    rows: list[list[str]]
    sentences: list[str]


def disjoint_table(runs: Mapping[str, Sequence[Mapping[str, Any]]]) -> DisjointTable | None:
    """The table of the runs of each method, means over runs; None where no row of any of them leaks from train.

    Args:
        runs: method -> the contents of `results.json` of its runs.
    """
    measured = {
        method: [one for one in of_method if "figures" in (one.get("disjoint") or {})]
        for method, of_method in runs.items()
    }
    measured = {method: of_method for method, of_method in measured.items() if of_method}
    if not measured:
        return None
    single = len(measured) == 1
    columns = [what if single else f"{method}, {what}" for method in measured for what in COLUMNS]
    cells: list[list[str]] = []
    for key in KEYS:
        values = [_mean(key, source) for of_method in measured.values() for source in _sources(of_method)]
        if any(value != "–" for value in values):
            cells.append([label_of(key), *values])
    first = next(iter(measured.values()))[0]
    draws = first["disjoint"]["same_size"]["draws"]
    sentences = [
        f"{first['disjoint']['n']:,} of {first['n']:,} rows share no group (article, patient, case) and no "
        "item with train.",
        f"Recall falls with the size of the gallery: compare the second column with the third, the mean of {draws} "
        "draws of as many rows, whole groups at a time.",
    ]
    return DisjointTable(columns, cells, sentences)


def _sources(of_method: Sequence[Mapping[str, Any]]) -> list[list[Mapping[str, Any]]]:
    """The figures of each run: of all rows, of those that do not leak, of as many of all rows."""
    return [
        [one["figures"] for one in of_method],
        [one["disjoint"]["figures"] for one in of_method],
        [one["disjoint"]["same_size"]["figures"] for one in of_method],
    ]


def _mean(key: str, of_runs: Sequence[Mapping[str, Any]]) -> str:
    numbers = [number for figures in of_runs if (number := number_of(figures.get(key))) is not None]
    return f"{fmean(numbers):.3f}" if numbers else "–"


def disjoint_to_terminal(results: Mapping[str, Any], ascii_only: bool = False) -> str:
    """The table of one evaluated run as lines; "" where no row leaks, one line where too few do not."""
    left_out = (results.get("disjoint") or {}).get("left_out")
    if left_out:
        return f"rows that do not leak from train: no figures, {left_out}"
    table = disjoint_table({"": [results]})
    if table is None:
        return ""
    lines = [["", *table.columns], *table.rows]
    widths = [max(len(line[column]) for line in lines) for column in range(len(lines[0]))]
    text = "\n".join(
        "  ".join(one.ljust(width) for one, width in zip(line, widths, strict=True)).rstrip() for line in lines
    )
    text = "\n".join([text, *table.sentences])
    return to_ascii(text) if ascii_only else text
