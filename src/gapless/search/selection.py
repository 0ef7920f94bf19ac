"""What selected samples of a collection have in common: their labels, the texts near them, and their modality gap."""

import csv
import io
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from gapless.metrics.gap import off_diagonal_cosine
from gapless.metrics.uncertainty import GroupSums
from gapless.search.collection import Collection, Hit, Pairs
from gapless.search.overview import MIN_PAIRS, measured

NEAR_TEXTS = 5
FORMULA_STARTS = ("=", "+", "-", "@", "\t", "\r")  # a spreadsheet would compute such a cell
# The other figures of the gap need more rows than people select by hand.
SELECTION_FIGURES = ("gap/centroid_distance_unbiased", "gap/true_pair_cosine", "gap/margin")


@dataclass(frozen=True)
class SharedLabel:
    """A value of a label: how many selected samples have it, and its share of all rows of the collection."""

    value: str
    count: int
    share: float
    collection_share: float


def shared_labels(collection: Collection, pairs: Pairs) -> dict[str, list[SharedLabel]]:
    """Label -> the values that the samples have, those of the most samples first; labels without a value left out."""
    num_rows, totals = collection.count(), collection.label_values()
    found = {}
    for name, values in pairs.labels.items():
        counts = Counter(value for value in values if value is not None)
        in_all = dict(totals[name])
        shared = [
            SharedLabel(value, count, count / len(values), in_all.get(value, 0) / num_rows)
            for value, count in counts.items()
        ]
        if shared:
            found[name] = sorted(shared, key=lambda one: (-one.count, one.value))
    return found


def mean_vector(pairs: Pairs) -> np.ndarray | None:
    """[dim] unit norm: the normalised sum of the samples' directions, each the normalised sum of its rows.

    A sample of five modalities counts as much as one of a single modality. None where the rows cancel out.
    """
    sums = np.sum([rows.astype(np.float64) for rows in pairs.vectors.values()], axis=0)
    norms = np.linalg.norm(sums, axis=1, keepdims=True)
    total = np.divide(sums, norms, out=np.zeros_like(sums), where=norms > 0).sum(axis=0)
    norm = np.linalg.norm(total)
    return None if norm < 1e-9 else np.asarray(total / norm, dtype=np.float32)


def nearest_texts(collection: Collection, pairs: Pairs, modality: str | None, count: int = NEAR_TEXTS) -> list[Hit]:
    """The rows of a modality of texts nearest to the mean of the samples, their own among them."""
    vector = mean_vector(pairs)
    if vector is None or modality not in collection.info["modalities"]:
        return []
    return collection.search(vector, k=count, modality=modality)


def within_cosines(pairs: Pairs) -> dict[str, float]:
    """Modality -> mean cosine in [-1, 1] of the rows of two different samples; only modalities that two have."""
    found = {}
    for name, mask in pairs.present.items():
        count = int(mask.sum())
        if count >= 2:
            rows = torch.from_numpy(pairs.vectors[name][mask])
            found[name] = off_diagonal_cosine(rows, rows, GroupSums(torch.arange(count), count)).value
    return found


def gap_of(pairs: Pairs) -> dict[str, float]:
    """Key -> figure of the gap of the samples that have two modalities; empty for fewer than two samples."""
    if num_pairs_of(pairs) < MIN_PAIRS:
        return {}
    names = [name for name, mask in pairs.present.items() if mask.any()]
    present = {name: torch.from_numpy(pairs.present[name]) for name in names}
    rows = {name: torch.from_numpy(pairs.vectors[name]) for name in names}
    is_complete = all(mask.all() for mask in present.values())
    found = measured(rows, ("gap",), present=None if is_complete else present) or {}
    return {key: float(found[key]) for key in SELECTION_FIGURES if key in found and np.isfinite(found[key])}


def num_pairs_of(pairs: Pairs) -> int:
    """How many of the samples have two modalities or more."""
    return int((np.sum(list(pairs.present.values()), axis=0) >= 2).sum())


def csv_of(pairs: Pairs) -> str:
    """A line for each sample: id, its modalities, group, caption and labels, as a CSV with a head.

    A cell that a spreadsheet would take as a formula gets an apostrophe before it, except numbers, and ids, by which
    the lines are joined with other tables.
    """
    stream = io.StringIO()
    writer = csv.writer(stream)
    writer.writerow(["id", "modalities", "group", "caption", *pairs.labels])
    for n, sample in enumerate(pairs.ids):
        modalities = " ".join(name for name, mask in pairs.present.items() if mask[n])
        values: Sequence[str | None] = [pairs.groups[n], pairs.captions[n], *(of[n] for of in pairs.labels.values())]
        writer.writerow([sample, modalities, *(safe_cell(value) for value in values)])
    return stream.getvalue()


def safe_cell(value: str | None) -> str:
    """The cell of a CSV; text that a spreadsheet would compute has an apostrophe before it.

    >>> safe_cell("=1+1"), safe_cell("-3.5"), safe_cell("cyst"), safe_cell(None)
    ("'=1+1", '-3.5', 'cyst', '')
    """
    if value is None:
        return ""
    return f"'{value}" if value.startswith(FORMULA_STARTS) and not _is_number(value) else value


def _is_number(value: str) -> bool:
    try:
        float(value)
    except ValueError:
        return False
    return True
