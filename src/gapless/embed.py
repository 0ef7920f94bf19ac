"""The only inference loop: a model over the rows of a manifest."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Generator, Tensor
from torch.utils.data import DataLoader, Dataset
from tqdm.auto import tqdm

from gapless.data.batches import PairDataset, Sample
from gapless.data.manifest import Manifest
from gapless.errors import UsageError
from gapless.models.aligner import GaplessModel
from gapless.models.preprocessing import Preprocessor


class Collator:
    """Samples to the model's keyword arguments; the ids travel along for messages.

    A batch that comes collated, as from `VectorPairs`, passes through.
    """

    def __init__(self, preprocessors: Mapping[str, Preprocessor], mask_duplicates: bool = False) -> None:
        self.preprocessors = dict(preprocessors)
        self.mask_duplicates = mask_duplicates

    def __call__(self, samples: Sequence[Sample] | dict[str, Any]) -> dict[str, Any]:
        if isinstance(samples, dict):
            return samples
        batch = {
            name: preprocessor.collate([sample[name] for sample in samples])
            for name, preprocessor in self.preprocessors.items()
        }
        inputs: dict[str, Any] = {"batch": batch, "ids": [sample["id"] for sample in samples]}
        if self.mask_duplicates:
            inputs["groups"] = caption_groups([sample["caption"] for sample in samples])
        return inputs


def caption_groups(captions: Sequence[str]) -> Tensor:
    """Integers that are equal where the captions are, apart from case and spaces."""
    number: dict[str, int] = {}
    return torch.tensor([number.setdefault(" ".join(text.lower().split()), len(number)) for text in captions])


def preprocessors_of(model: GaplessModel) -> dict[str, Preprocessor]:
    return {name: model.preprocessor(name) for name in model.modalities}


def check_modalities(model: GaplessModel, manifest: Manifest) -> None:
    """Refuse a manifest that lacks a modality of the model."""
    missing = [name for name in model.modalities if name not in manifest.modalities]
    if missing:
        raise UsageError(
            f"the model takes {', '.join(model.modalities)}, but {manifest.path} has no {', '.join(missing)}"
        )


def evaluation_dataset(model: GaplessModel, manifest: Manifest) -> PairDataset:
    """The rows as they are: first caption, no augmentation."""
    check_modalities(model, manifest)
    return PairDataset(manifest, {name: p.prepare for name, p in preprocessors_of(model).items()})


@torch.no_grad()
def embedding_batches(
    model: GaplessModel,
    dataset: Dataset[Any],
    batch_size: int = 256,
    num_workers: int = 0,
    progress: str | None = None,
) -> Iterator[tuple[list[str], dict[str, Tensor]]]:
    """Ids and unit-norm fp32 embeddings on the CPU, batch by batch, in the dataset's order.

    Args:
        progress: a label for the progress bar on stderr; None shows none.
    """
    loader = DataLoader(
        dataset,
        batch_size=batch_size,
        num_workers=num_workers,
        collate_fn=Collator(preprocessors_of(model)),
        generator=Generator().manual_seed(0),  # the loader must not draw from the training's random state
    )
    was_training = model.training
    model.eval()
    try:
        for inputs in tqdm(loader, desc=progress, unit="batch", disable=None if progress else True):
            on_device = {
                name: {key: value.to(model.device) for key, value in tensors.items()}
                for name, tensors in inputs["batch"].items()
            }
            embeddings = model(batch=on_device, return_loss=False).embeddings
            yield inputs["ids"], {name: rows.float().cpu() for name, rows in embeddings.items()}
    finally:
        model.train(was_training)


def embed_dataset(model: GaplessModel, dataset: Dataset[Any], **options: Any) -> dict[str, Tensor]:
    """All embeddings of a dataset that fits in memory: modality -> [pair, embedding_dim]."""
    parts = [embeddings for _, embeddings in embedding_batches(model, dataset, **options)]
    return {name: torch.cat([part[name] for part in parts]) for name in model.modalities}
