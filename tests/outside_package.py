"""The package in `tests/outside`, installed into a folder of its own, and the real command that sees it there.

def test_a_door(outside_site):
    done = outside_site.gapless("compare", "--methods", "outside-sigmoid", ...)
"""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from command_server import CommandServer

SOURCE = Path(__file__).parent / "outside"


@dataclass(frozen=True)
class OutsideSite:
    """A folder that the outside package is installed in."""

    folder: Path
    _servers: list[CommandServer] = field(default_factory=list)

    def environment(self) -> dict[str, str]:
        """The environment of a process that has the package installed."""
        paths = [str(self.folder), os.environ.get("PYTHONPATH", "")]
        return {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, paths))}

    def gapless(self, *words: object, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
        """Run `gapless WORDS...` in a process that has the package installed; the caller looks at `returncode`."""
        if not self._servers:
            self._servers.append(CommandServer(self.environment()))
        return self._servers[0].run(*words, cwd=cwd)

    def close(self) -> None:
        """End the process that runs the commands."""
        for server in self._servers:
            server.close()

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
