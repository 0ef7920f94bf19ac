"""Runs a function on several ranks, each a process of its own, or a command on two ranks of torchrun."""

import multiprocessing
import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

SECONDS = 240  # a stalled rank would wait for the others


def run_ranks(work: Callable[..., None], num_ranks: int, directory: Path, cases: Sequence[str]) -> list[Any]:
    """What each rank saved, in the order of the ranks.

    The fork server imports torch once for all ranks, and `torch._dynamo`, which DDP imports when it is built.

    Args:
        work: `work(rank, num_ranks, cases, init_file, out)` of a module; saves its results in `out`.
        num_ranks: the number of processes.
        directory: for the files of the processes.
        cases: what is to be run.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["torch._dynamo", "gapless.losses.gap_closing"])
    outs = [directory / f"{num_ranks}-{rank}.pt" for rank in range(num_ranks)]
    processes = [
        context.Process(target=work, args=(rank, num_ranks, [*cases], directory / f"{num_ranks}.init", out))
        for rank, out in enumerate(outs)
    ]
    for process in processes:
        process.start()
    for process in processes:
        process.join(timeout=SECONDS)
        process.kill()
    assert [process.exitcode for process in processes] == [0] * num_ranks
    return [torch.load(out, weights_only=True) for out in outs]


def run_by_torchrun(*words: object, timeout: float = 600) -> "subprocess.CompletedProcess[str]":
    """`-m MODULE WORDS...` or `SCRIPT WORDS...` on two processes of torchrun; the caller looks at `returncode`."""
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node=2", "--standalone", *map(str, words)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.run(command, capture_output=True, text=True, timeout=timeout, env=environment, check=False)
