"""The question that a study answers, in a sentence, from what its result files record."""

from collections.abc import Mapping
from typing import Any

SUBJECT = (
    "How far apart the modalities lie in the latent space, and what closing the gap does to retrieval and grouping."
)


def question_of(comparison: Mapping[str, Any]) -> str:
    """The question of a comparison: its methods against its baseline; of single rows, how they measure."""
    controls = comparison.get("closed_afterwards") or {}
    trained = [method for method in comparison["methods"] if method not in controls]
    baseline = comparison.get("baseline")
    others = [method for method in trained if method != baseline]
    if baseline is None or not others:
        return f"How large is the gap of {', '.join(comparison['methods'])}, and how well do its rows find each other?"
    beside = f", and does a closed form fitted afterwards ({', '.join(controls)}) do as much" if controls else ""
    return (
        f"Trained on the same rows for the same number of steps, does {' or '.join(others)} bring the modalities "
        f"closer than {baseline} does, at what cost or gain in retrieval and grouping{beside}?"
    )
