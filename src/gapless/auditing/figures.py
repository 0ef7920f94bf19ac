"""Figures of the images and the texts of an audit: sizes, near copies, lengths, repetitions."""

import math
import re
from array import array
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gapless.auditing.row_sets import NO_SET, Codes, set_figures
from gapless.core.captions import normalised_caption
from gapless.images.duplicates import perceptual_hashes
from gapless.images.near_copies import near_sets

TOKEN_LIMITS = (77, 128)
SMALL_SIDE = 224
# The estimate of tokens is within 3 % of CLIP's tokenizer over 3,000 ROCO captions (the 2 end marks are added).
LETTERS_PER_TOKEN = 6

_WORDS = re.compile(r"[A-Za-z]+|\d|[^\sA-Za-z\d]")
_SIDES = re.compile(r"\b(left|right|lt|rt|bilateral|left-sided|right-sided)\b", re.IGNORECASE)
_ABBREVIATED_SIDES = re.compile(r"\b(?:[LR](?:UL|LL|ML|UQ|LQ|MCA|CA|AD|CX)|RIGHT|LEFT)\b")


def summed(counts: Iterable[Mapping[str, int]]) -> dict[str, int]:
    """The sums by name, such as of the rows that several manifests kept."""
    total: Counter[str] = Counter()
    for count in counts:
        total.update(count)
    return dict(total)


def size_figures(width: NDArray[Any], height: NDArray[Any]) -> dict[str, Any]:
    """The short sides and the largest of some images."""
    short_side = np.minimum(width, height)
    return {
        "short_side": {
            "min": int(short_side.min()),
            "median": float(np.median(short_side)),
            "max": int(short_side.max()),
        },
        "largest": f"{int(width.max())} x {int(height.max())}",
        f"share_below_{SMALL_SIDE}": float((short_side < SMALL_SIDE).mean()),
    }


def near_figures(
    images: Codes, path_of: Callable[[int], Path], splits: Sequence[str], groups: Codes, id_of: Callable[[int], str]
) -> dict[str, Any]:
    """Sets of rows whose images look the same but differ in their bytes; each image is read once.

    Args:
        images: [row] numbers of the images, equal for equal bytes; `NO_SET` where that is unknown.
        path_of: the image file of a row.
        splits, groups, id_of: as for `set_figures`.
    """
    alone = images == NO_SET
    codes = np.where(alone, images.max() + 1 + np.arange(len(alone)), images)
    _, first, image = np.unique(codes, return_index=True, return_inverse=True)
    hashes = perceptual_hashes((path_of(int(row)) for row in first), len(first))
    sets = np.full(len(first), NO_SET)
    sets[hashes.usable] = near_sets(hashes.words[hashes.usable])
    lonely = np.bincount(sets[hashes.usable], minlength=1)[sets] < 2
    sets[lonely] = NO_SET
    return {
        **set_figures(sets[image], splits, groups, id_of),
        "not_compared": {"plain": int(hashes.plain[image].sum()), "unreadable": int(hashes.unreadable[image].sum())},
    }


def text_figures(
    texts_of_rows: Iterable[Sequence[str] | None],
    splits: Sequence[str],
    groups: Codes,
    count_tokens: Callable[[str], int],
) -> dict[str, Any]:
    """Lengths, tokens and repetitions of texts, of which a row has none (None), one or several."""
    lengths, tokens, owners, keys = array("l"), array("l"), array("l"), array("q")
    numbers: dict[str, int] = {}
    num_with_side = 0
    for row, texts in enumerate(texts_of_rows):
        for text in texts or ():
            lengths.append(len(text))
            tokens.append(count_tokens(text))
            owners.append(row)
            key = normalised_caption(text)
            keys.append(numbers.setdefault(key, len(numbers)) if key else NO_SET)
            num_with_side += names_a_side(text)
    if not lengths:
        return {"captions": 0}
    repeated = set_figures(np.array(keys), [splits[owner] for owner in owners], groups[np.array(owners)], str)
    return {
        "captions": len(lengths),
        "length": {
            "median": float(np.median(lengths)),
            "p95": float(np.percentile(lengths, 95)),
            "max": max(lengths),
        },
        "share_cut_at_tokens": {str(limit): float((np.array(tokens) > limit).mean()) for limit in TOKEN_LIMITS},
        "tokens_are_estimated": count_tokens is estimate_tokens,
        "duplicates": {
            "share": repeated["rows"] / len(lengths),
            "sets": repeated["sets"],
            "sets_across_splits": repeated["sets_across_splits"],
        },
        "share_with_side": num_with_side / len(lengths),
    }


def names_a_side(text: str) -> bool:
    """Whether a horizontal flip of the image could make the caption false."""
    return bool(_SIDES.search(text) or _ABBREVIATED_SIDES.search(text))


def estimate_tokens(text: str) -> int:
    """About how many tokens a sub-word tokenizer makes of a caption, its 2 end marks included."""
    return 2 + sum(math.ceil(len(word) / LETTERS_PER_TOKEN) for word in _WORDS.findall(text))
