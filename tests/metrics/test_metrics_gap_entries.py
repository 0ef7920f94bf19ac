"""The figures of what a gap is made of: against slow formulas, by hand, under rotation and scale, on drawn gaps."""

import math

import numpy as np
import oracles
import pytest
import torch

from gapless import measure
from gapless.metrics.catalogue import FIGURES, FigureEntry
from gapless.metrics.pair_inputs import PairInputs
from gapless.metrics.spectrum import effective_rank, spectrum

KEYS = (
    "gap/centroid_share",
    "gap/spread_difference",
    "gap/pair_residual_ratio",
    "gap/relative",
    "gap/linear_separability",
    "gap/effective_rank/image",
    "gap/effective_rank/text",
    "gap/hubness",
    "gap/mutual_knn@10",
    "gap/d_prime",
    "gap/margin_centred",
    "gap/d_prime_centred",
)


def further(z, w, **options):
    return measure({"image": z, "text": w}, include=("further", "probe"), **options)


def pairs(n=60, dim=8, seed=0, noise=0.7, shift=0.4):
    generator = torch.Generator().manual_seed(seed)
    z = torch.randn(n, dim, generator=generator, dtype=torch.float64)
    return z, z + noise * torch.randn(n, dim, generator=generator, dtype=torch.float64) + shift


def unit_lists(rows):
    return [oracles.unit(row) for row in rows.tolist()]


def less_mean(rows):
    middle = oracles.mean_row(rows)
    return [[x - m for x, m in zip(row, middle, strict=True)] for row in rows]


def cosines(a, b):
    n = len(a)
    true = [oracles.dot(a[i], b[i]) for i in range(n)]
    false = [oracles.dot(a[i], b[j]) for i in range(n) for j in range(n) if i != j]
    return true, false


def variance(values):
    middle = oracles.mean(values)
    return oracles.mean((value - middle) ** 2 for value in values)


def d_prime(a, b):
    true, false = cosines(a, b)
    return (oracles.mean(true) - oracles.mean(false)) / math.sqrt((variance(true) + variance(false)) / 2)


def nearest(queries, gallery, k, is_own):
    lists = []
    for i, query in enumerate(queries):
        others = [j for j in range(len(gallery)) if not (is_own and j == i)]
        lists.append(sorted(others, key=lambda j: -oracles.dot(query, gallery[j]))[:k])
    return lists


def test_every_figure_agrees_with_a_slow_formula():
    z, w = pairs()
    a, b = unit_lists(z), unit_lists(w)
    n = len(a)
    a0, b0 = less_mean(a), less_mean(b)
    found = further(z, w)
    pair_distance = oracles.mean(oracles.squared_distance(p, q) for p, q in zip(a, b, strict=True))
    assert found["gap/centroid_share"] == pytest.approx(oracles.centroid_distance(a, b) ** 2 / pair_distance)
    apart = oracles.mean(oracles.squared_distance(a0[i], b0[j]) for i in range(n) for j in range(n) if i != j)
    joined = oracles.mean(oracles.squared_distance(p, q) for p, q in zip(a0, b0, strict=True))
    assert found["gap/pair_residual_ratio"] == pytest.approx(joined / apart)
    true, false = cosines(a, b)
    pair, inside_a, inside_b = (
        (1 - x) / 2 for x in (oracles.mean(true), oracles.off_diagonal(a, a), oracles.off_diagonal(b, b))
    )
    assert found["gap/relative"] == pytest.approx(pair / (pair + (inside_a + inside_b) / 2))
    assert found["gap/d_prime"] == pytest.approx(d_prime(a, b))
    a1, b1 = ([oracles.unit(row) for row in rows] for rows in (a0, b0))
    true, false = cosines(a1, b1)
    assert found["gap/margin_centred"] == pytest.approx(oracles.mean(true) - oracles.mean(false))
    assert found["gap/d_prime_centred"] == pytest.approx(d_prime(a1, b1))
    spectra = [np.linalg.svd(np.array(rows), compute_uv=False) for rows in (a0, b0)]
    for name, singular in zip(("image", "text"), spectra, strict=True):
        share = singular / singular.sum()
        assert found[f"gap/effective_rank/{name}"] == pytest.approx(np.exp(-(share * np.log(share)).sum()))
    assert found["gap/spread_difference"] == pytest.approx(((spectra[0] - spectra[1]) ** 2).sum() / n)
    both = zip(nearest(a, a, 10, True), nearest(b, b, 10, True), strict=True)
    assert found["gap/mutual_knn@10"] == pytest.approx(oracles.mean(len(set(p) & set(q)) / 10 for p, q in both))
    skews = []
    for queries, gallery in ((a, b), (b, a)):
        counts = np.bincount(np.ravel(nearest(queries, gallery, 10, False)), minlength=n)
        skews.append(((counts - counts.mean()) ** 3).mean() / counts.std() ** 3)
    assert found["gap/hubness"] == pytest.approx(np.mean(skews))


def test_the_three_parts_of_the_distance_add_up():
    """Shift and difference of spread are parts of the mean squared distance; what is left is not negative."""
    for seed in range(5):
        z, w = pairs(seed=seed, noise=0.3 * seed)
        figures = measure({"image": z, "text": 2 * w[:, [1, 0, *range(2, 8)]]}, include=("gap", "further"))
        total = 2 - 2 * figures["gap/true_pair_cosine"]
        parts = figures["gap/centroid_distance"] ** 2 + figures["gap/spread_difference"]
        assert 0 < parts <= total + 1e-12


@pytest.mark.parametrize("block_size", [16, 512])
def test_rotation_and_scale_of_rows_change_nothing(block_size):
    z, w = pairs(n=120)
    turn = torch.linalg.qr(torch.randn(8, 8, generator=torch.Generator().manual_seed(2), dtype=torch.float64)).Q
    stretch = torch.rand(120, 1, generator=torch.Generator().manual_seed(3), dtype=torch.float64) * 1e3 + 1e-3
    before, after = further(z, w), further(z @ turn * stretch, w @ turn, block_size=block_size)
    for key in KEYS:
        assert after[key] == pytest.approx(before[key], abs=1e-9), key
    turned = further(
        z @ turn, w
    )  # the control: a rotation of one modality alone is a gap, and mutual kNN is blind to it
    assert turned["gap/margin_centred"] < before["gap/margin_centred"] - 0.2
    assert turned["gap/mutual_knn@10"] == pytest.approx(before["gap/mutual_knn@10"])
    assert turned["gap/spread_difference"] == pytest.approx(before["gap/spread_difference"])


def test_a_constant_coordinate_flatters_the_cosine_and_neither_d_prime_nor_the_margin_without_means():
    z, w = pairs(n=200)
    plain = measure({"image": z, "text": w}, include=("gap", "further"))
    tall = [torch.cat([rows / rows.norm(dim=1, keepdim=True), torch.full((200, 1), 3.0)], dim=1) for rows in (z, w)]
    flattered = measure({"image": tall[0], "text": tall[1]}, include=("gap", "further"))
    assert flattered["gap/true_pair_cosine"] > 0.95 > plain["gap/true_pair_cosine"]
    assert flattered["gap/centroid_distance"] < plain["gap/centroid_distance"] / 3
    for key in ("gap/d_prime", "gap/margin_centred", "gap/d_prime_centred"):
        assert flattered[key] == pytest.approx(plain[key], abs=1e-9), key


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_collapsed_space_has_no_margin_and_no_ratio(dtype):
    row = torch.randn(48, generator=torch.Generator().manual_seed(0), dtype=torch.float64).to(dtype)
    same = row.expand(80, 48)
    found = further(same, same.clone())
    assert found["gap/margin_centred"] == 0.0  # rounding errors scaled to norm 1 would be pairs that agree perfectly
    assert found["gap/mutual_knn@10"] == pytest.approx(10 / 79)  # chance
    assert found["gap/hubness"] == 0.0
    assert found["gap/linear_separability"] == pytest.approx(0.5)
    assert found["gap/spread_difference"] == pytest.approx(0, abs=1e-12)
    for key in ("gap/d_prime", "gap/d_prime_centred", "gap/relative", "gap/centroid_share", "gap/pair_residual_ratio"):
        assert math.isnan(found[key]), key


def test_values_of_a_closed_gap_and_of_opposite_cones():
    z, _ = pairs(n=100)
    closed = further(z, z)
    assert closed["gap/pair_residual_ratio"] == pytest.approx(0, abs=1e-12)
    assert closed["gap/relative"] == pytest.approx(0, abs=1e-12)
    assert closed["gap/mutual_knn@10"] == 1.0
    assert closed["gap/spread_difference"] == 0.0
    apart = further(z + 50, z - 50)
    assert apart["gap/linear_separability"] == 1.0
    assert apart["gap/centroid_share"] > 0.99
    assert apart["gap/relative"] > 0.95


def test_drawn_gaps_of_known_kind_are_seen_by_their_figure():
    """Many dims, so that the norm of a row hardly varies and a drawn gap stays what it is after scaling."""
    generator = torch.Generator().manual_seed(0)
    z = torch.randn(400, 256, generator=generator)
    noise = torch.randn(400, 256, generator=generator)
    shifted = further(z + 1.0, z - 1.0)
    assert shifted["gap/centroid_share"] > 0.95
    assert shifted["gap/pair_residual_ratio"] < 0.05
    narrow = z * torch.linspace(0.02, 1.98, 256)
    spread = further(z[:, torch.arange(256)], narrow)
    assert spread["gap/spread_difference"] > 5 * further(z, z + 0.2 * noise)["gap/spread_difference"]
    assert further(z, noise)["gap/pair_residual_ratio"] == pytest.approx(1, abs=0.02)
    assert further(z, noise)["gap/mutual_knn@10"] == pytest.approx(10 / 399, abs=0.01)


def test_the_effective_rank_by_hand():
    axes = torch.cat([torch.eye(5), -torch.eye(5)])
    assert effective_rank(spectrum(axes)) == pytest.approx(5)
    line = torch.tensor([[1.0, 0.0], [-1.0, 0.0], [1.0, 0.0], [-1.0, 0.0]])
    assert effective_rank(spectrum(line)) == pytest.approx(1)
    few = torch.nn.functional.normalize(torch.randn(6, 300, generator=torch.Generator().manual_seed(0)), dim=1)
    assert effective_rank(spectrum(few)) <= 5 + 1e-6  # fewer rows than dims: rounding errors are no directions


def test_every_one_has_an_interval_by_group():
    z, w = pairs(n=200, dim=6)
    by_row = further(z, w, num_bootstrap=100)
    by_case = further(z, w, groups=[row // 10 for row in range(200)], num_bootstrap=100)
    for key in KEYS:
        for found in (by_row, by_case):
            assert found[key]["low"] < found[key]["value"] < found[key]["high"], key
    repeated = further(z[:20].repeat_interleave(10, dim=0), w[:20].repeat_interleave(10, dim=0), num_bootstrap=100)
    cases = [row // 10 for row in range(200)]
    grouped = further(
        z[:20].repeat_interleave(10, dim=0), w[:20].repeat_interleave(10, dim=0), groups=cases, num_bootstrap=100
    )

    def width(found, key):
        return found[key]["high"] - found[key]["low"]

    for key in ("gap/margin_centred", "gap/effective_rank/image", "gap/spread_difference"):
        assert width(grouped, key) > 2 * width(repeated, key), key  # ten copies are not ten cases


def test_intervals_hold_the_value_of_the_population():
    """40 experiments; a 95 % interval that holds the truth in fewer than 31 of them is too narrow."""
    keys = ("gap/d_prime", "gap/margin_centred", "gap/d_prime_centred", "gap/pair_residual_ratio", "gap/relative")
    truth = further(*pairs(n=5_000, dim=6, seed=99))
    held = dict.fromkeys(keys, 0)
    for seed in range(40):
        found = further(*pairs(n=150, dim=6, seed=seed), num_bootstrap=100)
        for key in keys:
            held[key] += found[key]["low"] <= truth[key] <= found[key]["high"]
    assert min(held.values()) >= 31, held


def test_a_single_group_has_no_probe():
    z, w = pairs()
    assert math.isnan(further(z, w, groups=["one"] * 60)["gap/linear_separability"])


def test_three_modalities_carry_the_pair_and_a_key_of_a_modality_stays():
    z, w = pairs()
    v, _ = pairs(seed=5)
    found = measure({"image": z, "text": w, "ecg": v}, include=("further",))
    assert {"gap/d_prime_centred/image-text", "gap/d_prime_centred", "gap/effective_rank/ecg"} <= found.keys()


def test_a_further_figure_may_return_a_figure_or_keys_of_modalities(monkeypatch):
    z, w = pairs()
    per_side = {"gap/mine/image": 1.0, "gap/mine/text": torch.arange(60.0)}
    entry = FigureEntry(
        "gap/mine/<modality>", "mine", "", 0.0, 1.0, "higher", "modality gap", compute=lambda _: per_side
    )
    monkeypatch.setitem(FIGURES._things, entry.key, entry)
    found = further(z, w)
    assert (found["gap/mine/image"], found["gap/mine/text"]) == (1.0, 29.5)
    per_side["gap/other"] = 1.0
    with pytest.raises(ValueError, match="gave the key gap/other"):
        further(z, w)


def test_inputs_are_named_and_have_neighbours():
    seen = []

    def look(inputs: PairInputs) -> float:
        seen.append(inputs)
        return 0.0

    entry = FigureEntry("gap/look", "look", "", 0.0, 1.0, "higher", "modality gap", compute=look)
    FIGURES._things[entry.key] = entry
    try:
        further(*pairs())
    finally:
        del FIGURES._things[entry.key]
    assert seen[0].names == ("image", "text")
    assert seen[0].across[0].occurrence().sum() == pytest.approx(600)
