"""The pictures of a study's section: latent space, cosines, curves, differences, candidates of a choice."""

from collections.abc import Mapping, Sequence
from typing import Any

from gapless.metrics.catalogue import label_of
from gapless.pages.palette import modality_style, page_colour
from gapless.study.choice import ChoiceSection, choices_of
from gapless.study.drawing import inline_svg, method_style
from gapless.study.figures import (
    Panel,
    cosine_figure,
    curves_figure,
    curves_present,
    difference_figure,
    difference_parts,
    figures_of,
    latent_figure,
    plane_limit,
)
from gapless.study.picture import Picture, file_name
from gapless.study.results import Study
from gapless.study.table import Table, number_of


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
