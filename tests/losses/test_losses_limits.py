"""The memory that the loss engine promises, each figure from a process of its own."""

import importlib.util
import sys
from pathlib import Path

import pytest

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc"),
    pytest.mark.timeout(1800),
]


@pytest.fixture(scope="module")
def benchmark():
    path = Path(__file__).parents[2] / "benchmarks" / "loss.py"
    spec = importlib.util.spec_from_file_location("benchmark_of_the_loss", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_a_sixth_of_the_published_formula_at_8192_pairs(benchmark):
    ours, published = (benchmark.memory(name, 8192, 512, threads=2) for name in ("gapless", "published formula"))
    assert ours <= published / 6


def test_memory_is_linear_in_the_pairs(benchmark):
    small, large = (benchmark.memory("gapless", num_pairs, 512, threads=2) for num_pairs in (8192, 16384))
    assert large <= 2 * small


def test_65536_pairs_in_4_gib(benchmark):
    inputs = 2 * 65536 * 512 * 4
    assert benchmark.memory("gapless", 65536, 512, threads=2) + inputs < 4 * 2**30
