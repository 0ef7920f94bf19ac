"""The memory of this computer and of the container that limits it."""

from pathlib import Path

import pytest

from gapless.core import memory


@pytest.fixture
def groups(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Linux's control groups below a folder; the computer has 64 GiB."""
    monkeypatch.setattr("os.sysconf", {"SC_PHYS_PAGES": 2**24, "SC_PAGE_SIZE": 4096}.__getitem__)
    monkeypatch.setattr(memory, "OWN_GROUPS", tmp_path / "cgroup")
    monkeypatch.setattr(memory, "GROUPS", tmp_path / "groups")
    (tmp_path / "groups" / "docker" / "one").mkdir(parents=True)
    (tmp_path / "groups" / "memory").mkdir()
    return tmp_path / "groups"


def test_a_container_has_its_own_limit_or_that_of_a_group_around_it(groups: Path) -> None:
    assert memory.memory_limit() == 2**36
    (groups.parent / "cgroup").write_text("0::/docker/one\n")
    (groups / "docker" / "one" / "memory.max").write_text("max\n")
    assert memory.memory_limit() == 2**36
    (groups / "docker" / "memory.max").write_text(f"{2**33}\n")
    assert memory.memory_limit() == 2**33
    (groups / "docker" / "one" / "memory.max").write_text(f"{2**32}\n")
    assert memory.memory_limit() == 2**32


def test_a_container_sees_its_group_as_the_root(groups: Path) -> None:
    (groups.parent / "cgroup").write_text("0::/\n")
    (groups / "memory.max").write_text(f"{2**32}\n")
    assert memory.memory_limit() == 2**32


def test_groups_of_version_1(groups: Path) -> None:
    (groups.parent / "cgroup").write_text("9:memory:/\n")
    (groups / "memory" / "memory.limit_in_bytes").write_text(f"{2**31}\n")
    assert memory.memory_limit() == 2**31
    (groups / "memory" / "memory.limit_in_bytes").write_text("9223372036854771712\n")  # no limit
    assert memory.memory_limit() == 2**36


def test_a_system_that_says_nothing(groups: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr("os.sysconf")
    assert memory.memory_limit() is None
