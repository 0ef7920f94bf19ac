"""Datasets of pairs for training and embedding: rows of a manifest as prepared inputs, in an order fixed by a seed.

Captions and augmentations are drawn from (seed, epoch, sample id), so that a resumed run, with any number of workers,
gets the same pixels and captions.
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

CACHE_BYTES = 1 << 30  # of memory for prepared inputs, per dataset and process

Sample = dict[str, Any]


def caption_of(captions: Sequence[str], seed: int, epoch: int, sample_id: str) -> str:
    """One of a sample's captions, drawn from (seed, epoch, sample id)."""
    digest = hashlib.blake2b(f"caption/{seed}/{epoch}/{sample_id}".encode(), digest_size=8).digest()
    return captions[int.from_bytes(digest, "little") % len(captions)]


class PairDataset(Dataset[Sample]):
    """A dataset whose item i is row i of a manifest: `{"id", "caption", <modality>: prepared input}`.

    A key `(epoch, i)` gives the row as that epoch of training sees it.

    Args:
        manifest: the rows to read.
        modalities: modality -> its kind, with the settings of the model that takes it.
        training_seed: with a seed, a caption of each row is drawn; without, the first one is used.
        augment_images: with a seed, change inputs by the `Modality.augment` of their kind, which keeps captions true.

    Raises (from `[]`):
        DataRefused: an input that cannot be read any more; the message names the row.
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
        """The caption of a row: drawn for the epoch when training, else the first."""
        assert self.captions is not None
        captions = self.captions[row].as_py()
        if self.training_seed is None or len(captions) == 1:
            return str(captions[0])
        return caption_of(captions, self.training_seed, epoch, self.ids[row])

    def prepared(self, name: str, kind: Modality[Any], row: int, sample: Sample) -> Any:
        """The prepared input of a row; inputs that are slow to prepare are cached, up to `CACHE_BYTES`."""
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
        """The raw input of a modality: the path of an image, a caption, or the cell of a column."""
        if name == "image":
            return self.manifest.image_path(row)
        return sample["caption"] if name == "text" else self.columns[name][row].as_py()


class EpochSampler(Sampler[tuple[int, int]]):
    """A sampler of `(epoch, row)` keys: every row once an epoch, in an order drawn from (seed, epoch)."""

    def __init__(self, num_rows: int, seed: int) -> None:
        self.num_rows = num_rows
        self.seed = seed
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Set the epoch whose order the next iteration has."""
        self.epoch = epoch

    def __len__(self) -> int:
        return self.num_rows

    def __iter__(self) -> Iterator[tuple[int, int]]:
        epoch = self.epoch
        generator = Generator().manual_seed((self.seed << 20) + epoch)
        for row in randperm(self.num_rows, generator=generator).tolist():
            yield epoch, row
