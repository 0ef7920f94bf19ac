"""Renders the audit's report as text."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

LEAKAGE = "group or image"
ITEM_LEAKAGE = "group or item"  # of manifests with modalities: a file, or a long vector
NEW_SPLIT = "'gapless data split' makes a split without"


def format_audit(report: Mapping[str, Any]) -> str:
    """The report as text: one line a figure, nested names indented, shares in percent; the notes come last."""
    figures = {name: entry for name, entry in report.items() if name != "notes"}
    return "\n".join([*_lines(figures, ""), *(f"note: {note}" for note in report.get("notes", ()))])


def _lines(value: Mapping[str, Any], indent: str, in_shares: bool = False) -> Iterable[str]:
    for name, entry in value.items():
        title, is_share = f"{indent}{name.replace('_', ' ')}", in_shares or "share" in name
        if isinstance(entry, Mapping):
            yield f"{title}:" if entry else f"{title}: none"
            yield from _lines(entry, indent + "  ", is_share)
        elif name == "examples":
            yield f"{title}: {_examples(entry, value['example_sizes'], value['sets']) or 'none'}"
        elif isinstance(entry, list) and name != "example_sizes":
            yield f"{title}: {', '.join(map(str, entry)) or 'none'}"
        elif isinstance(entry, bool):
            yield f"{title}: {'yes' if entry else 'no'}"
        elif name in ("p_value", "p_adjusted"):
            yield f"{title}: {entry:.3f}"
        elif isinstance(entry, float):
            yield f"{title}: {entry:.1%}" if is_share else f"{title}: {entry:,.0f}"
        elif not isinstance(entry, list):
            yield f"{title}: {entry:,}" if isinstance(entry, int) else f"{title}: {entry}"


def _examples(examples: Sequence[Sequence[str]], sizes: Sequence[int], num_sets: int) -> str:
    """a = b = c and 81,000 more, d = e, and 12 more sets"""
    shown = [
        " = ".join(ids) + (f" and {size - len(ids):,} more" if size > len(ids) else "")
        for ids, size in zip(examples, sizes, strict=True)
    ]
    more = num_sets - len(shown)
    return ", ".join([*shown, *([f"and {more:,} more sets"] if more else [])])
