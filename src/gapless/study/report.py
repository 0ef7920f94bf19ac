"""Writes the report of studies as one HTML file that loads nothing from other addresses.

It shows the values of result files and the drawings of `figures`, and computes no figure.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gapless import __version__
from gapless.core.files import check_file, check_new_directory, new_directory, write_bytes, write_text
from gapless.core.results import Result
from gapless.manifest.manifest import Manifest
from gapless.metrics.catalogue import label_of
from gapless.pages.page import render_page
from gapless.pages.palette import modality_style, page_colour
from gapless.study.caption_results import is_caption_results
from gapless.study.captions import caption_section
from gapless.study.cases import Case, cases_of
from gapless.study.choice import ChoiceSection, choices_of
from gapless.study.disjoint_table import disjoint_table
from gapless.study.drawing import image_bytes, inline_svg, method_style
from gapless.study.figures import (
    Panel,
    cosine_figure,
    curves_figure,
    curves_present,
    difference_figure,
    difference_parts,
    effect_picture,
    figures_of,
    latent_figure,
    plane_limit,
)
from gapless.study.pair_tables import pair_matrix, pair_tables
from gapless.study.picture import Picture
from gapless.study.presence_table import presence_table
from gapless.study.reliability import reliability_notes
from gapless.study.renderings import figure_text, to_latex, to_markdown
from gapless.study.results import Study, read_studies
from gapless.study.table import Table, difference_text_of, number_of, paper_table

TEST = "test"
SUBJECT = (
    "How far apart the modalities lie in the latent space, and what closing the gap does to retrieval and grouping."
)
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
        report: the HTML file.
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
) -> Report:
    """One HTML file of finished directories, with everything a reader needs and no address outside itself.

    Examples:
        >>> import gapless
        >>> gapless.report(["compare"], out="report.html", figures="figures").written        # doctest: +SKIP

    Args and errors are those of `write_report`; a single source needs no list.
    """
    paths = [sources] if isinstance(sources, str | Path) else sources
    manifest = None if data is None else Manifest.of(data)
    written = write_report(
        [Path(path) for path in paths], Path(out), None if figures is None else Path(figures), manifest
    )
    return Report(Path(out), [str(path) for path in written])


def write_report(
    paths: Sequence[Path], out: Path, figures: Path | None = None, manifest: Manifest | None = None
) -> list[Path]:
    """Write the report of comparison, run, measure and caption directories.

    Args:
        paths: the directories (or JSON files of results); runs and measurements share one table, captions another.
        out: the HTML file; one that is there is replaced.
        figures: a new directory for the figures as SVG, PDF and PNG, the tables as LaTeX and Markdown, and one picture
            of the gap before and after (`effect.png`).
        manifest: also show examples of its cases: of the test rows, or of all where there are none.

    Returns:
        the files and directories written.

    Raises:
        UsageError: a path without results; `figures` in use.
        DataRefused: a result file that cannot be read.
    """
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
    write_text(out, render(sections, [] if manifest is None else _examples(manifest)))
    return [out, *([figures] if figures is not None else [])]


def write_section(directory: Path, prefix: str, section: Mapping[str, Any]) -> None:
    for picture in section["pictures"]:
        for name, content in picture.files.items():
            write_bytes(directory / f"{prefix}{name}", content)
    if section["effect"] is not None:
        write_bytes(directory / f"{prefix}effect.png", image_bytes(section["effect"], "png", dpi=150))
    write_text(directory / f"{prefix}table.tex", section["latex"])
    write_text(directory / f"{prefix}table.md", section["markdown"])


def file_name(title: str) -> str:
    """A title as a part of a file name."""
    return re.sub(r"[^A-Za-z0-9._-]+", "-", title).strip("-.") or "study"


def _examples(manifest: Manifest) -> list[Case]:
    """Cases of the test rows, or of all rows where there are no test rows."""
    return cases_of(manifest.select(TEST) if manifest.rows_per_split().get(TEST) else manifest)


def render(sections: Sequence[Mapping[str, Any]], cases: Sequence[Case] = ()) -> str:
    """The page, every string of the user escaped."""
    title = sections[0]["title"] if len(sections) == 1 else f"{len(sections)} studies"
    return render_page("gapless.study", "report.html", title=title, sections=sections, cases=cases, version=__version__)


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


def pictures_of(study: Study, table: Table, panels: Sequence[Panel]) -> list[Picture]:
    pictures = [latent_picture(panels), cosine_picture(panels)] if panels else []
    histories = {method: [run.history for run in runs] for method, runs in study.runs.items()}
    keys = curves_present(histories)
    if keys:
        pictures.append(
            Picture(
                "curves",
                "Over training",
                "One line per run. The total loss adds different terms for different methods: compare its parts. "
                "Gap and recall are those of the evaluations during training, whose gallery is not the table's.",
                [inline_svg(curves_figure(histories, [key], with_legend=False), key) for key in keys],
                method_legend_of(study.methods),
                curves_figure(histories, keys),
            )
        )
    written = study.comparison.get("differences") or {}
    differences = {method: written[method] for method in study.methods if method in written}
    if difference_parts(table.columns, differences):
        pictures.append(difference_picture(study, table, differences))
    return pictures + [_choice_picture(section) for section in choices_of(study)]


def _choice_picture(section: ChoiceSection) -> Picture:
    return Picture(
        f"choice-{file_name(section.name)}",
        f"The candidates of {section.name}",
        "Each closing method, fitted outside a fold of whole groups and judged on it; lines are 95 % intervals over "
        "groups. The one in colour was taken; a diamond is the embeddings as they were.",
        [inline_svg(panel, f"{label_of(key)} of the candidates") for key, panel in section.panels().items()],
        [],
        section.drawing(),
    )


def panels_of(study: Study) -> list[Panel]:
    """The latent space before training and under each method, from the first run that stored it."""
    panels: list[Panel] = []
    for runs in study.runs.values():
        untrained = next((found for run in runs if (found := run.latent_untrained()) is not None), None)
        if untrained is not None:
            panels.append(Panel("before training", untrained.embeddings, figures_of(untrained.embeddings)))
            break
    for method, runs in study.runs.items():
        for run in runs:
            latent = run.latent()
            if latent is not None:
                numbers = {key: number_of(figure) for key, figure in run.figures.items()}
                measured = {key: number for key, number in numbers.items() if number is not None}
                panels.append(Panel(method, latent.embeddings, measured))
                break
    return panels


def latent_picture(panels: Sequence[Panel]) -> Picture:
    styles = [(name, *modality_style(index)) for index, name in enumerate(panels[0].latent)]
    legend = [(name, glyph, page_colour(colour)) for name, colour, _, glyph in styles]
    limit = plane_limit(panels)
    num_pairs = len(next(iter(panels[0].latent.values())))
    pairs = "pairs" if len(panels[0].latent) == 2 else "rows that have every modality,"
    drawings = [inline_svg(latent_figure([panel], limit, with_legend=False), _named(panel)) for panel in panels]
    caption = (
        f"The first two principal components of {num_pairs:,} {pairs} of one run each, fitted to all modalities "
        "together in each panel; one scale for all panels. Thin lines join true pairs, large marks are the centroids."
    )
    return Picture("latent", "Latent space", caption, drawings, legend, latent_figure(panels, limit))


def _named(panel: Panel) -> str:
    return f"Latent space, {panel.title}. {panel.subtitle.replace(chr(10), ' · ')}"


def cosine_picture(panels: Sequence[Panel]) -> Picture:
    drawings = [inline_svg(cosine_figure([panel]), f"Cosines of pairs, {panel.title}") for panel in panels]
    caption = (
        "Density of the cosines of true pairs and of all false pairs among the pairs above. "
        "A closed gap moves the true pairs to the right of the false ones and towards 1."
    )
    return Picture("cosines", "True and false pairs", caption, drawings, [], cosine_figure(panels))


def difference_picture(study: Study, table: Table, differences: Mapping[str, Any]) -> Picture:
    baseline = str(study.comparison.get("baseline", "the baseline"))
    caption = f"Difference to {baseline} with 95 % intervals (bootstrap over groups); filled where zero is outside."
    drawings = [
        inline_svg(
            difference_figure(unit_columns, differences, study.methods, baseline, with_legend=False),
            f"{unit} to {baseline}",
        )
        for unit, unit_columns in difference_parts(table.columns, differences).items()
    ]
    legend = [entry for entry in method_legend_of(study.methods) if entry[0] in differences]
    whole = difference_figure(table.columns, differences, study.methods, baseline)
    return Picture("differences", f"Against {baseline}", caption, drawings, legend, whole)


def method_legend_of(methods: Sequence[str]) -> list[tuple[str, str, str]]:
    return [(method, "━", page_colour(method_style(index)[0])) for index, method in enumerate(methods)]
