"""How much memory a process may use."""

import os
from pathlib import Path

OWN_GROUPS = Path("/proc/self/cgroup")
GROUPS = Path("/sys/fs/cgroup")
VERSION_1 = "memory/memory.limit_in_bytes"


def memory_limit() -> int | None:
    """Bytes of memory of this computer or, where it has less, of the container that this process runs in.

    Returns:
        None on a system that says neither.
    """
    limits = [limit for limit in (_of_computer(), *_of_control_groups()) if limit is not None]
    return min(limits, default=None)


def _of_computer() -> int | None:
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, ValueError, OSError):
        return None


def _of_control_groups() -> list[int | None]:
    """The limits of Linux: of the process's own group and those around it, of version 2 and of version 1."""
    try:
        lines = OWN_GROUPS.read_text().splitlines()
    except OSError:
        return []
    own = next((Path(line[len("0::/") :]) for line in lines if line.startswith("0::/")), Path())
    around = [GROUPS / group / "memory.max" for group in (own, *own.parents)]
    return [_number_in(file) for file in (*around, GROUPS / VERSION_1)]


def _number_in(file: Path) -> int | None:
    try:
        return int(file.read_text())  # "max" is no limit
    except (OSError, ValueError):
        return None
