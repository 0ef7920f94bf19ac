"""Makes the scores of different modalities comparable, so that a mixed search can rank them together.

A gap adds another amount to the cosines of each modality, and the amount differs from query to query. So each query is
compared with a bank of rows of every modality first. What it scores there is taken off: this is the normalisation by a
cohort of speaker verification (T-norm; Matejka et al., Interspeech 2017). What remains between the modalities is an
offset, which is chosen so that the bank's own rows, asked as queries, find each modality as often as the collection
holds it. The ranking inside one modality does not change, unless hubs are corrected.

Hub correction takes from each row what the bank's queries score with it (Chowdhury et al., arXiv 2410.24114).
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from gapless.core.errors import UsageError

NEAREST_SHARE = 0.1  # of a bank: the rows whose scores say what a query usually scores among its nearest
SAME = 1e-5  # rows whose cosine is above 1 less this are copies of each other
MIN_SPREAD = 1e-6  # of scores; below it they are equal, and are left as they are
HUB_NEIGHBOURS = 16  # of a row in the bank of queries; 128, the authors' number, is a quarter of our bank
STEPS = 40  # of a bisection over all scores
SWEEPS, STEPS_IN_SWEEP = 20, 12  # over more than two modalities
SHARE_TOLERANCE = 2e-3


@dataclass(frozen=True)
class Bank:
    """Rows of one modality that were drawn from a collection, or texts that a user gave.

    Args:
        vectors: [row, dim] unit norm.
        rows: their keys; None for what is no row of the collection.
    """

    vectors: np.ndarray
    rows: tuple[str | None, ...]


@dataclass(frozen=True)
class Balance:
    """The banks and offsets that a collection has learnt for its modalities.

    Args:
        held: modality -> rows that queries are compared with; without modalities of too few rows.
        asked: modality -> queries; the rows held of that modality unless the user gave others.
        offsets: modality asked with -> modality held -> number that is added to its normalised scores.
        rows: modality -> how many rows the collection had when this was learnt.
        hub_correction: weight of the correction of hubs, 0 for none.
        seed: of the draw.
    """

    held: Mapping[str, Bank]
    asked: Mapping[str, Bank]
    offsets: Mapping[str, Mapping[str, float]]
    rows: Mapping[str, int]
    hub_correction: float = 0.0
    seed: int = 0
    _hubs: dict[tuple[str, str], np.ndarray] = field(default_factory=dict, repr=False, compare=False)

    @property
    def modalities(self) -> list[str]:
        """All modalities of the collection."""
        return list(self.rows)

    def weights(self, asked_with: Mapping[str, float]) -> dict[str, float]:
        """The shares of the modalities of a query; of an unknown one all alike."""
        known = {name: weight for name, weight in asked_with.items() if name in self.offsets and weight > 0}
        known = known or dict.fromkeys(self.offsets, 1.0)
        total = sum(known.values())
        return {name: weight / total for name, weight in known.items()}

    def slopes(self, query: np.ndarray, asked_with: Mapping[str, float]) -> tuple[np.ndarray, np.ndarray]:
        """[modality] factor and summand that make balanced scores of the cosines of this query, of all `modalities`.

        One that is not held has too few rows to learn from; it gets the mean of those that are.

        Args:
            query: [dim], unit norm.
            asked_with: modality -> its share of the query.
        """
        weights = self.weights(asked_with)
        slopes = {}
        for name, bank in self.held.items():
            scores = bank.vectors @ query
            own = scores > 1 - SAME
            if self.hub_correction:
                scores = scores - self.hubs(name, weights)
            level, spread = level_and_spread(scores[None], own[None])
            offset = sum(weight * self.offsets[asked][name] for asked, weight in weights.items())
            slopes[name] = (1 / spread[0], offset - level[0] / spread[0])
        usual = np.mean(list(slopes.values()), axis=0)
        factors, summands = np.array([slopes.get(name, usual) for name in self.modalities]).T
        return factors, summands

    def hubs(self, held: str, weights: Mapping[str, float]) -> np.ndarray:
        """[row of the bank] the weighted hub correction of the bank's own rows."""
        for asked in weights:
            if (asked, held) not in self._hubs:
                self._hubs[asked, held] = self.hubs_of(self.held[held].vectors, asked)
        return np.asarray(np.sum([weight * self._hubs[asked, held] for asked, weight in weights.items()], axis=0))

    def hubs_of(self, vectors: np.ndarray, asked: str) -> np.ndarray:
        """[row] what is taken from the cosines of these rows where a query of modality `asked` is given."""
        return np.asarray(self.hub_correction * nearest_mean(vectors @ self.asked[asked].vectors.T, HUB_NEIGHBOURS))


def nearest_mean(scores: np.ndarray, neighbours: int) -> np.ndarray:
    """[row] the mean of the highest scores of each row, copies of the row itself left out.

    Args:
        scores: [row, query] cosines.
    """
    scores = np.where(scores > 1 - SAME, -np.inf, scores)
    count = min(neighbours, scores.shape[1])
    best = np.partition(scores, scores.shape[1] - count, axis=1)[:, -count:]
    is_there = np.isfinite(best)
    return np.asarray(np.where(is_there, best, 0).sum(axis=1) / np.maximum(is_there.sum(axis=1), 1))


def level_and_spread(scores: np.ndarray, left_out: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Of each query, the mean of its highest tenth of scores, and the standard deviation of all of them.

    Args:
        scores: [query, row].
        left_out: [query, row] bool: rows that do not count.

    Returns:
        [query] each; a spread of 1 where all scores are equal, and 0 and 1 where no row is left.
    """
    counts = (~left_out).sum(axis=1)
    some = np.maximum(counts, 1)
    in_order = -np.sort(np.where(left_out, np.inf, -scores), axis=1)
    nearest = np.maximum(1, np.round(NEAREST_SHARE * counts)).astype(int)
    is_near = (np.arange(scores.shape[1]) < nearest[:, None]) & np.isfinite(in_order)
    level = np.where(is_near, in_order, 0).sum(axis=1) / np.maximum(is_near.sum(axis=1), 1)
    kept = np.where(left_out, 0, scores)
    mean = kept.sum(axis=1) / some
    spread = np.sqrt(np.square(np.where(left_out, 0, scores - mean[:, None])).sum(axis=1) / some)
    return level, np.where(spread < MIN_SPREAD, 1.0, spread)


def found_shares(best: np.ndarray, offsets: np.ndarray, depth: int) -> np.ndarray:
    """[modality] its share of the nearest `depth` of the queries.

    Args:
        best: [query, modality, depth] the highest scores of each modality; -inf where it has no more rows.
        offsets: [modality].
    """
    lifted = (best + offsets[None, :, None]).reshape(len(best), -1)
    nearest = np.argpartition(-lifted, depth - 1, axis=1)[:, :depth]
    codes = nearest // best.shape[2]
    return np.asarray(np.bincount(codes.ravel(), minlength=best.shape[1]) / codes.size)


def matching_offsets(best: np.ndarray, shares: np.ndarray, depth: int) -> np.ndarray:
    """[modality] offsets under which the queries find the modalities in these shares; the first is 0.

    With two modalities one bisection gives the second offset. With more, each move changes the shares of the others:
    from the offsets that would do if all queries were one ranking, the modality that is furthest off is moved first,
    and in ever smaller ranges, until all shares are within `SHARE_TOLERANCE`.

    Args:
        best: as `found_shares` takes it.
        shares: [modality], sum 1.
    """
    finite = best[np.isfinite(best)]
    reach = float(finite.max() - finite.min()) + 1.0
    if len(shares) == 2:
        offsets = np.zeros(2)
        _bisect(best, offsets, 1, shares[1], reach, depth, STEPS)
        return offsets
    offsets = pooled_offsets(best, shares, depth)
    width = reach / 8
    for _ in range(SWEEPS):
        off = np.abs(found_shares(best, offsets, depth) - shares)
        if off.max() < SHARE_TOLERANCE:
            break
        for number in (np.argsort(-off[1:]) + 1).tolist():
            _bisect(best, offsets, number, shares[number], width, depth, STEPS_IN_SWEEP)
        width /= 2
    return offsets


def pooled_offsets(best: np.ndarray, shares: np.ndarray, depth: int) -> np.ndarray:
    """[modality] offsets under which the best scores of all queries in one ranking have these shares."""
    thresholds = []
    for number, share in enumerate(shares):
        scores = best[:, number][np.isfinite(best[:, number])]
        rank = min(len(scores) - 1, int(share * len(best) * depth))
        thresholds.append(np.sort(scores)[::-1][rank] if len(scores) else 0.0)
    return np.array(thresholds[0] - np.array(thresholds))


def _bisect(
    best: np.ndarray, offsets: np.ndarray, number: int, share: float, width: float, depth: int, steps: int
) -> None:
    """Move one offset, by at most `width`, to where its modality has its share."""
    low, high = offsets[number] - width, offsets[number] + width
    for _ in range(steps):
        offsets[number] = (low + high) / 2
        if found_shares(best, offsets, depth)[number] < share:
            low = offsets[number]
        else:
            high = offsets[number]


def checked_correction(weight: Any) -> float:
    """The weight of the hub correction.

    Raises:
        UsageError: anything but a number from 0 to 1.
    """
    number = isinstance(weight, int | float | np.integer | np.floating) and not isinstance(weight, bool)
    if not number or not 0 <= weight <= 1:
        raise UsageError(f"hub_correction is a number from 0 (none) to 1, got {weight!r:.40}")
    return float(weight)
