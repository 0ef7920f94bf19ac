"""What must not change a figure, and what degenerate embeddings must score."""

import pytest
import torch
from torch.nn.functional import normalize

from gapless.metrics.measure import measure, per_pair

QUICK = ("gap", "retrieval", "mixed")


def random_pairs(n=200, dim=16, seed=0, dtype=torch.float32):
    generator = torch.Generator().manual_seed(seed)
    z = torch.randn(n, dim, generator=generator, dtype=dtype)
    return z, z + torch.randn(n, dim, generator=generator, dtype=dtype) + 0.3


@pytest.mark.parametrize("dim", [7, 64, 512, 768, 1024, 4096])
@pytest.mark.parametrize("dtype", [torch.float16, torch.float32, torch.float64])
def test_a_collapsed_model_scores_chance(dim, dtype):
    """Also in the middle of a BLAS: the order of its additions must not rank what is equal."""
    row = torch.randn(dim, generator=torch.Generator().manual_seed(dim), dtype=torch.float64).to(dtype)
    same = row.expand(150, dim)
    # The spectrum of 4,096 dimensions takes seconds: once is enough, for it ranks nothing.
    include = QUICK if dim <= 1024 or dtype == torch.float32 else QUICK[1:]
    figures = measure({"image": same, "text": same.clone()}, include=include, block_size=64)
    assert figures["retrieval/image_to_text/R@1"] == pytest.approx(1 / 150)
    assert figures["retrieval/text_to_image/R@10"] == pytest.approx(10 / 150)
    assert figures["retrieval/mean/median_rank"] == pytest.approx(75.5)
    assert figures["mixed/R@10"] == pytest.approx(10 / 299)
    assert figures["mixed/modality_bias"] == pytest.approx(0, abs=1e-12)
    if "gap" in include:
        assert figures["gap/mixing@10"] == pytest.approx(150 / 299)
        assert figures["gap/centroid_distance"] == pytest.approx(0, abs=1e-6)


def test_a_collapsed_model_has_the_expected_rank_of_a_draw():
    """Counting strictly greater scores alone would give every query rank 1."""
    same = normalize(torch.ones(100, 8), dim=1)
    ranks = per_pair({"image": same, "text": same})["retrieval/image_to_text/rank"]
    assert ranks.tolist() == [50.5] * 100


def test_permuting_rows_changes_nothing():
    z, w = random_pairs(dtype=torch.float64)
    w[20:60] = w[10]
    order = torch.randperm(200, generator=torch.Generator().manual_seed(1))
    before = measure({"image": z, "text": w}, include=QUICK, block_size=32)
    after = measure({"image": z[order], "text": w[order]}, include=QUICK, block_size=32)
    assert before.keys() == after.keys()
    for key, value in before.items():
        assert after[key] == pytest.approx(value, abs=1e-9), key
    ranks = per_pair({"image": z, "text": w})["retrieval/text_to_image/rank"]
    permuted = per_pair({"image": z[order], "text": w[order]})["retrieval/text_to_image/rank"]
    assert torch.equal(ranks[order], permuted)


def test_scale_of_a_row_and_rotation_of_the_space_change_nothing():
    z, w = random_pairs(dtype=torch.float64)
    turn = torch.linalg.qr(torch.randn(16, 16, generator=torch.Generator().manual_seed(2), dtype=torch.float64)).Q
    stretch = torch.rand(200, 1, generator=torch.Generator().manual_seed(3), dtype=torch.float64) * 1e3 + 1e-3
    before = measure({"image": z, "text": w}, include=QUICK)
    after = measure({"image": z @ turn * stretch, "text": w @ turn}, include=QUICK)
    for key, value in before.items():
        assert after[key] == pytest.approx(value, abs=1e-9), key


def test_tile_size_changes_nothing_in_single_precision():
    z, w = random_pairs(n=300)
    captions = [f"caption {row // 3}" for row in range(300)]
    whole = measure({"image": z, "text": w}, captions=captions, include=QUICK, block_size=512)
    for block_size in (16, 17, 100):
        tiled = measure({"image": z, "text": w}, captions=captions, include=QUICK, block_size=block_size)
        for key, value in whole.items():
            assert tiled[key] == pytest.approx(value, abs=2e-6), key


def test_half_precision_is_ranked_in_single():
    """bf16 scores would tie for nearly every query; the rows are rounded, the scores are not."""
    z, w = random_pairs(n=400, dim=64)
    z, w = z.bfloat16(), (w - 0.7 * z).bfloat16()
    exact = measure({"image": z.double(), "text": w.double()}, include=("retrieval",))
    found = measure({"image": z, "text": w}, include=("retrieval",))
    for key, value in exact.items():
        assert found[key] == pytest.approx(value, abs=1e-6), key
    scores = normalize(z, dim=1) @ normalize(w, dim=1).T
    ties = (scores == scores.diagonal()[:, None]).sum(dim=1) - 1
    assert (ties > 0).float().mean() > 0.1  # the control: in half precision they do


def test_a_closed_gap_by_hand():
    """Both modalities the same 30 distinct points: 10 neighbours are the twin, 4 whole pairs and half of a tie."""
    z, _ = random_pairs(n=30, dtype=torch.float64)
    figures = measure({"image": z, "text": z}, include=QUICK)
    assert figures["gap/mixing@10"] == pytest.approx(0.55)
    assert figures["mixed/modality_bias"] == pytest.approx(0.45 - 29 / 59)
    assert figures["mixed/R@1"] == 1.0
    assert figures["gap/true_pair_angle_deg"] == pytest.approx(0, abs=1e-6)
    assert figures["gap/centroid_distance"] == pytest.approx(0, abs=1e-12)
    assert figures["gap/centroid_distance_unbiased"] == 0.0


def test_opposite_cones_by_hand():
    """All images at e1, all texts at -e1."""
    east = torch.tensor([[1.0, 0.0]]).expand(20, 2)
    figures = measure({"image": east, "text": -east}, include=QUICK)
    assert figures["gap/centroid_distance"] == pytest.approx(2.0)
    assert figures["gap/true_pair_angle_deg"] == pytest.approx(180.0)
    assert figures["gap/margin"] == pytest.approx(0.0)
    assert figures["gap/within_cosine/image"] == pytest.approx(1.0)
    assert figures["gap/uniformity/text"] == pytest.approx(0.0, abs=1e-6)
    assert figures["gap/centroid_uniformity"] == pytest.approx(0.0, abs=1e-6)  # zero centroids stay zero, no NaN
    assert figures["gap/mixing@10"] == 0.0
    assert figures["mixed/modality_bias"] == pytest.approx(1 - 19 / 39)
    assert figures["mixed/R@10"] == 0.0


def test_the_unbiased_centroid_distance_forgives_what_sampling_adds():
    """200 pairs of a perfectly closed gap at cosine 0.12 measure about 0.09; the corrected figure does not."""
    generator = torch.Generator().manual_seed(0)
    biased, corrected = [], []
    for _ in range(20):
        z, w = torch.randn(2, 200, 64, generator=generator)
        figures = measure({"image": z, "text": w}, include=("gap",))
        biased.append(figures["gap/centroid_distance"])
        corrected.append(figures["gap/centroid_distance_unbiased"])
    assert min(biased) > 0.08
    assert sum(corrected) / 20 < 0.03


def test_the_group_unbiased_centroid_distance_forgives_the_scatter_of_cases():
    """40 cases of 5 nearly equal pairs, no gap: pairs taken as independent still measure one."""
    generator = torch.Generator().manual_seed(0)
    by_pair, by_group = [], []
    for _ in range(20):
        cases = torch.randn(2, 40, 64, generator=generator).repeat_interleave(5, dim=1)
        z, w = cases + 0.1 * torch.randn(2, 200, 64, generator=generator)
        figures = measure({"image": z, "text": w}, groups=[row // 5 for row in range(200)], include=("gap",))
        by_pair.append(figures["gap/centroid_distance_unbiased"] ** 2)
        by_group.append(figures["gap/centroid_distance_group_unbiased"] ** 2)
    assert sum(by_pair) / 20 > 0.03  # the control: 2 (1/40 - 1/200) = 0.04
    assert sum(by_group) / 20 < 0.004


def test_the_centroid_distance_is_blind_and_the_others_are_not():
    """One modality on the x axis, the other on the y axis: one mean, no overlap."""
    generator = torch.Generator().manual_seed(0)
    sign = torch.randint(0, 2, (2, 200), generator=generator) * 2.0 - 1
    sign[:, 100:] = -sign[:, :100]
    z = torch.stack([sign[0], 0.05 * torch.randn(200, generator=generator)], dim=1)
    w = torch.stack([0.05 * torch.randn(200, generator=generator), sign[1]], dim=1)
    figures = measure({"image": z, "text": w}, include=QUICK)
    assert figures["gap/centroid_distance"] < 0.03
    assert figures["gap/mixing@10"] < 0.01
    assert abs(figures["gap/true_pair_cosine"]) < 0.1
