"""How sure a caption is right: a calibrated probability from its score and length, and a threshold for it.

"Right" has one meaning here: the F1 of the findings that caption and reference name (`clinical.py`) is at least a
level, 0.5 by default; where neither names one, the caption is right. It is fitted on rows that were not learnt.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from gapless.captioning.clinical import Errors
from gapless.core.errors import DataRefused, UsageError
from gapless.core.files import read_object, write_json

FILE = "confidence.json"
LEVEL = 0.5
NUM_BINS = 10
NUM_FOLDS = 5
LEAST_ROWS = 20
UNREACHED = 1.01  # a threshold that no confidence reaches


@dataclass(frozen=True)
class Confidence:
    """A logistic calibration.

    Args:
        weights: of the features and, last, the intercept.
        level: the F1 of findings from which on a caption is right.
        least_right: the share of right captions above the threshold that was asked for.
        threshold: below it the captioner does not know; above 1 where no threshold reaches that share.
        settings: of the generation that it was fitted on; it is of no use for others.
        n, groups: rows and groups that it was fitted on.
        split: theirs.
    """

    weights: tuple[float, ...]
    level: float
    least_right: float
    threshold: float
    settings: Mapping[str, Any]
    n: int
    groups: int
    split: str

    def of(self, score: float, caption: str) -> float:
        """The probability that a caption is right.

        Args:
            score: the mean log-probability of its tokens.
        """
        return float(_logistic(_features([score], [caption]) @ np.asarray(self.weights))[0])

    def write(self, directory: Path) -> None:
        """Write the file of a model directory."""
        write_json(directory / FILE, asdict(self))

    @classmethod
    def read(cls, directory: Path) -> "Confidence | None":
        """That of a model directory; None where none was made.

        Raises:
            DataRefused: a file of another form.
        """
        path = directory / FILE
        if not path.is_file():
            return None
        content = read_object(path)
        try:
            found = cls(**{**content, "weights": tuple(map(float, content["weights"]))})
            usable = len(found.weights) == 3 and all(np.isfinite([*found.weights, found.threshold, found.level]))
        except (KeyError, TypeError, ValueError):
            usable = False
        if not usable:
            raise DataRefused(f"{path} is damaged; make it again with 'gapless caption calibrate'")
        return found


def is_right(errors: Errors, level: float) -> bool:
    """Whether a caption is right, as the module says."""
    return errors.f1 is None or errors.f1 >= level


def fit_confidence(
    scores: Sequence[float],
    captions: Sequence[str],
    right: Sequence[bool],
    groups: Sequence[Any],
    *,
    level: float,
    least_right: float,
    settings: Mapping[str, Any],
    split: str,
) -> tuple[Confidence, np.ndarray]:
    """The calibration of some captions.

    The threshold is the least confidence above which `least_right` of the captions are right; for it and for the
    reliability, every group's confidences come from a fit without it.

    Returns:
        The calibration, and [row] the confidences of fits without the row's group.

    Raises:
        UsageError: a level or share outside (0, 1].
        DataRefused: fewer than 20 rows or 5 groups, or rows that are all right or all wrong.
    """
    for name, number in (("level", level), ("least_right", least_right)):
        if not 0 < number <= 1:
            raise UsageError(f"{name} is a number above 0 and at most 1, got {number}")
    names, index = np.unique(np.asarray(groups, dtype=str), return_inverse=True)
    truth = np.asarray(right, dtype=float)
    if len(truth) < LEAST_ROWS or len(names) < NUM_FOLDS:
        raise DataRefused(
            f"{len(truth)} {split} captions in {len(names)} groups are too few to calibrate; at least {LEAST_ROWS} in "
            f"{NUM_FOLDS} groups are needed"
        )
    if truth.min() == truth.max():
        what = "right" if truth[0] else "wrong"
        raise DataRefused(f"all {len(truth)} {split} captions are {what} at the level {level}; choose another --level")
    features = _features(scores, captions)
    fold = np.random.default_rng(0).permutation(len(names))[index] % NUM_FOLDS
    held_out = np.empty(len(truth))
    for number in range(NUM_FOLDS):
        rows = fold == number
        held_out[rows] = _logistic(features[rows] @ _fit(features[~rows], truth[~rows]))
    threshold = threshold_of(held_out, truth, least_right)
    weights = tuple(float(one) for one in _fit(features, truth))
    made = Confidence(weights, level, least_right, threshold, dict(settings), len(truth), len(names), split)
    return made, held_out


def threshold_of(confidences: np.ndarray, right: np.ndarray, least_right: float) -> float:
    """The least confidence from which on at least that share of captions is right; above 1 where there is none.

    >>> threshold_of(np.array([0.2, 0.4, 0.9]), np.array([0, 1, 1]), 0.9)
    0.4
    """
    order = np.argsort(-confidences, kind="stable")
    share = np.cumsum(right[order]) / np.arange(1, len(order) + 1)
    reached = np.flatnonzero(share >= least_right)
    return float(confidences[order][reached[-1]]) if len(reached) else UNREACHED


def _features(scores: Sequence[float], captions: Sequence[str]) -> np.ndarray:
    """[row, 3]: the score, the logarithm of the number of words, and 1."""
    words = [np.log1p(len(caption.split())) for caption in captions]
    return np.column_stack([np.asarray(scores, float), words, np.ones(len(words))])


def _logistic(values: np.ndarray) -> np.ndarray:
    result: np.ndarray = 1 / (1 + np.exp(-np.clip(values, -50, 50)))
    return result


def _fit(features: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """Logistic regression by Newton's steps; a small ridge keeps separable rows finite."""
    weights = np.zeros(features.shape[1])
    ridge = 1e-2 * np.eye(len(weights))
    for _ in range(50):
        chance = _logistic(features @ weights)
        gradient = features.T @ (chance - truth) + ridge @ weights
        hessian = (features * (chance * (1 - chance))[:, None]).T @ features + ridge
        step = np.linalg.solve(hessian, gradient)
        weights -= step
        if np.abs(step).max() < 1e-9:
            break
    return weights


def reliability(confidences: Sequence[float], right: Sequence[bool]) -> dict[str, Any]:
    """The reliability of confidences: the share of right captions in ten bins, and the mean gap over captions.

    >>> reliability([0.1, 0.1, 0.95], [False, False, True])["error"]
    0.0833
    """
    given, truth = np.asarray(confidences, float), np.asarray(right, float)
    bins = []
    place = np.minimum((given * NUM_BINS).astype(int), NUM_BINS - 1)
    for number in range(NUM_BINS):
        rows = place == number
        if rows.any():
            values = {"confidence": given[rows].mean(), "right": truth[rows].mean()}
            bins.append({"n": int(rows.sum()), **{name: round(float(value), 4) for name, value in values.items()}})
    error = sum(one["n"] * abs(one["confidence"] - one["right"]) for one in bins) / max(len(given), 1)
    return {"n": len(given), "error": round(float(error), 4), "bins": bins}
