"""Computes all similarities of two modalities in tiles, and from them every figure that compares all rows.

A tile holds 4 cos: its exponential is, up to a constant, the uniformity kernel `exp(-2 d^2)` of unit-norm rows, and a
power of two changes no rank. Memory holds one tile per kind of product.
A score within a few rounding steps of the true pair's score is a tie, because a BLAS adds in no fixed order.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from gapless.core.geometry import blocks, pairwise_cosine
from gapless.metrics.neighbours import SPARE, Nearest, Neighbours
from gapless.metrics.score_maxima import ScoreStrips

BLOCK_SIZE = 512
SCALE = 4.0
_Sides = list[tuple[int, slice, slice, ScoreStrips]]  # modality of the queries, queries, gallery rows, scores
FEW = 0.1  # share of strips up to which counting in single strips is faster than in the whole tile


@dataclass(frozen=True)
class RankCounts:
    """Per query row: how many of the gallery score above its positive, and how many others tie with it."""

    above: Tensor
    ties: Tensor


@dataclass(frozen=True)
class LenientCounts:
    """As RankCounts, for the best of several positives; `positives` of them share the best score."""

    above: Tensor
    ties: Tensor
    positives: Tensor


@dataclass(frozen=True)
class Tile:
    """Products of a block of rows with a block of columns, as 4 cos; `crossed[side]` has `side` in its rows and the
    other modality in its columns, `same[side]` the modality `side` in both.
    """

    rows: slice
    columns: slice
    crossed: tuple[Tensor, Tensor]
    same: tuple[Tensor, Tensor] | None

    @property
    def is_diagonal(self) -> bool:
        return self.rows == self.columns

    def crossings(self) -> _Sides:
        """(modality of the queries, queries, gallery rows, scores) for scores against the other modality."""
        return self._sides(self.crossed, other=1)

    def insides(self) -> _Sides:
        """The same for scores inside a modality."""
        return self._sides(self.same or (), other=0)

    def _sides(self, products: Sequence[Tensor], other: int) -> _Sides:
        sides = []
        for side, scores in enumerate(products):
            sides.append((side, self.rows, self.columns, ScoreStrips(scores, 1)))
            if not self.is_diagonal:
                sides.append((side ^ other, self.columns, self.rows, ScoreStrips(scores, 0)))
        return sides


@dataclass(frozen=True)
class PairScan:
    """Results of the pass; a tuple has one entry per modality of the pair, None stands for a result not requested."""

    cosine: Tensor
    cross: tuple[RankCounts, RankCounts]
    lenient: tuple[LenientCounts, LenientCounts] | None
    within: tuple[RankCounts, RankCounts] | None
    kernels: tuple[Tensor, Tensor, Tensor] | None
    inside: tuple[Neighbours, Neighbours] | None
    across: tuple[Neighbours, Neighbours] | None
    gallery: int | None = None  # rows that each query is compared with; None where every row is a query

    @property
    def num_gallery(self) -> int:
        return len(self.cosine) if self.gallery is None else self.gallery


def tie_tolerance(rows: Tensor) -> float:
    """Cosines that differ by less than this are tied: matrix products round them differently.

    Measured: equal rows in products of several shapes differ by up to 2.5 steps at 768 dimensions and 7 at 8,192 in
    fp32, and by up to 18 in float64.
    """
    steps = max(4.0, math.sqrt(rows.shape[1]) / 8)
    return torch.finfo(rows.dtype).eps * (steps if rows.dtype == torch.float32 else 8 * steps)


class RankCounter:
    """Counts scores above a threshold per query; `rows` chooses the queries, None takes all."""

    def __init__(self, cosine: Tensor, tolerance: float) -> None:
        self.high = SCALE * (cosine + tolerance)
        self.low = SCALE * (cosine - tolerance)
        self.above = torch.zeros_like(cosine, dtype=torch.float64)
        self.reached = torch.zeros_like(cosine, dtype=torch.float64)

    def add(self, queries: slice | Tensor, strips: ScoreStrips, scratch: Tensor) -> None:
        """Count a tile of scores; strips whose maximum is below the threshold of their query are skipped."""
        low, high = self.low[queries], self.high[queries]
        reached = strips.above(low.nextafter(low.new_tensor(-math.inf)))  # at or above
        if int(reached.sum()) > FEW * reached.numel():
            self._add_all(queries, strips, scratch)
            return
        places, _, values = strips.reaching(reached)
        for threshold, total, compare in ((high, self.above, torch.gt), (low, self.reached, torch.ge)):
            counts = compare(values, threshold[places, None]).sum(dim=1).to(total.dtype)
            total[queries] += total.new_zeros(len(low)).index_add_(0, places, counts)

    def _add_all(self, queries: slice | Tensor, strips: ScoreStrips, scratch: Tensor) -> None:
        scores, dim = strips.scores, strips.dim
        space = scratch[: scores.numel()].view(scores.shape)
        for threshold, total, compare in ((self.high, self.above, torch.gt), (self.low, self.reached, torch.ge)):
            level = threshold[queries]
            compare(scores, level[:, None] if dim == 1 else level, out=space)
            total[queries] += space.sum(dim=dim)  # 0 and 1, exact in fp32 for any tile

    def counts(self) -> RankCounts:
        return RankCounts(self.above, self.reached - self.above)


class _Lenient:
    """Counts as `RankCounter` does, with the best row of the query's class as its positive."""

    def __init__(self, query: Tensor, gallery: Tensor, classes: Tensor, cosine: Tensor) -> None:
        best, positives = cosine.clone(), torch.ones_like(cosine)
        tolerance = tie_tolerance(query)
        order = classes.argsort()
        sizes = torch.unique(classes, return_counts=True)[1]
        for members in torch.split(order, sizes.tolist()):
            if len(members) == 1:
                continue
            for part in torch.split(members, BLOCK_SIZE):
                for others in torch.split(members, BLOCK_SIZE):
                    best[part] = torch.maximum(best[part], (query[part] @ gallery[others].T).amax(dim=1))
                level = best[part, None] - tolerance
                reached = [(query[part] @ gallery[o].T >= level).sum(dim=1) for o in torch.split(members, BLOCK_SIZE)]
                positives[part] = torch.stack(reached).sum(dim=0).to(positives.dtype)
        self.shared = sizes[classes] > 1
        self.positives = positives.double()
        self.counter = RankCounter(best, tolerance)

    def add(self, queries: slice, strips: ScoreStrips, scratch: Tensor) -> None:
        chosen = self.shared[queries].nonzero().flatten()
        if len(chosen):
            part = ScoreStrips(strips.scores.index_select(1 - strips.dim, chosen), strips.dim)
            self.counter.add(chosen + queries.start, part, scratch)

    def counts(self, strict: RankCounts) -> LenientCounts:
        reached = (self.counter.reached - self.counter.above - self.positives).clamp_min(0)
        return LenientCounts(
            torch.where(self.shared, self.counter.above, strict.above),
            torch.where(self.shared, reached, strict.ties),
            self.positives,
        )


class _Kernel:
    """Row sums of exp(-2 d^2) over all other rows, from tiles of 4 cos; a tile adds to the sums of both its sides."""

    def __init__(self, norms: Tensor) -> None:
        self.decay = torch.exp(-2.0 * norms)
        self.sums = torch.zeros_like(norms, dtype=torch.float64)

    def add(self, rows: slice, columns: slice, scores: Tensor, scratch: Tensor) -> None:
        space = torch.exp(scores, out=scratch[: scores.numel()].view(scores.shape))
        if rows == columns:
            space.fill_diagonal_(0.0)
        else:
            self.sums[columns] += self.decay[rows] @ space
        self.sums[rows] += space @ self.decay[columns]

    def row_sums(self) -> Tensor:
        return self.sums * self.decay


class _Lists:
    """The nearest rows of both modalities, inside each and in the other."""

    def __init__(self, a: Tensor, b: Tensor, num_neighbours: int, tolerance: float) -> None:
        width = min(num_neighbours, 2 * len(a) - 1) + SPARE

        def lists(galleries: tuple[Tensor, Tensor], is_own: bool) -> tuple[Neighbours, Neighbours]:
            first, second = (
                Neighbours(Nearest(queries, width), queries, gallery, num_neighbours, SCALE, tolerance, is_own)
                for queries, gallery in zip((a, b), galleries, strict=True)
            )
            return first, second

        self.inside, self.across = lists((a, b), True), lists((b, a), False)

    def add(self, inside: _Sides, crossing: _Sides) -> None:
        for lists, sides in ((self.inside, inside), (self.across, crossing)):
            for side, queries, gallery, strips in sides:
                lists[side].nearest.add(queries, gallery, strips)


def _kernels(a: Tensor, b: Tensor) -> tuple[tuple[_Kernel, _Kernel, _Kernel], Tensor]:
    """The kernels of both modalities and of the centroids, and 1 / ||a_i + b_i||, which makes a sum a centroid."""
    length = (a + b).norm(dim=1)
    is_zero = length == 0
    reach = torch.where(is_zero, torch.zeros_like(length), 1 / torch.where(is_zero, torch.ones_like(length), length))
    one = torch.ones_like(length)
    return (_Kernel(one), _Kernel(one), _Kernel((~is_zero).to(length.dtype))), reach


def _add_kernels(kernel: tuple[_Kernel, _Kernel, _Kernel], reach: Tensor, tile: Tile, scratch: Tensor) -> None:
    """Both modalities' kernels, and the centroids' from the sum of all four products."""
    assert tile.same is not None
    for one, scores in zip(kernel, tile.same, strict=False):
        one.add(tile.rows, tile.columns, scores, scratch)
    first, second = tile.same
    total = torch.add(first, second, out=scratch[: first.numel()].view(first.shape))
    total.add_(tile.crossed[0]).add_(tile.crossed[1]).mul_(reach[tile.rows, None]).mul_(reach[tile.columns])
    kernel[2].add(tile.rows, tile.columns, total, scratch)


def _tiles(pair: tuple[Tensor, Tensor], inside: bool, block_size: int) -> Iterator[Tile]:
    """Every pair of blocks once; all tiles share their buffers, so a tile is valid until the next one."""
    num_rows = len(pair[0])
    size = min(block_size, num_rows) ** 2
    spaces = [torch.empty(size, dtype=pair[0].dtype, device=pair[0].device) for _ in range(4 if inside else 2)]

    def product(scaled: Tensor, others: Tensor, space: Tensor) -> Tensor:
        shape = (len(scaled), len(others))
        return torch.mm(scaled, others.T, out=space[: math.prod(shape)].view(shape))

    for rows in blocks(num_rows, block_size):
        scaled = [SCALE * modality[rows] for modality in pair]
        for columns in blocks(num_rows - rows.start, block_size):
            columns = slice(columns.start + rows.start, columns.stop + rows.start)
            a, b = (modality[columns] for modality in pair)
            forth = product(scaled[0], b, spaces[0])
            back = forth.T if rows == columns else product(scaled[1], a, spaces[1])
            same = (product(scaled[0], a, spaces[2]), product(scaled[1], b, spaces[3])) if inside else None
            yield Tile(rows, columns, (forth, back), same)


def scan_pair(
    a: Tensor,
    b: Tensor,
    *,
    classes: Tensor | None = None,
    within: bool = False,
    kernels: bool = False,
    num_neighbours: int = 0,
    block_size: int = BLOCK_SIZE,
) -> PairScan:
    """Ranks in both directions and, where asked, in the mixed gallery, uniformity kernels and nearest neighbours.

    Args:
        a: [pair, dim] unit-norm rows of one modality.
        b: [pair, dim] unit-norm rows of the other, row i the true pair of row i.
        classes: [pair] integers; rows of one class are positives of each other in the lenient counts.
        within: also count rows of the query's own modality.
        kernels: row sums of exp(-2 d^2) for a, b and the normalised pair centroids.
        num_neighbours: k of the k nearest rows inside each modality and in the other one; 0 for none.
        block_size: rows of a tile; memory is a handful of tiles of block_size^2 numbers.
    """
    cosine = pairwise_cosine(a, b)
    tolerance = tie_tolerance(a)
    has_inside = within or kernels or num_neighbours > 0
    cross = (RankCounter(cosine, tolerance), RankCounter(cosine, tolerance))
    own = (RankCounter(cosine, tolerance), RankCounter(cosine, tolerance)) if within else None
    lenient = None
    if classes is not None:
        lenient = (_Lenient(a, b, classes, cosine), _Lenient(b, a, classes, cosine))
    neighbours = _Lists(a, b, num_neighbours, tolerance) if num_neighbours else None
    kernel, reach = _kernels(a, b) if kernels else (None, cosine)
    scratch = torch.empty(min(block_size, len(a)) ** 2, dtype=a.dtype, device=a.device)
    for tile in _tiles((a, b), has_inside, block_size):
        if kernel is not None:
            _add_kernels(kernel, reach, tile, scratch)
        if tile.is_diagonal:
            for scores in tile.same or ():
                scores.fill_diagonal_(-math.inf)  # a row is not in its own gallery
        inside, crossing = tile.insides(), tile.crossings()
        if neighbours is not None:
            neighbours.add(inside, crossing)
        if lenient is not None:
            for side, queries, _, strips in crossing:
                lenient[side].add(queries, strips, scratch)
        if tile.is_diagonal:
            tile.crossed[0].fill_diagonal_(-math.inf)  # the true pair is neither above nor tied with itself
            crossing = tile.crossings()
        for side, queries, _, strips in crossing:
            cross[side].add(queries, strips, scratch)
        if own is not None:
            for side, queries, _, strips in inside:
                own[side].add(queries, strips, scratch)
    strict = (cross[0].counts(), cross[1].counts())
    return PairScan(
        cosine=cosine.double(),
        cross=strict,
        lenient=None if lenient is None else (lenient[0].counts(strict[0]), lenient[1].counts(strict[1])),
        within=None if own is None else (own[0].counts(), own[1].counts()),
        kernels=None if kernel is None else (kernel[0].row_sums(), kernel[1].row_sums(), kernel[2].row_sums()),
        inside=None if neighbours is None else neighbours.inside,
        across=None if neighbours is None else neighbours.across,
    )


def kernel_sums(points: Tensor, block_size: int = BLOCK_SIZE) -> Tensor:
    """Row sums of exp(-2 ||x_i - x_j||^2) over j != i, [pair] float64, for rows of norm 1 or 0."""
    kernel = _Kernel(points.square().sum(dim=1))
    scratch = torch.empty(min(block_size, len(points)) ** 2, dtype=points.dtype, device=points.device)
    for rows in blocks(len(points), block_size):
        for columns in blocks(len(points), block_size):
            if columns.start >= rows.start:
                kernel.add(rows, columns, SCALE * (points[rows] @ points[columns].T), scratch)
    return kernel.row_sums()
