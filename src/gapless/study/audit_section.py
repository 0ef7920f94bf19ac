"""The audit of a manifest as the report shows it: counts and shares, and no value of any row."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from gapless.auditing.audit import audit
from gapless.auditing.report import AuditReport
from gapless.manifest.manifest import Manifest
from gapless.study.results import Study


@dataclass(frozen=True)
class AuditSection:
    """What the report shows of one audit.

    Args:
        facts: (name, text).
        leakage: (kind of group, pair of splits, rows, share in [0, 1]).
        warnings: sentences, such as that the studies were made from other data.
    """

    facts: list[tuple[str, str]]
    leakage: list[tuple[str, str, int, float]]
    warnings: list[str]


def audit_section(manifest: Manifest, studies: Sequence[Study]) -> AuditSection:
    """The audit of a manifest; near copies are left out, because they need every image decoded.

    The audit's own notes are not shown: some quote ids of rows.
    """
    report = audit(manifest.path, near_duplicates=False)
    return AuditSection(list(audit_facts(report)), list(_leakage_rows(report)), _warnings(manifest, studies, report))


def audit_facts(report: AuditReport) -> Iterator[tuple[str, str]]:
    """The sizes and the faults of a data set as (name, text); what was not looked at is left out."""
    yield "Rows", ", ".join(f"{split} {count:,}" for split, count in report.rows.items())
    yield "Groups", f"{report.groups:,}"
    if report.counts:
        yield "Rows of the source", ", ".join(f"{name} {count:,}" for name, count in report.counts.items())
    if report.skipped is not None:
        reasons = ", ".join(f"{reason} {count:,}" for reason, count in report.skipped.items())
        yield "Refused, and why", reasons or "none"
    if report.duplicates:
        yield "Identical images", _copies_text(report.duplicates)
    for name, copies in (report.copies or {}).items():
        yield f"Identical items of {name}", _copies_text(copies)
    texts = report.texts if report.texts is not None else {"captions": report.captions}
    for name, figures in texts.items():
        if figures and figures.get("duplicates"):
            yield f"Repeated {name}", f"{figures['duplicates']['share']:.1%} in {figures['duplicates']['sets']:,} sets"
    if report.licences:
        yield "Licences", ", ".join(f"{name} {count:,}" for name, count in report.licences.items())


def _copies_text(copies: Mapping[str, Any]) -> str:
    if not copies["sets"]:
        return "none"
    return (
        f"{copies['rows']:,} rows in {copies['sets']:,} sets, {copies['sets_across_groups']:,} of them across groups, "
        f"{copies['sets_across_splits']:,} across splits"
    )


def _leakage_rows(report: AuditReport) -> Iterator[tuple[str, str, int, float]]:
    for kind, pairs in report.leakage.items():
        for pair, figures in pairs.items():
            yield kind, pair, figures["rows"], figures["share"]


def _warnings(manifest: Manifest, studies: Sequence[Study], report: AuditReport) -> list[str]:
    """Studies of other data, and rows that leak."""
    recorded = {study.title: (study.comparison.get("data") or {}).get("fingerprint") for study in studies}
    others = [title for title, fingerprint in recorded.items() if fingerprint not in (None, manifest.fingerprint)]
    unknown = [title for title, fingerprint in recorded.items() if fingerprint is None]
    leaking = max((share for _, _, _, share in _leakage_rows(report)), default=0)
    return [
        *([f"{', '.join(others)}: made from other data than this manifest."] if others else []),
        *([f"{', '.join(unknown)}: whether this is its data was not recorded."] if unknown else []),
        *(["Rows are shared between splits: see the table below."] if leaking else []),
    ]
