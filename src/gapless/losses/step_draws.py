"""Random numbers of a training step, from the seed of the run and the number of the step."""

import hashlib

import torch
from torch import Tensor


class StepDraws:
    """Draws that a resumed run, or one with another number of processes, repeats.

    Args:
        purpose: two that differ in it draw other numbers.
    """

    def __init__(self, purpose: str) -> None:
        self.purpose = purpose
        self.begin(0, 0)

    def begin(self, seed: int, step: int) -> None:
        """Set the seed of the run and the number of the step."""
        self.seed, self.step, self.num_draws = seed, step, 0

    def generator(self) -> torch.Generator:
        """A generator for the next draw of the step: of several pairs of modalities, or several micro-batches."""
        words = f"{self.purpose}/{self.seed}/{self.step}/{self.num_draws}"
        self.num_draws += 1
        digest = hashlib.blake2b(words.encode(), digest_size=7).digest()
        return torch.Generator().manual_seed(int.from_bytes(digest, "little"))

    def normal(self, num_rows: int, size: int) -> Tensor:
        """[num_rows, size] standard normal numbers, fp32, on the CPU."""
        return torch.randn(num_rows, size, generator=self.generator())
