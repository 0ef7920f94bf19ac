"""What a captioner is trained on: rows of a manifest with raw inputs, or with features that are computed once."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import torch
from torch import Tensor
from torch.utils.data import Dataset

from gapless.captioning.captioner import IMAGE, TEXT, Captioner
from gapless.inference.embed import prepared_batches
from gapless.inference.pairs import CACHE_BYTES, PairDataset, Sample
from gapless.manifest.manifest import Manifest
from gapless.manifest.split import assign_splits
from gapless.training.run import TRAIN, VALIDATION, all_captions


@dataclass(frozen=True)
class Features:
    """What a fixed encoder makes of the rows of a data set; computed once."""

    embedding: Tensor
    tokens: Tensor | None


class FeatureDataset(Dataset[Sample]):
    """The captions of rows with features that are ready, by row or, for a decoder that learns from text, by caption."""

    def __init__(self, pairs: PairDataset, lookup: Callable[[int, str], Mapping[str, Tensor]]) -> None:
        self.pairs = pairs
        self.lookup = lookup

    def __len__(self) -> int:
        return len(self.pairs)

    def __getitem__(self, key: int | tuple[int, int]) -> Sample:
        sample = self.pairs[key]
        row = key[1] if isinstance(key, tuple) else key
        return {**sample, **self.lookup(row, sample["caption"])}


def divided(manifest: Manifest, held_back: float) -> tuple[Manifest, Manifest]:
    """The rows to learn from and those that choose the epoch; no group is in both.

    The latter are the validation rows whose group is not among the train rows or, where there are none, a share of the
    train groups, the same for every seed.
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
    return _rows_where(train, [not held for held in is_held_back]), _rows_where(train, is_held_back)


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
    """The rows as the mode needs them: raw inputs where the encoder learns or images change, else ready features.

    Args:
        modalities: whose raw inputs are needed.
        training_seed: with a seed, captions are drawn and images augmented; without, first caption and plain pixels.
    """
    captions_alone = PairDataset(rows, {}, training_seed)
    if mode == "text":
        texts = sorted(set(all_captions(rows)))
        embedding = dict(zip(texts, model.aligner.encode(TEXT, texts), strict=True))
        return FeatureDataset(captions_alone, lambda row, caption: {"embedding": embedding[caption]})
    if mode == "joint" or augment_images or _feature_bytes(model, len(rows)) > CACHE_BYTES:
        prepare = {name: model.preprocessor(name) for name in modalities}
        return PairDataset(rows, prepare, training_seed, augment_images)
    found = image_features(model, rows)
    by_row = {name: value for name, value in vars(found).items() if value is not None}
    return FeatureDataset(captions_alone, lambda row, caption: {name: value[row] for name, value in by_row.items()})


def _feature_bytes(model: Captioner, num_rows: int) -> int:
    """Memory that the features of so many images take, in fp32."""
    config = model.config
    return 4 * num_rows * int(model.aligner.config.embedding_dim + config.num_patches * config.patch_size)


@torch.no_grad()
def image_features(model: Captioner, rows: Manifest) -> Features:
    """Embeddings and patch tokens of all images, on the CPU."""
    dataset = PairDataset(rows, {IMAGE: model.preprocessor(IMAGE)})
    batches = prepared_batches(
        model, dataset, {IMAGE: model.preprocessor(IMAGE)}, batch_size=64, progress="encode images"
    )
    parts = [model.features(batch[IMAGE]) for _, batch in batches]
    tokens = [tokens.cpu() for _, tokens in parts if tokens is not None]
    return Features(torch.cat([embedding.cpu() for embedding, _ in parts]), torch.cat(tokens) if tokens else None)
