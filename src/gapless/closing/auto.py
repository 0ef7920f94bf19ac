"""The closing method that chooses among the others: fits them all, judges them on held-out groups, takes the best.

close_gap(embeddings, groups, AutoSettings(purpose="retrieval", seconds=60), out=Path("closed"))
"""

import hashlib
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from gapless.closing.base import CLOSING_METHODS, ClosingPairs, ClosingSettings, FittedMethod
from gapless.closing.candidates import Candidate, candidates_of
from gapless.closing.fitting import fit_method
from gapless.closing.judging import KEYS, HeldOutPart, Judge, folds_of
from gapless.closing.purposes import BALANCED, PURPOSES, Choice, Judged, choose
from gapless.closing.split import split_rows
from gapless.core.errors import UsageError, unknown_name
from gapless.core.files import plain, read_object, write_json
from gapless.core.geometry import blocks
from gapless.core.plan import PLAN, check_same
from gapless.metrics.inputs import ROWS_AT_ONCE

FEW_GROUPS = 100
ADVICE = "remove it, or choose another --out"
REPEATS_OF_FEW = 3


@dataclass(frozen=True)
class AutoSettings(ClosingSettings):
    """The settings of auto.

    Args:
        purpose: what counts: balanced, retrieval, mixed-search, clustering, thresholds or captions.
        seconds: for fitting and judging the candidates; 0 for no limit. Closed forms come first; a candidate whose
            folds would take longer than what is left is a row of the table with that reason.
        methods: candidates, names of closing methods; by default all.
        num_folds: parts of whole groups; each candidate is fitted outside a part and judged on it.
        num_repeats: times that the groups are dealt out to folds anew; by default 3 below 100 groups, else 1.
        num_bootstrap: resamples of groups for the intervals.
    """

    purpose: str = BALANCED
    seconds: float = 240.0
    methods: tuple[str, ...] = ()
    num_folds: int = 5
    num_repeats: int | None = None
    num_bootstrap: int = 500

    def __post_init__(self) -> None:
        if self.purpose not in PURPOSES:
            raise unknown_name("purpose", self.purpose, PURPOSES)
        if not 0 <= self.seconds < float("inf"):
            raise UsageError(f"seconds is a number of at least 0, got {self.seconds}")
        if self.num_folds < 2 or self.num_bootstrap < 20 or (self.num_repeats is not None and self.num_repeats < 1):
            raise UsageError(
                f"at least 2 folds, 1 repeat and 20 resamples are needed, got {self.num_folds}, {self.num_repeats} "
                f"and {self.num_bootstrap}"
            )


class Auto:
    """Fits every other method and takes the one that held-out groups speak for."""

    name = "auto"
    summary = "fit the other methods, judge them on held-out groups, take the best for --for"
    source = "nested cross-validation: Varma and Simon, BMC Bioinformatics 7 (2006)"
    settings = AutoSettings
    chooses = True
    takes_absent = True  # a candidate that does not is a row of the table that says so

    def fit(self, pairs: ClosingPairs, settings: AutoSettings, seed: int, *, folder: Path) -> FittedMethod:
        """The best candidate, fitted on all rows of `pairs.train`; `pairs.validation` chooses nothing.

        Raises:
            UsageError: unknown methods, notes of another call. DataRefused: rows that no candidate can be fitted on.
        """
        candidates = candidates_of(settings.methods, pairs.anchor)
        folds = folds_of(
            pairs,
            settings.num_folds,
            settings.num_repeats or _repeats(pairs),
            settings.validation_share,
            settings.num_bootstrap,
            seed,
        )
        if pairs.work is not None:
            _continue_work(pairs.work, pairs, settings, candidates, seed)
        judged = Judge(folds, settings.seconds or None, pairs.work).judge(candidates)
        choice = choose(judged, settings.purpose)
        taken = next(candidate for candidate in candidates if candidate.name == choice.name)
        fitted = fit_method(taken.method, _own_validation(pairs, settings, seed), taken.settings, seed, folder=folder)
        return FittedMethod(fitted.model, {**fitted.facts, "choice": described(choice, judged, folds, taken, settings)})


def _repeats(pairs: ClosingPairs) -> int:
    return REPEATS_OF_FEW if len(np.unique(pairs.groups[pairs.train])) < FEW_GROUPS else 1


def _own_validation(pairs: ClosingPairs, settings: AutoSettings, seed: int) -> ClosingPairs:
    """The train rows split once more, so that the rows of the figures stop no training."""
    train, validation = split_rows(pairs.groups[pairs.train], None, settings.validation_share, seed)
    return replace(pairs, train=pairs.train[train], validation=pairs.train[validation], fits={})


def _continue_work(
    work: Path, pairs: ClosingPairs, settings: AutoSettings, candidates: Sequence[Candidate], seed: int
) -> None:
    """Begin the directory of notes, or go on in it: notes of other rows or settings count for nothing here.

    Raises:
        UsageError: it holds the notes of another call.
    """
    kept = {key: value for key, value in asdict(settings).items() if key not in ("purpose", "seconds", "methods")}
    plan: dict[str, Any] = {
        "rows": _digest(pairs),
        "settings": kept,
        "seed": seed,
        "candidates": {one.name: repr(one.settings) for one in candidates},
    }
    work.mkdir(parents=True, exist_ok=True)
    if (work / PLAN).exists():
        before = read_object(work / PLAN)
        noted = {**plan["candidates"], **before.get("candidates", {})}
        now = {**plan, "candidates": {**noted, **plan["candidates"]}}
        check_same({**before, "candidates": noted}, now, f"{work} holds fits of another call", ADVICE)
        plan["candidates"] = noted
    write_json(work / PLAN, plan)


def _digest(pairs: ClosingPairs) -> str:
    """sha256 of everything that a fit and its figures depend on."""
    digest = hashlib.sha256()
    labels = () if pairs.labels is None else (pairs.labels,)
    masks = () if pairs.present is None else pairs.present.values()
    for array in (pairs.train, pairs.validation, pairs.positives, pairs.groups, *labels, *masks):
        digest.update(np.ascontiguousarray(array).tobytes())
    for name, matrix in pairs.embeddings.items():
        digest.update(f"{name} {tuple(matrix.shape)}".encode())
        for part in blocks(len(matrix), ROWS_AT_ONCE):
            digest.update(np.ascontiguousarray(matrix[part].numpy()).data)
    return digest.hexdigest()


def described(
    choice: Choice, judged: Sequence[Judged], folds: Sequence[HeldOutPart], taken: Candidate, settings: AutoSettings
) -> dict[str, Any]:
    """What `results.json` says of the choice: the candidate, why, and the table of all candidates."""
    return {
        "method": taken.method.name,
        "settings": plain(asdict(taken.settings)),
        "name": choice.name,
        "purpose": settings.purpose,
        "why": choice.why,
        "tied": list(choice.tied),
        "folds": len(folds),
        "judged_rows": len(np.unique(np.concatenate([fold.judged for fold in folds]))),
        "candidates": [
            {
                "name": one.name,
                "seconds": round(one.seconds, 2),
                "reason": one.reason,
                "is_reference": one.is_reference,
                "figures": {key: one.interval(key) for key in KEYS if key in one.figures},
            }
            for one in judged
        ],
    }


METHOD = CLOSING_METHODS.add(Auto.name, Auto())
