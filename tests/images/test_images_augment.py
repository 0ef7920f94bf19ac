"""Augmentation: drawn from (seed, epoch, sample id) and nothing else, and never a flip."""

import numpy as np
import pytest
from data_samples import noise_image

from gapless.images.augment import augment, uniform_draws

IMAGE = np.asarray(noise_image(0, (32, 32)))


def test_the_same_key_gives_the_same_pixels():
    assert np.array_equal(augment(IMAGE, 1, 2, "a"), augment(IMAGE, 1, 2, "a"))
    for other in ((2, 2, "a"), (1, 3, "a"), (1, 2, "b")):
        assert not np.array_equal(augment(IMAGE, 1, 2, "a"), augment(IMAGE, *other))


def test_shape_and_type_stay_and_the_input_is_untouched():
    before = IMAGE.copy()
    colour = np.stack([IMAGE, IMAGE, IMAGE], axis=-1)
    assert augment(IMAGE, 0, 0, "a").shape == (32, 32)
    assert augment(colour, 0, 0, "a").shape == (32, 32, 3)
    assert augment(colour, 0, 0, "a").dtype == np.uint8
    assert np.array_equal(before, IMAGE)
    assert np.array_equal(augment(colour, 0, 0, "a")[..., 1], augment(IMAGE, 0, 0, "a"))


def test_left_stays_left():
    """A mark on the left third is never found on the right; a flip, the control, would put it there."""
    marked = np.zeros((32, 32), np.uint8)
    marked[8:24, 4:10] = 200
    for number in range(200):
        changed = augment(marked, 0, number, "a").astype(float)
        assert changed[:, :16].sum() > changed[:, 16:].sum()
    flipped = marked[:, ::-1]
    assert flipped[:, :16].sum() < flipped[:, 16:].sum()


def test_what_stays_is_most_of_the_image():
    for number in range(50):
        changed = augment(IMAGE, 0, number, "a")
        assert np.corrcoef(changed.ravel(), IMAGE.ravel())[0, 1] > 0.6


def test_draws_are_uniform():
    draws = np.array([list(uniform_draws(str(key))) for key in range(500)])
    assert draws.shape == (500, 16)
    assert draws.min() >= 0
    assert draws.max() < 1
    assert np.abs(draws.mean(axis=0) - 0.5).max() < 0.06


def test_other_arrays_are_refused():
    with pytest.raises(ValueError, match=r"float64 \(4, 4\)"):
        augment(np.zeros((4, 4)), 0, 0, "a")
