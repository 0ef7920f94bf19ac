"""Training data of captioners: rows of a manifest with raw inputs, or with features that are computed once."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import torch
from torch import Tensor
from torch.utils.data import Dataset, Sampler

from gapless.captioning.captioner import Captioner
from gapless.captioning.route import texts_of
from gapless.inference.embed import Collator, model_batches
from gapless.inference.pairs import CACHE_BYTES, PairDataset, Sample
from gapless.manifest.manifest import TRAIN, VALIDATION, Manifest
from gapless.manifest.split import assign_splits


@dataclass(frozen=True)
class Features:
    """Features of the rows of a data set by encoders that are not trained; computed once.

    Args:
        embedding: [row, dim] unit-norm.
        tokens: [row, patch, size], or None without patches.
    """

    embedding: Tensor
    tokens: Tensor | None


class TargetTexts(Dataset[Sample]):
    """A dataset of rows whose `caption` is a text of the target: drawn for the epoch when training, else the first.

    Args:
        pairs: the rows, with the inputs that are needed.
        target: a modality of texts that every row has.
    """

    def __init__(self, pairs: PairDataset, target: str) -> None:
        self.pairs = pairs
        self.texts = pairs.manifest.cells(target)

    def __len__(self) -> int:
        return len(self.pairs)

    def __getitem__(self, key: int | tuple[int, int]) -> Sample:
        epoch, row = key if isinstance(key, tuple) else (0, key)
        return {**self.pairs[key], "caption": self.pairs.drawn(self.texts[row], row, epoch)}


class FeatureDataset(Dataset[Sample]):
    """A dataset of captions with features that were computed before.

    Args:
        pairs: the rows, for their captions.
        lookup: (row, caption) to the features by name; a decoder that learns from texts looks them up by caption.
        lengths: of each row's first caption in tokens, for batches of like lengths.
    """

    def __init__(
        self,
        pairs: PairDataset | TargetTexts,
        lookup: Callable[[int, str], Mapping[str, Tensor]],
        lengths: Sequence[int] | None = None,
    ) -> None:
        self.pairs = pairs
        self.lookup = lookup
        self.lengths = lengths

    def __len__(self) -> int:
        return len(self.pairs)

    def __getitem__(self, key: int | tuple[int, int]) -> Sample:
        sample = self.pairs[key]
        row = key[1] if isinstance(key, tuple) else key
        return {**sample, **self.lookup(row, sample["caption"])}


class LengthBatches(Sampler[tuple[int, int]]):
    """The keys of an `EpochSampler` in an order where each batch holds rows of like lengths.

    Chunks of `AHEAD` batches are sorted by length and cut into batches, whose order is drawn; rows that fill no batch
    come last.

    Args:
        sampler: the keys of an epoch, in a random order.
        lengths: of each row.
        batch_size: keys of a batch.
    """

    AHEAD = 32

    def __init__(self, sampler: Sampler[tuple[int, int]], lengths: Sequence[int], batch_size: int) -> None:
        self.sampler = sampler
        self.lengths = lengths
        self.batch_size = batch_size

    def set_epoch(self, epoch: int) -> None:
        """Set the epoch whose order the next iteration has."""
        self.sampler.set_epoch(epoch)  # type: ignore[attr-defined]

    def __len__(self) -> int:
        return len(self.lengths)

    def __iter__(self) -> Iterator[tuple[int, int]]:
        keys, size = list(self.sampler), self.batch_size
        for start in range(0, len(keys), self.AHEAD * size):
            chunk = keys[start : start + self.AHEAD * size]
            first = chunk[0][1]  # a row drawn at random, so that the order of batches is drawn too
            full = len(chunk) // size * size
            by_length = sorted(chunk[:full], key=lambda key: self.lengths[key[1]])
            batches = [by_length[place : place + size] for place in range(0, full, size)]
            for place in torch.randperm(len(batches), generator=torch.Generator().manual_seed(first)).tolist():
                yield from batches[place]
            yield from chunk[full:]


def divided(manifest: Manifest, held_back: float) -> tuple[Manifest, Manifest]:
    """The rows to train on, and the rows by whose loss the epoch is chosen; no group is in both.

    The second part is the validation rows whose group has no train rows. Where there are none, it is a share of the
    train groups, the same for every seed.

    Args:
        held_back: that share of the train groups, in [0, 1).
    """
    train = manifest.select(TRAIN)
    groups = train.table["group"].to_pylist()
    if manifest.rows_per_split().get(VALIDATION):
        validation = manifest.select(VALIDATION)
        seen = set(groups)
        unseen = _rows_where(validation, [group not in seen for group in validation.table["group"].to_pylist()])
        if len(unseen):
            return train, unseen
    assigned = assign_splits(groups, (1 - held_back, held_back, 0.0))
    is_held_back = [assigned[group] != TRAIN for group in groups]
    return _rows_where(train, [not is_in for is_in in is_held_back]), _rows_where(train, is_held_back)


def _rows_where(rows: Manifest, chosen: Sequence[bool]) -> Manifest:
    return Manifest(rows.path, rows.info, rows.table.filter(pa.array(chosen, pa.bool_())))


def dataset_of(
    model: Captioner,
    rows: Manifest,
    mode: str,
    modalities: Sequence[str],
    training_seed: int | None = None,
    augment_images: bool = False,
) -> Dataset[Any]:
    """A dataset of the rows for a mode: raw inputs where the encoder is trained or images change, else features.

    Features of more than `CACHE_BYTES` are not computed ahead; the raw inputs are then encoded in every epoch.

    Args:
        mode: frozen, joint or text.
        modalities: those whose raw inputs are needed.
        training_seed: with a seed, a caption of each row is drawn; without, the first one is used.
        augment_images: with a seed, change images while training.
    """
    target = model.route.target
    captions_alone = TargetTexts(PairDataset(rows, {}, training_seed), target)
    if mode == "text":
        texts = sorted(set(texts_of(rows, target)))
        embedding = dict(zip(texts, model.aligner.encode(target, texts), strict=True))
        ids = dict(zip(texts, model.caption_ids(texts), strict=True))
        lengths = [len(ids[str(views[0])]) for views in rows.cells(target) if views]
        return FeatureDataset(
            captions_alone, lambda row, caption: {"embedding": embedding[caption], "caption_ids": ids[caption]}, lengths
        )
    if mode == "joint" or augment_images or _feature_bytes(model, len(rows)) > CACHE_BYTES:
        prepare = {name: model.preprocessor(name) for name in modalities}
        return TargetTexts(PairDataset(rows, prepare, training_seed, augment_images), target)
    features = source_features(model, rows)
    by_row = {name: value for name, value in vars(features).items() if value is not None}
    return FeatureDataset(captions_alone, lambda row, caption: {name: value[row] for name, value in by_row.items()})


def _feature_bytes(model: Captioner, num_rows: int) -> int:
    """Bytes that the features of so many images take, in fp32."""
    config = model.config
    return 4 * num_rows * int(model.aligner.config.embedding_dim + config.num_patches * config.patch_size)


@torch.no_grad()
def source_features(model: Captioner, rows: Manifest) -> Features:
    """Embeddings and patch tokens of all rows by their sources, on the CPU."""
    parts = [features for _, features, _ in feature_batches(model, sources_of(model, rows), batch_size=64)]
    tokens = [tokens.cpu() for _, tokens in parts if tokens is not None]
    return Features(torch.cat([embedding.cpu() for embedding, _ in parts]), torch.cat(tokens) if tokens else None)


def sources_of(model: Captioner, rows: Manifest) -> PairDataset:
    """A dataset of the sources of a manifest's rows."""
    return PairDataset(rows, {name: model.preprocessor(name) for name in model.route.sources})


@torch.no_grad()
def feature_batches(
    model: Captioner,
    dataset: Dataset[Any],
    sources: Sequence[str] | None = None,
    progress: str | None = "encode",
    **options: Any,
) -> Iterator[tuple[list[str], tuple[Tensor, Tensor | None], list[list[str]]]]:
    """Ids, what `Captioner.prefix` takes, and the sources that each row has, batch by batch.

    Args:
        dataset: rows with at least one source.
        sources: those that the samples hold; by default all of the captioner.
        progress, options: as in `model_batches`.
    """
    names = tuple(sources or model.route.sources)
    collate = Collator({name: model.preprocessor(name) for name in names})
    for inputs in model_batches(model, dataset, collate, progress=progress, **options):
        ids, present = inputs["ids"], inputs.get("present")
        used = [[name for name in names if present is None or bool(present[name][row])] for row in range(len(ids))]
        yield ids, model.joined_features(inputs["batch"], present), used
