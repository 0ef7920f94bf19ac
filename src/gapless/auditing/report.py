"""The report of an audit: the figures of the data, and the refusal of figures that a user does not accept."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

from gapless.auditing.text import ITEM_LEAKAGE, LEAKAGE, NEW_SPLIT, format_audit
from gapless.core.errors import DataRefused, UsageError, unknown_name
from gapless.core.results import Result

LEAKED = {LEAKAGE: "its group or its image", ITEM_LEAKAGE: "its group or one of its items"}
FAIL_ON = ("leakage", "duplicates", "near-duplicates")


@dataclass(frozen=True)
class AuditReport(Result):
    """The figures of an audit; every share is a fraction in [0, 1]. docs/data.md defines the keys.

    Args:
        sources: the manifests, or the ROCO tree.
        rows: split -> rows.
        groups: how many groups there are.
        leakage: kind of group -> "A in B" -> rows of split A whose group (or image) is in split B, and their share.
        counts, skipped: of the builds of the manifests; None for a ROCO tree.
        coverage: of a ROCO tree, how many of the named images exist. All fields after it are None for such a tree.
        presence: of manifests with modalities, rows by modality and by pattern, in all and in each split; what presence
            tells of each label, and how it differs between splits.
        copies: of such manifests, modality -> sets of rows with one item, byte for byte; in place of `duplicates`.
        texts: of such manifests, modality -> the same figures as `captions`.
        images: short sides, the largest image, the share below 224 pixels.
        duplicates: sets of rows with one image, byte for byte.
        captions: how many, lengths, tokens, repeated ones, how many name a side.
        licences: licence -> rows.
        near_duplicates: sets of rows whose images look the same; None where they were not looked for.
        burned_in_text: what the label of this name says, where there is one.
        notes: sentences on what looks wrong.
    """

    sources: Sequence[str]
    rows: Mapping[str, int]
    groups: int
    leakage: Mapping[str, Any]
    counts: Mapping[str, int] | None = None
    skipped: Mapping[str, int] | None = None
    coverage: Mapping[str, Any] | None = None
    presence: Mapping[str, Any] | None = None
    copies: Mapping[str, Mapping[str, Any]] | None = None
    texts: Mapping[str, Mapping[str, Any]] | None = None
    images: Mapping[str, Any] | None = None
    duplicates: Mapping[str, Any] | None = None
    captions: Mapping[str, Any] | None = None
    licences: Mapping[str, int] | None = None
    near_duplicates: Mapping[str, Any] | None = None
    burned_in_text: Mapping[str, int] | None = None
    notes: Sequence[str] | None = None

    def as_json(self) -> dict[str, Any]:
        """What `gapless data audit --json` prints: the figures that there are, the notes among them."""
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        shown = {name: values.pop(name) for name in ("sources", "rows", "groups", "counts", "skipped", "coverage")}
        return {name: value for name, value in {**shown, **values}.items() if value is not None}

    def __str__(self) -> str:
        """The report as `gapless data audit` prints it."""
        return format_audit(self.as_json())

    def refuse(self, fail_on: Sequence[str]) -> None:
        """Raise when the audit found problems that the user does not accept.

        Args:
            fail_on: any of leakage, duplicates, near-duplicates.

        Raises:
            UsageError: an unknown name in `fail_on`, or near-duplicates that were not looked for.
            DataRefused: naming what was found.
        """
        for name in fail_on:
            if name not in FAIL_ON:
                raise unknown_name("--fail-on", name, FAIL_ON)
        if "near-duplicates" in fail_on and self.near_duplicates is None:
            raise UsageError("--fail-on near-duplicates needs a manifest, and --near_duplicates true")
        problems_by_name = {
            "leakage": self._leaks(),
            "duplicates": [
                *_straddling(self.duplicates, "identical images", NEW_SPLIT),
                *(
                    problem
                    for name, figures in (self.copies or {}).items()
                    for problem in _straddling(figures, f"identical items of {name}", NEW_SPLIT)
                ),
            ],
            "near-duplicates": _straddling(
                self.near_duplicates, "nearly identical images", "leave rows out or give them one group"
            ),
        }
        problems = [problem for name in fail_on for problem in problems_by_name[name]]
        if problems:
            raise DataRefused(f"the audit found {'; '.join(problems)}")

    def _leaks(self) -> list[str]:
        kind = next((kind for kind in LEAKED if kind in self.leakage), next(iter(self.leakage)))
        what = LEAKED.get(kind, "its group")
        leaking = {pair.partition(" in "): figures for pair, figures in self.leakage[kind].items() if figures["rows"]}
        return [
            f"{figures['share']:.1%} of {held_out} has {what} in {other} ({NEW_SPLIT})"
            for (held_out, _, other), figures in leaking.items()
        ]


def _straddling(duplicates: Mapping[str, Any] | None, what: str, remedy: str) -> list[str]:
    count = duplicates["sets_across_splits"] if duplicates else 0
    return [f"{count} sets of {what} across splits ({remedy})"] if count else []
