"""The modules that read images import each other in one direction."""

import ast
from pathlib import Path

import pytest

import gapless

DATA = Path(gapless.__file__).parent / "data"
READERS = [
    path.stem
    for path in sorted(DATA.glob("*.py"))
    if path.stem.startswith(("dicom", "pixels", "pillow", "deep", "grey", "limits", "thumbnails"))
]


def imported(name):
    """The modules of gapless.data that a module imports, at its top or inside its functions."""
    tree = ast.parse((DATA / f"{name}.py").read_text())
    modules = [node.module or "" for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)]
    return {module.split(".")[2] for module in modules if module.startswith("gapless.data.")}


def reached(name, edges):
    found, waiting = set(), [name]
    while waiting:
        for other in edges.get(waiting.pop(), ()):
            if other not in found:
                found.add(other)
                waiting.append(other)
    return found


@pytest.mark.parametrize("name", READERS)
def test_no_reader_of_images_comes_back_to_itself(name):
    assert name not in reached(name, {reader: imported(reader) for reader in READERS})


def test_the_circle_that_was_would_be_seen():
    assert "pixels" in reached("pixels", {"pixels": {"dicom"}, "dicom": {"pixels"}})
