"""Which of several processes this one is, where torchrun started them."""

import os
from collections.abc import Mapping


def rank_and_count(environment: Mapping[str, str] = os.environ) -> tuple[int, int]:
    """The number of this process, from 0, and how many there are; (0, 1) without torchrun."""
    return int(environment.get("RANK", 0)), int(environment.get("WORLD_SIZE", 1))
