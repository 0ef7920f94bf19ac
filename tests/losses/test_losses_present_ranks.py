"""Masks over 1, 2 and 4 gloo processes: the loss and the gradient of one process, whatever a rank is left with."""

import masked_ranks
import pytest
from rank_processes import run_ranks
from test_losses_gathered import largest_error


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    """Results by number of ranks, rank and case."""
    directory = tmp_path_factory.mktemp("masked-ranks")
    cases = [case.__name__ for case in masked_ranks.CASES]
    return {
        1: run_ranks(masked_ranks.work, 1, directory, ["exact", "complete"]),
        2: run_ranks(masked_ranks.work, 2, directory, cases),
        4: run_ranks(masked_ranks.work, 4, directory, ["exact", "complete", "cached"]),
    }


@pytest.mark.parametrize("num_ranks", [2, 4])
def test_every_term_and_gradient_is_that_of_one_process(found, num_ranks):
    """With positives and without, pairs and weights; a rank of four has no row of a modality, absent rows are NaN."""
    (reference,) = found[1]
    for rank in found[num_ranks]:
        assert rank["exact"].keys() == reference["exact"].keys()
        for variant, expected in reference["exact"].items():
            assert largest_error(rank["exact"][variant], expected) < 1e-10
        assert largest_error(rank["complete"], reference["complete"]) < 1e-10


@pytest.mark.parametrize("num_ranks", [2, 4])
def test_cached_accumulation_is_exact_too(found, num_ranks):
    for rank in found[num_ranks]:
        assert largest_error(rank["cached"], found[1][0]["exact"]["rows-all-None"]) < 1e-10


def test_the_control_of_each_rank_alone_is_wrong(found):
    for rank in found[2]:
        assert largest_error(rank["each_rank_alone"], found[1][0]["exact"]["none-anchor-None"]) > 1e-3


def test_masks_are_given_by_all_ranks_or_by_none(found):
    for rank in found[2]:
        assert rank["refusal"].startswith("some ranks were given present-masks and others were not")
