"""The queue before the model: larger batches under load, the same rows, one bad input fails alone."""

import threading
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pytest

from gapless.core.errors import DataRefused
from gapless.server.batching import Batcher, TooBusy


class Encoder:
    """Encodes numbers as themselves; it can be held, and notes what it got."""

    def __init__(self) -> None:
        self.free = threading.Event()
        self.batches: list[tuple[str, list[Any]]] = []

    def __call__(self, modality: str, raws: Sequence[Any]) -> np.ndarray:
        assert self.free.wait(10)
        self.batches.append((modality, list(raws)))
        if "bad" in raws:
            raise DataRefused("bad input")
        return np.array([[len(modality), raw] for raw in raws], dtype=np.float32)


@pytest.fixture
def encoder() -> Iterator[Encoder]:
    encoder = Encoder()
    yield encoder
    encoder.free.set()


def test_what_waits_becomes_one_batch_for_each_modality(encoder: Encoder) -> None:
    batcher = Batcher(encoder, max_batch=8)
    futures = [batcher.submit("text", 0)]
    while batcher._waiting.qsize():  # until the model holds the first
        pass
    futures += [batcher.submit("image" if number % 3 == 0 else "text", number) for number in range(1, 8)]
    encoder.free.set()
    rows = [future.result(10).tolist() for future in futures]
    assert rows == [[4, 0], *([5 if number % 3 == 0 else 4, number] for number in range(1, 8))]
    assert encoder.batches[0] == ("text", [0])
    assert sorted(encoder.batches[1:]) == [("image", [3, 6]), ("text", [1, 2, 4, 5, 7])]
    batcher.close()


def test_a_bad_input_fails_alone(encoder: Encoder) -> None:
    batcher = Batcher(encoder)
    first = batcher.submit("text", 1)
    futures = [batcher.submit("text", raw) for raw in (2, "bad", 3)]
    encoder.free.set()
    assert first.result(10).tolist() == [4, 1]
    assert [futures[place].result(10).tolist() for place in (0, 2)] == [[4, 2], [4, 3]]
    with pytest.raises(DataRefused, match="bad input"):
        futures[1].result(10)
    batcher.close()


def test_no_more_wait_than_may_and_closing_answers_them(encoder: Encoder) -> None:
    batcher = Batcher(encoder, max_batch=2, max_waiting=3)
    futures = [batcher.submit("text", 0)]
    while batcher._waiting.qsize():
        pass
    futures += [batcher.submit("text", number) for number in (1, 2, 3)]
    with pytest.raises(TooBusy, match="try again"):
        batcher.submit("text", 4)
    threading.Timer(0.05, encoder.free.set).start()
    batcher.close()
    assert [future.result(0).tolist() for future in futures] == [[4, 0], [4, 1], [4, 2], [4, 3]]
    assert not batcher._thread.is_alive()


def test_a_request_that_went_away_costs_nothing(encoder: Encoder) -> None:
    batcher = Batcher(encoder)
    batcher.submit("text", 0)
    while batcher._waiting.qsize():
        pass
    gone = batcher.submit("text", 1)
    assert gone.cancel()
    encoder.free.set()
    batcher.close()
    assert [raws for _, raws in encoder.batches] == [[0]]
