"""The package in `tests/outside`, installed into a folder of its own, and the real command that sees it there.

def test_a_door(outside_site):
    done = outside_site.gapless("compare", "--methods", "outside-sigmoid", ...)
"""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

SOURCE = Path(__file__).parent / "outside"
# Runs each command in a forked process of its own, which ends with it: the libraries are imported once for all of them.
COMMAND_SERVER = """
import json, os, sys
import gapless.cli.help_format, gapless.closing.close, gapless.metrics.measure, gapless.models.export_model
import gapless.study.compare, gapless.training.train
from gapless.cli.main import main

def run(argv, cwd, out):
    os.chdir(cwd)
    for number, name in ((1, "stdout"), (2, "stderr")):
        os.dup2(os.open(os.path.join(out, name), os.O_WRONLY | os.O_CREAT | os.O_TRUNC), number)
    try:
        code = main(argv)
    except SystemExit as end:
        code = int(end.code or 0)
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)

for line in sys.stdin:
    child = os.fork()
    if child == 0:
        run(**json.loads(line))
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
"""


@dataclass(frozen=True)
class OutsideSite:
    """A folder that the outside package is installed in."""

    folder: Path
    _servers: list[subprocess.Popen[str]] = field(default_factory=list)

    def environment(self) -> dict[str, str]:
        """The environment of a process that has the package installed."""
        paths = [str(self.folder), os.environ.get("PYTHONPATH", "")]
        return {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, paths))}

    def gapless(self, *words: object, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
        """Run `gapless WORDS...` in a process that has the package installed; the caller looks at `returncode`."""
        server = self._server()
        assert server.stdin is not None
        assert server.stdout is not None
        out = self.folder.parent
        argv = list(map(str, words))
        server.stdin.write(json.dumps({"argv": argv, "cwd": str(cwd or Path.cwd()), "out": str(out)}) + "\n")
        server.stdin.flush()
        code = int(server.stdout.readline())
        said = {name: (out / name).read_text(encoding="utf-8") for name in ("stdout", "stderr")}
        return subprocess.CompletedProcess(argv, code, **said)

    def _server(self) -> subprocess.Popen[str]:
        if not self._servers:
            command = [sys.executable, "-X", "utf8", "-c", COMMAND_SERVER]
            pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
            self._servers.append(subprocess.Popen(command, **pipes, text=True, env=self.environment()))
        return self._servers[0]

    def close(self) -> None:
        """End the process that runs the commands."""
        for server in self._servers:
            server.kill()
            server.communicate()

    def python(self, *words: object, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
        """Run Python with these words in a new process that has the package installed."""
        command = [sys.executable, *map(str, words)]
        return subprocess.run(
            command, capture_output=True, text=True, timeout=240, check=False, cwd=cwd, env=self.environment()
        )


@pytest.fixture(scope="session")
def outside_site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[OutsideSite]:
    """The outside package, installed by pip: its entry points are those of a package from anywhere else."""
    copy = tmp_path_factory.mktemp("outside") / "source"
    shutil.copytree(SOURCE, copy)  # setuptools leaves build folders beside the source
    folder = copy.with_name("site")
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-build-isolation", "--no-index"]
    done = subprocess.run(
        [*command, "--disable-pip-version-check", "--target", str(folder), str(copy)],
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    site = OutsideSite(folder)
    yield site
    site.close()
