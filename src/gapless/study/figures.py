"""The figures of the report and the README: latent space, cosines of pairs, curves over training, differences.

Every function takes numbers and returns a matplotlib Figure (no pyplot), which `drawing.image_bytes` turns into SVG,
PDF or PNG.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import combinations
from typing import Any, TypeGuard, TypeVar

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from gapless.metrics.catalogue import entry_of, label_of, required_entry
from gapless.metrics.projection import principal_plane
from gapless.pages.palette import FAINT, INK, modality_style
from gapless.study.drawing import FALSE_COLOUR, TRUE_COLOUR, method_legend, method_style, new_figure, style
from gapless.study.table import Column, excludes_zero

Item = TypeVar("Item")

MAX_DRAWN = 256
PANELS_ABREAST = 3
LOSS, EVALUATION = "loss/", "eval/"  # prefixes in metrics.jsonl
EVALUATED_CURVES = ("gap/centroid_distance", "gap/true_pair_cosine", "retrieval/mean/R@10")
# Of a sample of held-out pairs, where the weights of the loss follow it.
FOLLOWED_CURVES = {
    "closing/readiness": "held-out readiness",
    "closing/alignment_weight": "weight of alignment",
    "closing/MRR": "held-out MRR of the sample",
    "closing/gap": "held-out gap of the sample",
    "closing/effective_rank": "held-out effective rank of the sample",
}
OTHER_CURVES = {"loss/total": "total loss", "logit_scale": "logit scale", **FOLLOWED_CURVES}


@dataclass(frozen=True)
class Panel:
    """The latent space of one model: unit-norm rows, aligned over the modalities, and the figures to print above."""

    title: str
    latent: Mapping[str, np.ndarray]
    figures: Mapping[str, float] = field(default_factory=dict)

    @property
    def subtitle(self) -> str:
        """The centroid distance and the true-pair cosine, and the centred figures below them, as text."""
        lines = (
            ("", {key: label_of(key) for key in ("gap/centroid_distance", "gap/true_pair_cosine")}),
            (
                "without the means: ",
                {key: required_entry(key).short for key in ("gap/margin_centred", "gap/d_prime_centred")},
            ),
        )
        texts = [
            (
                start,
                " · ".join(f"{name} {self.figures[key]:z.2f}" for key, name in names.items() if key in self.figures),
            )
            for start, names in lines
        ]
        return "\n".join(start + text for start, text in texts if text)


def figures_of(latent: Mapping[str, np.ndarray]) -> dict[str, float]:
    """The figures of a latent space that has no results file, such as the one before training."""
    import torch

    from gapless.metrics.measure import measure

    return measure(
        {name: torch.from_numpy(np.array(rows)) for name, rows in latent.items()}, include=("gap", "further")
    )


def spread_rows(num_rows: int, at_most: int = MAX_DRAWN) -> np.ndarray:
    """Which rows are drawn: all, or `at_most` evenly spaced ones."""
    return np.unique(np.linspace(0, num_rows - 1, min(num_rows, at_most)).round().astype(int))


def _grid_of(count: int, abreast: int) -> tuple[int, int]:
    """Columns and rows of a grid of `count` panels with at most `abreast` beside each other."""
    columns = min(abreast, max(1, count))
    return columns, max(1, -(-count // columns))


def used(all_axes: Sequence[Axes], items: Sequence[Item]) -> list[tuple[Axes, Item]]:
    """Each item with its axes; further axes are hidden."""
    for axes in all_axes[len(items) :]:
        axes.set_visible(False)
    return list(zip(all_axes, items, strict=False))


def plane_limit(panels: Sequence[Panel]) -> float:
    """Half the side of a square that holds every panel, so that distances compare across panels."""
    planes = [points for panel in panels for points in principal_plane(panel.latent)[0].values()]
    return 1.06 * max(float(np.abs(points).max(initial=0.0)) for points in planes) or 1.0


def _draw_latent(axes: Axes, panel: Panel, limit: float) -> None:
    points, shares = principal_plane(panel.latent)
    rows = spread_rows(len(next(iter(points.values()))))
    anchor, *others = points.values()
    for other in others:
        gaps = np.full((len(rows), 2), np.nan)
        lines = np.stack([anchor[rows], other[rows], gaps], axis=1).reshape(-1, 2)
        axes.plot(lines[:, 0], lines[:, 1], color=FAINT, linewidth=0.5, alpha=0.45, zorder=1)
    for index, (name, where) in enumerate(points.items()):
        colour, marker, _ = modality_style(index)
        axes.plot(*where[rows].T, marker, color=colour, markersize=3.2, markeredgewidth=0, alpha=0.75, label=name)
    centres = np.stack([where.mean(axis=0) for where in points.values()])
    axes.plot(*centres.T, color=INK, linewidth=1.4, zorder=4)
    for index, centre in enumerate(centres):
        colour, marker, _ = modality_style(index)
        axes.plot(*centre, marker, color=colour, markersize=10, markeredgecolor=INK, markeredgewidth=1.4, zorder=5)
    axes.set(xlim=(-limit, limit), ylim=(-limit, limit), aspect="equal", xticks=[], yticks=[])
    axes.set_xlabel(f"PC 1 ({shares[0]:.0%} of variance)")
    axes.set_ylabel(f"PC 2 ({shares[1]:.0%})")
    axes.spines[["left", "bottom", "top", "right"]].set_visible(True)
    num_lines = len(panel.subtitle.splitlines())
    axes.set_title(panel.title, fontweight="bold", loc="left", pad=6 + (14 if num_lines == 1 else 12 * num_lines))
    axes.text(0, 1.025, panel.subtitle, transform=axes.transAxes, fontsize=8)


def latent_figure(panels: Sequence[Panel], limit: float | None = None, with_legend: bool = True) -> Figure:
    """Latent spaces beside each other at one scale: modalities by colour and marker, true pairs joined."""
    with style():
        columns, rows = _grid_of(len(panels), PANELS_ABREAST)
        figure, all_axes = new_figure(3.3 * columns, 3.85 * rows + 0.35 * with_legend, columns, rows)
        side = plane_limit(panels) if limit is None else limit
        for axes, panel in used(all_axes, panels):
            _draw_latent(axes, panel, side)
        if with_legend:
            handles, names = all_axes[0].get_legend_handles_labels()
            figure.legend(handles, names, loc="outside lower center", ncols=len(names), markerscale=2)
    return figure


def pair_cosines(latent: Mapping[str, np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Cosines of the true pairs and of all false pairs, over every two modalities of unit-norm rows.

    A row that lacks a modality is NaN in it, and in no pair with it.
    """
    true, false = [], []
    for a, b in combinations(latent.values(), 2):
        both = ~(np.isnan(a).any(axis=1) | np.isnan(b).any(axis=1))
        scores = np.asarray(a[both], dtype=np.float64) @ np.asarray(b[both], dtype=np.float64).T
        true.append(np.diag(scores))
        false.append(scores[~np.eye(len(scores), dtype=bool)])
    return np.concatenate(true), np.concatenate(false)


def _draw_cosines(axes: Axes, panel: Panel) -> None:
    true, false = pair_cosines(panel.latent)
    bins = np.linspace(-1, 1, 81)
    for values, colour, name in ((false, FALSE_COLOUR, "false pairs"), (true, TRUE_COLOUR, "true pairs")):
        if len(values) == 0:
            continue
        label = f"{name}, mean {values.mean():z.2f}"
        density = np.histogram(values.clip(-1, 1), bins=bins, density=True)[0]
        axes.stairs(density, bins, fill=True, color=colour, alpha=0.45, linewidth=0, label=label)
        axes.stairs(density, bins, color=colour, linewidth=1.1)
        dash = "--" if name == "false pairs" else "-"
        axes.axvline(values.mean(), ymax=0.76, color=colour, linewidth=1.2, linestyle=dash)
    axes.set(xlim=(-1, 1), xticks=[-1, -0.5, 0, 0.5, 1], yticks=[], xlabel="cosine")
    axes.spines["left"].set_visible(False)
    axes.set_title(panel.title, fontweight="bold", loc="left")
    axes.set_ylim(top=axes.get_ylim()[1] * 1.3)  # room for the legend above the peak
    axes.legend(loc="upper left", handlelength=1.0, borderaxespad=0.1)


def cosine_figure(panels: Sequence[Panel]) -> Figure:
    """Histograms of true and false pair cosines, a panel per model, one horizontal axis."""
    with style():
        columns, rows = _grid_of(len(panels), PANELS_ABREAST)
        figure, all_axes = new_figure(3.3 * columns, 2.4 * rows, columns, rows)
        for axes, panel in used(all_axes, panels):
            _draw_cosines(axes, panel)
    return figure


Histories = Mapping[str, Sequence[Sequence[Mapping[str, Any]]]]


def curve(history: Sequence[Mapping[str, Any]], key: str) -> tuple[list[float], list[float]]:
    """Steps and values of one key of metrics.jsonl, where both are numbers."""
    points = [
        (float(record["step"]), float(record[key]))
        for record in history
        if isinstance(record.get(key), int | float) and isinstance(record.get("step"), int | float)
    ]
    entry = entry_of(key.removeprefix(EVALUATION))
    scale = 100 if entry is not None and entry.is_percent else 1
    return [step for step, _ in points], [value * scale for _, value in points]


def curves_present(histories: Histories) -> list[str]:
    """The keys with two steps or more in some history: the loss and its terms, evaluated figures, the temperature."""
    runs = [history for histories_of in histories.values() for history in histories_of]
    written = {key: None for history in runs for record in history for key in record if key.startswith(LOSS)}
    terms = [key for key in written if key not in OTHER_CURVES]
    keys = ["loss/total", *terms, *(EVALUATION + key for key in EVALUATED_CURVES), "logit_scale", *FOLLOWED_CURVES]
    return [key for key in keys if any(len(curve(history, key)[0]) > 1 for history in runs)]


def _curve_title(key: str) -> str:
    """The title of a curve: a term has the name that its loss gives, a figure its label in the catalogue."""
    if key in OTHER_CURVES:
        return OTHER_CURVES[key]
    if key.startswith(LOSS):
        return f"{key.removeprefix(LOSS)} term"
    figure = key.removeprefix(EVALUATION)
    return label_of(figure) + (", %" if required_entry(figure).is_percent else "")


def _draw_curve(axes: Axes, histories: Histories, key: str) -> None:
    for index, runs in enumerate(histories.values()):
        colour, dash = method_style(index)
        for history in runs:
            steps, values = curve(history, key)
            axes.plot(steps, values, color=colour, linestyle=dash, linewidth=1.3, alpha=0.9)
    axes.set_title(_curve_title(key), loc="left")
    axes.set_xlabel("step")
    axes.grid(axis="y", color=FAINT, alpha=0.25, linewidth=0.6)
    axes.margins(x=0.02)


def curves_figure(histories: Histories, keys: Sequence[str] | None = None, with_legend: bool = True) -> Figure:
    """Curves over training, a line per run, methods by colour and dash.

    Args:
        histories: per method, the records of metrics.jsonl of each of its runs.
        keys: which of `curves_present`; all of them by default.
    """
    wanted = curves_present(histories) if keys is None else list(keys)
    columns, rows = _grid_of(len(wanted), 4)
    with style():
        figure, all_axes = new_figure(2.9 * columns, 2.1 * rows + 0.3 * with_legend, columns, rows)
        for axes, key in used(all_axes, wanted):
            _draw_curve(axes, histories, key)
        if with_legend:
            method_legend(all_axes[0], list(histories))
            handles, names = all_axes[0].get_legend_handles_labels()
            figure.legend(handles, names, loc="outside lower center", ncols=min(len(names), 6))
    return figure


def _draw_differences(
    axes: Axes, columns: Sequence[Column], differences: Mapping[str, Mapping[str, Any]], methods: Sequence[str]
) -> None:
    """Dots with 95 % intervals, a row per figure, filled where zero is outside."""
    step = 0.7 / len(differences)
    for index, (method, found) in enumerate(differences.items()):
        colour, _ = method_style(list(methods).index(method))
        for row, column in enumerate(columns):
            entry = found.get(column.key)
            if not _is_interval(entry):
                continue
            scale = 100 if column.percent else 1
            height = row + (index - (len(differences) - 1) / 2) * step
            axes.plot([entry["low"] * scale, entry["high"] * scale], [height, height], color=colour, linewidth=1.6)
            fill = colour if excludes_zero(entry) else "none"
            axes.plot(entry["value"] * scale, height, "o", color=colour, markersize=5, markerfacecolor=fill)
    axes.axvline(0, color=INK, linewidth=0.9)
    axes.set_yticks(range(len(columns)), [f"{column.short_name} {column.arrow}" for column in columns])
    axes.grid(axis="x", color=FAINT, alpha=0.25, linewidth=0.6)
    axes.tick_params(axis="y", length=0)
    axes.spines["left"].set_visible(False)


def _is_interval(entry: Any) -> TypeGuard[Mapping[str, float]]:
    return isinstance(entry, Mapping) and all(entry.get(end) is not None for end in ("value", "low", "high"))


def difference_parts(
    columns: Sequence[Column], differences: Mapping[str, Mapping[str, Any]]
) -> dict[str, list[Column]]:
    """The figures that have an interval, by the unit of their axis."""
    present = [
        column
        for column in columns
        if any(_is_interval(of_method.get(column.key)) for of_method in differences.values())
    ]
    parts = {
        "difference": [column for column in present if column.entry.unit not in ("fraction", "degrees")],
        "difference in degrees": [column for column in present if column.entry.unit == "degrees"],
        "difference in percentage points": [column for column in present if column.percent],
    }
    return {unit: unit_columns for unit, unit_columns in parts.items() if unit_columns}


def difference_figure(
    columns: Sequence[Column],
    differences: Mapping[str, Mapping[str, Any]],
    methods: Sequence[str],
    baseline: str,
    with_legend: bool = True,
) -> Figure:
    """Differences to the baseline with 95 % intervals, an axis for each unit.

    Args:
        columns: the figures of the table, in its order.
        differences: per method and key, {"value", "low", "high"}.
        methods: all methods in the table's order, which fixes their colours.
        baseline: the method that was subtracted.
    """
    parts = difference_parts(columns, differences)
    ratios = [len(unit_columns) + 1.5 for unit_columns in parts.values()]
    height = 0.26 * sum(ratios) * max(1.0, 0.5 * len(differences)) + 0.3 * with_legend
    with style():
        figure, all_axes = new_figure(4.6, height, rows=len(parts), height_ratios=ratios)
        for axes, (unit, unit_columns) in zip(all_axes, parts.items(), strict=True):
            _draw_differences(axes, unit_columns, differences, methods)
            axes.set_ylim(len(unit_columns) - 0.5, -0.5)
            axes.set_xlabel(f"{unit} to {baseline}")
        if with_legend:
            for method in differences:
                colour, _ = method_style(list(methods).index(method))
                all_axes[0].plot([], [], "o-", color=colour, label=method)
            handles, names = all_axes[0].get_legend_handles_labels()
            figure.legend(handles, names, loc="outside lower center", ncols=min(len(differences), 5))
    return figure


def effect_picture(before: Panel, after: Panel) -> Figure:
    """One wide picture for a README: the gap before and after, at one scale, with the cosines of pairs below."""
    with style({"font.size": 11, "axes.titlesize": 14}):
        figure, all_axes = new_figure(11.0, 7.4, columns=2, rows=2, height_ratios=(3.6, 1))
        limit = plane_limit([before, after])
        for column, panel in enumerate((before, after)):
            _draw_latent(all_axes[column], panel, limit)
            _draw_cosines(all_axes[2 + column], Panel("", panel.latent))
        all_axes[0].legend(loc="upper right", markerscale=2)
    return figure
