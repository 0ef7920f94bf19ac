"""Names and summaries of the registered readers: those of gapless are read from their source, without importing it.

Importing them would import numpy, Pillow and pyarrow, which takes 0.4 s; `gapless --help` needs the summaries alone.
"""

import ast
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path

import gapless.manifest.readers


def reader_summaries() -> dict[str, tuple[str, str]]:
    """Name -> summary and example, in alphabetical order; the readers of other packages are imported."""
    others = {point.name: _lines_of(point) for point in metadata.entry_points(group="gapless.readers")}
    ours = dict(pair for module in _modules() for pair in _readers_of(module.read_bytes()))
    return dict(sorted({**others, **ours}.items()))


def _lines_of(point: metadata.EntryPoint) -> tuple[str, str]:
    """Summary and example of another package's reader; one that cannot be loaded is refused only when it is used."""
    try:
        reader = point.load()
        return str(reader.summary), str(reader.example)
    except Exception:
        return f"(cannot be loaded: {point.value})", ""


def _modules() -> Iterator[Path]:
    for folder in gapless.manifest.readers.__path__:
        yield from Path(folder).glob("*.py")


def _readers_of(source: bytes) -> Iterator[tuple[str, tuple[str, str]]]:
    """(name, (summary, example)) of each `READERS.add("name", Reader("name", "summary", ...))` of a module."""
    if b"READERS.add(" not in source:
        return
    for statement in ast.parse(source).body:
        match statement:
            case ast.Assign(
                value=ast.Call(
                    func=ast.Attribute(value=ast.Name(id="READERS"), attr="add"),
                    args=[
                        ast.Constant(value=str(name)),
                        ast.Call(args=[_, ast.Constant(value=str(summary)), *_], keywords=keywords),
                    ],
                )
            ):
                given = {word.arg: word.value for word in keywords}
                example = given.get("example")
                yield name, (summary, str(example.value) if isinstance(example, ast.Constant) else "")
