"""`measure`: every figure of paired embeddings, from one pass over the similarities of each pair of modalities."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import combinations
from typing import Any, Literal

import torch
from torch import Tensor

from gapless.core.errors import unknown_name
from gapless.core.geometry import pair_centroids
from gapless.metrics import gap
from gapless.metrics.catalogue import Computed, further_figures
from gapless.metrics.grouping import GroupingFigures, grouping, mean_over_labels
from gapless.metrics.inputs import caption_classes, check_counts, check_embeddings, group_index, item_classes
from gapless.metrics.labels import label_codes
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
from gapless.metrics.similarity import BLOCK_SIZE, PairScan, kernel_sums, scan_pair
from gapless.metrics.uncertainty import (
    Figure,
    GroupSums,
    Interval,
    bootstrap,
    bootstrap_difference,
    combine,
    mean_figure,
    median_figure,
)

Part = Literal["gap", "retrieval", "mixed", "probe", "grouping", "further"]
PARTS: tuple[Part, ...] = ("gap", "retrieval", "mixed", "probe", "grouping", "further")
NUM_NEIGHBOURS = 10
MAX_GROUPING_PAIRS = 20_000

Figures = dict[str, Any]


def measure(
    embeddings: Mapping[str, Any],
    labels: Any = None,
    groups: Any = None,
    *,
    captions: Sequence[str] | None = None,
    positives: Any = None,
    anchor: str | None = None,
    include: Sequence[str] = PARTS,
    num_bootstrap: int = 0,
    seed: int = 0,
    max_grouping_pairs: int = MAX_GROUPING_PAIRS,
    block_size: int = BLOCK_SIZE,
) -> Figures:
    """Every figure of a set of paired embeddings; docs/figures.md says what each means and which way is better.

    Args:
        embeddings: modality -> [pair, dim] floats (tensor, array, memory map), row i of each being one pair. They need
            not be unit-norm. fp16 and bf16 are raised to fp32; float64 stays.
        labels: [pair] classes of any kind, or name -> [pair]; None, NaN and "" are missing. Without labels
            `grouping/*` is left out.
        groups: [pair] names of groups (article, patient): folds keep them whole, and the bootstrap resamples them;
            default: every pair is its own group.
        captions: [pair] texts; adds `lenient_R@K`, where rows of one normalised caption are positives of each other.
        positives: [pair] what each row shows, such as the image's name where an image has several captions; adds
            `lenient_R@K`, where rows of one item are positives of each other, whatever their captions, and copies of a
            row inside its item count once. A row without a value is an item of its own.
        anchor: with 3 modalities or more, only pairs with this one; default: all pairs.
        include: parts to compute. "gap" and "retrieval" are quick; "mixed" is `mixed/*` and `gap/mixing@10`; "probe" is
            `gap/separability_auc`; "grouping" needs labels; "further" is what gap_entries.py adds (margin and d'
            without the means, hubness, mutual kNN, ...) and what other packages add.
        num_bootstrap: replicates of the interval; 0 gives plain numbers.
        seed: seeds the bootstrap, the folds and k-means.
        max_grouping_pairs: `grouping/*` uses at most so many pairs, `grouping/num_pairs` says how many.
        block_size: rows of a tile of similarities; memory grows with its square.

    Returns:
        key of docs/figures.md -> float, {"value", "low", "high"} when resampled, or {"mean", "sd"} over k-means seeds;
        with "n" and "gallery_size". Bounds are None where no interval exists; with a single group nothing can be held
        out, and `gap/separability_auc` is NaN.

    Raises:
        ValueError: shapes, types or counts that do not fit, one modality, an unknown anchor or part.
        DataRefused: NaN, infinite or zero rows, rows without a group, labels that are no classes.

    >>> import torch
    >>> image = torch.eye(4)
    >>> text = torch.eye(4)[[0, 1, 3, 2]]
    >>> figures = measure({"image": image, "text": text}, include=("gap", "retrieval"))
    >>> figures["gap/true_pair_cosine"], figures["retrieval/image_to_text/R@1"]
    (0.5, 0.5)
    """
    check_counts(
        num_bootstrap=(num_bootstrap, 0),
        seed=(seed, 0),
        max_grouping_pairs=(max_grouping_pairs, 1),
        block_size=(block_size, 1),
    )
    figures, fixed, num_groups = _figures(
        embeddings, labels, groups, captions, positives, anchor, include, seed, max_grouping_pairs, block_size
    )
    result: Figures = {key: figure.value for key, figure in figures.items()} | fixed
    if num_bootstrap:
        result |= bootstrap(figures, num_groups, num_bootstrap, seed)
    return result


def measure_under_draws(
    embeddings: Mapping[str, Any],
    draws: Tensor,
    groups: Any = None,
    *,
    captions: Sequence[str] | None = None,
    positives: Any = None,
    include: Sequence[str] = ("gap", "retrieval", "mixed", "further"),
    seed: int = 0,
) -> dict[str, Tensor]:
    """Figures of embeddings, and their values under draws of groups that the caller made.

    Whoever compares models on several sets of rows draws the groups of all sets once and adds the replicates up.

    Args:
        embeddings, groups, captions, positives, include, seed: as in `measure`.
        draws: [replicate, group] how often each group is drawn, groups in the order of their sorted names.

    Returns:
        key -> [1 + replicate] float64: the figure itself, then its value under each draw; figures that cannot be
        resampled have NaN there.
    """
    figures, _, num_groups = _figures(
        embeddings, None, groups, captions, positives, None, include, seed, MAX_GROUPING_PAIRS, BLOCK_SIZE
    )
    if draws.ndim != 2 or draws.shape[1] != num_groups:
        raise ValueError(f"expected draws of {num_groups} groups, got shape {tuple(draws.shape)}")
    undefined = torch.full((len(draws),), math.nan, dtype=torch.float64)
    return {
        key: torch.cat(
            [
                torch.tensor([figure.value], dtype=torch.float64),
                undefined if figure.replicates is None else figure.replicates(draws),
            ]
        )
        for key, figure in figures.items()
    }


def measure_difference(
    embeddings: Sequence[Mapping[str, Any]],
    baseline: Sequence[Mapping[str, Any]],
    labels: Any = None,
    groups: Any = None,
    *,
    captions: Sequence[str] | None = None,
    positives: Any = None,
    anchor: str | None = None,
    include: Sequence[str] = ("gap", "retrieval", "mixed", "further"),
    num_bootstrap: int = 1000,
    seed: int = 0,
) -> dict[str, Interval]:
    """Figures of one method minus those of another, each the mean over its runs, with paired 95 % intervals.

    All runs embed the same rows; both methods see the same draws of groups. `embeddings` and `baseline` hold one
    mapping per run (seed).

    Returns:
        key -> {"value", "low", "high"}; the difference is significant at 5 % when the interval leaves 0 out.
    """
    check_counts(num_bootstrap=(num_bootstrap, 1), seed=(seed, 0))
    sides: list[dict[str, Figure]] = []
    num_groups = 0
    for runs in (embeddings, baseline):
        measured = []
        for run in runs:
            figures, _, num_groups = _figures(
                run, labels, groups, captions, positives, anchor, include, seed, MAX_GROUPING_PAIRS, BLOCK_SIZE
            )
            measured.append(figures)
        sides.append({key: combine([figures[key] for figures in measured]) for key in measured[0]})
    return bootstrap_difference(sides[0], sides[1], num_groups, num_bootstrap, seed)


def per_pair(
    embeddings: Mapping[str, Any], *, anchor: str | None = None, block_size: int = BLOCK_SIZE
) -> dict[str, Tensor]:
    """Values per row for other tests: `gap/true_pair_cosine` and `retrieval/<a>_to_<b>/rank` (expected over ties).

    Returns:
        key -> [pair] float64; with 3 modalities or more the cosine's key carries the pair.

    >>> import torch
    >>> per_pair({"image": torch.eye(3), "text": torch.eye(3)[[0, 2, 1]]})["retrieval/image_to_text/rank"]
    tensor([1.0000, 2.5000, 2.5000], dtype=torch.float64)
    """
    rows = check_embeddings(embeddings)
    result = {}
    for first, second in _pairs(list(rows), anchor):
        scan = scan_pair(rows[first], rows[second], block_size=block_size)
        result[_key("gap/true_pair_cosine", first, second, len(rows))] = scan.cosine
        result[f"retrieval/{first}_to_{second}/rank"] = expected_rank(scan.cross[0])
        result[f"retrieval/{second}_to_{first}/rank"] = expected_rank(scan.cross[1])
    return result


def _figures(
    embeddings: Mapping[str, Any],
    labels: Any,
    groups: Any,
    captions: Sequence[str] | None,
    positives: Any,
    anchor: str | None,
    include: Sequence[str],
    seed: int,
    max_grouping_pairs: int,
    block_size: int,
) -> tuple[dict[str, Figure], Figures, int]:
    for part in include:
        if part not in PARTS:
            raise unknown_name("part of the figures", part, PARTS)
    rows = check_embeddings(embeddings)
    num_rows = len(next(iter(rows.values())))
    index = group_index(groups, num_rows)
    sums = GroupSums(index, int(index.max()) + 1)
    classes = None if captions is None else caption_classes(captions, num_rows)
    items = None if positives is None else item_classes(positives, num_rows)
    named: dict[str, Any] = {}
    if "grouping" in include and labels is not None:
        named = dict(labels) if isinstance(labels, Mapping) else {"": labels}
    codes = {name: label_codes(name or "labels", values, num_rows) for name, values in named.items()}
    figures: dict[str, Figure] = {}
    pairwise: dict[str, list[Figure]] = {}
    for first, second in _pairs(list(rows), anchor):
        for key, figure in _pair_figures(
            rows, first, second, sums, classes if items is None else None, include, seed, block_size, figures
        ).items():
            pairwise.setdefault(key, []).append(figure)
            if len(rows) > 2:
                figures[_key(key, first, second, len(rows))] = figure
    if items is not None and "retrieval" in include:
        figures |= item_figures(rows, _pairs(list(rows), anchor), items, sums)
    figures |= {key: combine(parts) for key, parts in pairwise.items()}
    if "gap" in include:
        if len(rows) > 2:
            centroids = pair_centroids(list(rows.values()))
            figures["gap/centroid_uniformity"] = gap.uniformity(kernel_sums(centroids, block_size), sums)
        figures["gap/wasserstein_uniformity"] = gap.wasserstein_uniformity(list(rows.values()))
    if "retrieval" in include:
        figures |= _mean_retrieval(figures)
    fixed: Figures = {"n": num_rows, "gallery_size": num_rows}
    if codes:
        prototype = anchor or ("text" if "text" in rows else list(rows)[-1])
        parts = {
            name: grouping(rows, values, sums, prototype=prototype, maximum=max_grouping_pairs, seed=seed)
            for name, values in codes.items()
        }
        _add_grouping(parts, figures, fixed)
    return figures, fixed, sums.num_groups


def _pairs(names: list[str], anchor: str | None) -> list[tuple[str, str]]:
    if anchor is None:
        return list(combinations(names, 2))
    if anchor not in names:
        raise unknown_name("anchor modality", anchor, names)
    return [pair for pair in combinations(names, 2) if anchor in pair]


def _key(key: str, first: str, second: str, num_modalities: int) -> str:
    return key if num_modalities == 2 else f"{key}/{first}-{second}"


def _pair_figures(
    rows: Mapping[str, Tensor],
    first: str,
    second: str,
    groups: GroupSums,
    classes: Tensor | None,
    include: Sequence[str],
    seed: int,
    block_size: int,
    figures: dict[str, Figure],
) -> dict[str, Figure]:
    """The figures of one pair of modalities by bare key; those that carry modality names go into `figures`."""
    a, b = rows[first], rows[second]
    result: dict[str, Figure] = {}
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
            block_size=block_size,
        )
        if scan.inside is not None and scan.across is not None:
            inside, across = (
                (sides[0].first(NUM_NEIGHBOURS), sides[1].first(NUM_NEIGHBOURS)) for sides in (scan.inside, scan.across)
            )
            inputs = replace(inputs, inside=inside, across=across)
    if "probe" in include:
        can_hold_out = groups.num_groups > 1
        result["gap/separability_auc"] = inputs.separability[0] if can_hold_out else Figure(math.nan)
    if "further" in include:
        result |= _further_figures(inputs, figures)
    if scan is None:
        return result
    if "gap" in include:
        result |= _gap_figures(inputs)
        for name, within in zip(inputs.names, inputs.within_cosines, strict=True):
            figures[f"gap/within_cosine/{name}"] = within
        assert scan.kernels is not None
        for name, kernel in zip((first, second), scan.kernels[:2], strict=True):
            figures[f"gap/uniformity/{name}"] = gap.uniformity(kernel, groups)
        if len(rows) == 2:
            result["gap/centroid_uniformity"] = gap.uniformity(scan.kernels[2], groups)
    if "retrieval" in include:
        for side, direction in enumerate((f"{first}_to_{second}", f"{second}_to_{first}")):
            figures |= _retrieval_figures(f"retrieval/{direction}", scan, side, groups)
    if "mixed" in include:
        result |= _mixed_figures(first, second, scan, groups, len(rows), figures)
    return result


def _further_figures(inputs: PairInputs, named: dict[str, Figure]) -> dict[str, Figure]:
    """The figures whose catalogue entry has its own function; those whose keys carry a modality go into `named`."""
    figures = {}
    for entry in further_figures():
        assert entry.compute is not None
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


def _retrieval_figures(prefix: str, scan: PairScan, side: int, groups: GroupSums) -> dict[str, Figure]:
    counts = scan.cross[side]
    figures = {f"{prefix}/R@{k}": mean_figure(hit_at_k(counts, k), groups) for k in RECALL_AT}
    figures[f"{prefix}/MRR"] = mean_figure(expected_reciprocal_rank(counts), groups)
    figures[f"{prefix}/median_rank"] = median_figure(expected_rank(counts), groups)
    if scan.lenient is not None:
        for k in RECALL_AT:
            figures[f"{prefix}/lenient_R@{k}"] = mean_figure(lenient_hit_at_k(scan.lenient[side], k), groups)
    return figures


def _mean_retrieval(figures: Mapping[str, Figure]) -> dict[str, Figure]:
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
        f"mixed/R@{k}": combine([mean_figure(hit_at_k(one, k), groups) for one in counts]) for k in MIXED_RECALL_AT
    }
    result["mixed/median_rank"] = combine([median_figure(expected_rank(one), groups) for one in counts])
    for percent in CURVE_PERCENT:
        shares_own = (percent / 100, 1 - percent / 100)  # of queries of the first modality, and of the second
        values = [curve_ndcg(scan.cross[side], scan.within[side], shares_own[side]) for side in range(2)]
        result[f"mixed/NDCG@{NDCG_AT}/first_{percent}%"] = combine([mean_figure(one, groups) for one in values])
    num_rows = len(scan.cosine)
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
        mixing.append(mean_figure(share, groups))
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
