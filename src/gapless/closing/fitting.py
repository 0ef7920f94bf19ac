"""One fit of a method as everybody asks for it: made once, checked and, where the settings say so, less its means."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from gapless.closing.base import ClosingMethod, ClosingPairs, ClosingSettings, FittedMethod, check_fitted, takes_absent
from gapless.closing.layers import affine_layer, layers_of, unit_norm_layer, vector_model
from gapless.core.errors import UsageError
from gapless.core.geometry import blocks
from gapless.embeddings.stored_rows import Rows, StoredRows

if TYPE_CHECKING:
    from gapless.models.aligner import GaplessModel

ROWS_AT_ONCE = 4096


def fit_method(
    method: ClosingMethod[Any], pairs: ClosingPairs, settings: ClosingSettings, seed: int, *, folder: Path
) -> FittedMethod:
    """Fit, check that the model is one for these rows, and remove the means if `settings.remove_mean`.

    A fit that something else has asked for on these rows, `auto` or a stack, is not made again.

    Args:
        method, pairs, settings, seed, folder: as in `ClosingMethod.fit`.

    Raises:
        UsageError: of the method, or rows that lack modalities, which it does not take.
        DataRefused: of the method, or weights that are not finite.
        ValueError: a model for other rows.
    """
    if pairs.present is not None and not takes_absent(method):
        raise UsageError(
            f"{method.name} takes rows that have every modality, and some lack one; use --missing drop or another "
            "method"
        )
    key = (method.name, repr(replace(settings, remove_mean=False)), seed)
    if key not in pairs.fits:
        made = method.fit(pairs, settings, seed, folder=folder)
        check_fitted(made, pairs, method.name)
        pairs.fits[key] = made
    fitted = pairs.fits[key]
    return replace(fitted, model=without_means(fitted.model, pairs)) if settings.remove_mean else fitted


def without_means(model: "GaplessModel", pairs: ClosingPairs) -> "GaplessModel":
    """The model with each head ended by unit norm less the mean of that modality's training rows in its space.

    The space is as before, then `x / |x| - mean`; the aligner normalises what is left. So the means of the training
    rows are 0 before that, and a cosine no longer has the part that all rows of a modality share.
    """
    heads = {}
    for name in pairs.sizes:
        rows = pairs.common(pairs.train, name)
        total = torch.zeros(model.config.embedding_dim, dtype=torch.float64)
        for part in mapped_blocks(model, name, pairs.embeddings[name], rows):
            total += part.double().sum(dim=0)
        mean = total / len(rows)
        heads[name] = [*layers_of(model, name), unit_norm_layer(), affine_layer(mean, torch.eye(len(mean)))]
    return vector_model(pairs, heads, loss_of=model)


@torch.no_grad()
def mapped_blocks(model: "GaplessModel", modality: str, matrix: Rows, rows: np.ndarray) -> Iterator[Tensor]:
    """Unit-norm rows [row, embedding_dim] of some vectors of one modality in the space of the model, in blocks."""
    for part in blocks(len(rows), ROWS_AT_ONCE):
        yield model.embed(modality, {"values": matrix[rows[part]]})


def mapped_rows(model: "GaplessModel", modality: str, matrix: Rows, path: Path) -> Rows:
    """All rows of one modality in the space of the model: in memory where the vectors are, else in a .npy file.

    Args:
        path: the file, which is written in blocks.
    """
    found = mapped_blocks(model, modality, matrix, np.arange(len(matrix)))
    if isinstance(matrix, Tensor):
        return torch.cat(list(found))
    shape = len(matrix), model.config.embedding_dim
    stored = np.lib.format.open_memmap(path, "w+", np.dtype(np.float32), shape)
    start = 0
    for part in found:
        stored[start : start + len(part)] = part.numpy()
        start += len(part)
    stored.flush()
    return StoredRows.of_file(path)
