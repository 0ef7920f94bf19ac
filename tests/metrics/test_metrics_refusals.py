"""Bad input: one sentence that shows what arrived."""

import numpy as np
import pytest
import torch

from gapless.core.errors import DataRefused, UsageError
from gapless.metrics.measure import measure

GOOD = torch.eye(4).repeat(3, 1)


@pytest.mark.parametrize(
    ("embeddings", "message"),
    [
        ({}, "at least 2 modalities, got 0"),
        ({"image": GOOD}, r"at least 2 modalities, got 1 \(image\)"),
        ({"image": GOOD, "text": GOOD[:5]}, r"one shape, got image \(12, 4\), text \(5, 4\)"),
        ({"image": GOOD, "text": GOOD[:, :3]}, r"one shape, got image \(12, 4\), text \(12, 3\)"),
        ({"image": GOOD, "text": GOOD.long()}, "text: expected floating-point rows, got torch.int64"),
        ({"image": GOOD, "text": np.ones((12, 4), dtype=int)}, "text: expected floating-point rows, got int64"),
        ({"image": GOOD, "text": np.array([[None]])}, "text: expected floating-point rows, got object"),
        ({"image": GOOD, "text": [[1.0]]}, "text: expected floating-point rows, got list"),
        ({"image": GOOD, "text": GOOD[0]}, r"text: expected a \[pair, dim\] matrix, got shape \(4,\)"),
        ({"image": GOOD[:1], "text": GOOD[:1]}, "at least 2 rows, got 1"),
    ],
)
def test_embeddings_that_do_not_fit_are_shown(embeddings, message):
    with pytest.raises(ValueError, match=message):
        measure(embeddings)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_broken_rows_are_counted_and_named(value):
    broken = GOOD.clone()
    broken[[2, 7], 1] = value
    with pytest.raises(DataRefused, match=r"text: 2 of 12 rows hold NaN or infinite values \(row 2, 7\)"):
        measure({"image": GOOD, "text": broken})


def test_zero_rows_are_counted_and_named():
    broken = GOOD.clone()
    broken[:11] = 0
    with pytest.raises(DataRefused, match=r"11 of 12 rows are all zeros .*\(row 0, 1, 2, 3, 4, 5, 6, 7, 8, 9\)"):
        measure({"image": broken, "text": GOOD})


def test_tiny_and_huge_rows_are_neither_zero_nor_infinite():
    """Squares of 1e-30 vanish and squares of 1e30 overflow in fp32; directions do not."""
    plain = measure({"image": GOOD, "text": GOOD.flip(1)}, include=("gap",))
    for scale in (1e-30, 1e30):
        found = measure({"image": GOOD * scale, "text": GOOD.flip(1)}, include=("gap",))
        assert found["gap/centroid_distance"] == pytest.approx(plain["gap/centroid_distance"], abs=1e-6)


def test_options_that_do_not_exist_are_refused_with_those_that_do():
    with pytest.raises(UsageError, match="anchor modality 'audio'; known: image, text"):
        measure({"image": GOOD, "text": GOOD}, anchor="audio")
    with pytest.raises(UsageError, match="'speed'; known: further, gap, grouping, mixed, probe, retrieval"):
        measure({"image": GOOD, "text": GOOD}, include=("speed",))
    with pytest.raises(ValueError, match="expected 12 groups, one per row"):
        measure({"image": GOOD, "text": GOOD}, groups=["a"])
    with pytest.raises(ValueError, match="expected 12 captions, one per row"):
        measure({"image": GOOD, "text": GOOD}, captions=["a"])


def test_read_only_memory_maps_and_half_precision_are_taken(tmp_path):
    np.save(tmp_path / "a.npy", GOOD.half().numpy())
    mapped = np.load(tmp_path / "a.npy", mmap_mode="r")
    figures = measure({"image": mapped, "text": GOOD.bfloat16()}, include=("gap",))
    assert figures["gap/true_pair_cosine"] == pytest.approx(1.0)


def test_metrics_need_torch_and_numpy_only_until_they_probe():
    """The import of the figures costs no scikit-learn."""
    import subprocess
    import sys

    code = "import sys, gapless.metrics.measure; sys.exit(any(name in sys.modules for name in ('sklearn', 'scipy')))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
