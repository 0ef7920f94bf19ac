"""Whether a model reads all words of a query: what is longer than its text encoder takes is cut off."""

import threading
from copy import deepcopy
from dataclasses import dataclass
from typing import Any

from gapless.modalities.text import TextModality
from gapless.models.aligner import GaplessModel


class QueryCut(UserWarning):
    """Words of a query that the model did not read."""


@dataclass(frozen=True)
class Cut:
    """A query that was cut.

    Args:
        tokens: of the whole query, with the marks that the tokenizer adds.
        read: so many of them the model reads, from the start.
    """

    tokens: int
    read: int

    def __str__(self) -> str:
        return (
            f"the query has {self.tokens:,} tokens and the model reads the first {self.read:,}; the rest was left out"
        )


class QueryLength:
    """Counts the tokens of queries for one model.

    It has a tokenizer of its own, because a tokenizer that cuts and one that does not are one object in two states, and
    the service counts while its other thread embeds.
    """

    def __init__(self, model: GaplessModel) -> None:
        self._lock = threading.Lock()
        self._tokenizer: Any = None
        texts = model.preprocessor("text") if "text" in model.modalities else None
        if isinstance(texts, TextModality) and texts.tokenizer is not None:
            self._tokenizer = deepcopy(texts.tokenizer)
            self._read = int(getattr(texts.tokenizer, "context_length", texts.settings.max_length))

    def cut_of(self, text: str) -> Cut | None:
        """What the model leaves out of these words, or None."""
        if self._tokenizer is None:
            return None
        with self._lock:
            tokens = self._count(text)
        return Cut(tokens, self._read) if tokens > self._read else None

    def _count(self, text: str) -> int:
        if hasattr(self._tokenizer, "num_tokens"):
            return int(self._tokenizer.num_tokens(text))
        return len(self._tokenizer(text, truncation=False, padding=False, verbose=False)["input_ids"])
