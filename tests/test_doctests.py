"""Runs the examples in the docstrings of the light rooms, where they need torch and numpy at most.

The examples are taken from the source, because shape checking wraps the functions and `doctest` would pass over them.
"""

import ast
import doctest
from importlib import import_module
from pathlib import Path

import pytest

import gapless

SOURCE = Path(gapless.__file__).parent
ROOMS = ("core", "losses", "metrics", "tables")
DOCUMENTED = ast.Module | ast.ClassDef | ast.FunctionDef


def examples_in(path: Path) -> list[doctest.DocTest]:
    """The examples of a module, one test for each docstring that has some; they are not bound to the module yet."""
    module = ".".join(path.relative_to(SOURCE.parent).with_suffix("").parts)
    tests = []
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        text = ast.get_docstring(node) if isinstance(node, DOCUMENTED) else None
        if text and ">>>" in text:
            name = f"{module}:{getattr(node, 'name', '')}"
            line = node.body[0].lineno - 1
            tests.append(doctest.DocTestParser().get_doctest(text, {}, name, str(path), line))
    return tests


EXAMPLES = [test for room in ROOMS for path in sorted((SOURCE / room).rglob("*.py")) for test in examples_in(path)]


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda example: example.name.removeprefix("gapless."))
def test_the_example_of_a_docstring_gives_what_it_says(example):
    example.globs = dict(vars(import_module(example.name.partition(":")[0])))
    report: list[str] = []
    result = doctest.DocTestRunner(verbose=False).run(example, out=report.append)
    assert result.attempted > 0
    assert result.failed == 0, "".join(report)


def test_every_light_room_has_examples():
    assert {example.name.split(".")[1] for example in EXAMPLES} == set(ROOMS)


def test_a_wrong_example_fails(tmp_path, monkeypatch):
    monkeypatch.setattr(f"{__name__}.SOURCE", tmp_path / "gapless")
    path = tmp_path / "gapless" / "core" / "captions.py"
    path.parent.mkdir(parents=True)
    path.write_text('def f():\n    """One.\n\n    >>> 1 + 1\n    3\n    """\n')
    (example,) = examples_in(path)
    with pytest.raises(AssertionError, match="Expected:"):
        test_the_example_of_a_docstring_gives_what_it_says(example)
