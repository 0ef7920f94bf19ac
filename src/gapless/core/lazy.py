"""Names that a package offers and loads when they are first used, so that importing the package costs nothing."""

from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Any


def lazy_names(package: str, homes: Mapping[str, str]) -> Callable[[str], Any]:
    """The `__getattr__` of a package.

    Args:
        package: its `__name__`.
        homes: name -> module that defines it. A name must not be that of a module of the package: Python sets a loaded
            module as an attribute of its package, which would hide the name.

    Returns:
        A function that imports the module of a name and gives what it holds there; AttributeError for other names.
    """

    def attribute(name: str) -> Any:
        if name not in homes:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        return getattr(import_module(homes[name]), name)

    return attribute
