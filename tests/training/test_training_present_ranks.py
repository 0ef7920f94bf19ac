"""A model under DDP, where a rank has no row of a modality: no stall, and the gradient of one process."""

import multiprocessing

import present_ranks
import pytest
import torch


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    """Results by number of ranks and rank."""
    directory = tmp_path_factory.mktemp("present")
    return {num_ranks: run_ranks(num_ranks, directory) for num_ranks in (1, 2)}


def run_ranks(num_ranks, directory):
    context = multiprocessing.get_context("forkserver")
    outs = [directory / f"{num_ranks}-{rank}.pt" for rank in range(num_ranks)]
    init_file = directory / f"{num_ranks}.init"
    processes = [
        context.Process(target=present_ranks.work, args=(rank, num_ranks, [*present_ranks.CASES], init_file, out))
        for rank, out in enumerate(outs)
    ]
    for process in processes:
        process.start()
    for process in processes:
        process.join(timeout=120)
        process.kill()  # a stalled rank would wait for the other one
    assert [process.exitcode for process in processes] == [0] * num_ranks
    return [torch.load(out, weights_only=True) for out in outs]


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
