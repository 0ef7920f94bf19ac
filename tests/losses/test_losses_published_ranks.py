"""The published losses over 1, 2 and 4 gloo processes: terms and gradients of one process on the whole batch."""

import published_ranks
import pytest
from rank_processes import run_ranks
from test_losses_gathered import largest_error


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    """Results by number of ranks, rank and case."""
    directory = tmp_path_factory.mktemp("published-ranks")
    cases = [case.__name__ for case in published_ranks.CASES]
    return {
        1: run_ranks(published_ranks.work, 1, directory, ["exact", "masked"]),
        2: run_ranks(published_ranks.work, 2, directory, cases),
        4: run_ranks(published_ranks.work, 4, directory, ["masked"]),
    }


@pytest.mark.parametrize(("num_ranks", "case"), [(2, "exact"), (2, "masked"), (4, "masked")])
def test_every_term_and_gradient_is_that_of_one_process(found, num_ranks, case):
    """With positives; the gradient of the temperature is whole on every rank."""
    reference = found[1][0][case]
    for rank in found[num_ranks]:
        assert rank[case].keys() == reference.keys()
        errors = {name: largest_error(rank[case][name], one) for name, one in reference.items()}
        assert max(errors.values()) < 1e-10, errors


def test_blocks_of_rows_change_nothing(found):
    for rank in found[2]:
        for name, gradients in rank["in_blocks"].items():
            assert largest_error(gradients, found[1][0]["exact"][name]) < 1e-10


@pytest.mark.parametrize("control", ["without_gradient_through_the_gather", "with_a_temperature_of_its_own"])
def test_the_controls_are_wrong(found, control):
    for rank in found[2]:
        for name, gradients in rank[control].items():
            assert largest_error(gradients, found[1][0]["exact"][name]) > 1e-3, name
