"""Maps a function over items on all cores, in order, with a bounded number of items in memory.

Decoding DICOM is Python code, so threads would not run in parallel. loky's processes start from any program (a script
without a main guard, a notebook), and a decoder that crashes its process raises an error here.
"""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future
from typing import Any, TypeVar

CHUNKS_AHEAD_PER_WORKER = 3
# Below this, starting processes costs more than it saves.
MIN_IMAGES_FOR_WORKERS = 512

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
        executor.shutdown(wait=True, kill_workers=True)


def new_executor(num_workers: int) -> Any:
    """An executor of so many processes; shut it down with `kill_workers=True`."""
    from joblib.externals.loky import ProcessPoolExecutor

    return ProcessPoolExecutor(max_workers=num_workers)
