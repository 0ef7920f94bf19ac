"""The four ways that docs/architecture.md walks: every file and function that it names is there."""

import ast
import re
from pathlib import Path

import pytest

import gapless

SOURCE = Path(gapless.__file__).parent
PAGE = Path(__file__).parents[1] / "docs" / "architecture.md"
STEPS = sorted(set(re.findall(r"`([a-z_/]+\.py):([A-Za-z_.]+)`", PAGE.read_text(encoding="utf-8"))))


def is_defined(file: str, name: str) -> bool:
    """Whether a file below the source defines a function, a class, or a method `Class.method`."""
    path = SOURCE / file
    if not path.is_file():
        return False
    body: list[ast.stmt] = ast.parse(path.read_text(encoding="utf-8")).body
    for part in name.split("."):
        found = [
            node
            for node in body
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef) and node.name == part
        ]
        if not found:
            return False
        body = found[0].body
    return True


@pytest.mark.parametrize(("file", "name"), STEPS)
def test_each_step_of_a_way_is_in_the_source(file, name):
    assert is_defined(file, name)


def test_a_step_that_is_not_there_is_noticed():
    assert len({file for file, _ in STEPS}) > 15
    assert not is_defined("metrics/measure.py", "nothing")
    assert not is_defined("nothing.py", "measure")
    assert not is_defined("search/collection.py", "Collection.nothing")
