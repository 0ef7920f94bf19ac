"""How often does the extractor of findings agree with lines that a person marked?

    python examples/check_findings.py tests/captioning/findings_check.tsv

A line is a text, a tab and its findings with commas between: a name, then + for named, - for denied, ? for uncertain,
and L, R or B for the side. After a further tab come the numbers, with ; between. Lines with # are comments.
`--findings FILE` adds findings to the vocabulary, `--wrong` shows the lines on which they differ.
"""

import argparse
from collections import Counter
from pathlib import Path
from typing import Any

from gapless.captioning.finding_terms import vocabulary
from gapless.captioning.findings import NAMED, findings_of, numbers_of

STATUSES = {"+": "present", "?": "uncertain", "-": "denied"}
SIDES = {"L": "left", "R": "right", "B": "both"}
Line = tuple[str, set[Any], set[Any]]  # a text, its findings, its numbers


def read_gold(path: Path) -> list[Line]:
    """(text, findings as (name, status, side), numbers as (value, unit)) of each line."""
    lines = []
    for line in path.read_text(encoding="utf-8").splitlines():
        if line.startswith("#"):
            continue
        text, marked, numbers = [*line.split("\t"), "", ""][:3]
        found: set[Any] = set()
        for one in filter(None, (part.strip() for part in marked.split(","))):
            cut = max(one.rfind(mark) for mark in STATUSES)
            found.add((one[:cut], STATUSES[one[cut]], SIDES.get(one[cut + 1 :])))
        parts = [part.split() for part in numbers.split(";") if part.strip()]
        lines.append((text, found, {(float(part[0]), part[1] if part[1:] else "") for part in parts}))
    return lines


def counts_of(lines: list[Line], own: Path | None = None) -> dict[str, Counter[str]]:
    """What -> how many are `right`, `said` and `marked`."""
    counts: dict[str, Counter[str]] = {}

    def count(what: str, said: set[Any], marked: set[Any]) -> None:
        counts.setdefault(what, Counter()).update(right=len(said & marked), said=len(said), marked=len(marked))

    for text, gold, numbers in lines:
        found = {(name, one.status, one.side) for name, one in findings_of(text, vocabulary(own)).items()}
        count("findings, whatever their status", {one[0] for one in found}, {one[0] for one in gold})
        count("findings with their status", {one[:2] for one in found}, {one[:2] for one in gold})
        for status in STATUSES.values():
            count(status, *({one[0] for one in side if one[1] == status} for side in (found, gold)))
        shared = {one[0] for one in found if one[1] in NAMED} & {one[0] for one in gold if one[1] in NAMED}
        count(
            "sides of findings that both name",
            *({(one[0], one[2]) for one in side if one[0] in shared and one[2]} for side in (found, gold)),
        )
        count("numbers", numbers_of(text), numbers)
    return counts


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("lines", type=Path)
    parser.add_argument("--findings", type=Path, default=None)
    parser.add_argument("--wrong", action="store_true")
    options = parser.parse_args()
    lines = read_gold(options.lines)
    print(f"{len(lines)} lines of {options.lines}\n\n| | marked | precision | recall |\n|---|---:|---:|---:|")
    for what, count in counts_of(lines, options.findings).items():
        precision, recall = count["right"] / max(count["said"], 1), count["right"] / max(count["marked"], 1)
        print(f"| {what} | {count['marked']} | {precision:.3f} | {recall:.3f} |")
    for text, gold, numbers in lines if options.wrong else []:
        found = {(name, one.status, one.side) for name, one in findings_of(text, vocabulary(options.findings)).items()}
        if {one if one[1] in NAMED else one[:2] for one in found ^ gold} - {o[:2] for o in found & gold}:
            print(
                f"\n{text}\n  said only {sorted(found - gold, key=str)}\n  marked only {sorted(gold - found, key=str)}"
            )
        if numbers_of(text) != numbers:
            print(f"\n{text}\n  numbers {sorted(numbers_of(text))}, marked {sorted(numbers)}")


if __name__ == "__main__":
    main()
