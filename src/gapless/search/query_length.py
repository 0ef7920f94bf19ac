"""What words are a query of, and whether a model reads all of them: what is longer than its encoder takes is cut."""

import threading
from copy import deepcopy
from dataclasses import dataclass
from typing import Any

from gapless.modalities.text import TextModality
from gapless.models.aligner import GaplessModel


def words_modality(model: GaplessModel) -> str | None:
    """What words are a query of: the model's modality `text`, else its first one of texts; None without any."""
    kinds = {name: model.preprocessor(name) for name in model.modalities}
    texts = [name for name, kind in kinds.items() if kind.takes_tokenizer and kind.takes_queries]
    return "text" if "text" in texts else texts[0] if texts else None


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

    It has tokenizers of its own, because a tokenizer that cuts and one that does not are one object in two states, and
    the service counts while its other thread embeds.
    """

    def __init__(self, model: GaplessModel) -> None:
        self._lock = threading.Lock()
        self._texts: dict[str, tuple[Any, int]] = {}  # modality -> its tokenizer, and how many tokens the model reads
        for name in model.modalities:
            texts = model.preprocessor(name)
            if isinstance(texts, TextModality) and texts.tokenizer is not None:
                read = int(getattr(texts.tokenizer, "context_length", texts.settings.max_length))
                self._texts[name] = (deepcopy(texts.tokenizer), read)

    def cut_of(self, modality: str, text: Any) -> Cut | None:
        """What the model leaves out of a text of a modality, or None; None too for modalities of other kinds."""
        if modality not in self._texts:
            return None
        tokenizer, read = self._texts[modality]
        with self._lock:
            tokens = _num_tokens(tokenizer, text)
        return Cut(tokens, read) if tokens > read else None


def _num_tokens(tokenizer: Any, text: str) -> int:
    if hasattr(tokenizer, "num_tokens"):
        return int(tokenizer.num_tokens(text))
    return len(tokenizer(text, truncation=False, padding=False, verbose=False)["input_ids"])
