"""Pairs for training and embedding: rows of a manifest as prepared inputs, in an order that a seed fixes.

Everything random is drawn from (seed, epoch, sample id), so that a resumed run and any number of workers see the same
pixels and the same captions.
"""

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from torch import Generator, randperm
from torch.utils.data import Dataset, Sampler

from gapless.core.errors import DataRefused
from gapless.images.augment import augment
from gapless.manifest.manifest import Manifest

CACHE_BYTES = 1 << 30  # prepared images are kept in memory up to this size

Sample = dict[str, Any]
Prepare = Callable[[Any], Any]


def caption_of(captions: Sequence[str], seed: int, epoch: int, sample_id: str) -> str:
    """One of a sample's captions, drawn from (seed, epoch, sample id)."""
    digest = hashlib.blake2b(f"caption/{seed}/{epoch}/{sample_id}".encode(), digest_size=8).digest()
    return captions[int.from_bytes(digest, "little") % len(captions)]


class PairDataset(Dataset[Sample]):
    """Row i of a manifest as `{"id", "caption", <modality>: prepared input}`.

    Args:
        manifest: the rows to read.
        prepare: modality -> what turns a raw input into a prepared one (`Preprocessor.prepare`).
        training_seed: with a seed, captions are drawn and images augmented; without, first caption and plain pixels.
        augment_images: small shifts and intensity changes, never a flip.
    """

    def __init__(
        self,
        manifest: Manifest,
        prepare: Mapping[str, Prepare],
        training_seed: int | None = None,
        augment_images: bool = False,
    ) -> None:
        self.manifest = manifest
        self.prepare = dict(prepare)
        self.training_seed = training_seed
        self.augment_images = augment_images
        self.ids: list[str] = manifest.table["id"].to_pylist()
        self.columns = {name: manifest.table[name] for name in self.prepare if name not in ("image", "text")}
        self.captions = manifest.table["captions"] if "captions" in manifest.table.column_names else None
        self.cache: dict[int, np.ndarray] = {}
        self.cached_bytes = 0

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, key: int | tuple[int, int]) -> Sample:
        epoch, row = key if isinstance(key, tuple) else (0, key)
        sample: Sample = {"id": self.ids[row]}
        if self.captions is not None:
            sample["caption"] = self.caption(row, epoch)
        for name, prepare in self.prepare.items():
            if name == "image":
                sample[name] = self.image(row, epoch)
            else:
                sample[name] = prepare(sample["caption"] if name == "text" else self.columns[name][row].as_py())
        return sample

    def caption(self, row: int, epoch: int) -> str:
        assert self.captions is not None
        captions = self.captions[row].as_py()
        if self.training_seed is None or len(captions) == 1:
            return str(captions[0])
        return caption_of(captions, self.training_seed, epoch, self.ids[row])

    def image(self, row: int, epoch: int) -> np.ndarray:
        pixels = self.cache.get(row)
        if pixels is None:
            try:
                path = self.manifest.image_path(row)
                pixels = self.prepare["image"](path)
            except (DataRefused, OSError) as error:
                raise DataRefused(f"{self.ids[row]}: {error}; build the manifest again") from None
            if self.cached_bytes + pixels.nbytes <= CACHE_BYTES:
                self.cache[row] = pixels
                self.cached_bytes += pixels.nbytes
        if self.training_seed is None or not self.augment_images:
            return pixels
        return augment(pixels, self.training_seed, epoch, self.ids[row])


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
