"""Work that the first of several processes does for all: its result, or its failure, reaches every one of them.

The others wait for the first process. A failure that it keeps to itself would leave them waiting until the timeout of
the process group.
"""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from typing import Any, TypeVar

from accelerate.utils import broadcast_object_list
from transformers import TrainingArguments

from gapless.core.errors import DataRefused, GaplessError, NeedsNetwork, UsageError, one_line

T = TypeVar("T")
ERRORS = {error.exit_code: error for error in (UsageError, DataRefused, NeedsNetwork)}


def by_first(arguments: TrainingArguments, work: Callable[[], T]) -> T:
    """What `work` gives, called by the first process alone and handed to the others; it must be picklable.

    Raises:
        GaplessError: as `work`, in every process. Any other exception is raised as it is in the first process, and as a
            GaplessError with its name in the others.
    """
    if arguments.world_size == 1:
        return work()
    answer: list[Any] = [None, None]
    failure: Exception | None = None
    if arguments.process_index == 0:
        try:
            answer[0] = work()
        except Exception as error:
            failure = error
            answer = [None, _description_of(error)]
    given, refusal = broadcast_object_list(answer)
    if failure is not None:
        raise failure
    if refusal is not None:
        raise ERRORS.get(refusal[0], GaplessError)(refusal[1])
    result: T = given
    return result


def _description_of(error: Exception) -> tuple[int, str]:
    """The exit code and the message of a failure for the other processes, which need not have its class."""
    if isinstance(error, GaplessError):
        return error.exit_code, str(error)
    return GaplessError.exit_code, f"the first process failed: {type(error).__name__}: {one_line(error)}"


@contextmanager
def entered_by_first(arguments: TrainingArguments, context: AbstractContextManager[Any]) -> Iterator[None]:
    """A block for which the first process alone enters a context; none begins the block where it could not.

    Raises:
        GaplessError: as entering the context, in every process; see `by_first`.
    """
    with ExitStack() as stack:

        def enter() -> None:
            stack.enter_context(context)

        by_first(arguments, enter)
        yield
