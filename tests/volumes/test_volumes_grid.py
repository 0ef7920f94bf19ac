"""The grid: identity, linear ramps, physical places, windows."""

import numpy as np
import pytest

from gapless.core.errors import DataRefused
from gapless.volumes.read import read_volume
from gapless.volumes.volume import Volume, on_grid, to_8_bits

RANDOM = np.random.default_rng(0).normal(size=(4, 6, 8)).astype(np.float32)


def test_a_grid_of_the_same_shape_or_spacing_changes_nothing():
    volume = Volume(RANDOM, (3.0, 2.0, 1.0))
    np.testing.assert_allclose(on_grid(volume, (4, 6, 8), None), RANDOM, atol=1e-6)
    np.testing.assert_allclose(on_grid(volume, (4, 6, 8), (3.0, 2.0, 1.0)), RANDOM, atol=1e-6)


def test_a_larger_grid_is_padded_and_a_smaller_one_is_the_middle():
    volume = Volume(RANDOM, (1.0, 1.0, 1.0))
    padded = on_grid(volume, (6, 8, 10), (1.0, 1.0, 1.0))
    np.testing.assert_allclose(padded[1:5, 1:7, 1:9], RANDOM, atol=1e-6)
    assert np.isnan(padded[0]).all()
    assert np.isnan(padded).sum() == padded.size - RANDOM.size
    np.testing.assert_allclose(on_grid(volume, (2, 2, 2), (1.0, 1.0, 1.0)), RANDOM[1:3, 2:4, 3:5], atol=1e-6)


@pytest.mark.parametrize("size", [3, 5, 7, 12, 16, 31, 64])
def test_a_linear_ramp_stays_linear_at_its_physical_places(size):
    ramp = np.broadcast_to((np.arange(32) + 0.5) * 2.0, (2, 2, 32)).astype(np.float32)  # millimetres at voxel centres
    drawn = on_grid(Volume(ramp, (1.0, 1.0, 2.0)), (2, 2, size), None)[0, 0]
    centres = (np.arange(size) + 0.5) * 64.0 / size
    inner = (centres > 3) & (centres < 61)  # the outermost half voxel is held constant
    # A mean over whole voxels and a part of one at each end is off by an eighth of a voxel (2 mm) at most.
    bound = 2 / 8 * size / 32 if size < 32 else 0.0
    np.testing.assert_allclose(drawn[inner], centres[inner], atol=bound + 1e-3)


def test_spacing_keeps_sizes_in_millimetres():
    cube = np.zeros((20, 40, 80), dtype=np.float32)
    cube[5:15, 10:30, 20:60] = 1.0  # 40 mm on each side
    drawn = on_grid(Volume(cube, (4.0, 2.0, 1.0)), (40, 40, 40), (2.0, 2.0, 2.0))
    for axis in range(3):
        along = np.moveaxis(drawn, axis, 0)[:, 20, 20]
        assert np.nansum(along) * 2.0 == pytest.approx(40.0, abs=2.1)


def test_a_fine_pattern_becomes_grey_and_no_false_coarse_one():
    stripes = np.tile([0.0, 1.0], 64).astype(np.float32)
    volume = Volume(np.broadcast_to(stripes, (2, 2, 128)), (1.0, 1.0, 1.0))
    assert on_grid(volume, (2, 2, 21), None)[0, 0].std() < 0.05
    assert stripes[::5].std() == pytest.approx(0.5)  # the control: every fifth sample alone


def test_voxels_that_are_no_number_have_no_weight():
    voxels = np.full((2, 8, 8), 5.0, dtype=np.float32)
    voxels[:, :, :3] = np.nan
    drawn = on_grid(Volume(voxels, (1.0, 1.0, 1.0)), (2, 4, 4), None)
    assert np.isnan(drawn[..., 0]).all()
    np.testing.assert_allclose(drawn[..., 1:], 5.0, atol=1e-6)


def test_windows():
    voxels = np.array([[[-2000.0, -160.0, 40.0, 240.0, 5000.0, np.nan]]], dtype=np.float32)
    assert to_8_bits(voxels, (40.0, 400.0)).tolist() == [[[0, 0, 128, 255, 255, 0]]]
    assert to_8_bits(np.full((1, 1, 2), 7.0, dtype=np.float32), None).tolist() == [[[0, 0]]]
    assert to_8_bits(np.full((1, 1, 2), np.nan, dtype=np.float32), None).tolist() == [[[0, 0]]]
    assert to_8_bits(RANDOM, None).max() == 255


def test_arrays_and_their_refusals():
    assert read_volume(RANDOM, voxel=(3.0, 1.0, 1.0)).spacing == (3.0, 1.0, 1.0)
    for bad in (RANDOM[0], np.zeros((0, 2, 2)), np.full((2, 2, 2), np.nan), RANDOM.astype(complex), b"text"):
        with pytest.raises(DataRefused):
            read_volume(bad)
    with pytest.raises(DataRefused, match="missing file"):
        read_volume("/nowhere/x.nii")
