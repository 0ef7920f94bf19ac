"""Every figure of rows that have all their modalities: one pass over the similarities of each pair of modalities."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import combinations
from typing import Any

from torch import Tensor

from gapless.core.errors import unknown_name
from gapless.core.geometry import pair_centroids
from gapless.metrics import gap
from gapless.metrics.catalogue import Computed, further_figures
from gapless.metrics.grouping import GroupingFigures, grouping, mean_over_labels
from gapless.metrics.measured_rows import Figures, MeasuredRows, Settings
from gapless.metrics.mixed import CURVE_PERCENT, MIXED_RECALL_AT, NDCG_AT, NEIGHBOURS_AT, curve_ndcg
from gapless.metrics.neighbours import num_other
from gapless.metrics.pair_inputs import PairInputs
from gapless.metrics.positives import item_figures
from gapless.metrics.retrieval import (
    RECALL_AT,
    expected_rank,
    expected_reciprocal_rank,
    hit_at_k,
    lenient_hit_at_k,
    mixed_counts,
)
from gapless.metrics.similarity import PairScan, kernel_sums, scan_pair
from gapless.metrics.uncertainty import Figure, GroupSums, combine, mean_figure, median_figure, share_figure

NUM_NEIGHBOURS = 10


def complete_figures(measured: MeasuredRows, settings: Settings) -> tuple[dict[str, Figure], Figures]:
    """Every figure of complete rows, and what cannot be resampled: `n`, `gallery_size`, spreads over k-means seeds."""
    rows, sums, include = measured.rows, measured.sums, settings.include
    classes = measured.classes if measured.items is None else None
    figures: dict[str, Figure] = {}
    pairwise: dict[str, list[Figure]] = {}
    pairs = pairs_of(list(rows), settings.anchor)
    for first, second in pairs:
        for key, figure in _pair_figures(rows, first, second, sums, classes, settings, figures).items():
            pairwise.setdefault(key, []).append(figure)
            if len(rows) > 2:
                figures[pair_key(key, first, second, len(rows))] = figure
    if measured.items is not None and "retrieval" in include:
        figures |= item_figures(rows, pairs, measured.items, sums)
    figures |= {key: combine(parts) for key, parts in pairwise.items()}
    if "gap" in include:
        if len(rows) > 2:
            centroids = pair_centroids(list(rows.values()))
            figures["gap/centroid_uniformity"] = gap.uniformity(kernel_sums(centroids, settings.block_size), sums)
        figures["gap/wasserstein_uniformity"] = gap.wasserstein_uniformity(list(rows.values()))
    if "retrieval" in include:
        figures |= mean_retrieval(figures)
    fixed: Figures = {"n": len(measured), "gallery_size": len(measured)}
    add_grouping(measured, settings, figures, fixed)
    return figures, fixed


def add_grouping(measured: MeasuredRows, settings: Settings, figures: dict[str, Figure], fixed: Figures) -> None:
    """`grouping/*` of every set of labels, where there are any."""
    rows = measured.rows
    prototype = settings.anchor or ("text" if "text" in rows else list(rows)[-1])
    parts = {
        name: grouping(
            rows,
            values,
            measured.sums,
            prototype=prototype,
            maximum=settings.max_grouping_pairs,
            seed=settings.seed,
            present=measured.present,
        )
        for name, values in measured.codes.items()
    }
    if parts:
        _add_grouping(parts, figures, fixed)


def pairs_of(names: list[str], anchor: str | None) -> list[tuple[str, str]]:
    """The pairs of modalities that are compared: all, or those with the anchor.

    Raises:
        UsageError: an unknown anchor.
    """
    if anchor is None:
        return list(combinations(names, 2))
    if anchor not in names:
        raise unknown_name("anchor modality", anchor, names)
    return [pair for pair in combinations(names, 2) if anchor in pair]


def pair_key(key: str, first: str, second: str, num_modalities: int) -> str:
    """The key of a figure of one pair; that of two modalities needs no pair."""
    return key if num_modalities == 2 else f"{key}/{first}-{second}"


def _pair_figures(
    rows: Mapping[str, Tensor],
    first: str,
    second: str,
    groups: GroupSums,
    classes: Tensor | None,
    settings: Settings,
    figures: dict[str, Figure],
) -> dict[str, Figure]:
    """The figures of one pair of modalities by bare key; those that carry modality names go into `figures`."""
    a, b = rows[first], rows[second]
    include, seed = settings.include, settings.seed
    inputs, scan = PairInputs(a, b, groups.index, seed, (first, second)), None
    has_neighbours = bool({"mixed", "further"} & set(include))
    if has_neighbours or {"gap", "retrieval"} & set(include):
        scan = scan_pair(
            a,
            b,
            classes=classes if "retrieval" in include else None,
            within="mixed" in include,
            kernels="gap" in include,
            num_neighbours=max(NEIGHBOURS_AT) if "mixed" in include else NUM_NEIGHBOURS if has_neighbours else 0,
            block_size=settings.block_size,
        )
        if scan.inside is not None and scan.across is not None:
            inside, across = (
                (sides[0].first(NUM_NEIGHBOURS), sides[1].first(NUM_NEIGHBOURS)) for sides in (scan.inside, scan.across)
            )
            inputs = replace(inputs, inside=inside, across=across)
    return figures_of_pair(inputs, scan, groups, include, len(rows), figures)


def figures_of_pair(
    inputs: PairInputs,
    scan: PairScan | None,
    groups: GroupSums,
    include: Sequence[str],
    num_modalities: int,
    figures: dict[str, Figure],
) -> dict[str, Figure]:
    """The figures of one pair of modalities by bare key; those that carry modality names go into `figures`.

    Args:
        inputs: the rows; a sample where the scan is of one.
        scan: what the pass over similarities gave; None where no figure needs it.
    """
    first, second = inputs.names
    result: dict[str, Figure] = {}
    if "probe" in include:
        can_hold_out = groups.num_groups > 1
        result["gap/separability_auc"] = inputs.separability[0] if can_hold_out else Figure(math.nan)
    if "further" in include:
        result |= _further_figures(inputs, figures, is_sampled=scan is not None and scan.gallery is not None)
    if scan is None:
        return result
    if "gap" in include:
        result |= _gap_figures(inputs)
        for name, within in zip(inputs.names, inputs.within_cosines, strict=True):
            figures[f"gap/within_cosine/{name}"] = within
        assert scan.kernels is not None
        for name, kernel in zip(inputs.names, scan.kernels[:2], strict=True):
            figures[f"gap/uniformity/{name}"] = gap.uniformity(kernel, groups, scan.gallery)
        if num_modalities == 2:
            result["gap/centroid_uniformity"] = gap.uniformity(scan.kernels[2], groups, scan.gallery)
    if "retrieval" in include:
        for side, direction in enumerate((f"{first}_to_{second}", f"{second}_to_{first}")):
            figures |= retrieval_figures(f"retrieval/{direction}", scan, side, groups)
    if "mixed" in include:
        result |= _mixed_figures(first, second, scan, groups, num_modalities, figures)
    return result


def _further_figures(inputs: PairInputs, named: dict[str, Figure], *, is_sampled: bool) -> dict[str, Figure]:
    """The figures whose catalogue entry has its own function; those whose keys carry a modality go into `named`."""
    figures = {}
    for entry in further_figures():
        assert entry.compute is not None
        if is_sampled and entry.every_query:
            continue
        value = entry.compute(inputs)
        if not isinstance(value, Mapping):
            figures[entry.key] = _as_figure(entry.key, value, inputs)
            continue
        for key, one in value.items():
            if entry.pattern.fullmatch(key) is None:
                raise ValueError(f"the figure {entry.key} gave the key {key}, which is not of its form")
            named[key] = _as_figure(key, one, inputs)
    return figures


def _as_figure(key: str, value: Computed, inputs: PairInputs) -> Figure:
    if isinstance(value, Figure):
        return value
    if not isinstance(value, Tensor) or value.ndim == 0:
        return Figure(float(value))
    if value.shape == (len(inputs.first),):
        return mean_figure(value, inputs.group_sums)
    raise ValueError(f"the figure {key} gave shape {tuple(value.shape)}, expected a number or one per row")


def _gap_figures(inputs: PairInputs) -> dict[str, Figure]:
    biased, unbiased, group_unbiased = inputs.centroid_distances
    true_pair, negative = inputs.true_pair_cosine, inputs.negative_cosine
    return {
        "gap/centroid_distance": biased,
        "gap/centroid_distance_unbiased": unbiased,
        "gap/centroid_distance_group_unbiased": group_unbiased,
        "gap/true_pair_cosine": true_pair,
        "gap/true_pair_angle_deg": mean_figure(gap.angle_deg(inputs.first, inputs.second), inputs.group_sums),
        "gap/negative_cosine": negative,
        "gap/margin": combine([true_pair, negative], lambda parts: parts[0] - parts[1]),
    }


def retrieval_figures(prefix: str, scan: PairScan, side: int, groups: GroupSums) -> dict[str, Figure]:
    """Recall and ranks of the queries of one side of a pass."""
    counts = scan.cross[side]
    figures = {f"{prefix}/R@{k}": share_figure(hit_at_k(counts, k), groups) for k in RECALL_AT}
    figures[f"{prefix}/MRR"] = share_figure(expected_reciprocal_rank(counts), groups)
    figures[f"{prefix}/median_rank"] = median_figure(expected_rank(counts), groups)
    if scan.lenient is not None:
        for k in RECALL_AT:
            figures[f"{prefix}/lenient_R@{k}"] = share_figure(lenient_hit_at_k(scan.lenient[side], k), groups)
    return figures


def mean_retrieval(figures: Mapping[str, Figure]) -> dict[str, Figure]:
    """`retrieval/mean/*`: the mean over all directions."""
    by_name: dict[str, list[Figure]] = {}
    for key, figure in figures.items():
        if key.startswith("retrieval/"):
            by_name.setdefault(key.rsplit("/", 1)[1], []).append(figure)
    return {f"retrieval/mean/{name}": combine(parts) for name, parts in by_name.items()}


def _mixed_figures(
    first: str, second: str, scan: PairScan, groups: GroupSums, num_modalities: int, figures: dict[str, Figure]
) -> dict[str, Figure]:
    assert scan.within is not None
    assert scan.inside is not None
    assert scan.across is not None
    counts = [mixed_counts(scan.cross[side], scan.within[side]) for side in range(2)]
    result = {
        f"mixed/R@{k}": combine([share_figure(hit_at_k(one, k), groups) for one in counts]) for k in MIXED_RECALL_AT
    }
    result["mixed/median_rank"] = combine([median_figure(expected_rank(one), groups) for one in counts])
    for percent in CURVE_PERCENT:
        shares_own = (percent / 100, 1 - percent / 100)  # of queries of the first modality, and of the second
        values = [curve_ndcg(scan.cross[side], scan.within[side], shares_own[side]) for side in range(2)]
        result[f"mixed/NDCG@{NDCG_AT}/first_{percent}%"] = combine([share_figure(one, groups) for one in values])
    num_rows = scan.num_gallery
    expected_other = num_rows / (2 * num_rows - 1)
    others = {
        k: [num_other(own.first(k), other.first(k)) for own, other in zip(scan.inside, scan.across, strict=True)]
        for k in NEIGHBOURS_AT
    }
    for k, sides in others.items():
        shares = [other / (min(k, 2 * num_rows - 1) * expected_other) for other in sides]
        result[f"mixed/share_ratio@{k}"] = combine([mean_figure(share, groups) for share in shares])
    num_neighbours = min(NUM_NEIGHBOURS, 2 * num_rows - 1)
    expected_own = (num_rows - 1) / (2 * num_rows - 1)
    mixing, bias = [], []
    for share_of_other in others[NUM_NEIGHBOURS]:
        share = share_of_other / num_neighbours
        mixing.append(share_figure(share, groups))
        bias.append(mean_figure(1 - share - expected_own, groups))
    result["gap/mixing@10"] = combine(mixing)
    result["mixed/modality_bias"] = combine(bias)
    if num_modalities == 2:
        figures |= {f"mixed/modality_bias/{name}": one for name, one in zip((first, second), bias, strict=True)}
    return result


def _add_grouping(parts: Mapping[str, GroupingFigures], figures: dict[str, Figure], fixed: Figures) -> None:
    for name, part in parts.items():
        prefix = f"grouping/{name}/" if name else "grouping/"
        fixed |= {f"{prefix}{key}": _spread(values) for key, values in part.over_seeds.items()}
        fixed |= {f"{prefix}{key}": value for key, value in part.counts.items()}
        figures |= {f"{prefix}{key}": figure for key, figure in part.figures.items()}
    if "" not in parts:
        together = list(parts.values())
        fixed |= {f"grouping/{key}": _spread(values) for key, values in mean_over_labels(together).items()}
        for key in together[0].figures:
            figures[f"grouping/{key}"] = combine([part.figures[key] for part in together])


def _spread(values: Any) -> dict[str, float]:
    """Mean and sample standard deviation over seeds."""
    return {"mean": float(values.mean()), "sd": float(values.std(ddof=1))}
