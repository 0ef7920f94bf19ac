"""Agreement of embeddings with labels: clusters, nearest neighbours and linear probes.

The rows of all modalities are stacked: where there is a gap, clusters separate the modalities and not the classes.
Folds are by group: rows of one article or patient, in any modality, are in one fold.
"""

import math
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from gapless.core.errors import DataRefused
from gapless.core.geometry import blocks, unit_norm
from gapless.metrics.gap import group_folds
from gapless.metrics.uncertainty import Figure, GroupSums, share_figure

NUM_CLUSTER_SEEDS = 10
NUM_NEIGHBOURS = 10
ROWS_AT_ONCE = 1024
CLUSTER_FIGURES = ("v_measure", "ami", "ari")
HELD_OUT_FIGURES = ("knn_accuracy", "linear_probe", "zero_shot_accuracy")  # a row is classified by other groups

Seeds = np.ndarray


@dataclass(frozen=True)
class GroupingFigures:
    """`over_seeds` holds one value per k-means seed; `figures` can be resampled."""

    over_seeds: dict[str, Seeds]
    figures: dict[str, Figure]
    counts: dict[str, int]


def sample_rows(groups: GroupSums, usable: Tensor, maximum: int, seed: int) -> Tensor:
    """Indices of the usable rows, ascending; of whole groups drawn at random while they fit when there are more."""
    rows = usable.nonzero().flatten()
    if len(rows) <= maximum:
        return rows
    sizes = torch.bincount(groups.index[rows], minlength=groups.num_groups)
    order = torch.from_numpy(np.random.default_rng(seed).permutation(groups.num_groups))
    chosen = torch.zeros(groups.num_groups, dtype=torch.bool)
    chosen[order[sizes[order].cumsum(dim=0) <= maximum]] = True
    return rows[chosen[groups.index[rows]]]


def grouping(
    modalities: Mapping[str, Tensor],
    codes: Tensor,
    groups: GroupSums,
    *,
    prototype: str,
    maximum: int,
    seed: int = 0,
    present: Mapping[str, Tensor] | None = None,
) -> GroupingFigures:
    """All figures of `grouping/*` for one set of labels; `HELD_OUT_FIGURES` are NaN where the rows are of one group.

    Args:
        modalities: name -> [pair, dim] unit-norm rows.
        codes: [pair] label codes, -1 = missing.
        groups: rows of one group are in one fold.
        prototype: the modality whose class means classify the others (zero-shot), usually the text.
        maximum: pairs used at most; more are sampled by whole groups, and `num_pairs` says how many were used.
        present: modality -> [pair] bool, the rows that a modality is stacked with; None for all.
    """
    rows = sample_rows(groups, codes >= 0, maximum, seed)
    labels = torch.unique(codes[rows], return_inverse=True)[1]
    names = list(modalities)
    own = {name: slice(None) if present is None else present[name][rows] for name in names}
    parts = {name: modalities[name][rows][own[name]] for name in names}
    stacked = torch.cat(list(parts.values()))
    all_labels = torch.cat([labels[own[name]] for name in names])
    num_labels = int(labels.max()) + 1 if len(labels) else 0
    if num_labels < 2:
        raise DataRefused(
            f"grouping needs labels of at least two classes, found {num_labels} in the {len(rows)} rows used"
        )
    over_seeds = cluster_agreement(stacked, all_labels, num_labels, seed)
    stacked_groups = GroupSums(torch.cat([groups.index[rows][own[name]] for name in names]), groups.num_groups)
    figures = dict.fromkeys(HELD_OUT_FIGURES, Figure(math.nan))
    used_groups = GroupSums(*_renumber(groups.index[rows]))
    if used_groups.num_groups > 1:  # else there is no group to hold out
        folds = group_folds(used_groups, seed)[used_groups.index]
        all_folds = torch.cat([folds[own[name]] for name in names])
        queries = [name for name in names if name != prototype]
        known = parts[prototype], labels[own[prototype]], folds[own[prototype]]
        correct = [_zero_shot_correct(parts[name], labels[own[name]], folds[own[name]], *known) for name in queries]
        asked = torch.cat([groups.index[rows][own[name]] for name in queries])
        figures = {
            "knn_accuracy": share_figure(_knn_correct(stacked, all_labels, all_folds), stacked_groups),
            "linear_probe": share_figure(_probe_correct(stacked, all_labels, all_folds), stacked_groups),
            "zero_shot_accuracy": share_figure(torch.cat(correct), GroupSums(asked, groups.num_groups)),
        }
    majority = (all_labels == all_labels.bincount().argmax()).double()
    figures["majority_accuracy"] = share_figure(majority, stacked_groups)
    return GroupingFigures(over_seeds, figures, {"num_pairs": len(rows), "num_labels": num_labels})


def _renumber(index: Tensor) -> tuple[Tensor, int]:
    values, codes = torch.unique(index, return_inverse=True)
    return codes, len(values)


def cluster_agreement(stacked: Tensor, labels: Tensor, num_labels: int, seed: int) -> dict[str, Seeds]:
    """V-measure, AMI and ARI of k-means (k = number of labels) with the labels, and of random clusters beside.

    V-measure in [0, 1], AMI and ARI at most 1 with 0 = chance; higher is better. One value per seed.
    """
    from sklearn.metrics import adjusted_mutual_info_score, adjusted_rand_score, v_measure_score

    scores = dict(zip(CLUSTER_FIGURES, (v_measure_score, adjusted_mutual_info_score, adjusted_rand_score), strict=True))
    truth = labels.cpu().numpy()
    agreement: dict[str, list[float]] = {f"{part}{name}": [] for part in ("", "random/") for name in scores}
    for trial, clusters in enumerate(_clusterings(stacked, num_labels, seed)):
        chance = np.random.default_rng(seed + trial).integers(num_labels, size=len(truth))
        for name, score in scores.items():
            agreement[name].append(float(score(truth, clusters)))
            agreement[f"random/{name}"].append(float(score(truth, chance)))
    return {name: np.array(values) for name, values in agreement.items()}


def _clusterings(stacked: Tensor, num_clusters: int, seed: int) -> Iterator[np.ndarray]:
    """The k-means cluster of each row, once for each of `NUM_CLUSTER_SEEDS` seeds."""
    from sklearn.cluster import KMeans
    from sklearn.exceptions import ConvergenceWarning

    rows = stacked.cpu().numpy()
    for trial in range(NUM_CLUSTER_SEEDS):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)  # fewer distinct rows than classes: a collapsed model
            yield KMeans(num_clusters, n_init=1, random_state=seed + trial).fit_predict(rows)


def v_measure_under_draws(
    modalities: Mapping[str, Tensor],
    codes: Tensor,
    groups: GroupSums,
    draws: Tensor,
    seed: int = 0,
    present: Mapping[str, Tensor] | None = None,
) -> Tensor:
    """`grouping/v_measure` and its value under draws of groups; the rows are resampled, the clusters stay.

    V is twice the mutual information of clusters and labels over the sum of their entropies, from the table that
    counts rows by label and cluster, each row as often as its group is drawn; the mean over the k-means seeds. Repeated
    rows raise V, as they lower entropies, so that the replicates are moved to the value on average.

    Args:
        modalities: name -> [pair, dim] unit-norm rows, stacked for the clusters.
        codes: [pair] label codes, -1 = missing.
        draws: [replicate, group] how often each group is drawn.
        present: modality -> [pair] bool, the rows that a modality is stacked with; None for all.

    Returns:
        [1 + replicate] float64 in [0, 1]; NaN where fewer than two labels are there.

    Reference: Rosenberg and Hirschberg, EMNLP 2007.
    """
    usable = codes >= 0
    labels, num_labels = _renumber(codes[usable])
    if num_labels < 2:
        return torch.full((1 + len(draws),), torch.nan, dtype=torch.float64)
    own = {name: slice(None) if present is None else present[name][usable] for name in modalities}
    stacked = torch.cat([rows[usable][own[name]] for name, rows in modalities.items()])
    weights = torch.cat([torch.ones(1, groups.num_groups, dtype=torch.float64), draws])[:, groups.index[usable]]
    weights = torch.cat([weights[:, own[name]] for name in modalities], dim=1)
    label_of_row = torch.cat([labels[own[name]] for name in modalities])
    values = []
    for clusters in _clusterings(stacked, num_labels, seed):
        cell = label_of_row * num_labels + torch.from_numpy(clusters).long()
        table = torch.zeros(len(weights), num_labels**2, dtype=torch.float64).index_add_(1, cell, weights)
        share = (table / table.sum(dim=1, keepdim=True)).view(-1, num_labels, num_labels)
        parts = [_entropy(share.sum(dim=2)), _entropy(share.sum(dim=1)), _entropy(share.flatten(1))]
        total = parts[0] + parts[1]
        values.append(torch.where(total > 0, 2 * (total - parts[2]) / total, torch.ones_like(total)))
    mean = torch.stack(values).mean(dim=0)
    return torch.cat([mean[:1], mean[1:] - mean[1:].mean() + mean[0]])


def _entropy(shares: Tensor) -> Tensor:
    """[replicate, part] shares that add up to 1 -> [replicate] entropies in nats."""
    entropies: Tensor = torch.special.entr(shares).sum(dim=1)
    return entropies


def _knn_correct(rows: Tensor, labels: Tensor, folds: Tensor) -> Tensor:
    """1 where the majority label of the 10 nearest rows of other folds is right; the cosine sum breaks ties."""
    correct = torch.zeros(len(rows), dtype=torch.float64)
    num_labels = int(labels.max()) + 1
    for fold in range(int(folds.max()) + 1):
        test_rows, rest = (folds == fold).nonzero().flatten(), (folds != fold).nonzero().flatten()
        gallery, answers = rows[rest].T.contiguous(), labels[rest]
        for part in blocks(len(test_rows), ROWS_AT_ONCE):
            queries = test_rows[part]
            near = (rows[queries] @ gallery).topk(min(NUM_NEIGHBOURS, len(rest)), dim=1)
            # a vote counts 1 plus less than 1/10 of a vote by its cosine, so that the cosine only breaks ties
            votes = (1.0 + near.values.double() / (4 * NUM_NEIGHBOURS)).clamp_min(0)
            ballot = torch.zeros(len(queries), num_labels, dtype=torch.float64)
            ballot.scatter_add_(1, answers[near.indices], votes)
            correct[queries] = (ballot.argmax(dim=1) == labels[queries]).double()
    return correct


def _probe_correct(rows: Tensor, labels: Tensor, folds: Tensor) -> Tensor:
    """1 where a linear classifier (sklearn RidgeClassifier, alpha 1) trained on the other folds is right."""
    from sklearn.linear_model import RidgeClassifier

    x, y, fold_of = rows.cpu().numpy(), labels.cpu().numpy(), folds.cpu().numpy()
    correct = np.zeros(len(x))
    for fold in np.unique(fold_of):
        is_test = fold_of == fold
        if len(np.unique(y[~is_test])) < 2:
            guess = np.full(is_test.sum(), y[~is_test][0])
        else:
            guess = RidgeClassifier(alpha=1.0).fit(x[~is_test], y[~is_test]).predict(x[is_test])
        correct[is_test] = guess == y[is_test]
    return torch.from_numpy(correct)


def _zero_shot_correct(
    queries: Tensor, labels: Tensor, folds: Tensor, prototypes: Tensor, known_labels: Tensor, known_folds: Tensor
) -> Tensor:
    """1 where the nearest class mean of the prototype modality, over the other folds, is the query's own class."""
    correct = torch.zeros(len(queries), dtype=torch.float64)
    num_labels = int(torch.cat([labels, known_labels]).max()) + 1
    for fold in folds.unique().tolist():
        is_test, is_known = folds == fold, known_folds != fold
        means = prototypes.new_zeros(num_labels, prototypes.shape[1])
        means.index_add_(0, known_labels[is_known], prototypes[is_known])
        absent = torch.bincount(known_labels[is_known], minlength=num_labels) == 0
        scores = (queries[is_test] @ unit_norm(means).T).masked_fill(absent, -torch.inf)
        correct[is_test] = (scores.argmax(dim=1) == labels[is_test]).double()
    return correct


def mean_over_labels(parts: Sequence[GroupingFigures]) -> dict[str, Seeds]:
    """Per seed, the mean over several sets of labels."""
    return {name: np.mean([part.over_seeds[name] for part in parts], axis=0) for name in parts[0].over_seeds}
