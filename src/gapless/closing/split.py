"""Which rows a closing method fits on, and which are held back for the figures."""

import hashlib
import json
import logging
from collections.abc import Sequence

import numpy as np

from gapless.core.errors import DataRefused
from gapless.manifest.manifest import TRAIN, VALIDATION
from gapless.metrics.inputs import MIN_ROWS

logger = logging.getLogger(__name__)

MAX_VALIDATION_ROWS = 2000  # evaluation costs the square of the rows
MIN_GROUPS = 4


def split_rows(
    groups: np.ndarray, splits: Sequence[str] | None, share: float, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """Rows that train and rows that validate, no group in both.

    The validation rows of `splits`, where there are enough; otherwise a share of the groups that may train.

    Raises:
        DataRefused: too few groups to hold some back.
    """
    random = np.random.default_rng(seed)
    usable = np.arange(len(groups))
    if splits is not None and TRAIN in splits:
        named = np.asarray(splits)
        usable = np.flatnonzero(named == TRAIN)
        validation = np.flatnonzero(named == VALIDATION)
        if len(validation) >= MIN_ROWS:
            return usable, np.sort(random.permutation(validation)[:MAX_VALIDATION_ROWS])
        if len(validation):
            logger.warning(
                f"{len(validation)} validation row is too few to compare rows with each other: "
                f"a share of the {TRAIN} rows is held back instead"
            )
    present, sizes = np.unique(groups[usable], return_counts=True)
    if len(present) < MIN_GROUPS:
        raise DataRefused(
            f"{len(usable)} rows in {len(present)} group(s) cannot be split into training and validation; "
            f"at least {MIN_GROUPS} groups are needed"
        )
    order = random.permutation(len(present))
    wanted = min(share * len(usable), MAX_VALIDATION_ROWS)
    num_held = int(np.searchsorted(np.cumsum(sizes[order]), wanted)) + 1
    held = present[order[: min(max(num_held, 2), len(present) - 2)]]
    is_held = np.isin(groups[usable], held)
    return usable[~is_held], usable[is_held]


def split_fingerprint(ids: Sequence[str], train: np.ndarray, validation: np.ndarray) -> str:
    """sha256 of which rows trained and which were held back."""
    parts = [[ids[row] for row in rows] for rows in (train, validation)]
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()
