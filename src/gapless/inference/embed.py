"""Embeds the rows of a manifest with a model, or precomputed embeddings where its encoders take vectors."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Generator, Tensor
from torch.utils.data import DataLoader, Dataset
from transformers import PreTrainedModel

from gapless.core.captions import caption_number
from gapless.core.errors import DataRefused, UsageError, listed, unknown_name
from gapless.core.launch import rank_and_count_here
from gapless.core.pool import available_cores
from gapless.core.progress import progress_bar
from gapless.embeddings.dataset import VectorPairs
from gapless.embeddings.embedding_set import EmbeddingSet
from gapless.embeddings.store import SHARD_SIZE, EmbeddingsWriter, Shard
from gapless.inference.pairs import PairDataset, Sample
from gapless.inference.presence import missing_in
from gapless.manifest.manifest import VERSION, Manifest
from gapless.modalities.base import MODALITIES, NUMBERS, Modality
from gapless.modalities.vector import VectorInput
from gapless.modalities.views import collate_rows
from gapless.models.aligner import GaplessModel
from gapless.models.fingerprint import fingerprint_of

PRECISIONS = ("float32", "bfloat16")
MAX_READERS = 16


def checked_precision(precision: str) -> str:
    """The precision that encoders compute in.

    Raises:
        UsageError: no name in `PRECISIONS`.
    """
    if precision not in PRECISIONS:
        raise unknown_name("precision", precision, PRECISIONS)
    return precision


class Collator:
    """Collates samples into the keyword arguments of a model, and `ids`, which messages name.

    A sample whose input of a modality is None lacks it: the batch then holds the inputs of the others, and `present`,
    modality -> [row] bool. A modality that no sample has is not in the batch at all.

    Args:
        preprocessors: modality -> what collates its prepared inputs.
        mask_duplicates: also give `positives`, [pair] integers that are equal where the captions are the same; where
            samples have several texts, modality -> such integers.
        with_presence: give `present` for complete batches too, so that all ranks of a training give it or none does.

    A batch that is collated already, as `VectorPairs` gives it, is returned as it is.
    """

    def __init__(
        self,
        preprocessors: Mapping[str, Modality[Any]],
        mask_duplicates: bool = False,
        with_presence: bool = False,
    ) -> None:
        self.preprocessors = dict(preprocessors)
        self.mask_duplicates = mask_duplicates
        self.with_presence = with_presence

    def __call__(self, samples: Sequence[Sample] | dict[str, Any]) -> dict[str, Any]:
        if isinstance(samples, dict):
            return samples
        batch, present = {}, {}
        for name, preprocessor in self.preprocessors.items():
            prepared = [sample[name] for sample in samples if sample[name] is not None]
            present[name] = torch.tensor([sample[name] is not None for sample in samples])
            if prepared:
                batch[name] = collate_rows(preprocessor, prepared)
        inputs: dict[str, Any] = {"batch": batch, "ids": [sample["id"] for sample in samples]}
        if self.with_presence or not all(mask.all() for mask in present.values()):
            inputs["present"] = present
        if self.mask_duplicates:
            inputs["positives"] = _positives(samples)
        if "labels" in samples[0]:
            inputs["labels"] = torch.from_numpy(np.stack([sample["labels"] for sample in samples]))
        return inputs


def _positives(samples: Sequence[Sample]) -> Tensor | dict[str, Tensor]:
    """[row] numbers of the captions; of samples with several texts, such numbers by modality."""
    if "texts" not in samples[0]:
        return torch.tensor([caption_number(sample.get("caption"), sample["id"]) for sample in samples])
    return {
        name: torch.tensor([caption_number(sample["texts"][name], sample["id"]) for sample in samples])
        for name in samples[0]["texts"]
    }


def preprocessors_of(model: GaplessModel) -> dict[str, Modality[Any]]:
    """Modality -> what prepares and collates the model's inputs."""
    return {name: model.preprocessor(name) for name in model.modalities}


def check_modalities(model: GaplessModel, manifest: Manifest, modalities: Sequence[str] | None = None) -> None:
    """Raise UsageError for a manifest that lacks a modality of the model, or holds it as another kind.

    Args:
        modalities: those of the model that are looked for; by default all.
    """
    names = modalities or model.modalities
    check_names(names, manifest)
    check_kinds({name: model.specs[name].input.kind for name in names}, manifest)


def check_kinds(kinds: Mapping[str, str], manifest: Manifest) -> None:
    """Raise UsageError for a modality whose cells the manifest holds in a form that the model's kind does not read.

    Numbers can be read by several kinds, and a manifest of version 1 does not say its kinds.

    Args:
        kinds: modality -> its kind in the model.
    """
    if manifest.version == VERSION:
        return
    for name, kind in kinds.items():
        spec = manifest.spec(name)
        if spec.form not in (NUMBERS, MODALITIES[kind].manifest_form):
            raise UsageError(f"the model takes {name} as {kind}, but {manifest.path} holds it as {spec.kind}")


def check_names(modalities: Iterable[str], manifest: Manifest) -> None:
    """Raise UsageError for a manifest that lacks one of the modalities that a model takes."""
    missing = [name for name in modalities if name not in manifest.modalities]
    if missing:
        raise UsageError(f"the model takes {', '.join(modalities)}, but {manifest.path} has no {', '.join(missing)}")


def evaluation_dataset(model: GaplessModel, manifest: Manifest) -> PairDataset:
    """The rows of a manifest for evaluation: the first caption of each, no augmentation.

    Raises:
        UsageError: the manifest lacks a modality of the model.
    """
    check_modalities(model, manifest)
    return PairDataset(manifest, preprocessors_of(model))


def _on_device(inputs: Any, device: torch.device) -> Any:
    """The inputs with every tensor moved to a device, in nested dictionaries too."""
    if isinstance(inputs, dict):
        return {name: _on_device(value, device) for name, value in inputs.items()}
    return inputs.to(device, non_blocking=True) if isinstance(inputs, Tensor) else inputs


def usual_readers(device: torch.device) -> int:
    """How many processes should prepare inputs for a model on this device.

    An accelerator waits for images that one core prepares; beside a model on the CPU such processes take its cores.
    """
    if device.type == "cpu":
        return 0
    return min(available_cores() // rank_and_count_here()[1], MAX_READERS)


@torch.no_grad()
def model_batches(
    model: PreTrainedModel,
    dataset: Dataset[Any],
    collate: Callable[[Any], dict[str, Any]],
    batch_size: int = 256,
    num_workers: int | None = 0,
    progress: str | None = None,
    batches: Sequence[Sequence[int]] | None = None,
) -> Iterator[dict[str, Any]]:
    """The collated inputs of a dataset, batch by batch; all inference uses this loop.

    The inputs are on the model's device, in the order of the dataset. The model is in evaluation mode during the loop
    and in its earlier mode after it.

    Args:
        collate: samples to the inputs of a batch.
        batch_size: rows of a batch.
        num_workers: processes that prepare inputs; 0 prepares them in this one, None takes `usual_readers`.
        progress: a label for the progress on stderr; None shows none.
        batches: the rows of each batch; by default all rows, `batch_size` at a time.
    """
    batching: dict[str, Any] = {"batch_size": batch_size} if batches is None else {"batch_sampler": batches}
    loader = DataLoader(
        dataset,
        **batching,
        num_workers=usual_readers(model.device) if num_workers is None else num_workers,
        collate_fn=collate,
        pin_memory=model.device.type == "cuda",  # copies to the device then run beside the model
        generator=Generator().manual_seed(0),  # the loader must not draw from the training's random state
    )
    was_training = model.training
    model.train(False)
    try:
        for inputs in loader if progress is None else progress_bar(loader, what=progress, unit="batch"):
            yield _on_device(inputs, model.device)
    finally:
        model.train(was_training)


def prepared_batches(
    model: PreTrainedModel, dataset: Dataset[Any], preprocessors: Mapping[str, Modality[Any]], **options: Any
) -> Iterator[tuple[list[str], dict[str, dict[str, Tensor]]]]:
    """Ids and the encoders' inputs, batch by batch; options as in `model_batches`.

    Raises:
        DataRefused: a row lacks one of the modalities; the message names it.
    """
    for inputs in model_batches(model, dataset, Collator(preprocessors), **options):
        for name, mask in inputs.get("present", {}).items():
            if not mask.all():
                lacks = [row for row, has in zip(inputs["ids"], mask.tolist(), strict=True) if not has]
                raise DataRefused(f"rows without {name!r} cannot be used here, such as {listed(lacks)}; leave them out")
        yield inputs["ids"], inputs["batch"]


@torch.no_grad()
def _embedding_batches(
    model: GaplessModel,
    dataset: Dataset[Any],
    modalities: Sequence[str] | None = None,
    precision: str = "float32",
    **options: Any,
) -> Iterator[tuple[list[str], dict[str, Tensor]]]:
    """Ids and unit-norm fp32 embeddings on the CPU, batch by batch; options as in `model_batches`.

    A row is NaN in a modality that it lacks, so that nothing can take it for an embedding.

    Args:
        modalities: which ones the dataset has and are embedded; by default all of the model.
        precision: in which the encoders compute, a name in `PRECISIONS`; bfloat16 is torch's autocast.
    """
    preprocessors = {name: model.preprocessor(name) for name in modalities or model.modalities}
    for inputs in model_batches(model, dataset, Collator(preprocessors), **options):
        present = inputs.get("present")
        with torch.autocast(model.device.type, torch.bfloat16, enabled=precision == "bfloat16"):
            embeddings = model(batch=inputs["batch"], present=present, return_loss=False).embeddings
        rows = {name: one.float().cpu() for name, one in embeddings.items()}
        for name, mask in (present or {}).items():
            rows[name] = torch.where(mask.cpu()[:, None], rows[name], torch.nan)
        yield inputs["ids"], rows


def embed_dataset(model: GaplessModel, dataset: Dataset[Any], **options: Any) -> dict[str, Tensor]:
    """All embeddings of a dataset that fits in memory: modality -> [pair, embedding_dim]; see `_embedding_batches`.

    Absent rows are NaN.
    """
    parts = [embeddings for _, embeddings in _embedding_batches(model, dataset, **options)]
    return {name: torch.cat([part[name] for part in parts]) for name in parts[0]}


@dataclass(frozen=True)
class Source:
    """What `write_embeddings` reads.

    Args:
        dataset: the rows, for `model_batches`.
        columns: name -> one value per row, stored beside the embeddings; `id` is among them.
        data: facts on the data: source, fingerprint.
        notes: sentences on columns that are not used.
        present: modality -> [row] bool, which rows have it; None where nothing is missing.
        modalities: those that the rows have and that are embedded; None for all of the model.
        names_model: whether what the model was loaded from is recorded beside its fingerprint.
    """

    dataset: Dataset[Any]
    columns: Mapping[str, Sequence[Any]]
    data: Mapping[str, Any]
    notes: Sequence[str] = ()
    present: Mapping[str, np.ndarray] | None = None
    modalities: Sequence[str] | None = None
    names_model: bool = True

    @classmethod
    def of_manifest(cls, model: GaplessModel, manifest: Manifest, modalities: Sequence[str] | None = None) -> "Source":
        """The rows of a manifest; of several captions the first one is embedded.

        Args:
            modalities: those of the model that are embedded; by default all.

        Raises:
            UsageError: the manifest lacks one of them.
        """
        names = list(modalities or model.modalities)
        check_modalities(model, manifest, names)
        table = manifest.table
        columns = {name: table[name].to_pylist() for name in ("id", "group", "split", *manifest.labels)}
        if manifest.caption_column is not None:
            columns["captions"] = manifest.first_captions
        data = {"source": manifest.info["source"], "manifest": str(manifest.path), "fingerprint": manifest.fingerprint}
        masks = manifest.presence(names)
        present = {name: np.asarray(mask) for name, mask in masks.items()} if missing_in(masks) else None
        dataset = PairDataset(manifest, {name: model.preprocessor(name) for name in names})
        return cls(dataset, columns, data, present=present, modalities=modalities)

    @classmethod
    def of_embeddings(cls, model: GaplessModel, embeddings: EmbeddingSet) -> "Source":
        """Rows of embeddings, for a model whose encoders take vectors.

        Raises:
            UsageError: the model takes other modalities, or raw inputs. DataRefused: vectors of another size.
        """
        missing = [name for name in model.modalities if name not in embeddings.embeddings]
        sizes = {name: spec.input.size for name, spec in model.specs.items() if isinstance(spec.input, VectorInput)}
        raw = [name for name in model.modalities if name not in sizes]
        if missing or raw:
            raise UsageError(
                f"the model takes {', '.join(model.modalities)}"
                + (f" ({', '.join(raw)} as raw inputs: give it a manifest)" if raw else "")
                + f", and the embeddings hold {', '.join(embeddings.modalities)}"
            )
        for name in model.modalities:
            size, found = sizes[name], embeddings.embeddings[name].shape[1]
            if size != found:
                raise DataRefused(f"{name}: the model takes vectors of {size}, the embeddings have {found}")
        matrices = {name: embeddings.embeddings[name] for name in model.modalities}
        present = None
        if not embeddings.is_complete:
            present = {name: embeddings.presence[name] for name in model.modalities}
            # An absent row may hold NaN; the model is given zeros there, and what it makes of them is not stored.
            matrices = {name: np.where(present[name][:, None], rows, 0) for name, rows in matrices.items()}
        return cls(
            VectorPairs(matrices, embeddings.ids),
            columns_of(embeddings),
            dict(embeddings.info),
            embeddings.notes,
            present,
        )


def columns_of(embeddings: EmbeddingSet) -> dict[str, list[Any]]:
    """The columns of a set: `id`, and `group`, `split`, `captions`, `positives` and labels where it has them."""
    optional = {
        "group": embeddings.groups,
        "split": embeddings.splits,
        "captions": embeddings.captions,
        "positives": embeddings.positives,
    }
    present = {name: values for name, values in optional.items() if values is not None}
    return {"id": embeddings.ids, **present, **embeddings.labels}


def write_embeddings(
    model: GaplessModel,
    source: Source,
    out: Path,
    *,
    names: Sequence[str] = (),
    dtype: str = "float32",
    shard_size: int = SHARD_SIZE,
    part: int = 0,
    num_parts: int = 1,
    batch_size: int = 256,
    num_workers: int | None = None,
    precision: str = "float32",
) -> bool:
    """Embed the rows into a directory, shard by shard; shards that are finished already are kept.

    Args:
        names: what the model was loaded from; recorded with its fingerprint.
        dtype: float32 or float16, as stored.
        shard_size: rows of a shard, the unit in which an interrupted run continues.
        part: the number of this process among the `num_parts` that share the work, from 0.
        batch_size: rows that the model encodes at once.
        num_workers: processes that prepare inputs; None for `usual_readers`.
        precision: in which the encoders compute, a name in `PRECISIONS`.

    Returns:
        Whether the directory is complete; False while other parts are missing.

    Raises:
        UsageError: the directory holds something else, or embeddings of another model or data.
    """
    writer = planned_writer(model, source, out, names=names, dtype=dtype, shard_size=shard_size, precision=precision)
    shards = writer.pending(part, num_parts)
    write_shards(model, source, writer, shards, batch_size, num_workers, precision, progress="embed")
    return writer.finish()


def planned_writer(
    model: GaplessModel,
    source: Source,
    out: Path,
    *,
    names: Sequence[str],
    dtype: str,
    shard_size: int,
    precision: str = "float32",
) -> EmbeddingsWriter:
    """Open the directory for the embeddings of these rows by this model; arguments as in `write_embeddings`."""
    recorded = list(names) if source.names_model else []
    info: dict[str, Any] = {
        "model": {"source": recorded, "fingerprint": fingerprint_of(model)},
        "data": dict(source.data),
    }
    if checked_precision(precision) != "float32":  # directories of earlier versions, all of float32, do not say it
        info["precision"] = precision
    return EmbeddingsWriter(
        out,
        num_rows=len(source.columns["id"]),
        info=info,
        dtype=dtype,
        shard_size=shard_size,
        has_masks=source.present is not None,
    )


def write_shards(
    model: GaplessModel,
    source: Source,
    writer: EmbeddingsWriter,
    shards: Sequence[Shard],
    batch_size: int = 256,
    num_workers: int | None = 0,
    precision: str = "float32",
    progress: str | None = None,
) -> None:
    """Embed and write these shards, one after the other.

    A batch ends with its shard. Rounding depends on which rows are in a batch, so that a shard has the same bits
    whether or not the run was interrupted before it.
    """
    batches = [
        range(start, min(start + batch_size, s.stop)) for s in shards for start in range(s.start, s.stop, batch_size)
    ]
    options = {"batch_size": batch_size, "num_workers": num_workers, "progress": progress, "batches": batches}
    embedded = _embedding_batches(model, source.dataset, source.modalities, precision, **options)
    for shard in shards:
        parts = [next(embedded)[1] for _ in range(shard.start, shard.stop, batch_size)]
        embeddings = {name: torch.cat([part[name] for part in parts]).numpy() for name in parts[0]}
        own = slice(shard.start, shard.stop)
        present = None if source.present is None else {name: mask[own] for name, mask in source.present.items()}
        writer.write(shard, embeddings, {name: values[own] for name, values in source.columns.items()}, present)
