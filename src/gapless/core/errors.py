"""The errors a user can meet, each with its exit code (1 failure, 2 usage, 3 data, 4 network, 130 interrupted)."""

from collections.abc import Iterable, Sequence
from difflib import get_close_matches


class GaplessError(Exception):
    """A failure that a user can meet; its message is one sentence: what is wrong, and what to do."""

    exit_code = 1


class UsageError(GaplessError, ValueError):
    """A wrong option, an unknown name, an output directory in use."""

    exit_code = 2


class DataRefused(GaplessError, ValueError):
    """Data that must not be used; the message holds the count, the reasons and the first rows."""

    exit_code = 3


class Interrupted(GaplessError):
    """A signal stopped the command; its progress is saved, and `--resume latest` continues it."""

    exit_code = 130


class NeedsNetwork(GaplessError):
    """A model or file would have to be downloaded, and the process is offline."""

    exit_code = 4


class NoRoom(GaplessError):
    """The folder of temporary files is full; what was done so far is kept, and the same command continues it."""


def one_line(error: BaseException, limit: int = 200) -> str:
    """The message of an exception as one short line; the name of its class when it has no message."""
    return " ".join(str(error).split())[:limit] or type(error).__name__


def listed(names: "Sequence[object]", limit: int = 10) -> str:
    """The first `limit` names as text for a message; "..." stands for further ones.

    >>> listed(["a", "b", "c"], limit=2)
    'a, b, ...'
    """
    return ", ".join(map(str, names[:limit])) + (", ..." if len(names) > limit else "")


def unknown_name(kind: str, name: str, valid_names: "Iterable[str]") -> UsageError:
    """The error for an unknown name; it lists the valid names, or the nearest ones when there are over 40.

    >>> print(unknown_name("method", "clipp", ["gapless", "clip"]))
    unknown method 'clipp'; known: clip, gapless
    """
    valid = sorted(valid_names)
    if len(valid) > 40:
        near = get_close_matches(name, valid, n=5, cutoff=0.3)
        return UsageError(f"unknown {kind} {name!r}; nearest: {', '.join(near) or ', '.join(valid[:10])}")
    return UsageError(f"unknown {kind} {name!r}; known: {', '.join(valid)}")


def did_you_mean(name: str, valid_names: "Iterable[str]", cutoff: float = 0.6) -> str:
    """The part of a message on an unknown name that gives the nearest valid one; empty where none is near.

    >>> did_you_mean("sizes", ["size", "channels"])
    "; did you mean 'size'?"
    """
    near = get_close_matches(name, list(valid_names), n=1, cutoff=cutoff)
    return f"; did you mean {near[0]!r}?" if near else ""


def missing_extra(package: str, extra: str) -> UsageError:
    """The error for an optional dependency that is not installed."""
    return UsageError(f"this needs the package {package!r}: pip install 'gapless[{extra}]'")
