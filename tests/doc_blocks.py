"""The code blocks of the documentation: what each page holds, and how a block is run as a reader would run it."""

import os
import re
import shlex
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gapless.cli.main import main

ROOT = Path(__file__).parents[1]
PAGES = [*sorted((ROOT / "docs").glob("*.md")), ROOT / "README.md", ROOT / "CONTRIBUTING.md"]
BLOCK = re.compile(r"(?P<run><!-- run -->\n)?^```(?P<language>\w*)\n(?P<code>.*?)^```$", re.DOTALL | re.MULTILINE)
SHELL = ("", "sh", "bash")
OPTIONAL = re.compile(r"\s\[(--?[^\]]*)\]")  # `[--seed 0]`: an option that may be left out


@dataclass(frozen=True)
class Block:
    """A fenced block of a page; `runs` where the line before it is `<!-- run -->`."""

    page: str
    language: str
    code: str
    runs: bool

    @property
    def is_shell(self) -> bool:
        return self.language in SHELL

    @property
    def commands(self) -> Iterator[str]:
        """The commands of a shell block, one a line, without comments and prompts."""
        for line in re.sub(r"\\\n\s*", " ", self.code).splitlines():
            for command in re.split(r"\s&&\s|\s\|\s", line):
                yield command.strip().removeprefix("$ ")

    @property
    def gapless_commands(self) -> Iterator[list[str]]:
        """The words of each `gapless ...` after that word, as the shell splits them."""
        for command in self.commands:
            if command.startswith("gapless "):
                words = shlex.split(OPTIONAL.sub(r" \1", command).replace(" RECIPE ", " table-small "), comments=True)[
                    1:
                ]
                yield words[: words.index(">")] if ">" in words else words


def blocks_of(page: Path) -> list[Block]:
    """The blocks of a page in order."""
    found = BLOCK.finditer(page.read_text(encoding="utf-8"))
    return [Block(page.name, one["language"], one["code"], bool(one["run"])) for one in found]


def run_block(block: Block, names: dict[str, Any]) -> None:
    """Run a block in the present directory: Python with these names, commands of gapless in this process.

    Raises:
        AssertionError: a command that ends with another exit code than 0.
    """
    if not block.is_shell:
        exec(compile(block.code, block.page, "exec"), names)  # noqa: S102
        return
    for command in filter(None, block.commands):
        if command.startswith("#"):
            continue
        if command.startswith("gapless "):
            words = shlex.split(command, comments=True)[1:]
            assert main(words) == 0, command
        else:
            subprocess.run(["bash", "-c", command], check=True, cwd=os.getcwd())
