"""Texts: strings, as the tokens of the text encoder's own tokenizer, which the model gives."""

import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np

from gapless.core.errors import DataRefused, UsageError
from gapless.core.values import is_unicode
from gapless.modalities.base import MODALITIES, TEXTS, Modality

if TYPE_CHECKING:
    from torch import Tensor

SAMPLE_TEXTS = ("chest radiograph", "axial CT of the abdomen, no focal lesion of the liver", "normal MR of the knee")
MAX_PREVIEW = 2_000  # characters: a history, a report
INVISIBLE = ("Z", "C")  # Unicode categories: separators; control and format characters


@dataclass(frozen=True)
class TextInput:
    """A text as the tokens of its encoder's tokenizer.

    Args:
        max_length: tokens that are kept.
        padding: True pads to the longest text of the batch, "max_length" to `max_length`.
        tokenizer: "open_clip" for open_clip's own; None for the one that is saved with the model.
    """

    kind: ClassVar[str] = "text"
    max_length: int = 128
    padding: bool | Literal["max_length"] = True
    tokenizer: Literal["open_clip"] | None = None


class TextModality(Modality[TextInput]):
    """The tokenizer of the text encoder, cut at `max_length` tokens, padded to the longest of the batch."""

    Input = TextInput
    manifest_form = TEXTS
    takes_tokenizer = True

    @staticmethod
    def check(source: Any, params: Mapping[str, Any]) -> dict[str, Any]:
        """`characters` of a text. Raises DataRefused: no text, or one without a word."""
        return {"characters": len(_text_with_words(source))}

    def prepare(self, raw: Any) -> str:
        return _text_with_words(raw)

    def collate(self, prepared: Sequence[str]) -> "dict[str, Tensor]":
        """What the tokenizer names: `input_ids`, `attention_mask`, each [row, token]."""
        if self.tokenizer is None:
            raise UsageError("this model has no tokenizer; save one with it")
        encoded = self.tokenizer(
            list(prepared),
            truncation=True,
            max_length=self.settings.max_length,
            padding=self.settings.padding,
            return_tensors="pt",
        )
        names = self.tokenizer.model_input_names
        return {name: encoded[name] for name in names if name in encoded}

    @classmethod
    def default_encoder(cls, settings: TextInput) -> dict[str, Any]:
        return small_bert(128, 2, settings.max_length)

    def preview(self, raw: Any) -> str:
        """The text itself; of a very long one its beginning."""
        return shortened(str(raw))

    def parse_query(self, value: Any) -> str:
        """The words of a query.

        Raises:
            UsageError: no text, nothing that can be seen, or half of a surrogate pair.
        """
        if not isinstance(value, str):
            raise UsageError(f"the words of a query are text, got {type(value).__name__}")
        if not is_unicode(value):
            place = next(number for number, character in enumerate(value, 1) if not is_unicode(character))
            raise UsageError(
                f"character {place} of the query is half of a surrogate pair, which is no character: its text was "
                "decoded with the wrong encoding, or cut inside an emoji"
            )
        if all(unicodedata.category(character)[0] in INVISIBLE for character in value):
            raise UsageError("the query is empty; give words or an image")
        return value

    def sample(self, count: int, random: np.random.Generator) -> list[Any]:
        return [SAMPLE_TEXTS[row % len(SAMPLE_TEXTS)] for row in range(count)]

    @property
    def has_free_length(self) -> bool:
        return self.settings.padding is True and self.settings.tokenizer is None


def shortened(text: str) -> str:
    """At most `MAX_PREVIEW` characters of a text, all of them Unicode.

    >>> shortened("knee"), len(shortened("knee " * 1000))
    ('knee', 2000)
    """
    whole = text if is_unicode(text) else text.encode("utf-8", errors="replace").decode("utf-8")
    return whole if len(whole) <= MAX_PREVIEW else whole[: MAX_PREVIEW - 1] + "…"


def _text_with_words(value: Any) -> str:
    """The text itself. Raises DataRefused: no text, or one without a word."""
    if not isinstance(value, str) or not value.strip():
        raise DataRefused(f"a text must be a string with at least one word, got {value!r}")
    return value


def small_bert(hidden: int, layers: int, max_length: int) -> dict[str, Any]:
    """The `encoder` of a small BERT; its vocabulary is that of the tokenizer trained with it."""
    return {
        "kind": "transformers",
        "config": {
            "model_type": "bert",
            "hidden_size": hidden,
            "num_hidden_layers": layers,
            "num_attention_heads": max(1, hidden // 32),
            "intermediate_size": 2 * hidden,
            "max_position_embeddings": max_length,
            "hidden_dropout_prob": 0.0,
            "attention_probs_dropout_prob": 0.0,
        },
        "pooling": "mean",
    }


MODALITIES.add("text", TextModality)
