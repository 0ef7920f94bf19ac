"""The bridge of a captioner that learns from texts alone: from the embeddings of its sources to those of its texts.

A closing method is fitted on the train rows that have both, and stands behind the frozen encoders from then on: the
decoder learns texts, and captions images, in the space of that method. Noise is added to the texts so that a text and
its noisy copy lie as far apart as a text and its image.
"""

import math
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from torch import Tensor

from gapless.captioning.route import Route, joined, usable_rows
from gapless.captioning.settings import FITTED, NO_BRIDGE
from gapless.closing.auto import AutoSettings
from gapless.closing.base import DEFAULT_METHOD, ClosingSettings
from gapless.closing.close import close_gap
from gapless.closing.split import MIN_GROUPS
from gapless.core.errors import DataRefused
from gapless.core.geometry import blocks
from gapless.inference.embed import embed_dataset
from gapless.inference.pairs import PairDataset
from gapless.manifest.manifest import TRAIN, VALIDATION, Manifest
from gapless.models.aligner import GaplessModel

LEAST_COSINE = 0.05  # of pairs: below it there is no angle to speak of, and noise would be all that is left
ROWS_AT_ONCE = 1024


def bridged(
    aligner: GaplessModel, train: Manifest, validation: Manifest, route: Route, bridge: str, seed: int
) -> GaplessModel:
    """The aligner with a closing method behind its encoders; the aligner itself for no bridge.

    Args:
        train, validation: rows that fit and rows of other groups that may choose a setting.
        bridge: a closing method, or "none"; `auto` judges the methods for captions.

    Raises:
        UsageError: the method takes no such modalities. DataRefused: too few rows with sources and target.
    """
    if bridge == NO_BRIDGE:
        return aligner
    parts = {TRAIN: _complete(train, route), VALIDATION: _complete(validation, route)}
    if len(set(parts[TRAIN].table["group"].to_pylist())) < MIN_GROUPS:
        raise DataRefused(
            f"--bridge {bridge} is fitted on train rows with {route.names} and {route.target}, and {len(parts[TRAIN])} "
            f"of {len(train)} have them, in fewer than {MIN_GROUPS} groups; use --bridge none with --noise_std {FITTED}"
        )
    embedded = {part: _embedded(aligner, rows, route) for part, rows in parts.items() if len(rows)}
    names = (*route.sources, route.target)
    matrices = {name: torch.cat([found[name] for found in embedded.values()]) for name in names}
    settings: ClosingSettings | None = None
    if bridge == DEFAULT_METHOD:
        settings = AutoSettings(anchor=route.target, purpose="captions")
    with TemporaryDirectory() as place:
        closed = close_gap(
            matrices,
            [group for part in embedded for group in parts[part].table["group"].to_pylist()],
            settings if settings is not None else ClosingSettings(anchor=route.target),
            bridge,
            seed,
            out=Path(place) / "bridge",
            splits=[part for part in embedded for _ in range(len(parts[part]))],
            frozen=aligner,
        )
    return closed.model


def _complete(rows: Manifest, route: Route) -> Manifest:
    """The rows that have the target and every source."""
    for source in route.sources:
        rows = usable_rows(rows, Route({source: 1.0}, route.target))[0]
    return rows


def _embedded(aligner: GaplessModel, rows: Manifest, route: Route) -> dict[str, Tensor]:
    """Modality -> [row, dim] embeddings of the sources, and of the first text of the target, on the CPU."""
    names = tuple(route.sources)
    dataset = PairDataset(rows, {name: aligner.preprocessor(name) for name in names})
    found = embed_dataset(aligner, dataset, modalities=names, num_workers=None, progress="bridge")
    return {**found, route.target: aligner.encode(route.target, first_texts(rows, route.target))}


def first_texts(rows: Manifest, target: str) -> list[str]:
    """The first text of each row of a target that every row has."""
    return [str((views or [""])[0]) for views in rows.cells(target)]


def noise_of(noise: float | str, aligner: GaplessModel, rows: Sequence[Manifest], route: Route) -> float:
    """The standard deviation of the noise per dimension.

    Args:
        noise: that number, or "fitted": the noise that turns a row by the angle between a text and its sources.
        rows: where the pairs are looked for, the first part that has some; without any pair, the angle is that between
            a text of the last part and the nearest other one.
    """
    if not isinstance(noise, str):
        return noise
    for part in rows:
        pairs = _complete(part, route)
        if len(pairs):
            found = _embedded(aligner, pairs, route)
            sources = joined({name: found[name] for name in route.sources}, route.sources)
            return noise_of_cosine(float((sources * found[route.target]).sum(dim=1).mean()), sources.shape[1])
    texts = aligner.encode(route.target, sorted(set(first_texts(rows[-1], route.target))))
    return noise_of_cosine(nearest_cosine(texts), texts.shape[1])


def nearest_cosine(rows: Tensor) -> float:
    """The mean cosine of each row and the nearest other row; 1 for a single row.

    >>> nearest_cosine(torch.eye(3))
    0.0
    """
    if len(rows) < 2:
        return 1.0
    total = 0.0
    for part in blocks(len(rows), ROWS_AT_ONCE):
        scores = rows[part] @ rows.T
        scores[torch.arange(len(scores)), torch.arange(len(rows))[part]] = -math.inf
        total += float(scores.amax(dim=1).sum())
    return total / len(rows)


def noise_of_cosine(cosine: float, dim: int) -> float:
    """The noise per dimension that turns a unit row by an angle, in the mean: `sqrt((1 / cosine^2 - 1) / dim)`.

    The noise is nearly orthogonal to the row, so that its norm is the tangent of the angle.

    >>> round(noise_of_cosine(0.5, 3), 6), noise_of_cosine(1.0, 3)
    (1.0, 0.0)
    """
    cosine = min(max(cosine, LEAST_COSINE), 1.0)
    return math.sqrt((1 / cosine**2 - 1) / dim)
