"""A process that has imported what the verbs need and forks for every command, so that a kill can hit any moment of the
work itself and not the seconds of importing.

    with Prepared() as prepared:
        running = prepared.start(["embed", ...], log)
        os.kill(running.pid, signal.SIGKILL)
        running.wait()                      # -9, or the exit code

LanceDB starts threads when it is imported, which a fork would lose: each child imports it itself.
"""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any


@dataclass
class Running:
    """A command under way."""

    pid: int
    answers: Any

    def wait(self) -> int:
        """Its exit code; minus the number of the signal that ended it."""
        return os.waitstatus_to_exitcode(int(self.answers.readline()))


class Prepared:
    """One command at a time."""

    def __enter__(self) -> "Prepared":
        command = [sys.executable, __file__]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        assert self.process.stdout is not None
        assert self.process.stdout.readline() == "ready\n"
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.process.communicate(timeout=60)

    def start(self, words: Sequence[object], log: Path) -> Running:
        """`gapless WORDS`, or `FILE.py:FUNCTION ARGUMENT...`; both streams go to the end of `log`."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(json.dumps({"words": [str(word) for word in words], "log": str(log)}) + "\n")
        self.process.stdin.flush()
        return Running(int(self.process.stdout.readline()), self.process.stdout)

    def run(self, words: Sequence[object], log: Path) -> int:
        return self.start(words, log).wait()


def function_named(name: str) -> Callable[..., Any]:
    """What `FILE.py:FUNCTION` names."""
    import runpy

    path, _, function = name.rpartition(":")
    found: Callable[..., Any] = runpy.run_path(path)[function]
    return found


def child(words: Sequence[str], log: str) -> None:
    """Ends this process with the command's exit code."""
    code = 70
    try:
        handle = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(handle, 1)
        os.dup2(handle, 2)
        signal.signal(signal.SIGINT, signal.default_int_handler)
        if ".py:" in words[0]:
            function_named(words[0])(*words[1:])
            code = 0
        else:
            from gapless.cli.main import main

            code = main(words)
    except KeyboardInterrupt:
        code = 130
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def serve() -> None:
    import pyarrow.dataset  # noqa: F401
    import torch
    import transformers.models.auto  # noqa: F401

    torch.set_num_threads(1)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    answers.write("ready\n")
    answers.flush()
    for line in sys.stdin:
        request = json.loads(line)
        pid = os.fork()
        if pid == 0:
            child(request["words"], request["log"])
        answers.write(f"{pid}\n")
        answers.flush()
        answers.write(f"{os.waitpid(pid, 0)[1]}\n")
        answers.flush()


if __name__ == "__main__":
    serve()
