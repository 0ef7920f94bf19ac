"""How `close --method auto` chose, as a table: for the terminal, the model card and the report."""

from collections.abc import Mapping, Sequence
from typing import Any

from gapless.metrics.catalogue import label_of, required_entry

COLUMNS = (
    "gap/centroid_distance_unbiased",
    "gap/margin",
    "gap/d_prime",
    "retrieval/mean/R@10",
    "retrieval/mean/MRR",
    "grouping/v_measure",
    "gap/mixing@10",
    "mixed/R@10",
)
CHOSEN = "*"


def choice_columns(choice: Mapping[str, Any]) -> list[str]:
    """The keys that any candidate has, in the order of the table."""
    return [key for key in COLUMNS if any(key in one["figures"] for one in choice["candidates"])]


def choice_rows(choice: Mapping[str, Any]) -> list[list[str]]:
    """The table with its heading: method, a cell a figure with its 95 % interval, seconds; or the reason for none."""
    keys = choice_columns(choice)
    head = [
        "method",
        *(f"{label_of(key).removesuffix(', mean')} {required_entry(key).arrow}" for key in keys),
        "seconds",
    ]
    rows = [head]
    for one in choice["candidates"]:
        name = f"{one['name']}{CHOSEN if one['name'] == choice['name'] else ''}"
        cells = [_cell(key, one["figures"].get(key)) for key in keys] if one["figures"] else ["–"] * len(keys)
        rows.append([name, *cells, f"{one['seconds']:.1f}"])
    return rows


def choice_table(choice: Mapping[str, Any]) -> str:
    """The table, aligned, with why, the ties and the reasons below."""
    rows = choice_rows(choice)
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    return "\n".join([*lines, *choice_sentences(choice)])


def choice_sentences(choice: Mapping[str, Any]) -> list[str]:
    """What was judged, the reasons of candidates without figures, why the choice, and what is as good."""
    reasons = [f"{one['name']}: {one['reason']}" for one in choice["candidates"] if one["reason"]]
    tied = f"not surely worse: {', '.join(choice['tied'])}" if choice["tied"] else "surely better than every other one"
    judged = (
        f"judged on {choice['judged_rows']:,} rows in {choice['folds']} folds of whole groups, each fitted outside its "
        f"fold; in brackets 95 % intervals over groups; {CHOSEN} is taken"
    )
    return [judged, *reasons, f"for {choice['purpose']}: {choice['why']} ({tied})"]


def markdown_choice(choice: Mapping[str, Any]) -> str:
    """The table for a model card."""
    head, *rows = choice_rows(choice)
    lines = [_line(head), _line(["---"] * len(head)), *map(_line, rows)]
    return "\n".join([*lines, "", *(f"- {sentence}" for sentence in choice_sentences(choice))])


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |"


def _cell(key: str, interval: Mapping[str, float | None] | None) -> str:
    entry = required_entry(key)
    if interval is None:
        return "–"
    text = entry.shown(interval["value"])
    if interval["low"] is None:
        return text
    return f"{text} [{entry.shown(interval['low'])}, {entry.shown(interval['high'])}]"
