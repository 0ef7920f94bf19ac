"""The pairwise losses on 2 and 4 gloo processes against one process on the same global batch, in float64."""

import pairwise_ranks
import pytest
from rank_processes import run_ranks
from test_losses_gathered import largest_error


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    directory = tmp_path_factory.mktemp("ranks")
    return {
        1: {"exact": pairwise_ranks.exact(0, 1)},
        2: run_ranks(pairwise_ranks.work, 2, directory, ["exact", "alone"]),
        4: run_ranks(pairwise_ranks.work, 4, directory, ["exact"]),
    }


@pytest.mark.parametrize("num_ranks", [2, 4])
def test_every_gradient_is_that_of_one_process(found, num_ranks):
    """Every loss, with and without masks and positives; the draws of swaps are those of the whole batch."""
    for rank in found[num_ranks]:
        for variant, expected in found[1]["exact"].items():
            assert largest_error(rank["exact"][variant], expected) < 1e-10, variant


def test_ranks_that_do_not_gather_are_another_loss(found):
    """The control."""
    for rank in found[2]:
        assert largest_error(rank["alone"], found[1]["exact"]["siglip-False-False"]) > 1e-3
