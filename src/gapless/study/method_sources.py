"""What each row of a study's table is, and where it was published, as the two doors of methods say it."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from gapless.closing.base import CLOSING_METHODS
from gapless.core.errors import GaplessError
from gapless.core.registry import Registry
from gapless.losses.base import METHODS
from gapless.study.closed_afterwards import CLOSED
from gapless.study.results import Study

UNKNOWN = "no method that is installed here has this name"
MEASURED = "embeddings as they were given; how they were made was not recorded"
OURS = "none named"


@dataclass(frozen=True)
class MethodSource:
    """One method.

    Args:
        name: its row of the table.
        kind: "loss" or "closing method"; "" where neither has its name.
        summary: one line: what it does.
        source: the publication that it follows.
    """

    name: str
    kind: str
    summary: str
    source: str


def method_sources(study: Study) -> list[MethodSource]:
    """Every row of the table of a study; empty where no row is a method, as for measured embeddings.

    A name that no installed package knows is listed as such: a report may be written where the package that brought
    the method is absent.
    """
    controls = study.comparison.get("closed_afterwards") or {}
    sources = [_source_of(row, _recorded_name(study, row), controls.get(row)) for row in study.methods]
    return sources if "runs" in study.comparison or any(source.kind for source in sources) else []


def _recorded_name(study: Study, row: str) -> str | None:
    """The method of a row: the row's name in a comparison, else what its run recorded; None where it recorded none."""
    if "runs" in study.comparison:
        return row
    recorded = study.runs[row][0].results
    name = recorded.get("method") or (recorded.get("choice") or {}).get("name")
    return None if name is None else str(name)


def _source_of(row: str, name: str | None, control: str | None) -> MethodSource:
    if name is None:
        return MethodSource(row, "", MEASURED, "–")
    if control is not None:
        found = _looked_up(CLOSING_METHODS, control)
        summary = f"the runs of {CLOSED}, closed afterwards: {found.summary}" if found else UNKNOWN
        return MethodSource(row, "closing method", summary, (found.source if found else "") or OURS)
    doors: Mapping[str, Registry[Any]] = {"loss": METHODS, "closing method": CLOSING_METHODS}
    for kind, registry in doors.items():
        if (found := _looked_up(registry, name)) is not None:
            return MethodSource(row, kind, found.summary, found.source or OURS)
    return MethodSource(row, "", UNKNOWN, "–")


def _looked_up(registry: Registry[Any], name: str) -> Any:
    """The thing of that name; None where there is none, or where the package that brings it cannot be loaded."""
    if name not in registry:
        return None
    try:
        return registry[name]
    except GaplessError:
        return None
