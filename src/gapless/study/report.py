"""Writes the report of studies as one HTML file that loads nothing from other addresses.

It shows the values of result files and the drawings of `figures`, and computes no figure.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gapless import __version__
from gapless.core.errors import UsageError, unknown_name
from gapless.core.files import check_file, check_new_directory, new_directory, write_bytes, write_text
from gapless.core.results import Result
from gapless.manifest.manifest import Manifest
from gapless.pages.page import render_page
from gapless.study.audit_section import AuditSection, audit_section
from gapless.study.caption_results import is_caption_results
from gapless.study.captions import caption_section
from gapless.study.cases import Case, cases_of
from gapless.study.choice import choices_of
from gapless.study.disjoint_table import disjoint_table
from gapless.study.drawing import image_bytes
from gapless.study.facts import facts_of
from gapless.study.figures import effect_picture
from gapless.study.latex_tables import latex_tables
from gapless.study.method_sources import method_sources
from gapless.study.multiplicity import multiplicity_of
from gapless.study.pair_tables import pair_matrix, pair_tables
from gapless.study.picture import file_name
from gapless.study.pictures import panels_of, pictures_of
from gapless.study.presence_table import presence_table
from gapless.study.question import SUBJECT, question_of
from gapless.study.reliability import reliability_notes
from gapless.study.renderings import figure_text, to_latex, to_markdown
from gapless.study.repeat import repeat_of
from gapless.study.results import Study, read_studies
from gapless.study.shortfalls import shortfalls_of
from gapless.study.table import Table, difference_text_of, number_of, paper_table

HTML, LATEX = "html", "latex"
TEST = "test"
HEADLINES = (
    "gap/centroid_distance",
    "gap/true_pair_cosine",
    "gap/margin_centred",
    "gap/d_prime_centred",
    "retrieval/mean/R@10",
    "grouping/v_measure",
)


@dataclass(frozen=True)
class Report(Result):
    """A written report.

    Args:
        report: the HTML file, or the LaTeX file.
        written: the files and directories written.
    """

    report: Path
    written: Sequence[str]


def report(
    sources: str | Path | Sequence[str | Path],
    *,
    out: str | Path,
    figures: str | Path | None = None,
    data: str | Path | Manifest | None = None,
    audit: str | Path | Manifest | None = None,
    format: str = HTML,
) -> Report:
    """One HTML file of finished directories, with everything a reader needs and no address outside itself.

    Examples:
        >>> import gapless
        >>> gapless.report(["compare"], out="report.html", figures="figures").written        # doctest: +SKIP

    Args and errors are those of `write_report`; a single source needs no list.
    """
    paths = [sources] if isinstance(sources, str | Path) else sources
    manifest = None if data is None else Manifest.of(data)
    audited = None if audit is None else Manifest.of(audit)
    directory = None if figures is None else Path(figures)
    written = write_report([Path(path) for path in paths], Path(out), directory, manifest, audited, format)
    return Report(Path(out), [str(path) for path in written])


def write_report(
    paths: Sequence[Path],
    out: Path,
    figures: Path | None = None,
    manifest: Manifest | None = None,
    audited: Manifest | None = None,
    format: str = HTML,
) -> list[Path]:
    """Write the report of comparison, run, measure and caption directories.

    Args:
        paths: the directories (or JSON files of results); runs and measurements share one table, captions another.
        out: the HTML file, or the LaTeX file; one that is there is replaced.
        figures: a new directory for the figures as SVG, PDF and PNG, the tables as LaTeX and Markdown, and one picture
            of the gap before and after (`effect.png`).
        manifest: also show examples of its cases: of the test rows, or of all where there are none.
        audited: also show the counts of an audit of this manifest; nothing of its rows.
        format: "html", or "latex" for the tables alone, which show neither cases nor an audit.

    Returns:
        the files and directories written.

    Raises:
        UsageError: a path without results; `figures` in use; another format; a manifest with "latex".
        DataRefused: a result file that cannot be read.
    """
    if format not in (HTML, LATEX):
        raise unknown_name("format", format, (HTML, LATEX))
    if format == LATEX and (manifest is not None or audited is not None):
        raise UsageError("LaTeX holds the tables alone; leave --data and --audit out, or write HTML")
    check_file(out)
    if figures is not None:
        check_new_directory(figures)
    captions = [path for path in paths if is_caption_results(path)]
    others = [path for path in paths if path not in captions]
    studies = read_studies(others) if others or not captions else []
    sections = [section_of(study) for study in studies] + ([caption_section(captions)] if captions else [])
    if figures is not None:
        with new_directory(figures) as directory:
            for section in sections:
                prefix = f"{file_name(section['name'])}-" if len(sections) > 1 else ""
                write_section(directory, prefix, section)
    if format == LATEX:
        write_text(out, latex_tables(sections))
    else:
        cases = [] if manifest is None else _examples(manifest)
        write_text(out, render(sections, cases, None if audited is None else audit_section(audited, studies)))
    return [out, *([figures] if figures is not None else [])]


def write_section(directory: Path, prefix: str, section: Mapping[str, Any]) -> None:
    for picture in section["pictures"]:
        for name, content in picture.files.items():
            write_bytes(directory / f"{prefix}{name}", content)
    if section["effect"] is not None:
        write_bytes(directory / f"{prefix}effect.png", image_bytes(section["effect"], "png", dpi=150))
    write_text(directory / f"{prefix}table.tex", section["latex"])
    write_text(directory / f"{prefix}table.md", section["markdown"])


def _examples(manifest: Manifest) -> list[Case]:
    """Cases of the test rows, or of all rows where there are no test rows."""
    return cases_of(manifest.select(TEST) if manifest.rows_per_split().get(TEST) else manifest)


def render(sections: Sequence[Mapping[str, Any]], cases: Sequence[Case] = (), audit: AuditSection | None = None) -> str:
    """The page, every string of the user escaped."""
    title = sections[0]["title"] if len(sections) == 1 else f"{len(sections)} studies"
    return render_page(
        "gapless.study",
        "report.html",
        title=title,
        sections=sections,
        cases=cases,
        audit=audit,
        version=__version__,
    )


def section_of(study: Study) -> dict[str, Any]:
    """Values of the template for one study."""
    table = paper_table(study.comparison)
    panels = panels_of(study)
    pair = compared_pair(study.comparison)
    shown = [panel for method in pair for panel in panels if panel.title == method]
    return {
        "name": study.title,
        "title": study.heading,
        "subject": SUBJECT,
        "question": question_of(study.comparison),
        "sources": method_sources(study),
        "multiplicity": multiplicity_of(study.comparison, table),
        "shortfalls": shortfalls_of(study, table),
        "repeat": repeat_of(study),
        "grid": None,
        "worst": [],
        "facts": facts_of(study.comparison),
        "headlines": headlines_of(study.comparison, table),
        "table": table,
        "presence": presence_table(study.comparison),
        "disjoint": disjoint_table({method: [run.results for run in runs] for method, runs in study.runs.items()}),
        "matrices": [(method, matrix) for method in pair if (matrix := pair_matrix(study.comparison, method))],
        "pairs": pair_tables(study.comparison),
        "pictures": pictures_of(study, table, panels),
        "effect": effect_picture(*shown) if len(shown) == 2 else None,
        "verdicts": verdicts_of(study),
        "choices": choices_of(study),
        "notes": reliability_notes(study.comparison),
        "all_figures": all_figures_of(study),
        "methods": study.methods,
        "baseline": study.comparison.get("baseline"),
        "latex": to_latex(table, label=f"tab:{file_name(study.title)}"),
        "markdown": to_markdown(table),
    }


def verdicts_of(study: Study) -> list[tuple[str, list[str]]]:
    """The sentences of the verdict of each measured directory; trained runs have none."""
    verdicts = []
    for method, runs in study.runs.items():
        sentences = ((runs[0].results.get("verdict") or {}) if runs else {}).get("sentences") or {}
        if sentences:
            verdicts.append((method, [str(sentence["text"]) for sentence in sentences.values()]))
    return verdicts


def compared_pair(comparison: Mapping[str, Any]) -> list[str]:
    """The baseline and the method that is compared with it; the only method where there is one."""
    controls = comparison.get("closed_afterwards") or {}
    methods = [method for method in comparison["methods"] if method not in controls]
    baseline = comparison.get("baseline", methods[0])
    studied = "gapless" if "gapless" in methods else methods[-1]
    return [baseline, studied] if baseline in methods and studied != baseline else [studied]


def headlines_of(comparison: Mapping[str, Any], table: Table) -> list[dict[str, Any]]:
    """The main figures, of the baseline and of the method that is compared with it."""
    rows = compared_pair(comparison)
    differences = (comparison.get("differences") or {}).get(rows[-1], {})
    headlines = []
    for index, column in enumerate(table.columns):
        if column.key not in HEADLINES or table.rows[rows[-1]][index].mean == "–":
            continue
        headlines.append(
            {
                "name": column.short_name + (", %" if column.percent else ""),
                "values": [(method, table.rows[method][index].mean) for method in rows],
                "difference": difference_text_of(column, differences.get(column.key)),
                "is_significant": table.rows[rows[-1]][index].is_significant,
            }
        )
    return headlines


def all_figures_of(study: Study) -> list[tuple[str, list[str]]]:
    """Every key of every method, as text."""
    figures = [study.all_figures(method) for method in study.methods]
    keys = sorted({key for of_method in figures for key in of_method})
    return [
        (key, [figure_text(of_method.get(key)) for of_method in figures])
        for key in keys
        if any(number_of(of_method.get(key)) is not None for of_method in figures)
    ]
