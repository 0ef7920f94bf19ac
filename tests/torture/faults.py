"""Input and output that fails at the k-th call: Python's own calls, counted, with the error that a disk would give."""

import builtins
import errno
import io
import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any
from unittest.mock import patch

CALLS = ("open", "fsync", "rename", "replace", "mkdir", "rmdir", "unlink", "chmod", "scandir")
SHORT = "short write"
KINDS = (errno.ENOSPC, errno.EIO, errno.EACCES, SHORT)


class Faults:
    """Counts calls and fails the k-th one, from 0; never when k is None.

    Args:
        kind: an errno, or SHORT: the k-th *write* writes half of what it was given, and says so.
    """

    def __init__(self, k: int | None = None, kind: int | str = errno.EIO) -> None:
        self.k, self.kind = k, kind
        self.num_calls = self.num_writes = 0

    def call(self) -> None:
        self.num_calls += 1
        if isinstance(self.kind, int) and self.num_calls - 1 == self.k:
            raise OSError(self.kind, os.strerror(self.kind))

    def length(self, data: Any) -> int:
        """How many bytes of a write get through."""
        self.call()
        self.num_writes += 1
        return len(data) // 2 if self.kind == SHORT and self.num_writes - 1 == self.k else len(data)

    @contextmanager
    def injected(self) -> Iterator["Faults"]:
        """While the block runs, every call of `CALLS`, every `open` and every read and write of a file is counted."""
        faults, opened, written = self, io.open, os.write

        class File(io.FileIO):
            def write(self, data: Any) -> int:
                return super().write(memoryview(data)[: faults.length(data)])

            def readinto(self, buffer: Any) -> int:
                faults.call()
                return super().readinto(buffer)

        def open_file(file: Any, mode: str = "r", buffering: int = -1, *rest: Any, **options: Any) -> Any:
            faults.call()
            text = dict(zip(("encoding", "errors", "newline"), rest, strict=False)) | options
            raw_options = {name: text.pop(name) for name in ("closefd", "opener") if name in text}
            raw = File(file, mode.replace("b", "").replace("t", ""), **raw_options)
            if buffering == 0:
                return raw
            stream = io.BufferedReader(raw) if mode[0] == "r" and "+" not in mode else io.BufferedWriter(raw)
            return stream if "b" in mode else io.TextIOWrapper(stream, **text)

        def counted(original: Any) -> Any:
            def call(*arguments: Any, **options: Any) -> Any:
                faults.call()
                return original(*arguments, **options)

            return call

        def write(handle: int, data: Any) -> int:
            return written(handle, memoryview(data)[: faults.length(data)])

        with ExitStack() as stack:
            for name in CALLS:
                stack.enter_context(patch.object(os, name, counted(getattr(os, name))))
            stack.enter_context(patch.object(os, "write", write))
            stack.enter_context(patch.object(io, "open", open_file))
            stack.enter_context(patch.object(builtins, "open", open_file))
            assert opened is not io.open
            yield self
