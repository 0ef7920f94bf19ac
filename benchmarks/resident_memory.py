"""The resident memory of this process, as Linux counts it."""

from pathlib import Path


def resident(key: str) -> int:
    """Bytes: VmRSS is now, VmHWM the peak."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{key}:"))


def peak_bytes() -> int:
    """The peak of this process. `ru_maxrss` of `getrusage` is no less than what the process that started it had."""
    return resident("VmHWM")
