"""The candidates of `close --method auto`: every registered closing method, with the settings that it proposes.

A method may have an attribute `candidates`, a tuple of settings; one without it is tried with its defaults.
"""

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

from gapless.closing.base import CLOSING_METHODS, ClosingMethod, ClosingSettings, chooses, closing_method, trains
from gapless.core.errors import UsageError


@dataclass(frozen=True)
class Candidate:
    """A method with settings; `name` is the method's, with whatever settings differ from the method's first."""

    name: str
    method: ClosingMethod[Any]
    settings: ClosingSettings


def candidates_of(names: Sequence[str], anchor: str) -> list[Candidate]:
    """The candidates of the named methods, of all registered ones where none is named; those that train come last.

    Args:
        names: of `CLOSING_METHODS`, other than a method that itself chooses among others.
        anchor: the modality that the others are brought to.

    Raises:
        UsageError: an unknown method, or one that chooses.
    """
    chosen = [closing_method(name) for name in names] or [
        method for method in CLOSING_METHODS.values() if not chooses(method)
    ]
    for method in chosen:
        if chooses(method):
            raise UsageError(f"{method.name} chooses among the others and cannot be one of them")
    made = [
        Candidate(_named(method.name, settings, proposed[0]), method, replace(settings, anchor=anchor))
        for method in chosen
        for proposed in [getattr(method, "candidates", None) or (method.settings(),)]
        for settings in proposed
    ]
    return sorted(made, key=lambda candidate: trains(candidate.method))


def _named(method: str, settings: ClosingSettings, first: ClosingSettings) -> str:
    """`adapter`, and `adapter remove_mean` for settings that differ from the method's first ones."""
    changed = [
        one.name if value is True else f"{one.name}={value}"
        for one in fields(settings)
        if (value := getattr(settings, one.name)) != getattr(first, one.name)
    ]
    return " ".join([method, *changed])
