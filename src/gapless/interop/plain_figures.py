"""Figures as other tools log them: one number for each key."""

from collections.abc import Mapping
from numbers import Real
from typing import Any


def plain_figures(figures: Mapping[str, Any]) -> dict[str, float]:
    """The numbers of an evaluator's figures; of an interval its value, of several k-means seeds their mean.

    What is no number (the counts of pairs, a figure that could not be computed) is left out.
    """
    single = {key: _number(value) for key, value in figures.items()}
    return {key: value for key, value in single.items() if value is not None}


def _number(value: Any) -> float | None:
    if isinstance(value, Mapping):
        value = value.get("value", value.get("mean"))
    return float(value) if isinstance(value, Real) else None
