"""Tables of named things that other packages can add to: losses, closing methods, figures, modality kinds, readers.

    LOSSES: Registry[LossMethod] = Registry("loss", "gapless.losses", "gapless.losses")
    LOSSES.add("clip", clip)
    LOSSES["clip"]

A thing of gapless itself is added by the module that defines it: every module of the room that adds one is imported
when the table is first read, so that one new file adds a thing. Another package lists its things in its
`pyproject.toml`, under the entry-point group of the table; they are in the table once the package is installed.
"""

import pkgutil
import re
from collections.abc import Iterator, Sequence
from importlib import import_module, metadata, util
from typing import Generic, TypeVar

from gapless.core.errors import UsageError, one_line, unknown_name

Thing = TypeVar("Thing")
ADDS = re.compile(r"\b[A-Z_]+\.add\(")  # `LOSSES.add(`


class Registry(Generic[Thing]):
    """Named things of one kind, read as a mapping.

    Args:
        kind: what one is called in messages ("loss").
        package: the room whose modules add things when they are imported.
        group: the entry-point group by which other packages add things.
        first: names that stand before all others, in this order; the others of gapless follow by name. Without them
            things stand in the order in which the modules of the room, by name, add them.
    """

    def __init__(self, kind: str, package: str, group: str, first: Sequence[str] = ()) -> None:
        self.kind = kind
        self.first = tuple(first)
        self.package = package
        self.group = group
        self._things: dict[str, Thing] = {}
        self._faults: dict[str, str] = {}
        self._is_read = False

    def add(self, name: str, thing: Thing) -> Thing:
        """Register a thing under a name, and return it.

        Raises:
            ValueError: another thing has that name already.
        """
        if self._things.get(name, thing) is not thing:
            raise ValueError(f"there is a {self.kind} {name!r} already; give this one another name")
        self._things[name] = thing
        return thing

    def names(self) -> tuple[str, ...]:
        """All names, those of gapless first, then those of other packages."""
        self._read()
        return tuple(self._things)

    def values(self) -> tuple[Thing, ...]:
        """All things, in the order of `names`."""
        self._read()
        return tuple(self._things.values())

    def items(self) -> tuple[tuple[str, Thing], ...]:
        """(name, thing) of all things, in the order of `names`."""
        self._read()
        return tuple(self._things.items())

    def __iter__(self) -> Iterator[str]:
        return iter(self.names())

    def __contains__(self, name: object) -> bool:
        self._read()
        return name in self._things

    def __getitem__(self, name: str) -> Thing:
        """The thing of that name.

        Raises:
            UsageError: no such name (the valid ones are listed), or the package that brings it cannot be loaded.
        """
        self._read()
        if name in self._faults:
            raise UsageError(f"the {self.kind} {name!r} cannot be loaded: {self._faults[name]}")
        if name not in self._things:
            raise unknown_name(self.kind, name, self._things)
        return self._things[name]

    def _read(self) -> None:
        if self._is_read:
            return
        self._is_read = True
        for module in pkgutil.iter_modules(import_module(self.package).__path__, f"{self.package}."):
            if adds_things(module.name):
                import_module(module.name)
        if self.first:
            names = (*self.first, *sorted(self._things.keys() - {*self.first}))
            self._things = {name: self._things[name] for name in names if name in self._things}
        for point in metadata.entry_points(group=self.group):
            # A fault in another package is reported only when its thing is asked for.
            try:
                self.add(point.name, point.load())
            except Exception as error:
                package = point.dist.name if point.dist is not None else point.value
                self._faults[point.name] = f"{one_line(error)} (package {package})"


def adds_things(module: str) -> bool:
    """Whether the source of a module adds to a table; the others need not be imported, and some take seconds."""
    source = util.find_spec(module).loader.get_source(module)  # type: ignore[union-attr]
    return source is None or ADDS.search(source) is not None
