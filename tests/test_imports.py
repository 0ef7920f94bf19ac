"""What an import costs and needs: the order of the rooms and their drawing, blocked packages, lazy names."""

import ast
import re
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

import gapless

SOURCE = Path(gapless.__file__).parent
DRAWING = Path(__file__).parents[1] / "docs" / "architecture.md"
LARGEST_SHARE = 1 / 7  # of all lines, in one room
HEAVY = ("transformers", "torchvision", "datasets", "sklearn", "pyarrow", "PIL", "matplotlib", "jsonargparse")


def drawn_rooms(page: str) -> list[str]:
    """The rooms of the drawing, from the top of the house to its ground: each begins an indented line of the block."""
    block = page.split("```", 2)[1]
    return re.findall(r"^  (\w+)/", block, re.MULTILINE)


ROOMS = drawn_rooms(DRAWING.read_text(encoding="utf-8"))
FLOORS = [*reversed(ROOMS), "__main__"]  # from the ground up
FLOORS.insert(FLOORS.index("core") + 1, "errors")  # the public face of core/errors.py


def room_of(path: Path) -> str:
    return path.relative_to(SOURCE).parts[0].removesuffix(".py")


def floor_of(room: str) -> int:
    return FLOORS.index(room)


def imported_rooms(tree: ast.AST) -> set[str]:
    """The rooms of gapless that a module imports, at its top or inside its functions."""
    names: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "gapless":
            parts = (node.module or "").split(".")
            names |= {parts[1]} if len(parts) > 1 else {alias.name for alias in node.names}
        elif isinstance(node, ast.Import):
            names |= {alias.name.split(".")[1] for alias in node.names if alias.name.startswith("gapless.")}
    return names - {"__version__"}


def violations(room: str, imported: set[str]) -> set[str]:
    return {other for other in imported if other != room and floor_of(other) >= floor_of(room)}


@pytest.mark.parametrize("path", sorted(SOURCE.rglob("*.py")), ids=lambda path: str(path.relative_to(SOURCE)))
def test_arrows_point_down_only(path):
    room = room_of(path)
    if room == "__init__":
        return  # the lazy face of the package names every floor
    assert violations(room, imported_rooms(ast.parse(path.read_text()))) == set()


def test_the_arrow_test_sees_an_arrow_that_points_up():
    tree = ast.parse("def f():\n    from gapless.training.run import train\n")
    assert violations("losses", imported_rooms(tree)) == {"training"}
    assert violations("metrics", imported_rooms(ast.parse("import gapless.images.pixels"))) == {"images"}


@pytest.mark.xfail(not (SOURCE / "modalities").is_dir(), reason="drawn before it is built", strict=True)
def test_the_drawing_has_the_rooms_of_the_tree():
    folders = {path.name for path in SOURCE.iterdir() if path.is_dir() and any(path.glob("*.py"))}
    assert len(ROOMS) == len(set(ROOMS))
    assert set(ROOMS) == folders


def test_the_rooms_of_a_drawing_are_its_indented_folders():
    page = "text\n```\nsrc/gapless/\n  metrics/  figures\n            more\n  core/     errors\n```\n  cli/ beside\n"
    assert drawn_rooms(page) == ["metrics", "core"]


def test_no_room_holds_more_than_a_seventh_of_the_lines():
    lines = {path: len(path.read_text(encoding="utf-8").splitlines()) for path in SOURCE.rglob("*.py")}
    rooms: Counter[str] = Counter()
    for path, count in lines.items():
        rooms[room_of(path)] += count
    too_large = {room: count for room, count in rooms.items() if count > LARGEST_SHARE * sum(lines.values())}
    assert too_large == {}


def run_python(code: str) -> str:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_losses_and_measures_import_with_nothing_but_torch_and_numpy():
    code = f"""
import sys
for name in {HEAVY}: sys.modules[name] = None
import torch
from gapless import GapClosingLoss
z = torch.nn.functional.normalize(torch.randn(8, 4, generator=torch.Generator().manual_seed(0)), dim=1)
print(float(GapClosingLoss()({{"image": z, "text": z}}).alignment.detach()))
from gapless import measure
print(measure({{"image": z, "text": z}}, include=("gap", "retrieval"))["retrieval/mean/R@1"])
"""
    assert run_python(code).split() == ["0.0", "1.0"]


def test_importing_gapless_imports_nothing_heavy():
    loaded = run_python("import sys, gapless, gapless.cli.main; print(' '.join(sorted(sys.modules)))").split()
    assert not set(loaded) & {*HEAVY, "torch"}


def test_unknown_names_are_attribute_errors():
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = gapless.nothing
