"""The formulas of the latent space against plain Python, and where they degenerate."""

import math

import pytest
import torch

from gapless.core.geometry import (
    at_least_fp32,
    blocks,
    log_mean_gaussian_kernel,
    num_pairs_apart,
    pair_centroids,
    pairwise_cosine,
    pairwise_squared_distance,
    squared_distances,
    unit_norm,
)


def rows_of(num_rows=6, dim=4, seed=0):
    return unit_norm(torch.randn(num_rows, dim, generator=torch.Generator().manual_seed(seed), dtype=torch.float64))


def test_a_zero_row_stays_zero_and_has_no_gradient():
    rows = torch.tensor([[0.0, 0.0], [3.0, 4.0]], requires_grad=True)
    unit = unit_norm(rows)
    assert unit.tolist() == [[0.0, 0.0], [pytest.approx(0.6), pytest.approx(0.8)]]
    unit.sum().backward()
    assert rows.grad[0].tolist() == [0.0, 0.0]
    assert rows.grad[1].isfinite().all()


def test_distances_and_cosines_are_plain_python():
    a, b = rows_of(seed=0), rows_of(seed=1)
    for i in range(6):
        cosine = sum(x * y for x, y in zip(a[i].tolist(), b[i].tolist(), strict=True))
        assert pairwise_cosine(a, b)[i].item() == pytest.approx(cosine, abs=1e-14)
        assert pairwise_squared_distance(a, b)[i].item() == pytest.approx(2 - 2 * cosine, abs=1e-14)
        for j in range(6):
            expected = sum((x - y) ** 2 for x, y in zip(a[i].tolist(), b[j].tolist(), strict=True))
            assert squared_distances(a, b)[i, j].item() == pytest.approx(expected, abs=1e-13)
    assert (squared_distances(a.float(), a.float()) >= 0).all()
    assert pairwise_squared_distance(a, a).tolist() == [0.0] * 6


def test_antipodal_pairs_have_a_zero_centroid_with_a_finite_gradient():
    a = rows_of().requires_grad_()
    centroids = pair_centroids([a, -a.detach()])
    assert not centroids.any()
    centroids.sum().backward()
    assert a.grad.isfinite().all()


@pytest.mark.parametrize("groups", [None, [0, 1, 0, 2, 2, 0]])
@pytest.mark.parametrize("block_size", [1, 4, 100])
def test_the_gaussian_kernel_is_plain_python(groups, block_size):
    rows = rows_of()
    ids = groups or range(6)
    kernel = [
        math.exp(-2 * sum((x - y) ** 2 for x, y in zip(rows[i].tolist(), rows[j].tolist(), strict=True)))
        for i in range(6)
        for j in range(6)
        if ids[i] != ids[j]
    ]
    found = log_mean_gaussian_kernel(rows, None if groups is None else torch.tensor(groups), block_size)
    assert found.item() == pytest.approx(math.log(sum(kernel) / len(kernel)), abs=1e-12)
    if groups:
        assert num_pairs_apart(torch.tensor(groups)).item() == len(kernel)


def test_rows_with_a_single_partner_left_have_finite_gradients():
    """A row that has none is only possible when all rows are of one group, which is refused."""
    rows = rows_of().requires_grad_()
    log_mean_gaussian_kernel(rows, torch.tensor([0, 0, 0, 0, 0, 1]), block_size=1).backward()
    assert rows.grad.isfinite().all()
    assert (rows.grad != 0).any(dim=1).all()


def test_far_points_do_not_underflow():
    rows = 100 * torch.eye(3, dtype=torch.float64)
    assert log_mean_gaussian_kernel(rows).item() == pytest.approx(-2 * 2 * 100**2)


@pytest.mark.parametrize(("num_rows", "groups"), [(1, None), (3, [4, 4, 4]), (0, None)])
def test_uniformity_of_nothing_is_refused(num_rows, groups):
    with pytest.raises(ValueError, match=rf"uniformity needs .* got {num_rows} row"):
        log_mean_gaussian_kernel(rows_of(num_rows), None if groups is None else torch.tensor(groups))


def test_half_precision_is_raised_and_blocks_cover():
    assert at_least_fp32(torch.zeros(1, dtype=torch.bfloat16)).dtype == torch.float32
    assert at_least_fp32(torch.zeros(1, dtype=torch.float64)).dtype == torch.float64
    assert [(rows.start, rows.stop) for rows in blocks(7, 3)] == [(0, 3), (3, 6), (6, 7)]
    assert list(blocks(0, 3)) == []
