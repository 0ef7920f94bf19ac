"""Which pairs of modalities a loss compares, and how much each of them counts."""

import math
from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import Any

from gapless.core.errors import UsageError

Pair = tuple[str, str]
Pairs = str | Sequence[Sequence[str]]

ANCHOR, ALL = "anchor", "all"
PAIR_SIGN = "+"


def checked_pairs(pairs: Any) -> str | tuple[Pair, ...]:
    """`"anchor"`, `"all"`, or the listed pairs as tuples.

    Raises:
        UsageError: another word, no pair, a pair that is not two different names, or one that is listed twice.
    """
    if isinstance(pairs, str):
        if pairs not in (ANCHOR, ALL):
            raise UsageError(f"pairs is 'anchor', 'all' or a list of two names each, got {pairs!r}")
        return pairs
    if not isinstance(pairs, Sequence) or not pairs:
        raise UsageError(f"pairs is 'anchor', 'all' or a list of two names each, got {pairs!r}")
    listed: list[Pair] = []
    for pair in pairs:
        if isinstance(pair, str) or len(pair) != 2 or not all(isinstance(name, str) for name in pair):
            raise UsageError(f"each of pairs is two names of modalities, got {pair!r}")
        if pair[0] == pair[1] or {*pair} in [{*known} for known in listed]:
            raise UsageError(f"pairs holds two different modalities each, and no pair twice, got {pair!r}")
        listed.append((pair[0], pair[1]))
    return tuple(listed)


def pairs_of(pairs: str | tuple[Pair, ...], names: Sequence[str], anchor: str) -> list[Pair]:
    """The pairs of these modalities; the anchor is the second of its pairs.

    Args:
        pairs: what `checked_pairs` gives.
        names: of the modalities of a batch.
        anchor: the modality that the others are compared with where `pairs` is `"anchor"`.

    Raises:
        ValueError: the anchor, or a listed name, is none of the modalities.

    >>> pairs_of("all", ["image", "text", "ecg"], anchor="text")
    [('image', 'text'), ('image', 'ecg'), ('ecg', 'text')]
    """
    if pairs == ANCHOR:
        if anchor not in names:
            raise ValueError(f"the anchor {anchor!r} is not among the modalities {sorted(names)}")
        return [(name, anchor) for name in names if name != anchor]
    if isinstance(pairs, str):
        return [(b, a) if a == anchor else (a, b) for a, b in combinations(names, 2)]
    unknown = sorted({name for pair in pairs for name in pair} - set(names))
    if unknown:
        raise ValueError(f"pairs names {', '.join(unknown)}, and the modalities are {', '.join(sorted(names))}")
    return list(pairs)


def checked_weights(weights: Mapping[str, Any] | None, what: str = "modality_weights") -> dict[str, float]:
    """Weights by modality or by pair (`"image+text"`), as floats.

    Raises:
        UsageError: a weight that is negative or not finite.
    """
    for name, weight in (weights or {}).items():
        is_number = isinstance(weight, int | float) and not isinstance(weight, bool)
        if not (is_number and math.isfinite(weight) and weight >= 0):
            raise UsageError(f"{what}.{name} must be finite and at least 0, got {weight!r}")
    return {name: float(weight) for name, weight in (weights or {}).items()}


def weight_of(pair: Pair, weights: Mapping[str, float]) -> float:
    """The weight of a pair: its own, or the product of those of its modalities; 1 where nothing is said.

    >>> weight_of(("image", "text"), {"image": 0.5, "text": 0.5}), weight_of(("image", "text"), {"text+image": 2.0})
    (0.25, 2.0)
    """
    for first, second in (pair, pair[::-1]):
        if (own := weights.get(f"{first}{PAIR_SIGN}{second}")) is not None:
            return own
    return weights.get(pair[0], 1.0) * weights.get(pair[1], 1.0)


def names_in(weights: Mapping[str, float]) -> set[str]:
    """The modalities that the keys of weights name."""
    return {name for key in weights for name in key.split(PAIR_SIGN)}


def check_settings_names(settings: Any, modalities: Sequence[str]) -> None:
    """Raise UsageError where the settings of a loss do not fit the modalities of the model.

    They may name a modality that the model has not; and settings with a method `check_modalities(names)`, which raises
    UsageError, refuse what their loss cannot take before anything is trained.
    """
    check_modalities = getattr(settings, "check_modalities", None)
    if check_modalities is not None:
        check_modalities(list(modalities))
    pairs = getattr(settings, "pairs", ANCHOR)
    named = {"pairs": {name for pair in pairs for name in pair} if not isinstance(pairs, str) else set()}
    for key in ("modality_weights", "alignment_modality_weights"):
        named[key] = names_in(getattr(settings, key, None) or {})
    for key, names in named.items():
        if unknown := sorted(names - set(modalities)):
            raise UsageError(f"loss.{key} names {unknown[0]!r}, and the modalities are {', '.join(modalities)}")


def are_equal(pairs: Sequence[Pair], *weights: Mapping[str, float]) -> bool:
    """Whether these pairs have one weight above 0, under each of the weights."""
    return all(
        len(values) == 1 and min(values) > 0 for values in ({weight_of(p, one) for p in pairs} for one in weights)
    )
