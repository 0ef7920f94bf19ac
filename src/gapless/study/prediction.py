"""What closing would bring, before anything is closed: quick methods, fitted and judged on held-out groups.

    predict(rows)["cca"]["retrieval/mean/R@10"]    # {"before": 0.02, "after": 0.21, "low": 0.18, "high": 0.25}

Every fold of groups is closed by a method that was fitted on the others, as `gapless close --method auto` judges its
candidates; here only methods that take seconds, on few folds.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from gapless.closing.base import ClosingSettings, closing_method
from gapless.closing.candidates import Candidate
from gapless.closing.close import paired_rows, pairs_of
from gapless.closing.judging import Judge, folds_of
from gapless.closing.purposes import Judged
from gapless.core.errors import GaplessError
from gapless.embeddings.embedding_set import EmbeddingSet

QUICK_METHODS = ("center", "cca")
NUM_FOLDS = 3
NUM_BOOTSTRAP = 200
PREDICTED = (
    "gap/centroid_distance_unbiased",
    "gap/margin",
    "gap/d_prime",
    "gap/mixing@10",
    "retrieval/mean/R@10",
    "mixed/R@10",
)


def predict(
    rows: EmbeddingSet, methods: Sequence[str] = QUICK_METHODS, *, num_folds: int = NUM_FOLDS, seed: int = 0
) -> dict[str, dict[str, Any]]:
    """The figures of held-out groups as they are and after each method.

    Recall is among the rows of a fold, at most 2,000: its change foretells, its height is that of such a gallery.

    Args:
        rows: embeddings with a dim for all modalities; their groups stay whole.
        methods: names of closing methods, with their default settings.
        num_folds: at least 2.
        seed: of the folds.

    Returns:
        method -> key -> before, after, and the 95 % interval of after; a method that cannot be fitted has only
        `reason`. Empty where there are too few groups to hold any out.
    """
    try:
        embeddings, present, (groups, ids, captions, positives) = paired_rows(
            rows.embeddings, rows.present, (rows.groups, rows.ids, rows.captions, rows.positives)
        )
        pairs, _ = pairs_of(embeddings, groups, ClosingSettings(), seed, ids, None, captions, positives, present)
        everything = np.sort(np.concatenate([pairs.train, pairs.validation]))
        whole = replace(pairs, train=everything)
        folds = folds_of(whole, num_folds, 1, ClosingSettings().validation_share, NUM_BOOTSTRAP, seed)
    except GaplessError:
        return {}
    candidates = []
    for name in methods:
        method = closing_method(name)
        candidates.append(Candidate(name, method, method.settings()))
    before, *after = Judge(folds, None, None).judge(candidates)
    return {one.name: {"reason": one.reason} if one.reason else _changes(before, one) for one in after}


def _changes(before: Judged, after: Judged) -> dict[str, Any]:
    changes = {}
    for key in PREDICTED:
        if key in after.figures:
            interval = after.interval(key)
            bounds = {"low": interval["low"], "high": interval["high"]}
            changes[key] = {"before": before.value(key), "after": after.value(key), **bounds}
    return changes
