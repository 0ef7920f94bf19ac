"""Embeds on many machines: Ray Data distributes shards to workers, each of which loads the model and writes shards.

The directory is the one that a single process writes: shards are the same ranges of rows, made by the same code. All
machines need a shared file system, with the model, the data and the output under the same paths.
"""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from gapless.core.errors import DataRefused, GaplessError, NeedsNetwork, UsageError
from gapless.core.progress import progress_bar
from gapless.core.ray_cluster import ray_cluster, ray_errors
from gapless.embeddings.store import SHARD_SIZE, EmbeddingsWriter
from gapless.inference.embed import MAX_READERS, Source, planned_writer, write_shards
from gapless.models.aligner import GaplessModel
from gapless.models.fingerprint import fingerprint_of
from gapless.models.load import load_model
from gapless.models.safe_loading import on_accelerator

ERRORS = {error.exit_code: error for error in (GaplessError, UsageError, DataRefused, NeedsNetwork)}


@dataclass(frozen=True)
class Job:
    """What every worker needs.

    Args:
        names: what the model is loaded from.
        fingerprint: of the model; a worker that loads another one refuses.
        source: the rows.
        writer: the directory to write.
        batch_size: rows that the model encodes at once.
        precision: in which the encoders compute.
        num_readers: processes that prepare inputs for a worker.
        directory: where the command was given; relative names start there.
    """

    names: Sequence[str]
    fingerprint: str
    source: Source
    writer: EmbeddingsWriter
    batch_size: int
    precision: str
    num_readers: int
    directory: str


@lru_cache(maxsize=1)
def _model_of(names: tuple[str, ...], fingerprint: str) -> GaplessModel:
    """The model of a worker's process, which is loaded for its first shard and stays for the others.

    Raises:
        UsageError: another model than the command's.
    """
    model = load_model(names)
    if fingerprint_of(model) != fingerprint:
        raise UsageError(f"{' '.join(names)} is another model on a worker than where the command was given")
    return on_accelerator(model)


def _embed_shards(batch: dict[str, Any], job: Job) -> dict[str, list[Any]]:
    """Embed and write the shards of a batch, in a process of a worker.

    Returns:
        The exit code and sentence of an error of gapless, which Ray would wrap in tracebacks; 0 and "" without one.
    """
    os.chdir(job.directory)  # so that relative names are those of the command
    shards = [job.writer.shards[number] for number in batch["shard"].tolist()]
    try:
        model = _model_of(tuple(job.names), job.fingerprint)
        write_shards(model, job.source, job.writer, shards, job.batch_size, job.num_readers, job.precision)
    except GaplessError as error:
        return {"exit_code": [error.exit_code], "said": [str(error)]}
    return {"exit_code": [0], "said": [""]}


def write_embeddings_on_ray(
    address: str,
    model: GaplessModel,
    source: Source,
    out: Path,
    *,
    names: Sequence[str],
    dtype: str = "float32",
    shard_size: int = SHARD_SIZE,
    batch_size: int = 256,
    precision: str = "float32",
) -> bool:
    """`write_embeddings` on a Ray cluster: one worker per GPU of it, or per core where there is none.

    Args:
        address: of the cluster, "auto" for the one that this machine belongs to, "local" for this machine alone.
        model: here only for its fingerprint; the workers load it from `names`.

    Raises:
        UsageError: no Ray at the address, a worker that finds another model. DataRefused: as `write_embeddings`.
        GaplessError: the cluster cannot finish a shard.
    """
    with ray_cluster(address) as ray:
        writer = planned_writer(
            model, source, out, names=names, dtype=dtype, shard_size=shard_size, precision=precision
        )
        pending = [shard.index for shard in writer.pending()]
        if pending:
            readers = readers_each(ray.cluster_resources())
            job = Job(names, fingerprint_of(model), source, writer, batch_size, precision, readers, str(Path.cwd()))
            _hand_out(ray, job, pending)
    return writer.finish()


def readers_each(resources: Mapping[str, float]) -> int:
    """How many processes should prepare inputs for each worker: its share of the cores where workers have a GPU.

    Args:
        resources: of the cluster, as `ray.cluster_resources()` gives them.
    """
    gpus = int(resources.get("GPU", 0))
    return min(int(resources["CPU"]) // gpus, MAX_READERS) if gpus else 0


def _hand_out(ray: Any, job: Job, shards: list[int]) -> None:
    """Embed these shards on the cluster; an error of a worker is raised here.

    Each shard is a task, not a call of an actor: when a machine dies Ray gives its tasks to the others, where the calls
    of an actor would wait for a place to start it again, without end on a cluster that has none left.
    """
    has_gpus = ray.cluster_resources().get("GPU", 0) >= 1
    num_workers = int(ray.cluster_resources()["GPU" if has_gpus else "CPU"])
    done = ray.data.from_items([{"shard": shard} for shard in shards], override_num_blocks=len(shards)).map_batches(
        _embed_shards,
        fn_kwargs={"job": job},
        batch_size=1,
        compute=ray.data.TaskPoolStrategy(size=min(num_workers, len(shards))),
        num_cpus=1,
        num_gpus=1 if has_gpus else 0,
        max_calls=0,  # a process is kept for further shards also where it holds a GPU, and the model with it
    )
    with ray_errors():
        for answer in progress_bar(done.iter_rows(), total=len(shards), what="embed on Ray", unit="shard"):
            if answer["exit_code"]:
                raise ERRORS[answer["exit_code"]](answer["said"])
