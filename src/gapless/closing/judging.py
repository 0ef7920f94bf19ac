"""How candidates are judged: fitted outside a fold of groups, measured on the fold, and what is finished is noted.

The rows of a fold are seen neither by the fit nor by what stops a training: each fit splits off validation groups of
its own from the rows outside the fold.
"""

import json
import logging
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from gapless.closing.base import ClosingPairs
from gapless.closing.candidates import Candidate
from gapless.closing.fitting import fit_method
from gapless.closing.folds import group_folds
from gapless.closing.purposes import V_MEASURE, Judged
from gapless.closing.split import split_rows
from gapless.core.errors import DataRefused, GaplessError, one_line
from gapless.core.files import json_text, write_text
from gapless.core.progress import progress_bar, say
from gapless.metrics.grouping import v_measure_under_draws
from gapless.metrics.inputs import MIN_ROWS
from gapless.metrics.measure import measure_under_draws
from gapless.metrics.uncertainty import GroupSums, draw_counts

if TYPE_CHECKING:
    from gapless.models.aligner import GaplessModel

logger = logging.getLogger(__name__)

MAX_JUDGED_ROWS = 2000  # of a fold: figures cost the square of the rows
MAX_FITTED_ROWS = 100_000  # outside a fold, so that a choice among many rows ends; the method taken is fitted on all
AS_THEY_ARE = "as they are"
KEYS = (
    "gap/centroid_distance_unbiased",
    "gap/margin",
    "gap/margin_centred",
    "gap/d_prime",
    "retrieval/mean/R@10",
    "retrieval/mean/MRR",
    V_MEASURE,
    "gap/mixing@10",
    "mixed/R@10",
    "gap/pair_residual_ratio",
)


@dataclass(frozen=True)
class HeldOutPart:
    """A part of the rows that judges.

    Args:
        name: for the notes: "repeat 0 fold 2".
        pairs: what a candidate is fitted on; neither its train nor its validation rows are of the groups that judge.
        judged: row numbers that judge.
        draws: [replicate, group] how often each group of the judged rows is drawn.
        seed: of what is drawn in the fit.
    """

    name: str
    pairs: ClosingPairs
    judged: np.ndarray
    draws: Tensor
    seed: int


def folds_of(
    pairs: ClosingPairs, num_folds: int, num_repeats: int, share: float, num_bootstrap: int, seed: int
) -> list[HeldOutPart]:
    """The folds over the train rows, whole groups each; with repeats the groups are dealt out again.

    Of many rows a part is drawn, whole groups, to be fitted on and to judge.

    Args:
        share: of the rows outside a fold that a fit may validate by.

    Raises:
        DataRefused: fewer than two groups, or folds of a single row.
    """
    groups = pairs.groups[pairs.train]
    planned = [
        (f"repeat {repeat} fold {number}", fold, seed + repeat)
        for repeat in range(num_repeats)
        for number, fold in enumerate(group_folds(groups, num_folds, seed + repeat))
    ]
    judged = [_some_groups(fold.held, groups, own_seed, MAX_JUDGED_ROWS) for _, fold, own_seed in planned]
    present = np.unique(groups[np.concatenate(judged)])
    draws = torch.cat(list(draw_counts(len(present), num_bootstrap, seed)))
    parts = []
    for (name, fold, own_seed), held in zip(planned, judged, strict=True):
        outside = pairs.train[_some_groups(fold.fit, groups, own_seed, MAX_FITTED_ROWS)]
        train, validation = split_rows(pairs.groups[outside], None, share, own_seed)
        own = replace(pairs, train=outside[train], validation=outside[validation], work=None, fits={})
        drawn = draws[:, np.isin(present, groups[held])]
        parts.append(HeldOutPart(name, own, pairs.train[held], drawn, own_seed))
    if min(len(part.judged) for part in parts) < MIN_ROWS:
        raise DataRefused(f"{len(groups)} rows in {len(present)} groups leave a fold of one row; give fewer folds")
    return parts


def _some_groups(rows: np.ndarray, groups: np.ndarray, seed: int, most: int) -> np.ndarray:
    """The rows, or whole groups of them in a drawn order while they are at most so many; one group at least."""
    if len(rows) <= most:
        return rows
    present, sizes = np.unique(groups[rows], return_counts=True)
    order = np.random.default_rng(seed).permutation(len(present))
    num_taken = max(1, int((np.cumsum(sizes[order]) <= most).sum()))
    return rows[np.isin(groups[rows], present[order[:num_taken]])]


class Judge:
    """Judges candidates fold by fold within a time, and goes on where an interrupted call stopped.

    Args:
        folds: of `folds_of`.
        seconds: for all candidates together, those of an earlier call of the same work included; None for no limit.
            The first candidate that can be fitted is judged whatever it takes, so that there is one to choose.
        work: directory of notes, one file a candidate and fold; None notes nothing.
    """

    def __init__(self, folds: Sequence[HeldOutPart], seconds: float | None, work: Path | None) -> None:
        self.folds = folds
        self.seconds = seconds
        self.work = work
        self.spent = 0.0

    def judge(self, candidates: Sequence[Candidate]) -> list[Judged]:
        """Every candidate, the embeddings as they are first (where the dims are one); a line on each to the log."""
        judged = []
        if len(set(self.folds[0].pairs.sizes.values())) == 1:
            judged.append(replace(self._judged(AS_THEY_ARE, None, None), is_reference=True))
        total = (len(candidates) + len(judged)) * len(self.folds)
        say(f"judging {len(candidates)} closing methods on {len(self.folds)} folds")
        with progress_bar(what="judging", unit="fit", total=total) as shown:
            shown.update(len(judged) * len(self.folds))
            for candidate in candidates:
                shown.set_postfix_str(candidate.name)
                has_any = any(one.figures and not one.is_reference for one in judged)
                one = self._judged(candidate.name, candidate, self.seconds if has_any else None)
                judged.append(one)
                logger.info(f"{one.name}: {one.reason or f'{len(self.folds)} folds in {one.seconds:.1f} s'}")
                shown.update(len(self.folds))
        return judged

    def _judged(self, name: str, candidate: Candidate | None, seconds_allowed: float | None) -> Judged:
        parts: list[dict[str, np.ndarray]] = []
        seconds = 0.0
        try:
            for fold in self.folds:
                expected = seconds / len(parts) * (len(self.folds) - len(parts)) if parts else 0.0
                if seconds_allowed is not None and self.spent + expected > seconds_allowed:
                    return Judged(name, {}, seconds, self._late(seconds, len(parts)))
                figures, took = self._part(name, candidate, fold)
                parts.append(figures)
                seconds += took
                self.spent += took
        except GaplessError as error:
            return Judged(name, {}, seconds, str(error))
        except (ValueError, RuntimeError, np.linalg.LinAlgError) as error:  # a method of any package
            return Judged(name, {}, seconds, f"it failed: {one_line(error)}")
        return Judged(name, {key: _mean_over_folds([part[key] for part in parts]) for key in parts[0]}, seconds)

    def _late(self, seconds: float, num_folds: int) -> str:
        per_fold = f"a fold takes {seconds / num_folds:.0f} s, " if num_folds else ""
        return f"no time: {per_fold}{self.spent:.0f} s of {self.seconds:.0f} s are gone; give --auto.seconds more"

    def _part(self, name: str, candidate: Candidate | None, fold: HeldOutPart) -> tuple[dict[str, np.ndarray], float]:
        """The figures of one fold and the seconds that they took, from the notes where they are there."""
        path = None if self.work is None else self.work / f"{name} {fold.name}.json".replace("/", "_")
        if path is not None and path.exists():
            noted = json.loads(path.read_text())
            if isinstance(noted, dict) and noted.keys() == {"figures", "seconds"}:
                return {key: np.array(values, dtype=np.float64) for key, values in noted["figures"].items()}, noted[
                    "seconds"
                ]
        started = time.perf_counter()
        model = None if candidate is None else fitted_in(fold, candidate)
        figures = figures_in(fold, model)
        took = time.perf_counter() - started
        if path is not None:
            noted = {"figures": {key: values.tolist() for key, values in figures.items()}, "seconds": took}
            write_text(path, json_text(noted))
        return figures, took


def fitted_in(fold: HeldOutPart, candidate: Candidate) -> "GaplessModel":
    """The candidate's model, fitted outside the fold.

    Raises:
        UsageError, DataRefused: what the method says of such rows.
    """
    with tempfile.TemporaryDirectory() as folder:
        return fit_method(candidate.method, fold.pairs, candidate.settings, fold.seed, folder=Path(folder)).model


def figures_in(fold: HeldOutPart, model: "GaplessModel | None") -> dict[str, np.ndarray]:
    """Key -> [1 + replicate] of the judged rows, through the model or as they are."""
    from gapless.inference.embed import embed_dataset

    pairs = fold.pairs
    rows = (
        pairs.part(fold.judged) if model is None else embed_dataset(model, pairs.dataset(fold.judged), batch_size=4096)
    )
    figures = measure_under_draws(
        rows,
        fold.draws,
        pairs.groups[fold.judged],
        present=pairs.masks(fold.judged),
        positives=pairs.positives[fold.judged],
        include=("gap", "retrieval", "mixed", "further"),
        seed=fold.seed,
    )
    values = {key: figures[key].numpy() for key in KEYS if key in figures}
    if pairs.labels is not None:
        masks = pairs.masks(fold.judged)
        present = None if masks is None else {name: torch.from_numpy(mask) for name, mask in masks.items()}
        index, num_groups = np.unique(pairs.groups[fold.judged], return_inverse=True)[1], fold.draws.shape[1]
        groups = GroupSums(torch.from_numpy(index), num_groups)
        codes = torch.from_numpy(pairs.labels[fold.judged])
        values[V_MEASURE] = v_measure_under_draws(rows, codes, groups, fold.draws, fold.seed, present).numpy()
    return values


def _mean_over_folds(parts: Sequence[np.ndarray]) -> np.ndarray:
    """[1 + replicate] the mean over the folds in which the figure is defined, and the same under each draw."""
    values = np.stack(parts)
    defined = np.isfinite(values)
    count = defined.sum(axis=0)
    return np.where(count > 0, np.where(defined, values, 0).sum(axis=0) / np.maximum(count, 1), np.nan)
