"""Encodes requests in batches on one thread: requests that arrive while it is busy form the next batch.

A batch starts as soon as the thread is free, so a single request does not wait for others. With more requests the
batches become larger, and throughput grows.
"""

import queue
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from gapless.core.errors import GaplessError

MAX_BATCH = 32
MAX_WAITING = 256

Encode = Callable[[str, Sequence[Any]], np.ndarray]


class TooBusy(GaplessError):
    """The queue of waiting requests is full."""


@dataclass(frozen=True)
class Item:
    modality: str
    raw: Any
    result: "Future[np.ndarray]" = field(default_factory=Future)


class Batcher:
    """Encodes single inputs in batches.

    Args:
        encode: (modality, inputs) -> [input, dim]; it is called by one thread only.
        max_batch: most inputs of one call.
        max_waiting: most inputs that wait; further ones are refused.
    """

    def __init__(self, encode: Encode, max_batch: int = MAX_BATCH, max_waiting: int = MAX_WAITING) -> None:
        self.encode = encode
        self.max_batch = max_batch
        self._ended = False
        self._waiting: queue.Queue[Item | None] = queue.Queue(max_waiting)
        self._thread = threading.Thread(target=self._work, name="gapless-model", daemon=True)
        self._thread.start()

    def submit(self, modality: str, raw: Any) -> "Future[np.ndarray]":
        """The future [dim] row of one input.

        Raises:
            TooBusy: the queue is full.
        """
        item = Item(modality, raw)
        try:
            self._waiting.put_nowait(item)
        except queue.Full:
            raise TooBusy("too many requests are waiting for the model; try again in a moment") from None
        return item.result

    @property
    def waiting(self) -> int:
        """How many inputs wait now."""
        return self._waiting.qsize()

    def close(self) -> None:
        """Encode the inputs that wait, then end the thread."""
        self._waiting.put(None)
        self._thread.join()

    def _work(self) -> None:
        while not self._ended:
            items = self._next_batch()
            for modality in {item.modality for item in items}:
                self._answer([item for item in items if item.modality == modality])

    def _next_batch(self) -> list[Item]:
        """The waiting inputs, up to `max_batch`; waits for one when there are none."""
        batch = [self._waiting.get()]
        while batch[-1] is not None and len(batch) < self.max_batch:
            try:
                batch.append(self._waiting.get_nowait())
            except queue.Empty:
                break
        self._ended = batch[-1] is None
        return [item for item in batch if item is not None and item.result.set_running_or_notify_cancel()]

    def _answer(self, items: Sequence[Item]) -> None:
        """Encode inputs of one modality; when the batch fails, one by one, so that a bad input fails alone."""
        try:
            rows = self.encode(items[0].modality, [item.raw for item in items])
        except Exception as error:
            if len(items) == 1:
                items[0].result.set_exception(error)
            else:
                for item in items:
                    self._answer([item])
            return
        for item, row in zip(items, rows, strict=True):
            item.result.set_result(row)
