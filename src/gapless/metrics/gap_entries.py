"""Further figures of the gap: what it is made of, and what is left of cosine and margin without the modality means."""

import math
from collections.abc import Mapping, Sequence
from math import inf

import torch
from torch import Tensor

from gapless.metrics.catalogue import FIGURES, FigureEntry
from gapless.metrics.neighbours import overlap
from gapless.metrics.pair_inputs import PairInputs
from gapless.metrics.uncertainty import Figure, combine, mean_figure

GAP = "modality gap"
CROSS_COST = "the products between and inside the modalities"
POINT = 1e-6  # mean squared distance below which everything is one point, and ratios of distances are not defined
RMG = "Schrodi et al., arXiv 2404.07983; the authors' code sets the numerator to at least 1e-3"


def centroid_share(inputs: PairInputs) -> Figure:
    """Centroid distance squared over the mean squared distance of true pairs, 0 to 1; NaN where all pairs coincide."""

    def share(parts: Sequence[Tensor]) -> Tensor:
        return _ratio(parts[0].square(), 2 - 2 * parts[1])

    return combine([inputs.centroid_distances[0], inputs.true_pair_cosine], share)


def pair_residual_ratio(inputs: PairInputs) -> Figure:
    """Mean squared distance of true pairs over that of non-pairs, both after centring; 0 = every pair coincides.

    For unit-norm rows it is `(2 - 2 c+ - g^2) / (2 - 2 c- - g^2)` with the mean cosines c+, c- of true pairs and
    non-pairs and the centroid distance g, so that it takes sums alone.
    """

    def ratio(parts: Sequence[Tensor]) -> Tensor:
        true, false, distance = parts
        return _ratio((2 - 2 * true - distance.square()).clamp_min(0), 2 - 2 * false - distance.square())

    return combine([inputs.true_pair_cosine, inputs.negative_cosine, inputs.centroid_distances[0]], ratio)


def relative_gap(inputs: PairInputs) -> Figure:
    """`D+ / (D+ + (D_zz + D_ww) / 2)` with D = (1 - mean cosine) / 2; without a floor, NaN where all is one point."""

    def ratio(parts: Sequence[Tensor]) -> Tensor:
        pairs, first, second = ((1 - cosine) / 2 for cosine in parts)
        return _ratio(pairs, pairs + (first + second) / 2)

    return combine([inputs.true_pair_cosine, *inputs.within_cosines], ratio)


def _ratio(top: Tensor, bottom: Tensor) -> Tensor:
    return top / torch.where(bottom > POINT, bottom, math.nan)


def linear_separability(inputs: PairInputs) -> Figure:
    """Accuracy of the probe of `gap/separability_auc`; NaN with a single group, where nothing can be held out."""
    return inputs.separability[1] if inputs.group_sums.num_groups > 1 else Figure(math.nan)


def effective_ranks(inputs: PairInputs) -> Mapping[str, Figure]:
    """The effective rank of each modality, by key."""
    ranks = inputs.spectra.effective_ranks(inputs.group_sums)
    return {f"gap/effective_rank/{name}": rank for name, rank in zip(inputs.names, ranks, strict=True)}


def hubness(inputs: PairInputs) -> Figure:
    """Skewness of how often each row is among the 10 nearest of the other modality, mean of both directions.

    The interval resamples the rows that are counted; the queries stay.
    """
    assert inputs.across is not None, "hubness needs the neighbours of the pass over similarities"
    figures = []
    for neighbours in inputs.across:
        count = neighbours.occurrence()
        powers = [mean_figure(count**power, inputs.group_sums) for power in (1, 2, 3)]
        figures.append(combine(powers, _skewness))
    return combine(figures)


def _skewness(powers: Sequence[Tensor]) -> Tensor:
    """Third standardised moment from the raw ones; 0 where all numbers are equal."""
    mean, square, cube = powers
    variance = square - mean.square()
    third = cube - 3 * mean * square + 2 * mean**3
    is_flat = variance <= 1e-9 * square
    return torch.where(is_flat, 0.0, third / torch.where(is_flat, 1.0, variance) ** 1.5)


def mutual_knn(inputs: PairInputs) -> Tensor:
    """[pair] share of the 10 nearest rows inside one modality that are also the 10 nearest inside the other."""
    assert inputs.inside is not None, "mutual_knn needs the neighbours of the pass over similarities"
    return overlap(*inputs.inside)


ENTRIES = (
    FigureEntry(
        "gap/centroid_share",
        "share of the centroids",
        "centroid distance squared as a share of the mean squared distance of true pairs: what centring alone removes",
        low=0.0,
        high=1.0,
        better="neither",
        family=GAP,
        closed="0",
        misleads="0 also where nothing but noise joins the pairs; biased upward by up to 1/n",
        cost="rows",
        source="Liang et al., arXiv 2203.02053 (the distance)",
        in_tables=False,
        compute=centroid_share,
    ),
    FigureEntry(
        "gap/spread_difference",
        "difference of spread",
        "squared distance of the two spectra: sum_k (sqrt l_k - sqrt m_k)^2 of the falling eigenvalues of the centred "
        "covariances. Neither a shift nor a rotation removes it",
        low=0.0,
        high=1.0,
        better="lower",
        family=GAP,
        closed="0",
        misleads="blind to orientation: two clouds of one shape turned apart measure 0",
        cost="an eigendecomposition",
        source="the 2-Wasserstein distance of Gaussians (Dowson and Landau 1982) after the best rotation",
        in_tables=False,
        compute=lambda inputs: inputs.spectra.difference(inputs.group_sums),
    ),
    FigureEntry(
        "gap/pair_residual_ratio",
        "pair residual",
        "mean squared distance of true pairs over that of non-pairs, both after centring",
        low=0.0,
        high=2.0,
        better="lower",
        family=GAP,
        closed="0",
        misleads="1 where pairs hold nothing, and also where a rotation hides what they hold: read it with mutual kNN",
        cost="rows",
        in_tables=False,
        compute=pair_residual_ratio,
    ),
    FigureEntry(
        "gap/relative",
        "relative gap",
        "RMG: D+ / (D+ + (D_zz + D_ww) / 2), D = (1 - mean cosine) / 2 of true pairs and inside each modality",
        low=0.0,
        high=1.0,
        better="lower",
        family=GAP,
        closed="0",
        misleads="0.5 for unrelated rows without any gap. The authors' code sets D+ to at least 0.001, so that a "
        "collapsed space reads 1; here it has no value",
        cost="rows",
        source=RMG,
        in_tables=False,
        compute=relative_gap,
    ),
    FigureEntry(
        "gap/linear_separability",
        "linear separability",
        "accuracy of the probe of `gap/separability_auc`, on rows of groups it was not fitted on",
        low=0.0,
        high=1.0,
        better="lower",
        family=GAP,
        unit="fraction",
        closed="50 %",
        misleads="linear; with few groups the folds are unequal. Below 50 % is chance",
        cost="a probe",
        source="Shi et al., Towards understanding the modality gap in CLIP, 2023",
        in_tables=False,
        compute=linear_separability,
    ),
    FigureEntry(
        "gap/effective_rank/<modality>",
        "effective rank of <modality>",
        "exp(-sum p ln p), p the singular values of the centred rows as shares of their sum",
        low=1.0,
        high=inf,
        better="higher",
        family=GAP,
        decimals=1,
        misleads="grows with the rows until there are many more than dims; noise has a high rank too",
        cost="an eigendecomposition",
        source="Roy and Vetterli, EUSIPCO 2007",
        in_tables=False,
        compute=effective_ranks,
    ),
    FigureEntry(
        "gap/hubness",
        "hubness",
        "skewness of N_10, how often a row is among the 10 nearest of a row of the other modality; mean of both sides",
        low=-inf,
        high=inf,
        better="lower",
        family=GAP,
        closed="near 0",
        misleads="grows with the dims and with the gallery; equal rows share their places. Rows that are never found "
        "are not seen by it",
        cost=CROSS_COST,
        source="Radovanovic et al., JMLR 11 (2010)",
        in_tables=False,
        every_query=True,
        compute=hubness,
    ),
    FigureEntry(
        "gap/mutual_knn@10",
        "mutual kNN",
        "share of each row's 10 nearest inside one modality that are its 10 nearest inside the other as well",
        low=0.0,
        high=1.0,
        better="higher",
        family=GAP,
        misleads="blind to shift and rotation, so to the gap: it says what a map could align. Chance is 10 / (n - 1); "
        "rows of one case count as agreement",
        cost=CROSS_COST,
        source="Huh et al., arXiv 2405.07987",
        in_tables=False,
        compute=mutual_knn,
    ),
    FigureEntry(
        "gap/d_prime",
        "d'",
        "the margin in standard deviations: (m+ - m-) / sqrt((v+ + v-) / 2) of the cosines of true pairs and non-pairs",
        low=-inf,
        high=inf,
        better="higher",
        family=GAP,
        misleads="two moments: recall depends on the tail. Unchanged by a constant coordinate",
        cost="rows",
        source="Green and Swets 1966",
        in_tables=False,
        compute=lambda inputs: inputs.scores.d_prime(inputs.group_sums),
    ),
    FigureEntry(
        "gap/margin_centred",
        "margin without the means",
        "the margin after each modality's mean is removed and rows are scaled to norm 1 again, as `close --method "
        "center` does",
        low=-2.0,
        high=2.0,
        better="higher",
        family=GAP,
        short="margin",
        misleads="a mean: recall depends on the tail. The interval holds the means fixed",
        cost="rows",
        compute=lambda inputs: inputs.centred_scores.margin(inputs.group_sums),
    ),
    FigureEntry(
        "gap/d_prime_centred",
        "d' without the means",
        "d' after the same",
        low=-inf,
        high=inf,
        better="higher",
        family=GAP,
        short="d'",
        misleads="as d'",
        cost="rows",
        compute=lambda inputs: inputs.centred_scores.d_prime(inputs.group_sums),
    ),
)
for entry in ENTRIES:
    FIGURES.add(entry.key, entry)
