"""The training texts that a captioner remembers: the number of each, and the texts themselves where they were stored.

The numbers tell whether a caption repeats a training text word for word. They hold no text, but who has a text can find
out by them whether it was trained on.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from gapless.core.captions import caption_number
from gapless.core.errors import DataRefused
from gapless.core.files import read_object, write_json

FILE = "train_texts.json"


@dataclass(frozen=True)
class TrainTexts:
    """Distinct training texts.

    Args:
        numbers: of the texts, as `core.captions.caption_number` gives them, in order.
        texts: the texts, or None where they were not stored.
    """

    numbers: tuple[int, ...]
    texts: tuple[str, ...] | None = None

    @classmethod
    def of(cls, texts: Iterable[str], stored: bool = False) -> "TrainTexts":
        """Those of a training."""
        by_number = {caption_number(text, ""): text for text in texts if text.strip()}
        numbers = tuple(sorted(by_number))
        return cls(numbers, tuple(by_number[number] for number in numbers) if stored else None)

    def with_others(self, texts: Iterable[str]) -> "TrainTexts":
        """The same with the numbers of further texts."""
        return TrainTexts(tuple(sorted({*self.numbers, *TrainTexts.of(texts).numbers})), self.texts)

    @cached_property
    def known(self) -> frozenset[int]:
        """The numbers, to look up."""
        return frozenset(self.numbers)

    def has(self, caption: str) -> bool:
        """Whether a caption is a training text, but for case, white space and the full stop at its end."""
        return bool(caption.strip()) and caption_number(caption, "") in self.known

    def write(self, directory: Path) -> None:
        """Write the file of a model directory."""
        write_json(directory / FILE, {"numbers": self.numbers, "texts": self.texts})

    @classmethod
    def read(cls, directory: Path) -> "TrainTexts | None":
        """Those of a model directory; None where it has none, as captioners of older versions.

        Raises:
            DataRefused: a file of another form.
        """
        path = directory / FILE
        if not path.is_file():
            return None
        content: dict[str, Any] = read_object(path)
        numbers, texts = content.get("numbers"), content.get("texts")
        are_numbers = isinstance(numbers, list) and all(type(number) is int for number in numbers)
        are_texts = texts is None or (isinstance(texts, list) and all(isinstance(text, str) for text in texts))
        if not (are_numbers and are_texts):
            raise DataRefused(f"{path} is damaged: it holds no numbers and texts; train the captioner again")
        return cls(tuple(numbers or ()), None if texts is None else tuple(texts))
