"""Checks shapes and types at every call of the numeric rooms while the tests run.

jaxtyping's hook decorates functions inside functions anew each time that the outer one runs. A bootstrap makes tens of
thousands of them, and beartype writes a checking function for each: half of the time of these tests. Here those of one
place in the source are checked the first few times that they are made, and everything else always.
"""

from collections import Counter
from collections.abc import Callable, Sequence
from types import CodeType, FunctionType
from typing import Any

import jaxtyping

TIMES = 3  # that a function inside a function is checked, in each test process
made: Counter[CodeType] = Counter()


def checked(*, typechecker: Any) -> Callable[[Any], Any]:
    """What the hook decorates with, in the place of `jaxtyping.jaxtyped`."""
    decorate = jaxtyped(typechecker=typechecker)

    def decorated(what: Any) -> Any:
        if isinstance(what, FunctionType) and "<locals>" in what.__qualname__:
            made[what.__code__] += 1
            return decorate(what) if made[what.__code__] <= TIMES else what
        return decorate(what)

    return decorated


jaxtyped = jaxtyping.jaxtyped


def check_shapes_of(modules: Sequence[str]) -> None:
    """Install the hook for modules that are not imported yet."""
    jaxtyping.jaxtyped = checked
    jaxtyping.install_import_hook(modules, "beartype.beartype")
