"""Figures of more pairs than can be compared all with all: some rows are drawn as queries, the gallery stays whole.

Whole groups are drawn, without replacement. Each drawn row is compared with every row of the gallery, which is read
block by block. Figures that are means over rows are the means over the drawn rows, with intervals of a bootstrap over
the drawn groups: these hold the sampling too, because the drawn groups stand for all. What depends on how many rows
there are (spectra, the probe, the biased centroid distance) comes from sums over all rows.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor

from gapless.core.errors import UsageError
from gapless.core.geometry import blocks, pair_centroids, pairwise_cosine
from gapless.metrics import gap
from gapless.metrics.complete import NUM_NEIGHBOURS, figures_of_pair, mean_retrieval, pair_key, pairs_of
from gapless.metrics.inputs import UnitRows
from gapless.metrics.measured_rows import Figures, Settings
from gapless.metrics.mixed import NEIGHBOURS_AT
from gapless.metrics.neighbours import SPARE, Nearest, Neighbours
from gapless.metrics.pair_inputs import PairInputs
from gapless.metrics.score_maxima import ScoreStrips
from gapless.metrics.score_moments import PairScores, centred_scores
from gapless.metrics.similarity import SCALE, PairScan, RankCounter, kernel_sums, tie_tolerance
from gapless.metrics.spectrum import PairSpectra, spectrum_of
from gapless.metrics.uncertainty import Figure, GroupSums, combine

QUERIES = 2000  # pairs that are drawn by default: a recall of 50 % gets an interval of 2 points to either side
EXACT_PAIRS = 100_000  # up to so many, every pair is a query by default
GALLERY_AT_ONCE = 4096
QUERIES_AT_ONCE = 512


@dataclass(frozen=True)
class Sample:
    """The drawn rows.

    Args:
        rows: [query] ascending.
        groups: of all rows.
        folds: [row of all] of the probe.
    """

    rows: Tensor
    groups: GroupSums
    folds: Tensor

    @cached_property
    def sums(self) -> GroupSums:
        """The groups of the drawn rows, numbered anew."""
        index = torch.unique(self.groups.index[self.rows], return_inverse=True)[1]
        return GroupSums(index, int(index.max()) + 1)


def drawn_sample(groups: GroupSums, num_queries: int, seed: int) -> Sample:
    """Whole groups in random order until there are enough rows."""
    order = torch.from_numpy(np.random.default_rng(seed).permutation(groups.num_groups))
    reached = groups.sizes[order].cumsum(dim=0)
    count = min(groups.num_groups, int((reached < num_queries).sum()) + 1)
    chosen = torch.zeros(groups.num_groups, dtype=torch.bool)
    chosen[order[:count]] = True
    folds = gap.group_folds(groups, seed)[groups.index] if groups.num_groups > 1 else torch.zeros(len(groups.index))
    return Sample(chosen[groups.index].nonzero().flatten(), groups, folds.long())


@dataclass(frozen=True)
class Moments:
    """Sums over all rows of one modality, by fold.

    Args:
        grams: [fold, dim, dim]. sums: [fold, dim]. counts: [fold].
    """

    grams: Tensor
    sums: Tensor
    counts: Tensor

    @property
    def mean(self) -> Tensor:
        return self.sums.sum(dim=0) / self.counts.sum()

    @property
    def covariance(self) -> Tensor:
        return self.grams.sum(dim=0) / self.counts.sum() - torch.outer(self.mean, self.mean)


def moments_of(rows: UnitRows, folds: Tensor) -> Moments:
    """One pass over the rows; float64 sums of blocks in the rows' precision."""
    num_folds, dim = int(folds.max()) + 1, rows.shape[1]
    grams, sums = (
        torch.zeros(num_folds, dim, dim, dtype=torch.float64),
        torch.zeros(num_folds, dim, dtype=torch.float64),
    )
    for part in blocks(len(rows), 2 * GALLERY_AT_ONCE):
        block, own = rows[part], folds[part]
        for fold in range(num_folds):
            some = block[own == fold]
            grams[fold] += (some.T @ some).double()
            sums[fold] += some.double().sum(dim=0)
    return Moments(grams, sums, torch.bincount(folds, minlength=num_folds).double())


@dataclass(frozen=True)
class SampledInputs(PairInputs):
    """Drawn rows, whose figures that depend on the number of rows come from the moments of all rows."""

    sample: Sample | None = None
    moments: tuple[Moments, Moments] | None = None

    @cached_property
    def centroid_distances(self) -> tuple[Figure, Figure, Figure]:
        assert self.sample is not None
        return gap.centroid_distance(self.first, self.second, self.group_sums, len(self.sample.groups.index))

    @cached_property
    def separability(self) -> tuple[Figure, Figure]:
        assert self.sample is not None
        assert self.moments is not None
        one, other = self.moments
        folds = [
            (one.grams[fold] + other.grams[fold], one.sums[fold], other.sums[fold], int(count))
            for fold, count in enumerate(one.counts.tolist())
        ]
        return gap.probed(self.first, self.second, self.group_sums, self.sample.folds[self.sample.rows], folds)

    @cached_property
    def centred_scores(self) -> PairScores:
        assert self.moments is not None
        return centred_scores(self.first, self.second, (self.moments[0].mean, self.moments[1].mean))

    @cached_property
    def spectra(self) -> PairSpectra:
        assert self.sample is not None
        assert self.moments is not None
        first, second = (
            spectrum_of(rows, one.mean, one.covariance)
            for rows, one in zip((self.first, self.second), self.moments, strict=True)
        )
        return PairSpectra(first, second, math.sqrt(len(self.first) / len(self.sample.groups.index)))


def sampled_figures(
    rows: Mapping[str, UnitRows], groups: GroupSums, settings: Settings, num_queries: int
) -> tuple[dict[str, Figure], Figures, GroupSums, dict[str, Tensor], Tensor]:
    """Figures of drawn queries against the whole gallery.

    Args:
        rows: modality -> all rows, read when needed.

    Returns:
        figures; `n`, `gallery_size` and `sampled`; the groups of the drawn rows, the drawn rows of each modality and
        their numbers.
    """
    sample = drawn_sample(groups, num_queries, settings.seed)
    drawn = {name: one[sample.rows] for name, one in rows.items()}
    include, sums = set(settings.include), sample.sums
    moments = {name: moments_of(one, sample.folds) for name, one in rows.items()}
    figures: dict[str, Figure] = {}
    pairwise: dict[str, list[Figure]] = {}
    for first, second in pairs_of(list(rows), settings.anchor):
        names = (first, second)
        inputs = SampledInputs(
            drawn[first],
            drawn[second],
            sums.index,
            settings.seed,
            names,
            sample=sample,
            moments=(moments[first], moments[second]),
        )
        scan = None
        if include & {"gap", "retrieval", "mixed", "further"}:
            scan = scan_sample(rows[first], rows[second], sample.rows)
            assert scan.inside is not None
            assert scan.across is not None
            nearest = [
                (one.first(NUM_NEIGHBOURS), two.first(NUM_NEIGHBOURS)) for one, two in (scan.inside, scan.across)
            ]
            inputs = replace(inputs, inside=nearest[0], across=nearest[1])
        for key, figure in figures_of_pair(inputs, scan, sums, settings.include, len(rows), figures).items():
            pairwise.setdefault(key, []).append(figure)
            if len(rows) > 2:
                figures[pair_key(key, first, second, len(rows))] = figure
    figures |= {key: combine(parts) for key, parts in pairwise.items()}
    if "gap" in include:
        if len(rows) > 2:
            centroids = pair_centroids(list(drawn.values()))
            figures["gap/centroid_uniformity"] = gap.uniformity(kernel_sums(centroids, settings.block_size), sums)
        figures["gap/wasserstein_uniformity"] = _wasserstein(list(moments.values()))
    if "retrieval" in include:
        figures |= mean_retrieval(figures)
    num_rows = len(groups.index)
    sampled = {"queries": len(sample.rows), "seed": settings.seed, "of": num_rows}
    return figures, {"n": num_rows, "gallery_size": num_rows, "sampled": sampled}, sums, drawn, sample.rows


def _wasserstein(moments: list[Moments]) -> Figure:
    mean = torch.stack([one.mean for one in moments]).mean(dim=0)
    square = torch.stack([one.covariance + torch.outer(one.mean, one.mean) for one in moments]).mean(dim=0)
    return gap.wasserstein_of(mean, square - torch.outer(mean, mean))


def scan_sample(a: UnitRows, b: UnitRows, rows: Tensor) -> PairScan:
    """What `similarity.scan_pair` gives, of drawn queries against all rows; one pass over both files.

    Args:
        rows: [query] the drawn rows, ascending.
    """
    queries = (a[rows], b[rows])
    cosine, tolerance = pairwise_cosine(*queries), tie_tolerance(queries[0])
    cross, own = ([RankCounter(cosine, tolerance) for _ in range(2)] for _ in range(2))
    most = max(NEIGHBOURS_AT)
    width = min(most, 2 * len(a) - 1) + SPARE
    inside, across = (
        [
            Neighbours(Nearest(one, width), one, gallery, most, SCALE, tolerance, is_own, rows)
            for one, gallery in zip(queries, galleries, strict=True)
        ]
        for galleries, is_own in (((a, b), True), ((b, a), False))
    )
    kernels = torch.zeros(3, len(rows), dtype=torch.float64)
    for columns in blocks(len(a), GALLERY_AT_ONCE):
        gallery = (a[columns], b[columns])
        reach = _reach(*gallery)
        for part in blocks(len(rows), QUERIES_AT_ONCE):
            some = [SCALE * one[part] for one in queries]
            here = (rows[part] >= columns.start) & (rows[part] < columns.stop)
            self_at = here.nonzero().flatten(), rows[part][here] - columns.start
            same = [one @ other.T for one, other in zip(some, gallery, strict=True)]
            crossed = [one @ other.T for one, other in zip(some, gallery[::-1], strict=True)]
            total = (same[0] + same[1] + crossed[0] + crossed[1]) * _reach(*(q[part] for q in queries))[:, None] * reach
            for scores in (*same, total):
                scores[self_at] = -math.inf  # a row is not in its own gallery
            scratch = torch.empty_like(total)
            for number, scores in enumerate(same):
                kernels[number, part] += torch.exp(scores, out=scratch).sum(dim=1, dtype=torch.float64)
            # A zero centroid has norm 0: exp(-2 |x - 0|^2) has the decay of one side alone.
            weight = torch.where(reach > 0, math.exp(-2.0), 1.0)
            kernels[2, part] += (torch.exp(total, out=scratch) @ weight.to(total.dtype)).double()
            for side in range(2):
                strips = ScoreStrips(same[side], 1)
                inside[side].nearest.add(part, columns, strips)
                own[side].add(part, strips, scratch)
                across[side].nearest.add(part, columns, ScoreStrips(crossed[side], 1))
                crossed[side][self_at] = -math.inf  # the true pair is neither above nor tied with itself
                cross[side].add(part, ScoreStrips(crossed[side], 1), scratch)
    kernels[:2] *= math.exp(-4.0)
    kernels[2] *= torch.where(_reach(*queries) > 0, math.exp(-2.0), 1.0)
    return PairScan(
        cosine=cosine.double(),
        cross=(cross[0].counts(), cross[1].counts()),
        lenient=None,
        within=(own[0].counts(), own[1].counts()),
        kernels=(kernels[0], kernels[1], kernels[2]),
        inside=(inside[0], inside[1]),
        across=(across[0], across[1]),
        gallery=len(a),
    )


def _reach(a: Tensor, b: Tensor) -> Tensor:
    """[pair] 1 / ||a_i + b_i||, which makes a sum a centroid; 0 where the sum is 0."""
    length = (a + b).norm(dim=1)
    return torch.where(length == 0, torch.zeros_like(length), 1 / length)


def why_exact(num_rows: int, given: Mapping[str, Any], exact: bool, queries: int | None) -> str | None:
    """Why every pair is a query; None where queries are drawn.

    Args:
        given: what only an exact measurement takes -> its value.

    Raises:
        UsageError: a number of queries beside what needs every pair.
    """
    if exact:
        return "asked for"
    needs = [name for name, value in given.items() if value]
    if needs and queries is not None:
        raise UsageError(f"queries cannot be drawn here: {needs[0]} needs every pair")
    if needs:
        return f"{needs[0]} needs every pair"
    if queries is not None:
        return None if queries < num_rows else f"{queries:,} queries are all pairs"
    return None if num_rows > EXACT_PAIRS else f"up to {EXACT_PAIRS:,} pairs"
