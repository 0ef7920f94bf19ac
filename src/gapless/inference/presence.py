"""Which rows of a manifest have which modality, and the modalities that training hides on purpose.

A null cell is an absent modality, and so are an empty text and an empty list.
"""

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from itertools import combinations

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from torch import Tensor

from gapless.manifest.manifest import Manifest

MIN_MODALITIES = 2  # of a row from which a loss can learn: it compares modalities

Presence = dict[str, NDArray[np.bool_]]


def present_in(embeddings: Mapping[str, Tensor]) -> dict[str, Tensor] | None:
    """modality -> [row] bool, False where a row is NaN because it lacks the modality; None where nothing is missing."""
    masks = {name: ~rows.isnan().any(dim=1) for name, rows in embeddings.items()}
    return None if all(mask.all() for mask in masks.values()) else masks


def common_rows(manifest: Manifest, modalities: Iterable[str]) -> dict[str, int]:
    """Pair of modalities (`image-text`) -> the rows that have both."""
    present = manifest.presence(modalities)
    return {f"{a}-{b}": int((present[a] & present[b]).sum()) for a, b in combinations(present, 2)}


def how_many(present: Presence) -> NDArray[np.int64]:
    """[row] how many of the modalities each row has."""
    counts: NDArray[np.int64] = np.sum(list(present.values()), axis=0)
    return counts


def missing_in(present: Presence) -> dict[str, int]:
    """modality -> how many rows lack it, of those that some row lacks."""
    counts = {name: int((~mask).sum()) for name, mask in present.items()}
    return {name: count for name, count in counts.items() if count}


def complete_rows(manifest: Manifest, modalities: Iterable[str]) -> Manifest:
    """The rows that have all of these modalities."""
    present = manifest.presence(modalities)
    if not missing_in(present):
        return manifest
    mask = np.all(list(present.values()), axis=0)
    return Manifest(manifest.path, manifest.info, manifest.table.filter(pa.array(mask)))


def comparable_part(manifest: Manifest, modalities: Iterable[str]) -> Manifest:
    """The rows that have two of these modalities or more; of a single modality, the rows that have it."""
    present = manifest.presence(modalities)
    mask = how_many(present) >= min(MIN_MODALITIES, len(present))
    return manifest if mask.all() else Manifest(manifest.path, manifest.info, manifest.table.filter(pa.array(mask)))


def hidden_modalities(
    has: Sequence[str], shares: Mapping[str, float], seed: int, epoch: int, sample_id: str
) -> frozenset[str]:
    """The modalities that a row hides in an epoch, drawn from (seed, epoch, sample id); two of them always stay.

    Args:
        has: the modalities of the row.
        shares: modality -> the share of its rows that hide it, in [0, 1).

    Where fewer than two would stay, those stay whose draws were furthest from being hidden, so that fewer rows than
    their share hide a modality where rows have few.
    """
    margins = {name: _draw(seed, epoch, sample_id, name) - shares.get(name, 0.0) for name in has}
    by_margin = sorted(has, key=lambda name: margins[name], reverse=True)
    return frozenset(name for name in by_margin[MIN_MODALITIES:] if margins[name] < 0)


def _draw(seed: int, epoch: int, sample_id: str, modality: str) -> float:
    """A number in [0, 1)."""
    digest = hashlib.blake2b(f"hidden/{seed}/{epoch}/{modality}/{sample_id}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") / 2**64
