"""1, 2 and 4 gloo processes against one process on the same global batch, in float64."""

import loss_ranks
import pytest
from rank_processes import run_ranks


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    """Results by number of ranks, rank and case."""
    directory = tmp_path_factory.mktemp("ranks")
    return {
        1: run_ranks(loss_ranks.work, 1, directory, ["exact", "products"]),
        2: run_ranks(loss_ranks.work, 2, directory, [case.__name__ for case in loss_ranks.CASES]),
        4: run_ranks(loss_ranks.work, 4, directory, ["exact"]),
    }


def largest_error(ours, reference):
    return max((ours[name] - expected).abs().max().item() for name, expected in reference.items())


@pytest.mark.parametrize("num_ranks", [2, 4])
def test_every_gradient_is_that_of_one_process(found, num_ranks):
    """With and without positives, the loss inside and outside of DDP, two accumulated batches."""
    (reference,) = found[1]
    for rank in found[num_ranks]:
        for variant, expected in reference["exact"].items():
            assert largest_error(rank["exact"][variant], expected) < 1e-10


def test_cached_accumulation_under_ddp_is_exact_too(found):
    for rank in found[2]:
        assert largest_error(rank["with_cached_embeddings"], found[1][0]["exact"]["11"]) < 1e-10


@pytest.mark.parametrize("control", ["without_gradient_through_the_gather", "each_rank_alone"])
def test_the_controls_are_wrong(found, control):
    for rank in found[2]:
        assert largest_error(rank[control], found[1][0]["exact"]["00"]) > 1e-3


def test_what_cannot_be_one_batch_is_refused_on_every_rank(found):
    for rank in found[2]:
        assert rank["refusals"] == [
            "the ranks hold batches of different sizes [4, 3]: drop the last, uneven batch",
            "all 12 rows are positives of each other (5): nothing to tell apart",
            "some ranks were given positives and others were not",
            "accepted",
        ]


def test_one_row_on_each_rank_is_a_batch(found):
    for rank in found[2]:
        assert rank["one_row_each"] == pytest.approx(-4.0)


def test_each_rank_does_its_share_of_the_products(found):
    (alone,) = found[1]
    # 4 for the contrastive term, 1.5 for uniformity, and half a diagonal of tiles
    assert alone["products"] == pytest.approx(5.5, abs=0.05)
    assert sum(rank["products"] for rank in found[2]) == pytest.approx(alone["products"])
    assert max(rank["products"] for rank in found[2]) < 0.52 * alone["products"]
