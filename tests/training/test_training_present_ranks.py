"""A model under DDP, where a rank has no row of a modality: no stall, and the gradient of one process."""

import present_ranks
import pytest
import torch
from rank_processes import run_ranks

pytestmark = pytest.mark.ci  # two processes


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    """Results by number of ranks and rank."""
    directory = tmp_path_factory.mktemp("present")
    return {
        num_ranks: run_ranks(present_ranks.work, num_ranks, directory, [*present_ranks.CASES]) for num_ranks in (1, 2)
    }


@pytest.mark.parametrize("case", present_ranks.CASES)
def test_two_ranks_have_the_gradient_of_one_process(found, case):
    (alone,) = found[1]
    for rank in found[2]:
        for ours, expected in zip(rank[case], alone[case], strict=True):
            assert ours.keys() == expected.keys()
            for name, gradient in expected.items():
                torch.testing.assert_close(ours[name], gradient, atol=2e-6, rtol=1e-4)
    assert not alone[case][2]["heads.waveform.0.weight"].any()
    assert alone[case][1]["heads.waveform.0.weight"].any()
