"""The errors a user can meet, each with its exit code (1 failure, 2 usage, 3 data, 4 network, 130 interrupted)."""

from collections.abc import Iterable, Sequence
from difflib import get_close_matches


class GaplessError(Exception):
    """Something went wrong; the message is one sentence that says what and what to do."""

    exit_code = 1


class UsageError(GaplessError, ValueError):
    """A wrong option, an unknown name, an output directory in use."""

    exit_code = 2


class DataRefused(GaplessError, ValueError):
    """Data that must not be used; the message holds the count, the reasons and the first rows."""

    exit_code = 3


class Interrupted(GaplessError):
    """Asked from outside to stop; what was done is saved, and the same command with `--resume latest` goes on."""

    exit_code = 130


class NeedsNetwork(GaplessError):
    """A name that only the network could resolve, while offline."""

    exit_code = 4


def one_line(error: BaseException, limit: int = 200) -> str:
    """What another library says of a failure, fit for a sentence of ours; its kind where it says nothing."""
    return " ".join(str(error).split())[:limit] or type(error).__name__


def listed(names: "Sequence[object]", limit: int = 10) -> str:
    """The first of many names, for a sentence."""
    return ", ".join(map(str, names[:limit])) + (", ..." if len(names) > limit else "")


def unknown_name(kind: str, name: str, known: "Iterable[str]") -> UsageError:
    """The error for a name that is in no table; it lists the valid ones, or the nearest of very many."""
    valid = sorted(known)
    if len(valid) > 40:
        near = get_close_matches(name, valid, n=5, cutoff=0.3)
        return UsageError(f"unknown {kind} {name!r}; nearest: {', '.join(near) or ', '.join(valid[:10])}")
    return UsageError(f"unknown {kind} {name!r}; known: {', '.join(valid)}")


def missing_extra(package: str, extra: str) -> UsageError:
    """The error for an optional dependency that is not installed."""
    return UsageError(f"this needs the package {package!r}: pip install 'gapless[{extra}]'")
