"""Verifies images on all cores, in order; an image that crashes its decoder makes only its own row faulty."""

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import Any

from gapless.core.pool import CHUNKS_AHEAD_PER_WORKER, new_executor, stop_executor
from gapless.manifest.options import ImageOptions
from gapless.manifest.verify import Source, check_images

ROWS_PER_CHUNK = 32

Work = Sequence[tuple[Source, str]]


def check_in_order(
    chunks: Iterable[Work], options: ImageOptions, store: Path | None, num_workers: int
) -> Iterator[list[dict[str, Any]]]:
    """The results of each chunk, in the order of the chunks; with 1 worker in this process.

    Args:
        chunks: sources of images with the names of their copies.
        options: how the images are read.
        store: where copies of the images go; None leaves them where they are.
        num_workers: processes.
    """
    if num_workers <= 1:
        for chunk in chunks:
            yield check_images(chunk, options, store)
        return
    pending: deque[tuple[Work, Future[list[dict[str, Any]]]]] = deque()
    executor = new_executor(num_workers)

    def submitted(chunk: Work) -> "Future[list[dict[str, Any]]]":
        nonlocal executor
        if not chunk:  # all its rows were verified before an interruption
            return _finished([])
        future: Future[list[dict[str, Any]]]
        try:
            future = executor.submit(check_images, chunk, options, store)
        except BrokenProcessPool:
            executor = new_executor(num_workers)
            future = executor.submit(check_images, chunk, options, store)
        return future

    try:
        for chunk in chunks:
            pending.append((chunk, submitted(chunk)))
            if len(pending) > CHUNKS_AHEAD_PER_WORKER * num_workers:
                yield _result(*pending.popleft(), options, store)
        while pending:
            yield _result(*pending.popleft(), options, store)
    finally:
        stop_executor(executor, (future for _, future in pending))


def _finished(results: list[dict[str, Any]]) -> "Future[list[dict[str, Any]]]":
    future: Future[list[dict[str, Any]]] = Future()
    future.set_result(results)
    return future


def _result(
    chunk: Work, future: "Future[list[dict[str, Any]]]", options: ImageOptions, store: Path | None
) -> list[dict[str, Any]]:
    try:
        return future.result()
    except BrokenProcessPool:
        return list(check_one_by_one(chunk, options, store))


def check_one_by_one(chunk: Work, options: ImageOptions, store: Path | None) -> Iterator[dict[str, Any]]:
    """Verify the images of a chunk one by one in another process, to find the image that crashed the decoder."""
    executor = new_executor(1)
    try:
        for source, name in chunk:
            try:
                yield executor.submit(check_images, [(source, name)], options, store).result()[0]
            except BrokenProcessPool:
                stop_executor(executor)
                executor = new_executor(1)
                yield {"name": name, "key": source.key(), "reason": "decoder crashed", "detail": name}
    finally:
        stop_executor(executor)
