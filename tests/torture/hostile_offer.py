"""What a hostile offer is: a file that a user would meet, and the real command that is given it."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torture import hostile_files as files


@dataclass(frozen=True)
class Offer:
    """One hostile file and the command that is given it.

    Args:
        make: puts the file into an empty directory, with code that writes a canary; gives the command.
        careless: reads the same file and runs its code.
        file: what `careless` reads, below the directory.
    """

    name: str
    make: Callable[[Path, Path], list[Any]]
    careless: files.Careless | None = None
    file: str = ""


@dataclass(frozen=True)
class Home:
    """What is good and stands beside the hostile: models, a manifest, a run, embeddings, a collection, an array."""

    path: Path

    def __truediv__(self, name: str) -> Path:
        return self.path / name
