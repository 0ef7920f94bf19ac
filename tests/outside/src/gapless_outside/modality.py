"""Counts: a list of numbers of any size and sign, on a logarithmic scale."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from gapless.core.errors import DataRefused, UsageError
from gapless.modalities.base import Modality


@dataclass(frozen=True)
class CountsInput:
    """A list of `size` numbers.

    Args:
        size: how many.
        scale: of the numbers, before the logarithm.
    """

    kind: ClassVar[str] = "outside-counts"
    size: int
    scale: float = 1.0


class Counts(Modality[CountsInput]):
    """`sign(x) log(1 + scale |x|)` of each number."""

    Input = CountsInput

    def prepare(self, raw: Any) -> np.ndarray:
        values = np.asarray(raw, dtype=np.float32)
        if values.shape != (self.settings.size,) or not np.isfinite(values).all():
            raise DataRefused(f"counts are {self.settings.size} finite numbers, got shape {values.shape}")
        scaled: np.ndarray = np.sign(values) * np.log1p(self.settings.scale * np.abs(values))
        return scaled

    def collate(self, prepared: Sequence[np.ndarray]) -> dict[str, Tensor]:
        return {"values": torch.from_numpy(np.stack(prepared))}

    @classmethod
    def default_encoder(cls, settings: CountsInput) -> dict[str, Any]:
        return {"kind": "vector", "size": settings.size}

    def preview(self, raw: Any) -> str:
        return f"{len(raw)} counts"

    def parse_query(self, value: Any) -> Any:
        try:
            return [float(part) for part in value.split(",")] if isinstance(value, str) else list(value)
        except ValueError:
            raise UsageError(f"counts are numbers with commas between, got {value!r}") from None

    def sample(self, count: int, random: np.random.Generator) -> list[Any]:
        return list(random.poisson(5.0, (count, self.settings.size)))


KIND = Counts
