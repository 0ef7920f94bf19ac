"""What an import costs and needs: floors of the house, blocked packages, lazy names."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import gapless

SOURCE = Path(gapless.__file__).parent
FLOORS = [
    {"core"},
    {"errors"},
    {"pages"},
    {"losses"},
    {"metrics"},
    {"images"},
    {"modalities"},
    {"tables"},
    {"phantom"},
    {"manifest"},
    {"auditing"},
    {"embeddings"},
    {"models"},
    {"inference"},
    {"training"},
    {"closing"},
    {"captioning"},
    {"search"},
    {"server"},
    {"study"},
    {"cli"},
    {"__main__"},
]
HEAVY = ("transformers", "torchvision", "datasets", "sklearn", "pyarrow", "PIL", "matplotlib", "jsonargparse")


def room_of(path: Path) -> str:
    return path.relative_to(SOURCE).parts[0].removesuffix(".py")


def floor_of(room: str) -> int:
    return next(number for number, rooms in enumerate(FLOORS) if room in rooms)


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
