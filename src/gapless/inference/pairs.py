"""Pairs for training and embedding: rows of a manifest as prepared inputs, in an order that a seed fixes.

Everything random is drawn from (seed, epoch, sample id), so that a resumed run and any number of workers see the same
pixels and the same captions.
"""

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from torch import Generator, randperm
from torch.utils.data import Dataset, Sampler

from gapless.core.errors import DataRefused
from gapless.manifest.manifest import Manifest
from gapless.modalities.base import Modality

CACHE_BYTES = 1 << 30  # prepared inputs are kept in memory up to this size

Sample = dict[str, Any]


def caption_of(captions: Sequence[str], seed: int, epoch: int, sample_id: str) -> str:
    """One of a sample's captions, drawn from (seed, epoch, sample id)."""
    digest = hashlib.blake2b(f"caption/{seed}/{epoch}/{sample_id}".encode(), digest_size=8).digest()
    return captions[int.from_bytes(digest, "little") % len(captions)]


class PairDataset(Dataset[Sample]):
    """Row i of a manifest as `{"id", "caption", <modality>: prepared input}`.

    Args:
        manifest: the rows to read.
        modalities: modality -> its kind, with the settings of the model that takes it.
        training_seed: with a seed, captions are drawn and inputs augmented; without, first caption and plain inputs.
        augment_images: small changes that leave a caption true, as `Modality.augment` of the kind makes them.
    """

    def __init__(
        self,
        manifest: Manifest,
        modalities: Mapping[str, Modality[Any]],
        training_seed: int | None = None,
        augment_images: bool = False,
    ) -> None:
        self.manifest = manifest
        self.modalities = dict(modalities)
        self.training_seed = training_seed
        self.augment_images = augment_images
        self.ids: list[str] = manifest.table["id"].to_pylist()
        self.columns = {name: manifest.table[name] for name in self.modalities if name not in ("image", "text")}
        self.captions = manifest.table["captions"] if "captions" in manifest.table.column_names else None
        self.cache: dict[tuple[str, int], np.ndarray] = {}
        self.cached_bytes = 0

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, key: int | tuple[int, int]) -> Sample:
        epoch, row = key if isinstance(key, tuple) else (0, key)
        sample: Sample = {"id": self.ids[row]}
        if self.captions is not None:
            sample["caption"] = self.caption(row, epoch)
        for name, kind in self.modalities.items():
            prepared = self.prepared(name, kind, row, sample)
            if self.training_seed is not None and self.augment_images:
                prepared = kind.augment(prepared, self.training_seed, epoch, self.ids[row])
            sample[name] = prepared
        return sample

    def caption(self, row: int, epoch: int) -> str:
        assert self.captions is not None
        captions = self.captions[row].as_py()
        if self.training_seed is None or len(captions) == 1:
            return str(captions[0])
        return caption_of(captions, self.training_seed, epoch, self.ids[row])

    def prepared(self, name: str, kind: Modality[Any], row: int, sample: Sample) -> Any:
        """The prepared input of a row; those that are slow to prepare are kept in memory up to `CACHE_BYTES`."""
        if (name, row) in self.cache:
            return self.cache[name, row]
        try:
            prepared = kind.prepare(self.source(name, row, sample))
        except (DataRefused, OSError) as error:
            raise DataRefused(f"{self.ids[row]}: {error}; build the manifest again") from None
        if kind.is_slow_to_prepare and self.cached_bytes + prepared.nbytes <= CACHE_BYTES:
            self.cache[name, row] = prepared
            self.cached_bytes += prepared.nbytes
        return prepared

    def source(self, name: str, row: int, sample: Sample) -> Any:
        """What a manifest holds of a modality: an image file, a caption, or the cell of a column."""
        if name == "image":
            return self.manifest.image_path(row)
        return sample["caption"] if name == "text" else self.columns[name][row].as_py()


class EpochSampler(Sampler[tuple[int, int]]):
    """Every row once an epoch, in an order drawn from (seed, epoch), as `(epoch, row)` keys."""

    def __init__(self, num_rows: int, seed: int) -> None:
        self.num_rows = num_rows
        self.seed = seed
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch

    def __len__(self) -> int:
        return self.num_rows

    def __iter__(self) -> Iterator[tuple[int, int]]:
        epoch = self.epoch
        generator = Generator().manual_seed((self.seed << 20) + epoch)
        for row in randperm(self.num_rows, generator=generator).tolist():
            yield epoch, row
