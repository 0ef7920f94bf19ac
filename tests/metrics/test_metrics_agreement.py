"""`measure` against the slow oracles, to 1e-9 in float64, with and without ties, over tile borders."""

import math

import numpy as np
import oracles
import pytest
import torch

from gapless.metrics.measure import measure, per_pair
from gapless.metrics.neighbours import Nearest, Neighbours, num_other


def pairs(n=37, dim=6, seed=0, gap=0.6, copies=False):
    generator = np.random.default_rng(seed)
    z = generator.normal(size=(n, dim))
    w = z + 0.8 * generator.normal(size=(n, dim)) + gap
    if copies:
        z[5:12] = z[4]
        w[3:9] = w[20]
        w[30:] = z[30:]
    return z, w


def as_lists(matrix):
    return [oracles.unit(row) for row in np.asarray(matrix).tolist()]


@pytest.mark.parametrize("block_size", [8, 16, 37, 1024])
@pytest.mark.parametrize("copies", [False, True])
def test_all_quadratic_figures_agree_with_plain_python(block_size, copies):
    z, w = pairs(copies=copies)
    figures = measure({"image": z, "text": w}, include=("gap", "retrieval", "mixed"), block_size=block_size)
    a, b = as_lists(z), as_lists(w)
    cosines = [oracles.dot(p, q) for p, q in zip(a, b, strict=True)]
    expected = {
        "gap/centroid_distance": oracles.centroid_distance(a, b),
        "gap/centroid_distance_unbiased": oracles.centroid_distance_unbiased(a, b),
        "gap/centroid_distance_group_unbiased": oracles.centroid_distance_unbiased(a, b),  # every pair its own group
        "gap/true_pair_cosine": oracles.mean(cosines),
        "gap/negative_cosine": oracles.off_diagonal(a, b),
        "gap/margin": oracles.mean(cosines) - oracles.off_diagonal(a, b),
        "gap/within_cosine/image": oracles.off_diagonal(a, a),
        "gap/within_cosine/text": oracles.off_diagonal(b, b),
        "gap/uniformity/image": oracles.uniformity(a),
        "gap/uniformity/text": oracles.uniformity(b),
        "gap/centroid_uniformity": oracles.uniformity(oracles.centroids(a, b)),
        "gap/mixing@10": oracles.mean([oracles.other_share(a, b, 10), oracles.other_share(b, a, 10)]),
        "mixed/modality_bias/image": 1 - oracles.other_share(a, b, 10) - 36 / 73,
        "mixed/modality_bias/text": 1 - oracles.other_share(b, a, 10) - 36 / 73,
        "retrieval/image_to_text/MRR": oracles.reciprocal_rank(a, b),
        "retrieval/text_to_image/MRR": oracles.reciprocal_rank(b, a),
        "retrieval/image_to_text/median_rank": oracles.median(oracles.ranks(a, b)),
        "retrieval/text_to_image/median_rank": oracles.median(oracles.ranks(b, a)),
    }
    for k in (1, 5, 10):
        expected[f"retrieval/image_to_text/R@{k}"] = oracles.recall(a, b, k)
        expected[f"retrieval/text_to_image/R@{k}"] = oracles.recall(b, a, k)
        expected[f"retrieval/mean/R@{k}"] = oracles.mean([oracles.recall(a, b, k), oracles.recall(b, a, k)])
        expected[f"mixed/R@{k}"] = oracles.mixed_recall(a, b, k)
    for key, value in expected.items():
        assert figures[key] == pytest.approx(value, abs=1e-9), key
    angles = [math.degrees(math.acos(min(1.0, cosine))) for cosine in cosines]
    # an arc cosine near 1 keeps half the digits: the oracle is the coarse one here
    assert figures["gap/true_pair_angle_deg"] == pytest.approx(oracles.mean(angles), abs=1e-5 if copies else 1e-9)
    assert figures["n"] == figures["gallery_size"] == 37


def test_the_group_unbiased_distance_agrees_with_plain_python_on_groups_of_any_size():
    z, w = pairs()
    groups = [row // 5 if row < 20 else row for row in range(37)]
    found = measure({"image": z, "text": w + 2}, groups=groups, include=("gap",))
    expected = oracles.centroid_distance_group_unbiased(as_lists(z), as_lists(w + 2), groups)
    assert found["gap/centroid_distance_group_unbiased"] == pytest.approx(expected, abs=1e-9)
    assert found["gap/centroid_distance_unbiased"] != pytest.approx(expected, abs=1e-3)


def test_ranks_per_pair_agree_with_plain_python():
    z, w = pairs(copies=True)
    found = per_pair({"image": z, "text": w}, block_size=8)
    a, b = as_lists(z), as_lists(w)
    assert found["retrieval/image_to_text/rank"].tolist() == oracles.ranks(a, b)
    assert found["retrieval/text_to_image/rank"].tolist() == oracles.ranks(b, a)
    expected = [oracles.dot(p, q) for p, q in zip(a, b, strict=True)]
    assert found["gap/true_pair_cosine"].tolist() == pytest.approx(expected, abs=1e-12)


def test_lenient_recall_agrees_with_plain_python():
    z, w = pairs(seed=3)
    captions = [f"Chest {'X' if row % 2 else 'x'}-ray  {row % 9}." if row > 8 else f"own {row}" for row in range(37)]
    classes = [" ".join(text.lower().split()) for text in captions]
    figures = measure({"image": z, "text": w}, captions=captions, include=("retrieval",), block_size=8)
    a, b = as_lists(z), as_lists(w)
    for k in (1, 5, 10):
        forth, back = oracles.lenient_recall(a, b, classes, k), oracles.lenient_recall(b, a, classes, k)
        assert figures[f"retrieval/image_to_text/lenient_R@{k}"] == pytest.approx(forth, abs=1e-9)
        assert figures[f"retrieval/text_to_image/lenient_R@{k}"] == pytest.approx(back, abs=1e-9)
        assert figures[f"retrieval/mean/lenient_R@{k}"] == pytest.approx((forth + back) / 2, abs=1e-9)
    assert figures["retrieval/mean/lenient_R@1"] > figures["retrieval/mean/R@1"]  # the control: positives matter


def test_lenient_recall_with_identical_texts_counts_every_copy():
    # texts 0 and 1 are one caption and one vector: strict R@1 is a coin toss, lenient is certain
    texts = torch.tensor([[1.0, 0, 0], [1.0, 0, 0], [0, 1.0, 0], [0, 0, 1.0]])
    figures = measure({"image": texts, "text": texts}, captions=["a", "a", "b", "c"], include=("retrieval",))
    assert figures["retrieval/image_to_text/R@1"] == pytest.approx(0.75)
    assert figures["retrieval/image_to_text/lenient_R@1"] == pytest.approx(1.0)
    # the same vector under another caption is a wrong answer: again a coin toss
    figures = measure({"image": texts, "text": texts}, captions=["a", "x", "b", "c"], include=("retrieval",))
    assert figures["retrieval/image_to_text/lenient_R@1"] == pytest.approx(0.75)


def test_wasserstein_uniformity_by_hand():
    # rows +-e1, +-e2 in both modalities: mean 0, covariance I/2 in 2 dimensions = the target, distance 0
    rows = torch.tensor([[1.0, 0], [-1.0, 0], [0, 1.0], [0, -1.0]], dtype=torch.float64)
    best = measure({"image": rows, "text": rows.flip(0)}, include=("gap",))["gap/wasserstein_uniformity"]
    assert best == pytest.approx(0.0, abs=1e-7)
    # all rows one point: ||m||^2 = 1, C = 0, so that the distance is sqrt(1 + 1)
    point = torch.tensor([[1.0, 0]] * 4, dtype=torch.float64)
    worst = measure({"image": point, "text": point}, include=("gap",))["gap/wasserstein_uniformity"]
    assert worst == pytest.approx(-math.sqrt(2), abs=1e-9)


def test_wasserstein_uniformity_agrees_with_a_matrix_root():
    from scipy.linalg import sqrtm

    z, w = pairs()
    rows = np.array(as_lists(z) + as_lists(w))
    covariance = np.cov(rows.T, bias=True)
    squared = (rows.mean(0) ** 2).sum() + 1 + np.trace(covariance)
    squared -= 2 / math.sqrt(6) * np.trace(sqrtm(covariance).real)
    found = measure({"image": z, "text": w}, include=("gap",))["gap/wasserstein_uniformity"]
    assert found == pytest.approx(-math.sqrt(squared), abs=1e-9)


def test_three_modalities_carry_the_pair_and_the_bare_key_is_the_mean():
    z, w = pairs()
    v, _ = pairs(seed=9)
    figures = measure({"image": z, "text": w, "wave": v}, include=("gap", "retrieval", "mixed"))
    names = ("image-text", "image-wave", "text-wave")
    for key in ("gap/centroid_distance", "gap/true_pair_cosine", "gap/mixing@10", "mixed/R@10", "mixed/modality_bias"):
        assert figures[key] == pytest.approx(oracles.mean(figures[f"{key}/{name}"] for name in names))
    two = measure({"text": w, "wave": v}, include=("gap", "retrieval", "mixed"))
    assert figures["gap/centroid_distance/text-wave"] == pytest.approx(two["gap/centroid_distance"])
    assert figures["retrieval/wave_to_text/R@5"] == pytest.approx(two["retrieval/wave_to_text/R@5"])
    expected = oracles.uniformity(oracles.centroids(as_lists(z), as_lists(w), as_lists(v)))
    assert figures["gap/centroid_uniformity"] == pytest.approx(expected, abs=1e-9)
    anchored = measure({"image": z, "text": w, "wave": v}, anchor="text", include=("gap", "retrieval"))
    assert "gap/centroid_distance/image-wave" not in anchored
    assert {"gap/centroid_distance/image-text", "gap/centroid_distance/text-wave"} <= anchored.keys()
    assert {f"gap/uniformity/{name}" for name in ("image", "text", "wave")} <= anchored.keys()


def test_ties_counted_again_do_not_lean_on_products_of_another_shape():
    """40 equal rows tie beyond what is kept; the kept products are a few roundings away from those made anew."""
    rows = torch.eye(8)[0].expand(40, 8).contiguous()
    inside, across = (Neighbours(Nearest(rows, 12), rows, rows, 10, 4.0, 1e-6, is_own) for is_own in (True, False))
    for lists in (inside, across):
        lists.nearest.scores.fill_(4.0 + 1e-4)
    share = num_other(inside, across) / 10
    assert share == pytest.approx(torch.full((40,), 40 / 79, dtype=torch.float64))
