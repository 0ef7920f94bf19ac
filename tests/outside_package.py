"""The package in `tests/outside`, installed into a folder of its own, and the real command that sees it there.

def test_a_door(outside_site):
    done = outside_site.gapless("compare", "--methods", "outside-sigmoid", ...)
"""

import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

SOURCE = Path(__file__).parent / "outside"


@dataclass(frozen=True)
class OutsideSite:
    """A folder that the outside package is installed in."""

    folder: Path

    def environment(self) -> dict[str, str]:
        """The environment of a process that has the package installed."""
        paths = [str(self.folder), os.environ.get("PYTHONPATH", "")]
        return {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, paths))}

    def gapless(self, *words: object, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
        """Run `gapless WORDS...` in a process that has the package installed; the caller looks at `returncode`."""
        return self.python("-m", "gapless", *words, cwd=cwd)

    def python(self, *words: object, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, *map(str, words)]
        return subprocess.run(
            command, capture_output=True, text=True, timeout=240, check=False, cwd=cwd, env=self.environment()
        )


@pytest.fixture(scope="session")
def outside_site(tmp_path_factory: pytest.TempPathFactory) -> OutsideSite:
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
    return OutsideSite(folder)
