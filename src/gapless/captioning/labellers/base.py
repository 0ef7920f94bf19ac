"""What a labeller of findings is, and the table of those that a directory of weights makes."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from gapless.captioning.findings import Mention
from gapless.core.errors import UsageError
from gapless.core.registry import Registry

# Texts -> for each, finding -> what it says of it.
Labeller = Callable[[Sequence[str]], list[dict[str, Mention]]]
# A directory of weights -> the labeller; raises UsageError or DataRefused where it holds none.
LABELLERS: Registry[Callable[[Path], Labeller]] = Registry(
    "labeller", "gapless.captioning.labellers", "gapless.labellers"
)


def load_labellers(given: Mapping[str, str | Path]) -> dict[str, Labeller]:
    """Labellers by name.

    Args:
        given: name -> directory of its weights.

    Raises:
        UsageError: an unknown name, no such directory, or one without the weights; a package that is not installed.
        DataRefused: damaged weights.
    """
    labellers = {}
    for name, place in given.items():
        load = LABELLERS[name]
        if not Path(place).is_dir():
            raise UsageError(f"--labeller {name}={place}: there is no such directory of weights; none are downloaded")
        labellers[name] = load(Path(place))
    return labellers
