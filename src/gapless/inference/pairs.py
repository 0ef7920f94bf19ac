"""Datasets of pairs for training and embedding: rows of a manifest as prepared inputs, in an order fixed by a seed.

Captions and augmentations are drawn from (seed, epoch, sample id), so that a resumed run, with any number of workers,
gets the same pixels and captions.
"""

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Generator, randperm
from torch.utils.data import Dataset, Sampler

from gapless.core.errors import DataRefused
from gapless.inference.presence import hidden_modalities, missing_in
from gapless.manifest.manifest import Manifest
from gapless.modalities.base import Modality
from gapless.modalities.views import Views

CACHE_BYTES = 1 << 30  # of memory for prepared inputs, per dataset and process

Sample = dict[str, Any]


def caption_of(captions: Sequence[str], seed: int, epoch: int, sample_id: str) -> str:
    """One of a sample's captions, drawn from (seed, epoch, sample id)."""
    digest = hashlib.blake2b(f"caption/{seed}/{epoch}/{sample_id}".encode(), digest_size=8).digest()
    return captions[int.from_bytes(digest, "little") % len(captions)]


class RowUnreadable(DataRefused):
    """An input of a row that cannot be read any more; the message names the row, the modality and the reason.

    A process of a data loader hands on an error with its traceback as the message; the sentence is taken out again.
    """

    def __init__(self, message: str) -> None:
        is_wrapped = message.startswith(f"Caught {RowUnreadable.__name__} ")
        super().__init__(message.rpartition(f"{RowUnreadable.__name__}: ")[2].strip() if is_wrapped else message)


class PairDataset(Dataset[Sample]):
    """A dataset whose item i is row i of a manifest: `{"id", "caption", <modality>: prepared input}`.

    A key `(epoch, i)` gives the row as that epoch of training sees it. A modality that the row lacks or hides is None.
    Several files or vectors of one modality are its views: `Views` of prepared inputs. Of several texts one is taken.

    Args:
        manifest: the rows to read.
        modalities: modality -> its kind, with the settings of the model that takes it.
        training_seed: with a seed, a caption of each row is drawn; without, the first one is used.
        augment_images: with a seed, change inputs by the `Modality.augment` of their kind, which keeps captions true.
        labels: [row, label], given with each row as `labels`; None: no loss compares labels.
        modality_dropout: with a seed, modality -> the share of its rows that hide it in an epoch; a row keeps two.

    Raises (from `[]`):
        RowUnreadable: an input that cannot be read any more.
    """

    def __init__(
        self,
        manifest: Manifest,
        modalities: Mapping[str, Modality[Any]],
        training_seed: int | None = None,
        augment_images: bool = False,
        modality_dropout: Mapping[str, float] | None = None,
        labels: NDArray[np.float32] | None = None,
    ) -> None:
        self.manifest = manifest
        self.modalities = dict(modalities)
        self.training_seed = training_seed
        self.augment_images = augment_images
        self.ids: list[str] = manifest.table["id"].to_pylist()
        self.modality_dropout = dict(modality_dropout or {}) if training_seed is not None else {}
        self.present = manifest.presence(self.modalities)
        # Modalities of texts; a cell of several has one drawn, like the captions.
        texts = [name for name, kind in self.modalities.items() if kind.takes_tokenizer]
        self.texts = {name: manifest.table[manifest.column_of(name)] for name in texts}
        caption_column = manifest.caption_column
        has_captions = caption_column in manifest.table.column_names
        self.captions = manifest.table[caption_column] if has_captions else None
        self.labels = labels
        self.cache: dict[tuple[str, int], Any] = {}
        self.cached_bytes = 0

    @property
    def lacks_modalities(self) -> bool:
        """Whether a row lacks a modality, or may hide one."""
        return bool(missing_in(self.present)) or any(self.modality_dropout.values())

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, key: int | tuple[int, int]) -> Sample:
        epoch, row = key if isinstance(key, tuple) else (0, key)
        sample: Sample = {"id": self.ids[row]}
        if self.labels is not None:
            sample["labels"] = self.labels[row]
        if self.captions is not None:
            sample["caption"] = self.caption(row, epoch)
        texts = {name: self.drawn(column[row].as_py(), row, epoch) for name, column in self.texts.items()}
        if texts.keys() - {"text"}:  # the text of images and texts is the caption
            sample["texts"] = texts
        shown = self.shown(row, epoch)
        for name, kind in self.modalities.items():
            if name not in shown:
                sample[name] = None
                continue
            prepared = self.prepared(name, kind, row, texts)
            if self.training_seed is not None and self.augment_images:
                prepared = self.augmented(kind, prepared, epoch, self.ids[row])
            sample[name] = prepared
        return sample

    def augmented(self, kind: Modality[Any], prepared: Any, epoch: int, sample_id: str) -> Any:
        """A prepared input with the change of an epoch; each view has a change of its own."""
        assert self.training_seed is not None
        if not isinstance(prepared, Views):
            return kind.augment(prepared, self.training_seed, epoch, sample_id)
        return Views(
            kind.augment(view, self.training_seed, epoch, f"{sample_id}/view {number}" if number else sample_id)
            for number, view in enumerate(prepared)
        )

    def shown(self, row: int, epoch: int) -> set[str]:
        """The modalities that a row has and does not hide in this epoch."""
        has = [name for name, mask in self.present.items() if mask[row]]
        if self.training_seed is None or not self.modality_dropout:
            return set(has)
        return set(has) - hidden_modalities(has, self.modality_dropout, self.training_seed, epoch, self.ids[row])

    def caption(self, row: int, epoch: int) -> str | None:
        """The caption of a row: drawn for the epoch when training, else the first; None for a row without one."""
        assert self.captions is not None
        return self.drawn(self.captions[row].as_py(), row, epoch)

    def drawn(self, texts: Sequence[str] | str | None, row: int, epoch: int) -> str | None:
        """One of the texts of a cell: drawn for the epoch when training, else the first; None of an empty cell."""
        if not texts:
            return None
        if isinstance(texts, str) or self.training_seed is None or len(texts) == 1:
            return texts if isinstance(texts, str) else str(texts[0])
        return caption_of(texts, self.training_seed, epoch, self.ids[row])

    def prepared(self, name: str, kind: Modality[Any], row: int, texts: Mapping[str, str | None]) -> Any:
        """The prepared input of a row; inputs that are slow to prepare are cached, up to `CACHE_BYTES`."""
        if (name, row) in self.cache:
            return self.cache[name, row]
        try:
            sources = [texts[name]] if name in texts else self.manifest.views(name, row) or ()
            views = Views(kind.prepare(source) for source in sources)
        except (DataRefused, OSError) as error:
            raise RowUnreadable(f"{self.ids[row]}: {name}: {error}; build the manifest again") from None
        prepared = views if len(views) > 1 else views[0]
        num_bytes = sum(view.nbytes for view in views) if kind.is_slow_to_prepare else 0
        if num_bytes and self.cached_bytes + num_bytes <= CACHE_BYTES:
            self.cache[name, row] = prepared
            self.cached_bytes += num_bytes
        return prepared


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
