"""Checks the arguments of a search before the model or the engine sees them, whose own errors would not name them."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from gapless.core.errors import UsageError
from gapless.core.values import is_unicode

EVEN = 0.5  # image_weight where none is given


def checked_count(k: Any) -> int:
    """A number of hits.

    Raises:
        UsageError: anything but a whole number that is at least 1.
    """
    if isinstance(k, bool) or not isinstance(k, int | np.integer) or k < 1:
        raise UsageError(f"k is a whole number of hits and at least 1, got {k!r:.40}")
    return int(k)


def checked_key(row: Any) -> str:
    """A key of a row.

    Raises:
        UsageError: anything but text.
    """
    if not isinstance(row, str) or not is_unicode(row):
        raise UsageError(f"a row is named by its key, a text such as 'ID/image', got {row!r:.60}")
    return row


def _is_finite_number(value: Any) -> bool:
    """Whether it is a number of Python or NumPy, neither a boolean nor infinite nor NaN."""
    is_number = isinstance(value, int | float | np.integer | np.floating) and not isinstance(value, bool)
    return is_number and math.isfinite(value)


def checked_weight(weight: Any) -> float:
    """The share of the image in a query of words and an image.

    Raises:
        UsageError: anything but a number from 0 to 1.
    """
    if not _is_finite_number(weight) or not 0 <= weight <= 1:
        raise UsageError(f"image_weight is a number from 0 (words alone) to 1 (image alone), got {weight!r:.40}")
    return float(weight)


def inputs_of(
    words: str | None,
    image: Any,
    image_weight: float,
    inputs: Mapping[str, Any] | None = None,
    weights: Mapping[str, float] | None = None,
    *,
    words_as: str = "text",
) -> tuple[dict[str, Any], dict[str, float]]:
    """The shorthands `words` and `image` with its weight among the inputs of a query: modality -> source, and weights.

    Args:
        words: what the model's modality of words is asked with; None for none.
        image: what its modality `image` is asked with; None for none.
        image_weight: the image's share beside words, from 0 to 1, whether they are given here or among the inputs;
            `weights` go before it.
        inputs: further modality -> source.
        weights: modality -> how much its part counts.
        words_as: the modality that words are of.

    Raises:
        UsageError: nothing is given, a weight outside of [0, 1], words beside an input of their modality, or an
            image_weight that would count for nothing beside inputs without words and an image.
    """
    image_weight = checked_weight(image_weight)
    given = {**({} if words is None else {words_as: words}), **({} if image is None else {"image": image})}
    if twice := sorted(set(given) & set(inputs or {})):
        raise UsageError(f"{twice[0]} is asked for twice: by a shorthand, and among the inputs of the query")
    given |= dict(inputs or {})
    if not given:
        raise UsageError("a query needs words, an image, or both")
    has_both = words_as in given and "image" in given and words_as != "image"
    if image_weight != EVEN and not weights and inputs and not has_both:
        raise UsageError(
            f"image_weight {image_weight:g} is the share of the part 'image' beside {words_as!r}, and the query does "
            "not have both; leave it out, and weigh the parts with 'weights' (--weight NAME=W)"
        )
    if not weights and has_both:
        scale = 1 if len(given) == 2 else 2  # beside other inputs, which weigh 1, an even mixture is one of equals
        weights = {words_as: scale * (1 - image_weight), "image": scale * image_weight}
    return given, dict(weights or {})


def inputs_in(words: Sequence[str]) -> dict[str, Any]:
    """The inputs of a query on the command line, modality -> what to ask with, of `NAME=VALUE` or `NAME=FILE`.

    The kinds read the values; a file of numbers, .npy, becomes a path, because some kinds take numbers only.

    Raises:
        UsageError: a word without `=`, or a modality that is named twice.

    >>> inputs_in(["report=left effusion", "labs=hb=11.2,age=60"])
    {'report': 'left effusion', 'labs': 'hb=11.2,age=60'}
    """
    values = _by_name("--query", words, "ecg=ecg.npy, or labs=hb=11.2,age=60")
    return {name: Path(text) if _is_array_file(text) else text for name, text in values.items()}


def weights_in(words: Sequence[str]) -> dict[str, float]:
    """The weights of a query on the command line, modality -> number, of `NAME=W`.

    Raises:
        UsageError: a word without `=`, a modality that is named twice, or a weight that is no number, 0 or above.

    >>> weights_in(["report=2", "labs=0.5"])
    {'report': 2.0, 'labs': 0.5}
    """
    weights = {}
    for name, text in _by_name("--weight", words, "report=2").items():
        try:
            weights[name] = checked_part_weight(name, float(text))
        except ValueError:
            raise UsageError(f"the weight of {name} is a number, 0 or above, got {text!r:.40}") from None
    return weights


def _by_name(option: str, words: Sequence[str], example: str) -> dict[str, str]:
    values: dict[str, str] = {}
    for word in words:
        name, equals, text = word.partition("=")
        name = name.strip()
        if not equals or not name:
            raise UsageError(f"{option} {word:.60}: no modality is named; write it as in {option} {example}")
        if name in values:
            raise UsageError(f"{option} names {name!r} twice; a query has one part of each modality")
        values[name] = text
    return values


def _is_array_file(text: str) -> bool:
    return text.endswith(".npy") and Path(text).is_file()


def checked_part_weight(modality: str, weight: Any) -> float:
    """The weight of a part of a query.

    Raises:
        UsageError: anything but a finite number that is at least 0.
    """
    if not _is_finite_number(weight) or weight < 0:
        raise UsageError(f"the weight of {modality} is a number, 0 or above, got {weight!r:.40}")
    return float(weight)
