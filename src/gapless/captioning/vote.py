"""How the training texts near a row vote on its caption; a captioner keeps what its training chose."""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gapless.core.errors import DataRefused, UsageError
from gapless.core.files import read_object, write_json

FILE = "near_texts.json"
TEMPERATURE, WORD_WEIGHT = 0.2, 0.05  # where none was chosen


@dataclass(frozen=True)
class Vote:
    """How near texts vote.

    Args:
        near_texts: how many; 0 is no vote.
        temperature: of the softmax of their cosines; lower listens to the nearest ones alone.
        agreement: with the references of the rows that it was chosen on, in [0, 1], higher is better: the geometric
            mean of the mean agreements by n-grams and by words; None where it was not chosen but given.
        chosen_on: what those rows are.
        word_weight: of the agreement by words, from 0 to 1; the rest is that of the agreement by n-grams. Older files
            have none, which is read as 0: near texts voted by n-grams alone.
    """

    near_texts: int
    temperature: float
    agreement: float | None = None
    chosen_on: str = ""
    word_weight: float = 0.0

    def __post_init__(self) -> None:
        if self.near_texts < 0 or not 0 < self.temperature < math.inf:
            raise UsageError(
                f"near_texts is at least 0 and its temperature above 0; got {self.near_texts}, {self.temperature}"
            )
        if not 0 <= self.word_weight <= 1:
            raise UsageError(f"word_weight is from 0 to 1, got {self.word_weight}")

    def write(self, directory: Path) -> None:
        """Write the file of a model directory."""
        write_json(directory / FILE, vars(self))

    @classmethod
    def read(cls, directory: Path) -> "Vote | None":
        """That of a model directory; None where none was chosen.

        Raises:
            DataRefused: a file of another form.
        """
        path = directory / FILE
        if not path.is_file():
            return None
        content: dict[str, Any] = read_object(path)
        try:
            numbers = {"near_texts": int(content["near_texts"]), "temperature": float(content["temperature"])}
            return cls(**{**content, **numbers, "word_weight": float(content.get("word_weight", 0.0))})
        except (KeyError, TypeError, ValueError, UsageError):
            raise DataRefused(f"{path} is damaged; train the captioner again") from None
