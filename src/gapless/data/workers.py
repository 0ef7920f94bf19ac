"""Checking images on all cores, in order, with a bounded number of rows in flight.

Processes, because decoding DICOM is Python; loky's, because they start from any program (a script without a main
guard, a notebook) and because a decoder that crashes its process is noticed and survived.
"""

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future
from concurrent.futures.process import BrokenProcessPool
from typing import Any, TypeVar

from gapless.data.rows import ImageSource
from gapless.data.verify import CheckOptions, check_images

ROWS_PER_CHUNK = 32
CHUNKS_AHEAD_PER_WORKER = 3
# Below this, starting processes costs more than it saves.
MIN_IMAGES_FOR_WORKERS = 512

T = TypeVar("T")
R = TypeVar("R")

Work = Sequence[tuple[ImageSource, str]]


def available_cores() -> int:
    import joblib

    return int(joblib.cpu_count())


def check_in_order(chunks: Iterable[Work], options: CheckOptions, num_workers: int) -> Iterator[list[dict[str, Any]]]:
    """The results of each chunk, in the order of the chunks; with 1 worker in this process."""
    if num_workers <= 1:
        for chunk in chunks:
            yield check_images(chunk, options)
        return
    pending: deque[tuple[Work, Future[list[dict[str, Any]]]]] = deque()
    executor = _new_executor(num_workers)
    try:
        for chunk in chunks:
            try:
                pending.append((chunk, executor.submit(check_images, chunk, options)))
            except BrokenProcessPool:
                executor = _new_executor(num_workers)
                pending.append((chunk, executor.submit(check_images, chunk, options)))
            if len(pending) > CHUNKS_AHEAD_PER_WORKER * num_workers:
                yield _result(*pending.popleft(), options)
        while pending:
            yield _result(*pending.popleft(), options)
    finally:
        executor.shutdown(wait=True, kill_workers=True)


def map_in_order(
    function: Callable[[T], R], items: Iterable[T], num_images: int, num_workers: int | None = None
) -> Iterator[R]:
    """`function` of each item, in order, on all cores when there are enough images to make that worth it."""
    if num_workers is None:
        num_workers = available_cores() if num_images >= MIN_IMAGES_FOR_WORKERS else 1
    if num_workers <= 1:
        yield from map(function, items)
        return
    executor = _new_executor(num_workers)
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


def _new_executor(num_workers: int) -> Any:
    from joblib.externals.loky import ProcessPoolExecutor

    return ProcessPoolExecutor(max_workers=num_workers)


def _result(chunk: Work, future: "Future[list[dict[str, Any]]]", options: CheckOptions) -> list[dict[str, Any]]:
    try:
        return future.result()
    except BrokenProcessPool:
        return list(_check_one_by_one(chunk, options))


def _check_one_by_one(chunk: Work, options: CheckOptions) -> Iterator[dict[str, Any]]:
    """After an image of this chunk, or of one that was under way with it, took its process down: find out which."""
    executor = _new_executor(1)
    try:
        for source, name in chunk:
            try:
                yield executor.submit(check_images, [(source, name)], options).result()[0]
            except BrokenProcessPool:
                executor.shutdown(wait=True, kill_workers=True)
                executor = _new_executor(1)
                yield {"name": name, "key": source.key(), "reason": "decoder crashed", "detail": name}
    finally:
        executor.shutdown(wait=True, kill_workers=True)
