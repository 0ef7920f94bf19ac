"""The warnings of presence are adjusted for how many labels and modalities an audit asks: Holm's step-down method."""

import numpy as np
import pytest

from gapless.auditing.presence import MAX_P, PERMUTATIONS, adjust, holm, label_figures, presence_notes, split_figures

GROUPS = 120


def drawn(seed, share=0.5, count=GROUPS):
    return np.random.default_rng(seed).random(count) < share


def asked(present, labels, tests):
    groups = np.arange(GROUPS)
    figures = {name: label_figures(present, codes, groups, tests) for name, codes in labels.items()}
    of_labels, _ = adjust(figures, {})
    return {"rows": GROUPS, "present": dict.fromkeys(present, GROUPS), "labels": of_labels}


def test_holm_is_the_value_worked_by_hand():
    # sorted 0.001, 0.01, 0.02, 0.9; times 4, 3, 2, 1: 0.004, 0.03, 0.04, 0.9
    assert holm([0.02, 0.001, 0.9, 0.01]) == pytest.approx([0.04, 0.004, 0.9, 0.03])
    assert holm([0.01, 0.011]) == pytest.approx([0.02, 0.02])  # a larger one is never adjusted below a smaller one
    assert holm([0.6, 0.7]) == [1.0, 1.0]
    assert holm([]) == []


@pytest.mark.parametrize("seed", range(3))
def test_it_agrees_with_bonferroni_at_the_smallest_and_never_exceeds_it(seed):
    p_values = np.random.default_rng(seed).random(7) ** 3
    adjusted = np.array(holm(p_values.tolist()))
    assert adjusted.min() == pytest.approx(min(1.0, 7 * p_values.min()))
    assert (adjusted <= np.minimum(1, 7 * p_values) + 1e-12).all()
    assert (adjusted >= p_values - 1e-12).all()
    assert (np.diff(adjusted[np.argsort(p_values)]) >= 0).all()


def test_both_questions_are_adjusted_together():
    of_labels, between = adjust({"a": {"p_value": 0.004}}, {"ecg": {"p_value": 0.5}, "labs": {"p_value": 0.004}})
    assert of_labels["a"]["p_adjusted"] == between["labs"]["p_adjusted"] == pytest.approx(0.012)
    assert between["ecg"] == {"p_value": 0.5, "p_adjusted": 0.5}


def test_twenty_unrelated_labels_warn_in_one_audit_of_a_hundred():
    """p-values of unrelated labels are uniform; unadjusted, 1 - 0.99^20 = 18 % of such audits would warn."""
    audits = np.random.default_rng(0).random((4000, 20))
    adjusted = np.mean([min(holm(p_values.tolist())) <= MAX_P for p_values in audits])
    assert adjusted == pytest.approx(0.01, abs=0.005)
    assert np.mean(audits.min(axis=1) <= MAX_P) == pytest.approx(0.18, abs=0.02)


def test_real_relations_among_many_labels_still_warn():
    """With 199 permutations alone the smallest p is 0.005: no label of two or more could pass."""
    has = drawn(0)
    labels = {f"label {seed}": drawn(100 + seed).astype(np.int64) for seed in range(8)}
    labels["rhythm"] = has.astype(np.int64)
    presence = asked({"ecg": has}, labels, len(labels))
    rhythm = presence["labels"]["rhythm"]
    assert rhythm["p_value"] == pytest.approx(1 / (len(labels) * (1 + PERMUTATIONS)))
    assert rhythm["p_adjusted"] == pytest.approx(1 / (1 + PERMUTATIONS))
    (note,) = [note for note in presence_notes(presence) if "presence alone tells" in note]
    assert "'rhythm' (p 0.005" in note


def test_splits_are_drawn_more_finely_too():
    splits = ["train"] * 80 + ["test"] * 40
    has = np.concatenate([drawn(0, 0.1, 80), drawn(1, 0.95, 40)])
    (figures,) = split_figures({"ecg": has}, splits, np.arange(GROUPS), tests=4).values()
    assert figures["p_value"] == pytest.approx(1 / (4 * (1 + PERMUTATIONS)))
