"""Clusters and probes: what they reach when the answer is known, and what a leaky split would have claimed."""

import math

import numpy as np
import pytest
import torch

from gapless.core.errors import DataRefused
from gapless.metrics.grouping import sample_rows
from gapless.metrics.labels import label_codes
from gapless.metrics.measure import measure
from gapless.metrics.uncertainty import GroupSums


def three_clusters(n=90, gap=0.0, noise=0.05, seed=0):
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(n) % 3
    centre = torch.eye(6)[labels]
    shift = gap * torch.eye(6)[5]
    z, w = (centre + noise * torch.randn(2, n, 6, generator=generator)).unbind()
    return {"image": z + shift, "text": w - shift}, [f"class {int(label)}" for label in labels]


def test_clean_clusters_score_one_and_random_ones_score_chance():
    embeddings, labels = three_clusters()
    figures = measure(embeddings, labels, include=("grouping",))
    for key in ("v_measure", "ami", "ari"):
        assert figures[f"grouping/{key}"]["mean"] > 0.75, key  # one start of k-means each: some seeds stick
        assert abs(figures[f"grouping/random/{key}"]["mean"]) < 0.1
    for key in ("knn_accuracy", "linear_probe", "zero_shot_accuracy"):
        assert figures[f"grouping/{key}"] == 1.0
    assert figures["grouping/majority_accuracy"] == pytest.approx(1 / 3)
    assert figures["grouping/num_pairs"] == 90
    assert figures["grouping/num_labels"] == 3


def test_a_gap_destroys_the_clusters_that_retrieval_still_finds():
    embeddings, labels = three_clusters(gap=3.0)
    figures = measure(embeddings, labels, include=("grouping", "retrieval"))
    assert figures["grouping/v_measure"]["mean"] < 0.7
    assert figures["grouping/zero_shot_accuracy"] > 0.9


def test_labels_carried_by_the_patient_alone_do_not_leak_through_a_split_by_group():
    """Rows of a patient coincide, labels of patients are drawn by lot: only a leak could tell them."""
    generator = torch.Generator().manual_seed(0)
    patient = torch.arange(200) // 5
    rows = torch.randn(40, 16, generator=generator)[patient] + 0.01 * torch.randn(200, 16, generator=generator)
    labels = torch.randint(0, 2, (40,), generator=generator)[patient]
    embeddings = {"image": rows, "text": rows + 0.01 * torch.randn(200, 16, generator=generator)}
    honest = measure(embeddings, labels, patient, include=("grouping",))
    leaky = measure(embeddings, labels, None, include=("grouping",))
    assert honest["grouping/knn_accuracy"] < 0.7
    assert leaky["grouping/knn_accuracy"] > 0.85  # the control


def test_separability_is_half_for_one_distribution_and_one_for_two():
    generator = torch.Generator().manual_seed(0)
    z, w = torch.randn(2, 400, 16, generator=generator)
    closed = measure({"image": z, "text": w}, include=("probe",), num_bootstrap=200)["gap/separability_auc"]
    assert abs(closed["value"] - 0.5) < 0.08
    assert closed["low"] < closed["value"] < closed["high"]
    apart = measure({"image": z, "text": w + 5}, include=("probe",))["gap/separability_auc"]
    assert apart == pytest.approx(1.0)
    same = torch.ones(50, 4)
    assert measure({"image": same, "text": same}, include=("probe",))["gap/separability_auc"] == 0.5


def test_the_separability_probe_agrees_with_sklearn():
    from sklearn.linear_model import RidgeClassifier
    from sklearn.metrics import roc_auc_score

    from gapless.metrics.gap import group_folds

    generator = torch.Generator().manual_seed(0)
    z, w = torch.nn.functional.normalize(torch.randn(2, 120, 8, generator=generator, dtype=torch.float64), dim=2)
    w = torch.nn.functional.normalize(w + 0.2, dim=1)
    groups = torch.arange(120) // 3
    fold = group_folds(GroupSums(groups, 40), seed=0)[groups].repeat(2).numpy()
    rows, truth = torch.cat([z, w]).numpy(), np.repeat([0, 1], 120)
    expected = []
    for held in (fold == number for number in range(5)):
        probe = RidgeClassifier(alpha=1.0).fit(rows[~held], truth[~held])
        expected.append(roc_auc_score(truth[held], probe.decision_function(rows[held])))
    found = measure({"image": z, "text": w}, groups=groups, include=("probe",))["gap/separability_auc"]
    assert found == pytest.approx(np.mean(expected), abs=1e-9)


def test_the_auc_counts_pairs_and_halves_ties():
    import oracles

    from gapless.metrics.gap import _auc

    generator = np.random.default_rng(0)
    score = generator.integers(0, 6, size=40) / 4
    positive = generator.integers(0, 2, size=40)
    value = _auc(torch.from_numpy(score), torch.from_numpy(positive), torch.arange(40))
    expected = oracles.auc(score[positive == 0].tolist(), score[positive == 1].tolist())
    assert float(value(torch.ones(1, 40, dtype=torch.float64))) == pytest.approx(expected, abs=1e-12)


def test_several_label_sets_have_keys_of_their_own_and_a_mean():
    embeddings, labels = three_clusters()
    figures = measure(embeddings, {"organ": labels, "side": [row % 2 for row in range(90)]}, include=("grouping",))
    for key in ("knn_accuracy", "linear_probe"):
        pair = [figures[f"grouping/{name}/{key}"] for name in ("organ", "side")]
        assert figures[f"grouping/{key}"] == pytest.approx(sum(pair) / 2)
    means = [figures[f"grouping/{name}/v_measure"]["mean"] for name in ("organ", "side")]
    assert figures["grouping/v_measure"]["mean"] == pytest.approx(sum(means) / 2)
    assert figures["grouping/organ/num_labels"] == 3


def test_a_sample_is_of_whole_groups_and_is_reported():
    embeddings, labels = three_clusters(n=300)
    groups = [row // 6 for row in range(300)]
    figures = measure(embeddings, labels, groups, include=("grouping",), max_grouping_pairs=100)
    assert figures["grouping/num_pairs"] == 96
    index = torch.tensor(groups)
    rows = sample_rows(GroupSums(index, 50), torch.ones(300, dtype=torch.bool), 100, seed=0)
    assert torch.all(torch.bincount(index[rows]) % 6 == 0)


def test_missing_labels_are_left_out_and_one_class_is_refused():
    assert label_codes("x", ["a", None, "", float("nan"), "b", "a"], 6).tolist() == [0, -1, -1, -1, 1, 0]
    embeddings, labels = three_clusters()
    figures = measure(embeddings, [None, *labels[1:]], include=("grouping",))
    assert figures["grouping/num_pairs"] == 89
    with pytest.raises(DataRefused, match="at least two classes, found only 'a' in 90 rows"):
        measure(embeddings, ["a"] * 90)
    with pytest.raises(DataRefused, match="no label"):
        measure(embeddings, [""] * 90)
    with pytest.raises(ValueError, match="expected 90 labels, one per row, got 3"):
        measure(embeddings, ["a", "b", "c"])


def test_a_collapsed_model_can_be_clustered_without_a_warning():
    same = torch.ones(30, 4)
    figures = measure({"image": same, "text": same}, ["a", "b", "c"] * 10, include=("grouping",))
    assert figures["grouping/v_measure"]["mean"] == pytest.approx(0, abs=1e-9)


@pytest.mark.parametrize("num_bootstrap", [0, 20])
def test_rows_of_one_group_have_no_held_out_figures(num_bootstrap: int):
    """With labels as without them (`gap/separability_auc`): what needs a group to hold out is missing."""
    embeddings, labels = three_clusters()
    figures = measure(embeddings, labels, ["patient"] * 90, num_bootstrap=num_bootstrap)
    values = {
        key: value["value"] if isinstance(value, dict) and "value" in value else value for key, value in figures.items()
    }
    for key in (
        "grouping/knn_accuracy",
        "grouping/linear_probe",
        "grouping/zero_shot_accuracy",
        "gap/separability_auc",
    ):
        assert math.isnan(values[key]), key
    assert values["grouping/majority_accuracy"] == pytest.approx(1 / 3)
    assert values["grouping/v_measure"]["mean"] > 0.75


def test_labels_that_one_group_alone_has_leave_the_others_their_figures():
    embeddings, labels = three_clusters()
    groups = [f"patient {row // 6}" for row in range(90)]
    known = [label if row < 6 else None for row, label in enumerate(labels)]
    figures = measure(embeddings, {"all": labels, "few": known}, groups, include=("grouping",))
    assert figures["grouping/all/knn_accuracy"] == 1.0
    assert math.isnan(figures["grouping/few/knn_accuracy"])
    assert figures["grouping/few/num_pairs"] == 6
