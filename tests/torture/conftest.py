"""What is not at full length here (`make torture`) runs in CI: interruptions, full disks and damage take minutes."""

from pathlib import Path

import pytest

RUN_ELSEWHERE = ("torture", "slow", "network")


@pytest.hookimpl(tryfirst=True)  # before the tests are chosen by their marks
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark the tests of this folder; pytest gives those of all folders."""
    for item in items:
        is_here = Path(__file__).parent in item.path.parents
        if is_here and not any(item.get_closest_marker(name) for name in RUN_ELSEWHERE):
            item.add_marker("ci")
