"""Renders the audit's report as text, and raises when it holds what the user excludes (`--fail-on`)."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from gapless.core.errors import DataRefused, UsageError, unknown_name

LEAKAGE = "group or image"
FAIL_ON = ("leakage", "duplicates", "near-duplicates")
NEW_SPLIT = "'gapless data split' makes a split without"


def refuse(report: Mapping[str, Any], fail_on: Sequence[str]) -> None:
    """Raise when the report holds a problem that `fail_on` names.

    Raises:
        UsageError: an unknown name in `fail_on`, or near-duplicates that were not looked for.
        DataRefused: naming what was found.
    """
    for name in fail_on:
        if name not in FAIL_ON:
            raise unknown_name("--fail-on", name, FAIL_ON)
    if "near-duplicates" in fail_on and "near_duplicates" not in report:
        raise UsageError("--fail-on near-duplicates needs a manifest, and --near_duplicates true")
    problems_by_name = {
        "leakage": list(_leaks(report["leakage"])),
        "duplicates": _straddling(report.get("duplicates"), "identical images", NEW_SPLIT),
        "near-duplicates": _straddling(
            report.get("near_duplicates"), "nearly identical images", "leave rows out or give them one group"
        ),
    }
    problems = [problem for name in fail_on for problem in problems_by_name[name]]
    if problems:
        raise DataRefused(f"the audit found {'; '.join(problems)}")


def _leaks(leakage: Mapping[str, Any]) -> Iterable[str]:
    kind = LEAKAGE if LEAKAGE in leakage else next(iter(leakage))
    what = "its group or its image" if kind == LEAKAGE else "its group"
    for pair, figures in leakage[kind].items():
        if figures["rows"]:
            held_out, _, other = pair.partition(" in ")
            yield f"{figures['share']:.1%} of {held_out} has {what} in {other} ({NEW_SPLIT})"


def _straddling(duplicates: Mapping[str, Any] | None, what: str, remedy: str) -> list[str]:
    count = duplicates["sets_across_splits"] if duplicates else 0
    return [f"{count} sets of {what} across splits ({remedy})"] if count else []


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
