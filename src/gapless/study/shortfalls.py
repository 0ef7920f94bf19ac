"""What did not work in a study: methods below the baseline, figures without a value, what was left out.

A report that shows only what worked cannot be judged; this section stands in every report, and says so where nothing of
the kind is recorded.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from gapless.metrics.absent import left_out_of
from gapless.study.results import Run, Study
from gapless.study.table import Column, Table, difference_text_of, excludes_zero, number_of

NOTHING = "Nothing of the kind is recorded in the result files."
UNSEEN = (
    "What was tried and not kept in these directories, such as other settings, is not seen here; a comparison is "
    "written only when all of its runs have finished."
)


def shortfalls_of(study: Study, table: Table) -> list[str]:
    """Sentences, the gravest first; one that says so where there is nothing, and last what cannot be seen."""
    comparison = study.comparison
    sentences = [
        *_worse_methods(comparison, table),
        *_missing_runs(study),
        *_diverged_runs(study),
        *_without_value(study, table),
        *_left_out(comparison),
        *_refused_candidates(study),
    ]
    return [*(sentences or [NOTHING]), UNSEEN]


def _worse_methods(comparison: Mapping[str, Any], table: Table) -> Iterator[str]:
    """The methods that an interval puts on the wrong side of the baseline, with every such figure."""
    baseline = str(comparison.get("baseline", "the baseline"))
    for method, differences in (comparison.get("differences") or {}).items():
        if method not in comparison["methods"]:
            continue
        compared = [column for column in table.columns if differences.get(column.key, {}).get("low") is not None]
        worse = [
            f"{column.short_name} {difference_text_of(column, differences[column.key])}"
            for column in compared
            if is_worse(column, differences[column.key])
        ]
        if worse:
            yield (
                f"{method} is worse than {baseline} in {len(worse)} of {len(compared)} figures that have an interval: "
                + "; ".join(worse)
                + "."
            )


def is_worse(column: Column, difference: Mapping[str, Any] | None) -> bool:
    """Whether the whole interval of a difference to the baseline is on the side that is worse."""
    if difference is None or not column.has_direction or not excludes_zero(difference):
        return False
    return bool(difference["low"] > 0) if column.entry.better == "lower" else bool(difference["high"] < 0)


def _missing_runs(study: Study) -> Iterator[str]:
    for method, named in study.comparison.get("runs", {}).items():
        missing = len(named) - len(study.runs.get(method, []))
        if missing:
            yield f"{method}: the directories of {missing} of its {len(named)} runs are gone; its figures stand alone."


def _diverged_runs(study: Study) -> Iterator[str]:
    for method, runs in study.runs.items():
        steps = [step for run in runs if (step := _step_without_loss(run)) is not None]
        if steps:
            first = min(steps)
            yield f"{method}: the loss of {len(steps)} of {len(runs)} runs was not finite, first at step {first:,}."


def _step_without_loss(run: Run) -> int | None:
    """The first step whose total loss is no finite number."""
    for record in run.history:
        if "loss/total" in record and not _is_finite(record["loss/total"]):
            return int(record.get("step") or 0)
    return None


def _is_finite(value: Any) -> bool:
    return isinstance(value, int | float) and math.isfinite(value)


def _without_value(study: Study, table: Table) -> Iterator[str]:
    """Figures of the table that were asked of a method and came to no number."""
    for method in study.methods:
        figures = study.comparison["table"].get(method, {})
        empty = [
            column.short_name
            for column in table.columns
            if column.key in figures and not _is_finite(number_of(figures[column.key]))
        ]
        if empty:
            yield f"{method} has no value of {', '.join(empty)}."


def _left_out(comparison: Mapping[str, Any]) -> Iterator[str]:
    """Pairs of modalities, joint queries and complete rows that have no figures."""
    for name, reason, rows in left_out_of(comparison):
        yield f"{name} has no figures: {reason} ({rows:,})."


def _refused_candidates(study: Study) -> Iterator[str]:
    """The closing methods that were tried for a choice and could not be fitted."""
    for name, candidate in _candidates(study.runs):
        if candidate.get("reason") and not candidate.get("figures"):
            yield f"{name}, candidate {candidate['name']}: {candidate['reason']}."


def _candidates(runs: Mapping[str, Sequence[Run]]) -> Iterator[tuple[str, Mapping[str, Any]]]:
    for name, of_method in runs.items():
        for run in of_method:
            choice = run.results.get("choice")
            for candidate in choice["candidates"] if isinstance(choice, Mapping) else ():
                yield name, candidate
