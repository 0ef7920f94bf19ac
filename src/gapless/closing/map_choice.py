"""A setting of a method that fits affine maps, chosen by the retrieval of groups that were not fitted on."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor

from gapless.closing.base import ClosingPairs
from gapless.closing.folds import NUM_FOLDS, group_folds, mean_reciprocal_rank, scored_rows
from gapless.closing.layers import AffineMap
from gapless.metrics.inputs import MIN_ROWS

MAX_FITTED_ROWS = 20_000  # of a fold: with more, the choice is the same and the time is not

Option = TypeVar("Option")


def best_option(
    pairs: ClosingPairs,
    options: Sequence[Option],
    maps_of: Callable[[np.ndarray], Callable[[Option], Mapping[str, AffineMap]]],
    seed: int,
) -> tuple[Option, dict[str, Any]]:
    """The option whose maps retrieve best, on average over folds of the training rows; the first of equals.

    Args:
        options: what is tried; the usual one first.
        maps_of: rows to fit on -> option -> the maps, so that what all options share is computed once a fold.

    Returns:
        the option, and what `results.json` says of the choice.

    Raises:
        DataRefused: training rows of one group.
    """
    folds = group_folds(pairs.groups[pairs.train], NUM_FOLDS, seed)
    scores = np.zeros((len(folds), len(options)))
    for number, fold in enumerate(folds):
        fitted = maps_of(pairs.train[scored_rows(fold.fit, seed, MAX_FITTED_ROWS)])
        held = pairs.train[scored_rows(fold.held, seed)]
        scores[number] = [retrieval_of(fitted(option), pairs, held) for option in options]
    means = scores.mean(axis=0)
    best = int(means.argmax())
    return options[best], {
        "folds": len(folds),
        "settings_tried": len(options),
        "held_out_MRR": float(means[best]),
    }


def retrieval_of(maps: Mapping[str, AffineMap], pairs: ClosingPairs, held: np.ndarray) -> float:
    """MRR between the anchor and each other modality that has a map, of some rows after the maps; their mean.

    Each on the rows that have both; 0 where no modality has two rows in common with the anchor.
    """
    scores = []
    for name in maps:
        rows = pairs.common(held, name, pairs.anchor)
        if name != pairs.anchor and len(rows) >= MIN_ROWS:
            own, anchor = (apply_map(maps[one], pairs.embeddings[one][rows]) for one in (name, pairs.anchor))
            scores.append(mean_reciprocal_rank(own, anchor, torch.from_numpy(pairs.positives[rows])))
    return float(np.mean(scores)) if scores else 0.0


def apply_map(fitted: AffineMap, rows: Tensor) -> Tensor:
    """`(rows - offset) @ rotation + shift` in fp32, as the model computes it."""
    mapped = (rows.float() - fitted.offset.float()) @ fitted.rotation.float()
    return mapped if fitted.shift is None else mapped + fitted.shift.float()
