"""The facts on the runs of a study: data, split, budget, versions, as names and texts."""

from collections.abc import Mapping
from typing import Any


def facts_of(comparison: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Facts on the runs as (name, text); facts that were not recorded are left out."""
    data = comparison.get("data") or {}
    named = {
        "Recipe": comparison.get("recipe"),
        "Methods": list(comparison["methods"]),
        "Closed afterwards": [row for row in comparison["methods"] if row in comparison.get("closed_afterwards", {})],
        "Seeds": comparison.get("seeds"),
        "Budget": comparison.get("budget"),
        "Data": data.get("source"),
        "Rows": data.get("rows"),
        "Groups": data.get("groups"),
        "Label": data.get("label"),
        "Data fingerprint": data.get("fingerprint"),
        "Split": comparison.get("split"),
        "Gallery": comparison.get("gallery_size"),
        "Rows that have each modality": comparison.get("present"),
        "Pairs of modalities": _sizes_text(comparison.get("pairs")),
        "Rows that have every modality": (comparison.get("complete") or {}).get("n"),
        "Joint queries": _sizes_text(comparison.get("joint")),
        "Command": comparison.get("command"),
        "Versions": comparison.get("versions"),
    }
    return [(name, plain(value)) for name, value in named.items() if value not in (None, "", [], {})]


def _sizes_text(sizes: Mapping[str, Any] | None) -> str:
    """Pairs of modalities, or joint queries, with the rows that each stands on, which are its gallery too."""
    return ", ".join(f"{name} {one['n']:,} rows" for name, one in (sizes or {}).items())


def plain(value: Any) -> str:
    """A JSON value as one line of text."""
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {plain(entry)}" for key, entry in value.items() if entry is not None)
    if isinstance(value, list):
        return ", ".join(map(plain, value))
    return f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else str(value)
