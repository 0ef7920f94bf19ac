"""Embeddings in every precision, byte order and memory layout: the figures of the same numbers in float64."""

import numpy as np
import pytest
import torch

from gapless.core.errors import DataRefused
from gapless.metrics.measure import measure

PARTS = ("gap", "retrieval")


def rows(seed):
    return np.random.default_rng(seed).normal(size=(30, 6)) + 0.4


def figures(image, text):
    return {key: value for key, value in measure({"image": image, "text": text}, include=PARTS).items() if "/" in key}


def reversed_in_memory(values):
    return np.ascontiguousarray(values[::-1])[::-1]


@pytest.mark.parametrize(
    "changed",
    [
        lambda values: values.astype("f4"),
        lambda values: values.astype("f2"),
        lambda values: values.astype(">f8"),
        lambda values: values.astype(">f4"),
        lambda values: values.astype(">f2"),
        lambda values: values.astype(np.longdouble),
        np.asfortranarray,
        reversed_in_memory,
        lambda values: np.repeat(values, 2, axis=0)[::2],
        lambda values: torch.from_numpy(values).to(torch.bfloat16),
        lambda values: torch.from_numpy(values).float(),
    ],
)
def test_the_figures_are_those_of_float64(changed):
    image, text = rows(0), rows(0) + 0.5 * rows(1)
    given = changed(image)
    same = given.double().numpy() if isinstance(given, torch.Tensor) else np.array(given, dtype="f8")
    found, wanted = figures(given, text), figures(same, text)
    assert found.keys() == wanted.keys()
    assert all(found[key] == pytest.approx(wanted[key], abs=1e-5) for key in wanted)
    assert figures(given, given)["gap/true_pair_cosine"] == pytest.approx(1, abs=1e-6)


def test_a_masked_number_counts_as_nan_and_other_numbers_are_refused():
    values = np.ma.array(rows(0), mask=False)
    values[3, 2] = np.ma.masked
    with pytest.raises(DataRefused, match=r"1 of 30 rows hold NaN or infinite values \(row 3\)"):
        figures(values, rows(1))
    for wrong in (rows(0) > 0, (rows(0) * 9).astype(int), rows(0).astype(complex)):
        with pytest.raises(ValueError, match="image: expected floating-point rows"):
            figures(wrong, rows(1))
    with pytest.raises(ValueError, match="at least 1 number"):
        figures(np.zeros((4, 0)), np.zeros((4, 0)))
    with pytest.raises(ValueError, match="got shape"):
        figures(np.array(3.0), rows(1))
