"""Vectors: rows of numbers that are an encoder's features, or a short signal, taken as they are."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from gapless.core.errors import DataRefused, UsageError
from gapless.modalities.base import MODALITIES, NUMBERS, Modality

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class VectorInput:
    """A row of `size` finite numbers."""

    kind: ClassVar[str] = "vector"
    size: int


class VectorModality(Modality[VectorInput]):
    """Rows of `size` finite numbers. A query is one only as numbers: they come from another encoder."""

    Input = VectorInput
    manifest_form = NUMBERS
    takes_queries = False

    @staticmethod
    def check(source: Any, params: Mapping[str, Any]) -> dict[str, Any]:
        """`size` of a list of numbers; with `size` among the params it must be that."""
        return {"size": len(_finite_numbers(source, params.get("size", np.size(source))))}

    def prepare(self, raw: Any) -> NDArray[np.float32]:
        """[size] fp32."""
        return _finite_numbers(raw, self.settings.size)

    def collate(self, prepared: Sequence[NDArray[np.float32]]) -> "dict[str, Tensor]":
        """`values` [row, size]."""
        import torch

        return {"values": torch.from_numpy(np.stack(prepared))}

    @classmethod
    def default_encoder(cls, settings: VectorInput) -> dict[str, Any]:
        return {"kind": "vector", "size": settings.size}

    def preview(self, raw: Any) -> str:
        values = np.asarray(raw, dtype=np.float32)
        return f"{values.size} numbers from {values.min():.3g} to {values.max():.3g}"

    def parse_query(self, value: Any) -> NDArray[np.float32]:
        """[size] fp32 of a list or array of numbers, of JSON of a list, or of a `Path` to a .npy file.

        A string is never a path here.

        Raises:
            UsageError: anything else, or not `size` finite numbers.
        """
        numbers = _numbers_of(value)
        if numbers is None:
            raise UsageError(
                f"it takes vectors of another encoder, so it cannot be asked with a file or a text; give the "
                f"{self.settings.size} numbers of a vector"
            )
        try:
            return _finite_numbers(numbers, self.settings.size)
        except DataRefused as error:
            raise UsageError(str(error)) from None

    def sample(self, count: int, random: np.random.Generator) -> list[Any]:
        return list(random.standard_normal((count, self.settings.size)).astype(np.float32))


def _numbers_of(value: Any) -> NDArray[np.float32] | None:
    """The numbers of a query; None where it holds none."""
    try:
        if isinstance(value, Path):
            value = np.load(value, allow_pickle=False)
        elif isinstance(value, str) and value.lstrip().startswith("["):
            value = json.loads(value)
        if not isinstance(value, list | tuple | np.ndarray):
            return None
        array = np.asarray(value)
        return array.astype(np.float32) if array.dtype.kind in "fiu" and array.size else None
    except (OSError, ValueError, OverflowError, RecursionError):
        return None


def _finite_numbers(value: Any, size: int) -> NDArray[np.float32]:
    """[size] fp32. Raises DataRefused: another length, or a number that is none."""
    values = np.asarray(value, dtype=np.float32)
    if values.ndim != 1:
        raise DataRefused(f"a vector must be one list of {size} finite numbers, got {values.ndim} axes")
    if len(values) != size:
        raise DataRefused(f"a vector must be {size} finite numbers, got {len(values)}")
    faulty = np.flatnonzero(~np.isfinite(values))
    if len(faulty):
        raise DataRefused(f"a vector must be {size} finite numbers, and number {faulty[0] + 1} is {values[faulty[0]]}")
    return values


MODALITIES.add("vector", VectorModality)
