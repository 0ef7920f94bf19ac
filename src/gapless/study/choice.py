"""How a closing method was chosen, for the report: the candidates' table, and a drawing of it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from gapless.metrics.catalogue import headline_of, required_entry
from gapless.models.choice import choice_columns, choice_rows, choice_sentences
from gapless.pages.palette import FAINT, GREEN
from gapless.study.drawing import new_figure, style
from gapless.study.results import Study


@dataclass(frozen=True)
class ChoiceSection:
    """What the report shows of one choice.

    Args:
        name: of the closed model, the row of the report's table.
        choice: `results.json`'s `choice`.
    """

    name: str
    choice: Mapping[str, Any]

    @property
    def rows(self) -> list[list[str]]:
        """The table with its heading; see `gapless.models.choice.choice_rows`."""
        return choice_rows(self.choice)

    @property
    def sentences(self) -> list[str]:
        """What was judged and why the choice."""
        return choice_sentences(self.choice)

    def drawing(self) -> Figure:
        """The candidates beside each other, a panel a figure."""
        return choice_figure(self.choice, choice_columns(self.choice))

    def panels(self) -> dict[str, Figure]:
        """The same panel by panel, by the figure's key."""
        return {key: choice_figure(self.choice, [key]) for key in choice_columns(self.choice)}


def choices_of(study: Study) -> list[ChoiceSection]:
    """The choices that the runs of a study record; a run without one, such as a training, has none."""
    return [
        ChoiceSection(name, choice)
        for name, runs in study.runs.items()
        for run in runs
        if isinstance(choice := run.results.get("choice"), Mapping)
    ]


def choice_figure(choice: Mapping[str, Any], keys: Sequence[str], abreast: int = 3) -> Figure:
    """A panel a key: each candidate's value with its 95 % interval, the one that was taken in colour."""
    candidates = [one for one in choice["candidates"] if one["figures"]]
    columns = min(abreast, len(keys))
    lines = -(-len(keys) // columns)
    with style():
        figure, all_axes = new_figure(2.6 * columns + 1.2, (0.24 * len(candidates) + 0.9) * lines, columns, lines)
        for position, axes in enumerate(all_axes):
            if position < len(keys):
                _draw_candidates(axes, keys[position], candidates, choice["name"], position % columns == 0)
            else:
                axes.set_visible(False)
    return figure


def _draw_candidates(axes: Axes, key: str, candidates: Sequence[Mapping[str, Any]], taken: str, is_first: bool) -> None:
    scale = 100 if required_entry(key).is_percent else 1
    for height, one in enumerate(candidates):
        figure = one["figures"].get(key)
        if figure is None:
            continue
        colour = GREEN if one["name"] == taken else FAINT
        if figure["low"] is not None:
            axes.plot([figure["low"] * scale, figure["high"] * scale], [height, height], color=colour, linewidth=1.4)
        axes.plot(figure["value"] * scale, height, "D" if one["is_reference"] else "o", color=colour, markersize=4.5)
    axes.set_ylim(len(candidates) - 0.5, -0.5)
    axes.set_yticks(range(len(candidates)), [one["name"] for one in candidates] if is_first else [])
    axes.set_title(f"{headline_of(key).removesuffix(', mean')} {required_entry(key).arrow}", loc="left", fontsize=8)
