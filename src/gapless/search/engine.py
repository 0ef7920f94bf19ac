"""Turns the exceptions of LanceDB, the engine of a collection, into errors of gapless with one sentence each.

The advice to remove a collection is given only for broken or missing files, because it loses data. A full disk or a
missing permission is described in the system's words, a filter that cannot be applied is a `UsageError`, and exceptions
of our own code are raised unchanged.
"""

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pyarrow as pa

from gapless.core.errors import DataRefused, GaplessError, UsageError

# Words of Lance (Rust) for files that are cut, missing or overwritten; seen by damaging every file of a collection.
DAMAGE = re.compile(
    r"LanceError\(IO\)|not found: \S*/|corrupt|decode|invalid range|too small|fill whole buffer|protobuf|checksum",
    re.IGNORECASE,
)
OF_A_FILTER = re.compile(
    r"filter expression|cast error|divide by zero|regular expression|arrow error|schema error", re.I
)
SYSTEM = re.compile(r"\(os error (\d+)\)")
NOT_FOUND = 2


@contextmanager
def reading(uri: str, where: str | None = None) -> Iterator[None]:
    """Work on a collection; a failure of the engine becomes one sentence.

    Args:
        where: the user's filter, which may be what fails.

    Raises:
        UsageError: the filter cannot be applied. DataRefused: damage, or a store that cannot be used.
    """
    try:
        yield
    except GaplessError:
        raise
    except (KeyboardInterrupt, SystemExit, MemoryError):
        raise
    except BaseException as error:  # the engine panics on some damage, which is no Exception
        if where is not None and isinstance(error, ValueError) and not isinstance(error, UnicodeError):
            raise filter_refused(where, words_of(error)) from None
        if not of_engine(error):
            raise
        raise refusal_of(error, uri, where) from None


def of_engine(error: BaseException) -> bool:
    """Whether LanceDB, Arrow or the system failed, and not a call of ours."""
    if isinstance(error, pa.ArrowException):
        return not isinstance(error, TypeError)
    wrong_text = isinstance(error, UnicodeDecodeError)  # a damaged string column
    return wrong_text or isinstance(error, RuntimeError | OSError) or "lance" in str(error) or is_panic(error)


def is_panic(error: BaseException) -> bool:
    return type(error).__name__ == "PanicException"


def words_of(error: BaseException) -> str:
    """What the engine says, on one line, without the places in its own code."""
    return " ".join(re.sub(r",? \S*\.rs:[\d:]*", "", str(error)).split())[:200] or type(error).__name__


def filter_refused(where: str, message: str) -> UsageError:
    return UsageError(f"the filter {where[:60]!r} cannot be applied ({message})")


def refusal_of(error: BaseException, uri: str, where: str | None) -> GaplessError:
    """The sentence for a failure of the engine."""
    message = words_of(error)
    system = SYSTEM.search(str(error))
    number = int(system[1]) if system else error.errno if isinstance(error, OSError) else None
    if number not in (None, NOT_FOUND):
        reason = os.strerror(number or 0).lower()
        return DataRefused(
            f"{uri} cannot be used ({reason}); what it held is still there: put that right and try again"
        )
    if where is not None and OF_A_FILTER.search(message):
        return filter_refused(where, message)
    if "://" in uri:
        return DataRefused(f"{uri} cannot be read ({message}); check the address and the credentials")
    if not Path(uri).exists():
        return DataRefused(f"{uri} is no longer there; it was removed or renamed while it was in use")
    if DAMAGE.search(message) or is_panic(error) or isinstance(error, UnicodeDecodeError):
        return DataRefused(f"{uri} cannot be read ({message}); it is damaged: remove it and index again")
    return DataRefused(f"{uri} could not be used ({message}); nothing in it was changed")
