"""Work of several processes whose failure reaches every one of them: what the first does for all, and what each does.

The others wait for a process that failed. A failure that it keeps to itself would leave them waiting until the timeout
of the process group, or end them with an error of the network.
"""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from typing import Any, TypeVar

from accelerate.utils import broadcast_object_list, gather_object
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
    _raise_any(failure, refusal)
    result: T = given
    return result


def in_every(arguments: TrainingArguments, work: Callable[[], None]) -> None:
    """Call `work` in every process; none goes on before all are done, or where one failed.

    `work` waits for other processes only at points that none of them misses by a failure of its own.

    Raises:
        GaplessError: as `work`, in every process. Any other exception is raised as it is where it happened, and as a
            GaplessError with its name in the others.
    """
    if arguments.world_size == 1:
        work()
        return
    failure: Exception | None = None
    description: tuple[int, str] | None = None
    try:
        work()
    except Exception as error:
        failure = error
        number = arguments.process_index
        description = _description_of(error, "the first process" if number == 0 else f"process {number}")
    refusals = [given for given in gather_object([description]) if given is not None]
    _raise_any(failure, refusals[0] if refusals else None)


def _raise_any(failure: Exception | None, refusal: tuple[int, str] | None) -> None:
    """Raise this process's own failure, or else that of another one."""
    if failure is not None:
        raise failure
    if refusal is not None:
        raise ERRORS.get(refusal[0], GaplessError)(refusal[1])


def _description_of(error: Exception, process: str = "the first process") -> tuple[int, str]:
    """The exit code and the message of a failure for the other processes, which need not have its class."""
    if isinstance(error, GaplessError):
        return error.exit_code, str(error)
    return GaplessError.exit_code, f"{process} failed: {type(error).__name__}: {one_line(error)}"


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
