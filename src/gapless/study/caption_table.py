"""The table of caption scores: captioners and baselines as rows, scores as columns, values as in the result files."""

from collections.abc import Mapping
from typing import Any

from gapless.captioning.names import OWN_ENCODERS
from gapless.study.table import Cell, Column, Table, best_of, number_of

COLUMNS = [
    *(Column(f"caption/BLEU-{n}", "overlap %") for n in (1, 2, 3, 4)),
    Column("caption/METEOR", "overlap %"),
    Column("caption/ROUGE-L", "overlap %"),
    Column("caption/CIDEr", "consensus"),
    Column("caption/findings/precision", "findings named %"),
    Column("caption/findings/recall", "findings named %"),
    Column("caption/findings/F1", "findings named %"),
    Column("caption/findings/denied_F1", "findings wrong %"),
    Column("caption/findings/confused", "findings wrong %"),
    Column("caption/findings/side_errors", "findings wrong %"),
    Column("caption/numbers/F1", "numbers %"),
    *(Column(f"caption/retrieval/R@{k}", "own image found %") for k in (1, 5, 10)),
    Column("caption/distinct-1", "variety %"),
    Column("caption/distinct-2", "variety %"),
    Column("caption/unique", "variety %"),
    Column("caption/length", "length"),
]


def caption_table(results: Mapping[str, Mapping[str, Any]]) -> Table:
    """The table of captioners, with the baselines of the first one below them.

    Args:
        results: captioner -> content of `results.json`.

    Returns:
        A Table with percent where rates; the best captioner of a score is marked, never a baseline. The sd of a cell
        is half the width of its 95 % interval.
    """
    first = next(iter(results.values()))
    systems = {name: result["figures"] for name, result in results.items()}
    best = {column.key: best_of(column, list(systems), systems) for column in COLUMNS}
    rows = {name: [cell(column, figures, best[column.key]) for column in COLUMNS] for name, figures in systems.items()}
    for name, figures in first["baselines"].items():
        rows[name] = [cell(column, figures, None) for column in COLUMNS]
    has_intervals = any(entry.sd for row in rows.values() for entry in row)
    return Table(COLUMNS, rows, _notes_of(results, has_intervals))


def cell(column: Column, figures: Mapping[str, Any], best: str | None) -> Cell:
    """The cell of a figure; `best` is the text of the best value of the column."""
    figure = figures.get(column.key)
    mean = column.shown(number_of(figure))
    is_best = column.has_direction and mean != "–" and mean == best
    interval = interval_of(figure)
    sd = "" if interval is None else column.shown((interval[1] - interval[0]) / 2)
    return Cell(mean, sd=sd, is_best=is_best)


def interval_of(figure: Any) -> tuple[float, float] | None:
    """The ends of a figure's 95 % interval; None where it was not computed."""
    if isinstance(figure, Mapping) and figure.get("low") is not None and figure.get("high") is not None:
        return figure["low"], figure["high"]
    return None


def _notes_of(results: Mapping[str, Mapping[str, Any]], has_intervals: bool) -> list[str]:
    """Split, rows, tokenizer, what is missing and why, leakage."""
    first = next(iter(results.values()))
    data = first.get("data") or {}
    notes = [
        f"Split {first['split']}, {first['n']:,} rows, {data.get('groups', '?')} groups, tokenizer {first['tokenizer']}"
        + (" (not the PTB tokenizer: do not compare with published scores)" if first["tokenizer"] != "ptb" else "")
        + "."
        + (" ± half of the 95 % interval (bootstrap over groups)." if has_intervals else ""),
        "CIDEr's document frequencies are those of all references of the split. R@K: the caption, embedded by "
        "the captioner's own text encoder or the judge given, finds its image among all images of the split.",
    ]
    shared = {key: {str(result.get(key)) for result in results.values()} for key in ("split", "tokenizer", "n")}
    for key, values in (shared | {"data": {data_of(result) for result in results.values()}}).items():
        if len(values) > 1:
            notes.append(f"The rows differ in {key}: do not compare them.")
    if len(results) > 1 and OWN_ENCODERS in {result.get("judge") for result in results.values()}:
        notes.append("R@K is judged by each captioner's own encoders: compare it only where one --judge was given.")
    for name, why in (first.get("missing") or {}).items():
        notes.append(f"Missing: {name} {why}.")
    empty = {name: number_of(result["figures"].get("caption/empty")) for name, result in results.items()}
    notes += [f"{name}: {share:.1%} of the captions are empty." for name, share in empty.items() if share]
    return [*notes, "Research use, not for diagnosis."]


def data_of(result: Mapping[str, Any]) -> str:
    """The fingerprint of the data that captions were scored on."""
    return str((result.get("data") or {}).get("fingerprint"))
