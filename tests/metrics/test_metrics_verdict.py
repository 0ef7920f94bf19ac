"""The verdict: drawn gaps of known kind get their own sentence; closed, collapsed and unrelated rows an honest one."""

import numpy as np
import pytest

from gapless import measure
from gapless.metrics.verdict import shares_of, verdict_of

PARTS = ("gap", "retrieval", "mixed", "probe", "further")


def drawn(shift=0.0, noise=0.5, spread=0.0, turned=False, n=400, dim=48, seed=0):
    random = np.random.default_rng(seed)
    scale = np.linspace(1.5, 0.5, dim)
    z = random.standard_normal((n, dim)) * scale
    w = (z + noise * random.standard_normal((n, dim)) * scale) * np.linspace(1 + spread, 1 - spread, dim)
    if turned:
        w = w @ np.linalg.qr(random.standard_normal((dim, dim)))[0]
    push = np.full(dim, shift)
    return {"image": z + push, "text": w - push}


def judged(rows, **options):
    n = len(next(iter(rows.values())))
    figures = measure(rows, include=PARTS, num_bootstrap=50)
    return verdict_of(figures, n, modalities=tuple(rows), **options)


def test_a_shift_is_called_a_shift_and_goes_by_centring():
    verdict = judged(drawn(shift=1.0, noise=1.0, n=700), source="--image a.npy --text b.npy")
    assert verdict.kind == "shift"
    assert verdict.helps["mixed search"] == verdict.helps["clustering"] == "yes"
    assert "gapless close --image a.npy --text b.npy --out CLOSED --method" in verdict.sentences[2]
    moved = measure({"image": drawn(1.0)["image"], "text": drawn(1.0)["text"]}, include=PARTS)
    assert shares_of(moved)["shift"] > 0.5


def test_a_rotation_is_a_residual_that_a_map_can_undo():
    verdict = judged(drawn(turned=True))
    assert verdict.kind == "residual"
    assert "a map fitted on pairs can undo a part of it" in verdict.sentences[0]
    assert verdict.helps["retrieval"] == "yes"
    assert verdict.method == "auto"
    assert "can undo" not in judged(drawn(noise=2.0)).sentences[0]  # the control: a residual of noise


def test_a_difference_of_spread_is_seen():
    flat = judged(drawn(noise=0.1, spread=0.9))
    assert flat.kind == "spread"
    assert flat.shares["spread"] > 5 * judged(drawn(noise=0.5)).shares["spread"]


@pytest.mark.parametrize("rows", [drawn(), drawn(shift=1.0), drawn(turned=True), drawn(noise=3.0, spread=0.6)])
def test_the_shares_add_up_to_one_and_none_is_negative(rows):
    shares = shares_of(measure(rows, include=("gap", "further")))
    assert sum(shares.values()) == pytest.approx(1)
    assert min(shares.values()) >= 0


def test_a_closed_gap_needs_no_command():
    verdict = judged(drawn(noise=0.3))
    assert verdict.kind == "closed"
    assert verdict.method is None
    assert set(verdict.helps.values()) == {"no"}
    assert "gapless close" not in " ".join(verdict.sentences)


def test_equal_rows_are_closed_and_have_no_parts():
    rows = drawn()
    verdict = judged({"image": rows["image"], "text": rows["image"]})
    assert verdict.kind == "closed"
    assert verdict.shares == {}


def test_shuffled_pairs_are_called_unrelated():
    rows = drawn(shift=1.0)
    order = np.random.default_rng(1).permutation(400)
    verdict = judged({"image": rows["image"], "text": rows["text"][order]})
    assert verdict.kind == "unrelated"
    assert "row i of every modality is one pair" in verdict.sentences[2]
    assert judged(rows).kind != "unrelated"  # the control: the same rows in their order


def test_a_collapsed_space_is_called_collapsed():
    random = np.random.default_rng(0)
    one, other = np.eye(32)[0], np.eye(32)[1]
    rows = {
        "image": one + 1e-3 * random.standard_normal((200, 32)),
        "text": other + 1e-3 * random.standard_normal((200, 32)),
    }
    verdict = judged(rows)
    assert verdict.kind == "collapsed"
    assert "Train the encoders again" in verdict.sentences[2]
    exact = {"image": np.tile(one, (200, 1)), "text": np.tile(one, (200, 1))}
    assert judged(exact).kind == "collapsed"


@pytest.mark.parametrize(("n", "num_groups"), [(20, None), (400, 4)])
def test_few_pairs_or_groups_are_not_judged(n, num_groups):
    verdict = judged(drawn(shift=1.0, n=n), num_groups=num_groups)
    assert verdict.kind == "too few"
    assert verdict.helps == {}
    assert "at least 50 pairs in 10 groups" in verdict.sentences[0]


def test_three_modalities_say_that_the_parts_are_means():
    rows = drawn(shift=1.0)
    verdict = judged({**rows, "ecg": rows["image"] + 0.5 * np.random.default_rng(2).standard_normal((400, 48))})
    assert "mean over the pairs of 3 modalities" in verdict.sentences[0]


def test_each_sentence_names_what_it_rests_on():
    said = judged(drawn(shift=1.0)).as_json()
    assert list(said["sentences"]) == ["kind", "help", "command"]
    kind, helped = said["sentences"]["kind"], said["sentences"]["help"]
    assert kind["figures"]["gap/true_pair_cosine"] < 1
    assert f"{2 - 2 * kind['figures']['gap/true_pair_cosine']:.2f}" in kind["text"]
    assert f"{helped['figures']['gap/mixing@10']:.2f}" in helped["text"]
    assert all(isinstance(number, float) for one in said["sentences"].values() for number in one["figures"].values())


def test_full_recall_cannot_be_helped_and_centring_is_enough():
    verdict = judged(drawn(shift=1.0, noise=0.1))
    assert verdict.helps["retrieval"] == "little"
    assert verdict.method == "center"


def test_where_nothing_helps_much_the_command_is_a_trial():
    verdict = judged(drawn(noise=0.5, spread=0.9))
    assert "yes" not in verdict.helps.values()
    assert verdict.sentences[2].startswith("Little is to be gained")
