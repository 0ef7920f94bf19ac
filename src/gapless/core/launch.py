"""Which of several processes this one is, where torchrun started them."""

import os
from collections.abc import Mapping


def rank_and_count(environment: Mapping[str, str] = os.environ) -> tuple[int, int]:
    """The number of this process, from 0, and how many there are; (0, 1) without torchrun."""
    return int(environment.get("RANK", 0)), int(environment.get("WORLD_SIZE", 1))


def rank_and_count_here(environment: Mapping[str, str] = os.environ) -> tuple[int, int]:
    """As `rank_and_count`, among the processes of this machine: each takes the accelerator of its number."""
    return int(environment.get("LOCAL_RANK", 0)), int(environment.get("LOCAL_WORLD_SIZE", 1))
