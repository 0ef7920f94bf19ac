"""The terms of `GapClosingLoss` over rows that lack modalities, and over pairs with weights.

Each pair of modalities is taken over the rows that have both. A pair of fewer than two rows is skipped; the others are
combined by their number of rows times their weight.
"""

from collections.abc import Callable, Iterable, Mapping
from functools import partial

from torch import Tensor

from gapless.core.geometry import log_mean_gaussian_kernel, pairwise_squared_distance
from gapless.losses.contrastive import symmetric_info_nce
from gapless.losses.engine.gathered import Ranks, chosen_symmetric_info_nce, gathered_uniformity
from gapless.losses.engine.tiled import tiled_log_mean_gaussian_kernel, tiled_symmetric_info_nce
from gapless.losses.pairs import Pair, weight_of
from gapless.losses.present import Chosen, PresentBatch, are_apart

MIN_ROWS = 2  # of a pair of modalities, which compares rows with each other
IsSmall = Callable[[Tensor], bool]


def masked_contrastive(
    batch: PresentBatch,
    chosen: Mapping[Pair, Chosen],
    weights: Mapping[str, float],
    log_scale: Tensor,
    is_small: IsSmall,
) -> Tensor:
    """The weighted mean over the pairs of `contrastive.symmetric_info_nce` on each pair's own rows.

    Args:
        batch: the rows.
        chosen: pair -> the rows that have both.
        weights: by modality or pair, see `pairs.weight_of`.
        log_scale: log(1 / temperature).
        is_small: whether so many rows take the plain formula.
    """
    scale = log_scale.exp()

    def of_pair(pair: Pair, rows: Chosen) -> Tensor:
        positives = batch.positives_of_pair(pair, rows)
        queries, keys = batch.rows[pair[0]][rows.own], batch.of_all_ranks(pair[1])[rows.everyone]
        if batch.ranks is not None:
            return chosen_symmetric_info_nce(queries, keys, scale, positives, rows.of_this_rank, batch.ranks)
        info_nce = symmetric_info_nce if is_small(queries) else tiled_symmetric_info_nce
        return info_nce(queries, keys, scale, positives)

    return weighted_mean(of_pair, chosen, weights, batch.nothing(log_scale))


def masked_alignment(
    batch: PresentBatch, chosen: Mapping[Pair, Chosen], weights: Mapping[str, float], log_scale: Tensor
) -> Tensor:
    """The weighted mean over the pairs of `gap_closing.align_true_pairs`; arguments as in `masked_contrastive`."""

    def of_pair(pair: Pair, rows: Chosen) -> Tensor:
        one, other = (batch.rows[name][rows.own] for name in pair)
        mean = pairwise_squared_distance(one, other).sum() / len(rows.everyone)
        return mean if batch.ranks is None else batch.ranks.average(mean * batch.ranks.num_ranks)

    return weighted_mean(of_pair, chosen, weights, batch.nothing(log_scale))


def masked_uniformity(
    batch: PresentBatch, anchor: str, normalise_centroids: bool, log_scale: Tensor, is_small: IsSmall
) -> Tensor:
    """`gap_closing.centroid_uniformity` over the rows with two modalities or more; 0 where no two of them are apart.

    Args:
        anchor: the modality whose positives are not pushed apart, where positives are given by modality.
        normalise_centroids: see `gap_closing.centroid_uniformity`.

    Further arguments as in `masked_contrastive`.
    """
    centroids, rows = batch.centroids(normalise_centroids)
    positives = batch.positives_of_centroids(anchor, rows)
    if not are_apart(positives, len(rows.everyone)):
        return batch.nothing(log_scale)
    points = centroids[rows.own] if batch.ranks is None else batch.ranks.gather(centroids)[rows.everyone]
    return uniformity_of(points, positives, batch.ranks, is_small)


def uniformity_of(points: Tensor, positives: Tensor | None, ranks: Ranks | None, is_small: IsSmall) -> Tensor:
    """`geometry.log_mean_gaussian_kernel` of the points of all ranks, each rank computing its share.

    Args:
        points: [n, dim] of all ranks, of norm at most 1.
        positives: [n] integers, or None.
        ranks: who shares the work; None for one process.
        is_small: whether so many points take the plain formula.
    """
    if ranks is not None:
        return gathered_uniformity(points, positives, ranks)
    return (log_mean_gaussian_kernel if is_small(points) else tiled_log_mean_gaussian_kernel)(points, positives)


def compared_rows(counts: Iterable[int], like: Tensor) -> Tensor:
    """[2] how many pairs of modalities were skipped, and the rows of all others, added up.

    Args:
        counts: the rows that both modalities of a pair have, for each pair.
        like: whose device and precision the numbers get.
    """
    counts = list(counts)
    compared = [count for count in counts if count >= MIN_ROWS]
    return like.new_tensor([len(counts) - len(compared), sum(compared)])


def weighted_mean(
    of_pair: Callable[[Pair, Chosen], Tensor],
    chosen: Mapping[Pair, Chosen],
    weights: Mapping[str, float],
    nothing: Tensor,
) -> Tensor:
    """The mean over the pairs by rows times weight; pairs of too few rows or of weight 0 are not computed.

    Args:
        nothing: the value where no pair counts; it is added, so that a backward pass reaches every embedding.
    """
    shares = {pair: len(rows.everyone) * weight_of(pair, weights) for pair, rows in chosen.items()}
    counted = {
        pair: partial(of_pair, pair, rows)
        for pair, rows in chosen.items()
        if len(rows.everyone) >= MIN_ROWS and shares[pair] > 0
    }
    total = sum(shares[pair] for pair in counted)
    value = nothing
    for pair, term in counted.items():
        value = value + (shares[pair] / total) * term()
    return value
