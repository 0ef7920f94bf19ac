"""Figures of rows that lack modalities: each pair of modalities on the rows that have both, with their number.

The figures of a pair are those of its rows alone. A bare key is the mean over the pairs, each pair weighing the same
whatever its rows, and leaving out pairs in which the figure is not defined. The same key with the suffix `@complete`
is that of the rows that have every modality, on which the pairs can be compared with each other.
"""

import math
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from gapless.core.errors import DataRefused
from gapless.core.geometry import unit_norm
from gapless.metrics import gap
from gapless.metrics.catalogue import COMPLETE, entry_of
from gapless.metrics.complete import add_grouping, complete_figures, mean_retrieval, pairs_of
from gapless.metrics.inputs import MIN_ROWS
from gapless.metrics.measured_rows import Figures, MeasuredRows, Settings
from gapless.metrics.similarity import kernel_sums
from gapless.metrics.uncertainty import Figure, combine, remembered

# Of all modalities together, or of two modalities only: a pair among several has none of its own.
NOT_OF_A_PAIR = ("gap/centroid_uniformity", "gap/wasserstein_uniformity", "mixed/modality_bias/")


def absent_figures(measured: MeasuredRows, settings: Settings) -> tuple[dict[str, Figure], Figures]:
    """Every figure of three modalities or more, of which rows lack some; see `measure`.

    Args:
        measured: rows of which each has at least two modalities.

    Raises:
        DataRefused: no pair of modalities has two rows in common.
    """
    figures: dict[str, Figure] = {}
    of_pairs: dict[str, list[Figure]] = {}
    pairs: dict[str, Any] = {}
    for first, second in pairs_of(list(measured.rows), settings.anchor):
        name = f"{first}-{second}"
        is_common = measured.having((first, second))
        num_rows = int(is_common.sum())
        pairs[name] = {"n": num_rows, "gallery_size": num_rows}
        if num_rows < MIN_ROWS:
            pairs[name]["left_out"] = f"fewer than {MIN_ROWS} rows have both"
            continue
        for key, figure in _part_figures(measured, is_common, (first, second), settings)[0].items():
            if key.startswith(NOT_OF_A_PAIR) or key.startswith("retrieval/mean/"):
                continue
            if key.startswith("retrieval/"):
                figures[key] = figure
                continue
            figures[f"{key}/{name}"] = figure
            of_pairs.setdefault(key, []).append(figure)
    measured_pairs = [one for one in pairs.values() if "left_out" not in one]
    if not measured_pairs:
        listed = ", ".join(f"{name} {one['n']}" for name, one in pairs.items())
        raise DataRefused(f"no pair of modalities has {MIN_ROWS} rows in common ({listed}); nothing can be compared")
    figures |= {key: _mean_where_defined(parts) for key, parts in of_pairs.items()}
    if "gap" in settings.include:
        figures |= _figures_of_all(measured, settings.block_size)
    if "retrieval" in settings.include:
        figures |= mean_retrieval(figures)
    sizes = {one["gallery_size"] for one in measured_pairs}
    fixed: Figures = {"n": len(measured), "gallery_size": sizes.pop() if len(sizes) == 1 else None, "pairs": pairs}
    add_grouping(measured, settings, figures, fixed)
    _add_complete(measured, settings, figures, fixed)
    return figures, fixed


def _mean_where_defined(parts: list[Figure]) -> Figure:
    """The mean over the pairs that have a value; NaN where none has."""
    return combine([part for part in parts if not math.isnan(part.value)] or parts)


def _part_figures(
    measured: MeasuredRows, chosen: Tensor, names: tuple[str, ...], settings: Settings, codes: bool = False
) -> tuple[dict[str, Figure], Figures]:
    """The figures of some rows in some modalities, which all of them have; resampled under the draws of all groups."""
    part = measured.take(chosen, names)
    usable = {name: values for name, values in part.codes.items() if len(torch.unique(values[values >= 0])) > 1}
    part = MeasuredRows(part.rows, part.groups, part.classes, part.items, usable if codes else {})
    whole = Settings(
        settings.anchor if settings.anchor in names else None,
        settings.include,
        settings.seed,
        settings.max_grouping_pairs,
        settings.block_size,
    )
    figures, fixed = complete_figures(part, whole)
    return under_all_draws(figures, torch.unique(measured.groups[chosen]), measured.sums.num_groups), fixed


def under_all_draws(figures: Mapping[str, Figure], own: Tensor, num_groups: int) -> dict[str, Figure]:
    """Figures of rows of some groups, resampled by the draws of all groups.

    Args:
        own: the groups that the figures are of, ascending.
        num_groups: of the draws.
    """
    if len(own) == num_groups:
        return dict(figures)
    select = remembered(lambda draws: draws[:, own])

    def widened(figure: Figure) -> Figure:
        replicates = figure.replicates
        return figure if replicates is None else replace(figure, replicates=lambda draws: replicates(select(draws)))

    return {key: widened(figure) for key, figure in figures.items()}


def _figures_of_all(measured: MeasuredRows, block_size: int) -> Iterator[tuple[str, Figure]]:
    """The figures of all modalities together: of the centroids of what each row has, and of all rows stacked."""
    assert measured.present is not None
    total = torch.stack(list(measured.rows.values())).sum(dim=0)  # absent rows are zeros
    centroids = unit_norm(total / measured.counts[:, None].to(total.dtype))
    yield "gap/centroid_uniformity", gap.uniformity(kernel_sums(centroids, block_size), measured.sums)
    own_rows = [rows[measured.present[name]] for name, rows in measured.rows.items()]
    yield "gap/wasserstein_uniformity", gap.wasserstein_uniformity([rows for rows in own_rows if len(rows)])


def _add_complete(measured: MeasuredRows, settings: Settings, figures: dict[str, Figure], fixed: Figures) -> None:
    """The figures of the rows that have every modality, with their suffix; none where fewer than two rows have."""
    names = tuple(measured.rows)
    is_complete = measured.having(names)
    num_rows = int(is_complete.sum())
    fixed["complete"] = {"n": num_rows, "gallery_size": num_rows}
    if num_rows < MIN_ROWS:
        fixed["complete"]["left_out"] = f"fewer than {MIN_ROWS} rows have every modality"
        return
    complete, values = _part_figures(measured, is_complete, names, settings, codes="grouping" in settings.include)
    figures |= {f"{key}{COMPLETE}": figure for key, figure in complete.items()}
    fixed |= {f"{key}{COMPLETE}": value for key, value in values.items() if entry_of(key) or "/" in key}


def counts_of(present: Mapping[str, Tensor]) -> dict[str, int]:
    """Modality -> the rows that have it."""
    return {name: int(mask.sum()) for name, mask in present.items()}


def left_out_of(measured: Mapping[str, Any]) -> list[tuple[str, str, int]]:
    """The pairs of modalities, the joint queries and the complete rows that have no figures: name, reason, rows.

    Args:
        measured: what `measure` gave, or a result file that keeps its `pairs`, `joint` and `complete`.
    """
    named = {**(measured.get("pairs") or {}), **(measured.get("joint") or {})}
    if measured.get("complete"):
        named["complete rows"] = measured["complete"]
    return [(name, one["left_out"], one["n"]) for name, one in named.items() if "left_out" in one]
