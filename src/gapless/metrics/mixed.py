"""One gallery of two modalities: their shares among the nearest rows, and a curve over what the gallery is made of."""

import math

import torch
from torch import Tensor

from gapless.metrics.catalogue import FIGURES, FigureEntry
from gapless.metrics.figure_entries import ALL_PRODUCTS, MIXED
from gapless.metrics.similarity import RankCounts

MIXED_RECALL_AT = (1, 5, 10, 24)  # 24 rows are the first page of the search page
NEIGHBOURS_AT = (10, 24)
CURVE_PERCENT = (10, 50, 90)
NDCG_AT = 10

ENTRIES = (
    FigureEntry(
        "mixed/share_ratio@<k>",
        "share of the other modality, first <k>",
        "share of the other modality among each row's <k> nearest rows, relative to its share of the gallery, "
        "n / (2n - 1)",
        low=0.0,
        high=2.0,
        better="higher",
        family=MIXED,
        closed="1",
        misleads="noise has 1 too, and above 1 the other modality hides the own; read it with mixed R@k",
        cost=ALL_PRODUCTS,
    ),
    FigureEntry(
        "mixed/median_rank",
        "mixed median rank",
        "median rank of the true pair in one gallery of both modalities, mean of both directions; 1 = first",
        low=1.0,
        high=math.inf,
        better="lower",
        family=MIXED,
        misleads="grows with the gallery; near-copies of the query count as wrong",
        cost=ALL_PRODUCTS,
    ),
    FigureEntry(
        f"mixed/NDCG@{NDCG_AT}/first_<k>%",
        f"mixed NDCG@{NDCG_AT}, <k> % of the first modality",
        "each other pair is in the gallery once, <k> % of them as the first modality and the rest as the second; the "
        f"query's pair is the one relevant item: mean of 1 / log2(1 + rank), 0 beyond {NDCG_AT}; both directions",
        low=0.0,
        high=1.0,
        better="higher",
        family=MIXED,
        unit="fraction",
        closed="one value at 10, 50 and 90 %",
        misleads="depends on the gallery size; the ideal is 1, the pair found first",
        cost=ALL_PRODUCTS,
        source="Yuhui Zhang et al., arXiv 2507.19054 (the curve)",
    ),
)
for entry in ENTRIES:
    FIGURES.add(entry.key, entry)


def curve_ndcg(cross: RankCounts, within: RankCounts, share_own: float, k: int = NDCG_AT) -> Tensor:
    """NDCG within the first k of one relevant item, the query's pair, at its rank in a gallery of both modalities.

    The gallery holds every other pair once: with probability `share_own` as the query's modality, else as the other.
    The rank is the mean over all such galleries, `1 + share_own a + (1 - share_own) b`, where a and b count the rows
    of either modality above the pair, ties half. The ideal DCG is that of all relevant items (one, found first: 1),
    and not of those that were found. Nothing is drawn, so the order of the rows does not matter.

    Args:
        cross: rows of the other modality above the pair, and tied with it.
        within: the same of the query's own modality.

    Returns:
        [query] 1 / log2(1 + rank), 0 beyond k.

    >>> counts = [RankCounts(torch.tensor([above]), torch.tensor([0.0])) for above in (0.0, 4.0)]
    >>> curve_ndcg(*counts, share_own=0.0), curve_ndcg(*counts, share_own=0.5)
    (tensor([1.]), tensor([0.5000]))
    """
    own, other = (counts.above + counts.ties / 2 for counts in (within, cross))
    rank = 1 + share_own * own + (1 - share_own) * other
    return torch.where(rank <= k + 1e-9, 1 / torch.log2(1 + rank), torch.zeros_like(rank))
