"""The figures of a split beside those of its rows that share nothing with training, where some rows do.

An official split may put images of one article on both sides (ROCO's does, for two thirds of its validation images).
Recall falls with the size of the gallery, so the figures of the clean rows alone do not compare with those of all rows:
a third column takes as many rows of the whole split, drawn by groups.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from gapless.auditing.leakage import leaking_rows
from gapless.inference.presence import present_in
from gapless.manifest.manifest import TRAIN, Manifest
from gapless.metrics.inputs import MIN_ROWS
from gapless.metrics.measure import measure

NUM_DRAWS = 5
PARTS = ("gap", "retrieval")
COLUMNS = ("captions", "positives")


def disjoint_of_split(
    manifest: Manifest, split: str, embeddings: Mapping[str, Tensor], columns: Mapping[str, Any], num_bootstrap: int
) -> dict[str, Any] | None:
    """`disjoint_figures` of a split of a manifest; None where none of its rows leaks from train.

    Args:
        manifest: all its rows.
        split: which rows the embeddings are of.
        embeddings, num_bootstrap: as in `disjoint_figures`.
        columns: of the split, `groups` among them.
    """
    leaks = None if split == TRAIN else leaking_rows(manifest, split)
    if leaks is None or not any(leaks):
        return None
    return disjoint_figures(embeddings, leaks, columns["groups"], columns, num_bootstrap)


def disjoint_figures(
    embeddings: Mapping[str, Tensor],
    leaks: Sequence[bool],
    groups: Sequence[str],
    columns: Mapping[str, Any],
    num_bootstrap: int,
    seed: int = 0,
) -> dict[str, Any]:
    """Figures of the gap and of retrieval on the rows that share nothing with training, and on as many of all rows.

    Args:
        embeddings: modality -> [row, dim] unit-norm rows, NaN where a row lacks the modality.
        leaks: [row] whether a row shares its group or an item with training.
        groups: [row] names.
        columns: further arguments of `measure` with one value per row, or None.
        num_bootstrap: resamples of groups for the intervals of the clean rows; 0 gives plain numbers.
        seed: of the draws.

    Returns:
        `n`, `gallery_size` and `figures` of the clean rows, and `same_size`: the number of `draws`, and `figures` as
        mean and standard deviation over draws of whole groups from all rows. Where too few rows are clean, `n` and
        `left_out`, the reason.
    """
    clean = np.flatnonzero(~np.asarray(leaks, dtype=bool))
    if len(clean) < MIN_ROWS:
        return {"n": len(clean), "left_out": f"fewer than {MIN_ROWS} rows share nothing with training"}

    def figures_of(rows: np.ndarray, resamples: int) -> dict[str, Any]:
        part = {name: matrix[torch.from_numpy(rows)] for name, matrix in embeddings.items()}
        own: dict[str, Any] = {
            key: [values[row] for row in rows] for key in COLUMNS if (values := columns.get(key)) is not None
        }
        return measure(
            part,
            groups=[groups[row] for row in rows],
            present=present_in(part),
            include=PARTS,
            num_bootstrap=resamples,
            **own,
        )

    of_clean = figures_of(clean, num_bootstrap)
    draws = [figures_of(_drawn(groups, len(clean), seed + number), 0) for number in range(NUM_DRAWS)]
    keys = [key for key in of_clean if "/" in key and all(key in draw for draw in draws)]
    same_size = {
        key: {
            "mean": float(np.mean([draw[key] for draw in draws])),
            "sd": float(np.std([draw[key] for draw in draws], ddof=1)),
        }
        for key in keys
    }
    return {
        "n": of_clean["n"],
        "gallery_size": of_clean["gallery_size"],
        "figures": {key: of_clean[key] for key in of_clean if "/" in key},
        "same_size": {"draws": NUM_DRAWS, "figures": same_size},
    }


def _drawn(groups: Sequence[str], size: int, seed: int) -> np.ndarray:
    """So many rows: whole groups in a random order, the last one cut where it does not fit."""
    names = np.asarray(groups)
    _, of_row = np.unique(names, return_inverse=True)
    place = np.random.default_rng(seed).permutation(of_row.max() + 1)[of_row]
    return np.sort(np.argsort(place, kind="stable")[:size])
