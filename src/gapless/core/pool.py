"""Maps a function over items on all cores, in order, with a bounded number of items in memory.

Decoding DICOM is Python code, so threads would not run in parallel. loky's processes start from any program (a script
without a main guard, a notebook), and a decoder that crashes its process raises an error here.
"""

import os
import signal
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, wait
from typing import Any, TypeVar

# So many fit into loky's own queue, where they no longer count as waiting (`stop_executor`).
CHUNKS_AHEAD_PER_WORKER = 2
# Below this, starting processes costs more than it saves.
MIN_IMAGES_FOR_WORKERS = 512
SECONDS_TO_CANCEL = 5.0
SECONDS_BETWEEN_LOOKS = 1.0  # of a worker, whether its parent lives

T = TypeVar("T")
R = TypeVar("R")


def available_cores() -> int:
    """How many cores this process may use."""
    import joblib

    return int(joblib.cpu_count())


def map_in_order(
    function: Callable[[T], R], items: Iterable[T], num_images: int, num_workers: int | None = None
) -> Iterator[R]:
    """`function` of each item, in order, on all cores when there are enough images to make that worth it."""
    if num_workers is None:
        num_workers = available_cores() if num_images >= MIN_IMAGES_FOR_WORKERS else 1
    if num_workers <= 1:
        yield from map(function, items)
        return
    executor = new_executor(num_workers)
    pending: deque[Future[R]] = deque()
    try:
        for item in items:
            pending.append(executor.submit(function, item))
            if len(pending) > CHUNKS_AHEAD_PER_WORKER * num_workers:
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()
    finally:
        stop_executor(executor, pending)


def new_executor(num_workers: int) -> Any:
    """An executor of so many processes; end it by `stop_executor`."""
    from joblib.externals.loky import ProcessPoolExecutor

    return ProcessPoolExecutor(max_workers=num_workers, initializer=_follow, initargs=(os.getpid(),))


def stop_executor(executor: Any, pending: Iterable[Future[Any]] = ()) -> None:
    """End the processes of an executor at once, whatever they do.

    Args:
        pending: what was submitted and may not have begun. It is cancelled first, and taken out of the executor's list:
            loky's thread ends with a KeyError where an executor is stopped while something is on that list.
    """
    cancelled = [future for future in pending if future.cancel()]
    wait(cancelled, timeout=SECONDS_TO_CANCEL)
    executor.shutdown(wait=True, kill_workers=True)


def _follow(parent: int) -> None:
    """Have a worker end when, and only when, the process that started it ends.

    Ctrl-C reaches all processes of a terminal; a worker that answered it by an exception would only add to what is
    printed, because the process that started it stops it anyway. A worker whose parent was killed would wait for ever.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with, args=(parent,), daemon=True).start()


def _end_with(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(SECONDS_BETWEEN_LOOKS)
    os._exit(1)
