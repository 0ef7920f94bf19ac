"""Verifies images on all cores, in order; an image that crashes its decoder makes only its own row faulty."""

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future
from concurrent.futures.process import BrokenProcessPool
from typing import Any

from gapless.core.pool import CHUNKS_AHEAD_PER_WORKER, new_executor
from gapless.manifest.rows import ImageSource
from gapless.manifest.verify import CheckOptions, check_images

ROWS_PER_CHUNK = 32

Work = Sequence[tuple[ImageSource, str]]


def check_in_order(chunks: Iterable[Work], options: CheckOptions, num_workers: int) -> Iterator[list[dict[str, Any]]]:
    """The results of each chunk, in the order of the chunks; with 1 worker in this process."""
    if num_workers <= 1:
        for chunk in chunks:
            yield check_images(chunk, options)
        return
    pending: deque[tuple[Work, Future[list[dict[str, Any]]]]] = deque()
    executor = new_executor(num_workers)
    try:
        for chunk in chunks:
            try:
                pending.append((chunk, executor.submit(check_images, chunk, options)))
            except BrokenProcessPool:
                executor = new_executor(num_workers)
                pending.append((chunk, executor.submit(check_images, chunk, options)))
            if len(pending) > CHUNKS_AHEAD_PER_WORKER * num_workers:
                yield _result(*pending.popleft(), options)
        while pending:
            yield _result(*pending.popleft(), options)
    finally:
        executor.shutdown(wait=True, kill_workers=True)


def _result(chunk: Work, future: "Future[list[dict[str, Any]]]", options: CheckOptions) -> list[dict[str, Any]]:
    try:
        return future.result()
    except BrokenProcessPool:
        return list(_check_one_by_one(chunk, options))


def _check_one_by_one(chunk: Work, options: CheckOptions) -> Iterator[dict[str, Any]]:
    """Verify the images of a chunk one by one in another process, to find the image that crashed the decoder."""
    executor = new_executor(1)
    try:
        for source, name in chunk:
            try:
                yield executor.submit(check_images, [(source, name)], options).result()[0]
            except BrokenProcessPool:
                executor.shutdown(wait=True, kill_workers=True)
                executor = new_executor(1)
                yield {"name": name, "key": source.key(), "reason": "decoder crashed", "detail": name}
    finally:
        executor.shutdown(wait=True, kill_workers=True)
