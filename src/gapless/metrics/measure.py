"""`measure`: every figure of paired embeddings, checked here and computed in `complete` and `absent`."""

import math
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from gapless.core.errors import DataRefused, unknown_name
from gapless.metrics.absent import absent_figures, counts_of, under_all_draws
from gapless.metrics.catalogue import COMPLETE
from gapless.metrics.complete import add_grouping, complete_figures, pair_key, pairs_of
from gapless.metrics.inputs import (
    MIN_ROWS,
    caption_classes,
    check_counts,
    check_embeddings,
    check_present,
    group_index,
    item_classes,
    read_embeddings,
)
from gapless.metrics.joint import JointQuery, joint_figures, joint_queries
from gapless.metrics.labels import label_codes
from gapless.metrics.measured_rows import Figures, MeasuredRows, Settings
from gapless.metrics.retrieval import expected_rank
from gapless.metrics.sampled import QUERIES, sampled_figures, why_exact
from gapless.metrics.similarity import BLOCK_SIZE, scan_pair
from gapless.metrics.uncertainty import Figure, GroupSums, Interval, bootstrap, bootstrap_difference, combine

Part = Literal["gap", "retrieval", "mixed", "probe", "grouping", "further"]
PARTS: tuple[Part, ...] = ("gap", "retrieval", "mixed", "probe", "grouping", "further")
MAX_GROUPING_PAIRS = 20_000


def measure(
    embeddings: Mapping[str, Any],
    labels: Any = None,
    groups: Any = None,
    *,
    present: Mapping[str, Any] | None = None,
    joint: Sequence[str] = (),
    captions: Sequence[str] | None = None,
    positives: Any = None,
    anchor: str | None = None,
    include: Sequence[str] = PARTS,
    num_bootstrap: int = 0,
    seed: int = 0,
    max_grouping_pairs: int = MAX_GROUPING_PAIRS,
    block_size: int = BLOCK_SIZE,
    exact: bool = False,
    queries: int | None = None,
) -> Figures:
    """Every figure of a set of paired embeddings; docs/figures.md says what each means and which way is better.

    Args:
        embeddings: modality -> [pair, dim] floats (tensor, array, memory map), row i of each being one pair. They need
            not be unit-norm. fp16 and bf16 are raised to fp32; float64 stays.
        labels: [pair] classes of any kind, or name -> [pair]; None, NaN and "" are missing. Without labels
            `grouping/*` is left out.
        groups: [pair] names of groups (article, patient): folds keep them whole, and the bootstrap resamples them;
            default: every pair is its own group.
        present: modality -> [pair] bool, whether a row has it; a modality that is not named is in every row. What an
            absent row holds is not looked at. Each pair of modalities then stands on the rows that have both, and
            rows that have fewer than two modalities count for nothing.
        joint: joint queries, such as "image+history->text" or with weights "image=2+history->text": their figures are
            `retrieval/image+history_to_text/...` (`metrics.joint.joint_figures`).
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
        exact: every pair is a query, whatever their number.
        queries: about so many pairs are drawn as queries, in whole groups, and ranked in the whole gallery; by default
            all up to 100,000 pairs, and 2,000 of more. `positives`, `present` and `joint` need every pair.

    Returns:
        key of docs/figures.md -> float, {"value", "low", "high"} when resampled, or {"mean", "sd"} over k-means seeds;
        with "n" and "gallery_size". Bounds are None where no interval exists; with a single group nothing can be held
        out, and `gap/separability_auc` is NaN.
        Where rows lack modalities also "present" (modality -> rows) and "pairs" (`image-text` -> n, gallery_size, and
        why it is left out where fewer than two rows have both); `n` counts the rows with two modalities or more, and
        `gallery_size` is None where the pairs have different ones. With three modalities or more a pairwise key
        carries its pair, the bare key is the mean over pairs of equal weight, and KEY@complete is of the rows that have
        all modalities ("complete": n, gallery_size). With `joint`, "joint" says what each query stands on.
        Where queries are drawn, "sampled" holds queries, seed and of, the intervals hold the sampling, and what needs
        every query (`gap/hubness`, `lenient_R@K`) is left out.

    Raises:
        ValueError: shapes, types or counts that do not fit, one modality, an unknown anchor or part.
        DataRefused: NaN, infinite or zero rows, rows without a group, labels that are no classes; a modality that no
            row has, no pair of modalities with two rows in common.
        UsageError: a joint query of another form or of an unknown modality.

    >>> import torch
    >>> image = torch.eye(4)
    >>> text = torch.eye(4)[[0, 1, 3, 2]]
    >>> figures = measure({"image": image, "text": text}, include=("gap", "retrieval"))
    >>> figures["gap/true_pair_cosine"], figures["retrieval/image_to_text/R@1"]
    (0.5, 0.5)
    >>> absent = torch.tensor([True, True, True, False])
    >>> measure({"image": image, "text": text}, present={"text": absent}, include=("gap",))["pairs"]
    {'image-text': {'n': 3, 'gallery_size': 3}}
    """
    check_counts(
        num_bootstrap=(num_bootstrap, 0),
        seed=(seed, 0),
        max_grouping_pairs=(max_grouping_pairs, 1),
        block_size=(block_size, 1),
    )
    settings = Settings(anchor, include, seed, max_grouping_pairs, block_size)
    if queries is not None:
        check_counts(queries=(queries, MIN_ROWS))
    size = next(iter(np.shape(next(iter(embeddings.values()), ()))), 0)
    lacking = present is not None and not all(np.asarray(mask).all() for mask in present.values())
    given = {"positives": positives is not None, "present": lacking, "joint": joint}
    if why_exact(size, given, exact, queries) is None:
        figures, fixed, num_groups = _sampled(embeddings, labels, groups, settings, queries or QUERIES)
    else:
        figures, fixed, num_groups = _figures(embeddings, labels, groups, captions, positives, settings, present, joint)
    result: Figures = {key: figure.value for key, figure in figures.items()} | fixed
    if num_bootstrap:
        result |= bootstrap(figures, num_groups, num_bootstrap, seed)
    return result


def measure_under_draws(
    embeddings: Mapping[str, Any],
    draws: Tensor,
    groups: Any = None,
    *,
    present: Mapping[str, Any] | None = None,
    captions: Sequence[str] | None = None,
    positives: Any = None,
    include: Sequence[str] = ("gap", "retrieval", "mixed", "further"),
    seed: int = 0,
) -> dict[str, Tensor]:
    """Figures of embeddings, and their values under draws of groups that the caller made.

    Whoever compares models on several sets of rows draws the groups of all sets once and adds the replicates up.

    Args:
        embeddings, groups, present, captions, positives, include, seed: as in `measure`.
        draws: [replicate, group] how often each group is drawn, groups in the order of their sorted names, those of
            rows with fewer than two modalities left out.

    Returns:
        key -> [1 + replicate] float64: the figure itself, then its value under each draw; figures that cannot be
        resampled have NaN there.
    """
    settings = Settings(None, include, seed, MAX_GROUPING_PAIRS, BLOCK_SIZE)
    figures, _, num_groups = _figures(embeddings, None, groups, captions, positives, settings, present)
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
    present: Mapping[str, Any] | None = None,
    joint: Sequence[str] = (),
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
    settings = Settings(anchor, include, seed, MAX_GROUPING_PAIRS, BLOCK_SIZE)
    sides: list[dict[str, Figure]] = []
    num_groups = 0
    for runs in (embeddings, baseline):
        measured = []
        for run in runs:
            figures, _, num_groups = _figures(run, labels, groups, captions, positives, settings, present, joint)
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
    for first, second in pairs_of(list(rows), anchor):
        scan = scan_pair(rows[first], rows[second], block_size=block_size)
        result[pair_key("gap/true_pair_cosine", first, second, len(rows))] = scan.cosine
        result[f"retrieval/{first}_to_{second}/rank"] = expected_rank(scan.cross[0])
        result[f"retrieval/{second}_to_{first}/rank"] = expected_rank(scan.cross[1])
    return result


def _figures(
    embeddings: Mapping[str, Any],
    labels: Any,
    groups: Any,
    captions: Sequence[str] | None,
    positives: Any,
    settings: Settings,
    present: Mapping[str, Any] | None = None,
    joint: Sequence[str] = (),
) -> tuple[dict[str, Figure], Figures, int]:
    for part in settings.include:
        if part not in PARTS:
            raise unknown_name("part of the figures", part, PARTS)
    queries = joint_queries(joint, list(embeddings))
    masks = check_present(present, embeddings)
    rows = check_embeddings(embeddings, present=masks)
    num_rows = len(next(iter(rows.values())))
    index = group_index(groups, num_rows)
    classes = None if captions is None else caption_classes(captions, num_rows)
    items = None if positives is None else item_classes(positives, num_rows)
    named: dict[str, Any] = {}
    if "grouping" in settings.include and labels is not None:
        named = dict(labels) if isinstance(labels, Mapping) else {"": labels}
    codes = {name: label_codes(name or "labels", values, num_rows) for name, values in named.items()}
    measured = MeasuredRows(rows, index, classes, items, codes, masks)
    counted: Figures = {}
    if masks is not None:
        counted = {"present": counts_of(masks)}
        measured = _paired_rows(measured)
    if measured.present is None:
        figures, fixed = complete_figures(measured, settings)
        if masks is not None:
            size = {"n": len(measured), "gallery_size": len(measured)}
            counted["pairs"] = {f"{a}-{b}": dict(size) for a, b in pairs_of(list(rows), settings.anchor)}
    else:
        figures, fixed = absent_figures(measured, settings)
    if queries:
        asked, fixed["joint"] = _joint(measured, queries, settings.block_size)
        figures |= asked
    return figures, {**fixed, **counted}, measured.sums.num_groups


def _sampled(
    embeddings: Mapping[str, Any], labels: Any, groups: Any, settings: Settings, num_queries: int
) -> tuple[dict[str, Figure], Figures, int]:
    for part in settings.include:
        if part not in PARTS:
            raise unknown_name("part of the figures", part, PARTS)
    rows = read_embeddings(embeddings)
    size = len(next(iter(rows.values())))
    index = group_index(groups, size)
    sums = GroupSums(index, int(index.max()) + 1)
    figures, fixed, drawn_sums, drawn, places = sampled_figures(rows, sums, settings, num_queries)
    if "grouping" in settings.include and labels is not None:
        named = dict(labels) if isinstance(labels, Mapping) else {"": labels}
        codes = {name: label_codes(name or "labels", values, size)[places] for name, values in named.items()}
        add_grouping(MeasuredRows(drawn, drawn_sums.index, codes=codes), settings, figures, fixed)
    return figures, fixed, drawn_sums.num_groups


def _paired_rows(measured: MeasuredRows) -> MeasuredRows:
    """The rows that have two modalities or more.

    Raises:
        DataRefused: fewer than two.
    """
    assert measured.present is not None
    paired = measured.take(measured.counts >= 2)
    if len(paired) < MIN_ROWS:
        listed = ", ".join(f"{name} {count}" for name, count in counts_of(measured.present).items())
        raise DataRefused(
            f"figures compare at least {MIN_ROWS} rows that have two modalities, and {len(paired)} of {len(measured)} "
            f"rows do ({listed})"
        )
    return paired


def _joint(
    measured: MeasuredRows, queries: Sequence[JointQuery], block_size: int
) -> tuple[dict[str, Figure], dict[str, Any]]:
    """The figures of joint queries and, where rows lack modalities, those of the complete rows beside them."""
    figures, stands_on = joint_figures(measured, queries, block_size)
    if measured.present is None:
        return figures, stands_on
    is_complete = measured.having(list(measured.rows))
    if int(is_complete.sum()) >= MIN_ROWS:
        complete, _ = joint_figures(measured.take(is_complete), queries, block_size)
        own = torch.unique(measured.groups[is_complete])
        of_complete = under_all_draws(complete, own, measured.sums.num_groups)
        figures |= {f"{key}{COMPLETE}": figure for key, figure in of_complete.items()}
    return figures, stands_on
