"""Locks that give a directory, or one output in it, one writing process at a time."""

import errno
import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

from gapless.core.errors import UsageError

LOCK_FILE = ".lock"


@contextmanager
def only_writer(directory: Path, lock_file: str = LOCK_FILE, named: str | None = None) -> Iterator[None]:
    """Lock a directory for this process, and create it if needed; a directory that is empty at the end is removed.

    The operating system releases the lock when the process ends. On a file system without locks nothing is locked.

    Args:
        lock_file: another name locks one output, so that other outputs of the directory can be written meanwhile.
        named: how the error message calls the output; by default the directory.

    Raises:
        UsageError: another process has the lock.
    """
    directory.mkdir(parents=True, exist_ok=True)
    lock = directory / lock_file
    with lock.open("a") as stream, not_inherited(stream):
        try:
            with _suppress_missing_locks():
                fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
            is_ours = os.path.samestat(os.fstat(stream.fileno()), lock.stat())
        except (BlockingIOError, FileNotFoundError):
            is_ours = False
        if not is_ours:  # held by another process, or removed by one that has just finished
            what = named or directory
            raise UsageError(f"another process is writing {what}; wait until it is done, or choose another --out")
        try:
            yield
        finally:
            lock.unlink(missing_ok=True)
            with suppress(OSError):
                directory.rmdir()


_lock_files: set[IO[str]] = set()  # open ones of this process


def _close_inherited() -> None:
    for stream in _lock_files:
        stream.close()
    _lock_files.clear()


os.register_at_fork(after_in_child=_close_inherited)


@contextmanager
def not_inherited(stream: IO[str]) -> Iterator[None]:
    """Close a lock file in forked processes: a data-loading worker would keep the lock after its parent ended."""
    _lock_files.add(stream)
    try:
        yield
    finally:
        _lock_files.discard(stream)


@contextmanager
def _suppress_missing_locks() -> Iterator[None]:
    """Ignore the errors of a file system without locks."""
    try:
        yield
    except OSError as error:
        if error.errno not in (errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOLCK):
            raise
