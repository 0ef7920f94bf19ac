"""Runs the command, examples and functions in forked processes: the libraries are imported once for all of them.

Starting Python and importing torch and transformers takes six seconds of every command, and hundreds of commands run in
the tests. One process imports what the verbs import, and forks for each command: the command still has a process, exit
code, streams, directory and environment of its own, and can be killed.

    done = gapless("measure", "emb", "--json", cwd=folder)      # the server of this test process
    with CommandServer() as server:
        running = server.start("embed", ...)
        os.kill(running.pid, signal.SIGKILL)
        running.wait()                                          # -9, or the exit code

LanceDB starts threads when it is imported, which a fork would lose: each child imports it itself. How long a verb takes
to import, and what it imports, is tested in processes of their own (test_imports.py, test_help.py).
"""

import itertools
import json
import os
import re
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

import pytest


@dataclass
class Running:
    """A command under way."""

    pid: int
    server: "CommandServer"
    out: Path
    err: Path

    def wait(self) -> int:
        """Its exit code; minus the number of the signal that ended it."""
        return os.waitstatus_to_exitcode(self.server.answer(pid=self.pid))

    def communicate(self) -> subprocess.CompletedProcess[str]:
        """Wait for the end; with the streams."""
        code = self.wait()
        streams = [path.read_text(encoding="utf-8", errors="replace") for path in (self.out, self.err)]
        return subprocess.CompletedProcess((), code, *streams)

    def said(self, pattern: str, seconds: float = 60) -> str:
        """Wait for a line of stderr that has the pattern; its first group."""
        end = time.monotonic() + seconds
        while not (found := re.search(pattern, self.err.read_text(encoding="utf-8"))):
            assert time.monotonic() < end, self.err.read_text(encoding="utf-8")
            time.sleep(0.01)
        return found[1]


class CommandServer:
    """The process starts with the first command.

    Args:
        environment: that of the process, where it is another than this one's.
    """

    def __init__(self, environment: Mapping[str, str] | None = None) -> None:
        self.environment = environment
        self._process: subprocess.Popen[str] | None = None
        self._out = Path(tempfile.mkdtemp(prefix="gapless-commands-"))
        self._numbers = itertools.count()

    def __enter__(self) -> "CommandServer":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def start(
        self,
        *words: object,
        cwd: Path | None = None,
        streams: tuple[Path, Path] | None = None,
        largest_file: int | None = None,
    ) -> Running:
        """Start `gapless WORDS...`, `FILE.py WORDS...` or `FILE.py:FUNCTION WORDS...` in a process group of its own.

        Args:
            words: of the command.
            cwd: where it runs, this directory by default.
            streams: the files that stdout and stderr are added to.
            largest_file: bytes that the kernel lets it write into one file.
        """
        number = next(self._numbers)
        out, err = streams or (self._out / f"{number}.out", self._out / f"{number}.err")
        job = {"words": [str(word) for word in words], "cwd": str(cwd or Path.cwd()), "largest_file": largest_file}
        return Running(self.answer(**job, out=str(out), err=str(err)), self, out, err)

    def run(
        self, *words: object, cwd: Path | None = None, largest_file: int | None = None
    ) -> subprocess.CompletedProcess[str]:
        """Run the command to its end; the caller looks at `returncode`."""
        return self.start(*words, cwd=cwd, largest_file=largest_file).communicate()

    def answer(self, **job: object) -> int:
        """What the process says of a job."""
        process = self.process()
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(json.dumps(job) + "\n")
        process.stdin.flush()
        return int(process.stdout.readline())

    def process(self) -> "subprocess.Popen[str]":
        """The process that forks, ready."""
        if self._process is None:
            command = [sys.executable, "-X", "utf8", __file__]
            pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
            self._process = subprocess.Popen(command, **pipes, text=True, env=self.environment)
            assert self._process.stdout is not None
            assert self._process.stdout.readline() == "ready\n"
        return self._process

    def close(self) -> None:
        """End the process that forks."""
        if self._process is not None:
            self._process.communicate(timeout=60)
        shutil.rmtree(self._out, ignore_errors=True)


_servers: list[CommandServer] = []


def shared_server() -> CommandServer:
    """The server of this test process."""
    if not _servers:
        _servers.append(CommandServer())
    return _servers[0]


def gapless(*words: object, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    """`gapless WORDS...` in a process of its own; the caller looks at `returncode`."""
    return shared_server().run(*words, cwd=cwd)


def succeeded(done: subprocess.CompletedProcess[str]) -> str:
    """What a command printed, which must have ended well."""
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


@pytest.fixture(scope="session", autouse=True)
def _servers_end_with_the_tests() -> Iterator[None]:
    yield
    while _servers:
        _servers.pop().close()


# --- the process that forks ---------------------------------------------------------------------------------------


def execute(words: Sequence[str]) -> int:
    """Run the command, the file or the function that the words name."""
    import runpy

    path, _, function = (words or [""])[0].rpartition(":")
    if path.endswith(".py"):
        runpy.run_path(path)[function](*words[1:])
        return 0
    if words and words[0].endswith(".py"):
        sys.argv = list(words)
        sys.path[0] = str(Path(words[0]).parent)
        runpy.run_path(words[0], run_name="__main__")
        return 0
    from gapless.cli.main import main

    return main(words)


def child(words: Sequence[str], cwd: str, largest_file: int | None, out: str, err: str) -> None:
    """Ends this process with the command's exit code."""
    code = 70
    try:
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        for number, path in ((1, out), (2, err)):
            os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND), number)
        signal.signal(signal.SIGINT, signal.default_int_handler)
        os.setpgid(0, 0)
        os.chdir(cwd)
        if largest_file is not None:  # a write up to this size is a short one, the rest is refused (EFBIG)
            resource.setrlimit(resource.RLIMIT_FSIZE, (largest_file, resource.getrlimit(resource.RLIMIT_FSIZE)[1]))
        code = execute(words)
    except KeyboardInterrupt:
        code = 130
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else int(end.code is not None)
    except BaseException:
        import traceback

        traceback.print_exc()
        code = 1
    finally:
        with suppress(BrokenPipeError):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(code)


def threads() -> set[str]:
    """The names of the threads beside the main one, where the system tells."""
    tasks = Path("/proc/self/task")
    others = (task for task in tasks.iterdir() if task.name != str(os.getpid())) if tasks.is_dir() else ()
    return {(task / "comm").read_text().strip() for task in others}


def serve() -> None:
    from gapless.cli.main import quiet_libraries

    quiet_libraries()
    import pyarrow.dataset  # noqa: F401
    import torch
    import transformers.models.auto
    import transformers.models.bert.modeling_bert
    import transformers.models.vit.modeling_vit  # noqa: F401
    from tqdm import tqdm

    import gapless.captioning.training
    import gapless.cli.help_format
    import gapless.closing.close
    import gapless.inference.embed_data
    import gapless.models.export_model
    import gapless.study.compare  # noqa: F401

    torch.set_num_threads(1)
    tqdm.monitor_interval = 0
    tqdm.set_lock(threading.RLock())  # its own is one for all processes: who is killed with it stops the others
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    assert threads() <= {"jemalloc_bg_thd"}, f"a fork would lose {threads()}"  # jemalloc starts its own again
    answers.write("ready\n")
    answers.flush()
    for line in sys.stdin:
        job = json.loads(line)
        if "pid" in job:
            answers.write(f"{os.waitpid(job['pid'], 0)[1]}\n")
        else:
            for path in (job["out"], job["err"]):
                Path(path).touch()
            pid = os.fork()
            if pid == 0:
                child(**job)
            answers.write(f"{pid}\n")
        answers.flush()


if __name__ == "__main__":
    serve()
