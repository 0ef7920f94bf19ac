"""`gapless embed` as one call: writes the embeddings of a manifest's rows, or of vectors, to a directory."""

import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from gapless.core.errors import UsageError
from gapless.core.files import check_directory, check_new_directory
from gapless.core.launch import rank_and_count
from gapless.core.results import Result
from gapless.embeddings.embedding_set import EmbeddingSet
from gapless.embeddings.pseudonyms import Pseudonyms
from gapless.embeddings.sources import is_embeddings_directory
from gapless.embeddings.store import INDEX_FILE, SHARD_SIZE, read_embeddings
from gapless.inference.embed import Source, checked_precision, write_embeddings
from gapless.inference.pseudonymous import pseudonymous
from gapless.manifest.manifest import Manifest
from gapless.models.aligner import GaplessModel
from gapless.models.load import load_model
from gapless.models.safe_loading import on_accelerator

WAIT_SECONDS = 0.5  # between two looks at what other processes have written
RowsToEmbed = str | Path | Manifest | EmbeddingSet


@dataclass(frozen=True)
class Embedded(Result):
    """A directory of embeddings.

    Args:
        embeddings: the directory.
        rows: how many pairs it holds or will hold.
        modalities: of the model.
        finished: False while other processes have not written their parts; the first process of torchrun waits for
            them.
        notes: what of the data is not used, in sentences.
    """

    embeddings: Path
    rows: int
    modalities: Sequence[str]
    finished: bool
    notes: Sequence[str] = ()


def embed(
    model: str | Path | Sequence[str | Path],
    *,
    data: RowsToEmbed,
    out: str | Path,
    split: str | None = None,
    dtype: Literal["float32", "float16"] = "float32",
    shard: str | None = None,
    ray: str | None = None,
    shard_size: int = SHARD_SIZE,
    batch_size: int = 256,
    precision: Literal["float32", "bfloat16"] = "float32",
    workers: int | None = None,
    pseudonyms: str | Path | None = None,
) -> Embedded:
    """Embed the rows of a data set with a model, shard by shard; an unfinished directory is continued.

    Examples:
        >>> import gapless
        >>> embedded = gapless.embed("run", data="data", out="embeddings", split="test")
        >>> embedded.modalities
        ['image', 'text']

    Args:
        model: a run or model directory, or whatever `gapless.models.load_model` takes; several for separate encoders.
        data: a manifest, or embeddings for a model of vectors; or the directory of either.
        out: the directory to write.
        split: only these rows; by default all.
        dtype: how rows are stored.
        shard: "I/N" where this process writes part I of N (1 to N); by default its rank under torchrun.
        ray: the address of a Ray cluster, "auto", or "local" for this machine's cores.
        shard_size: rows of a shard, the unit of a resume.
        batch_size: rows that the model reads at once.
        precision: in which the encoders compute; bfloat16, torch's autocast, is for accelerators that are faster in it.
        workers: processes that read images for this one; by default none beside a CPU, and beside an accelerator a core
            each, at most 16. Not used with `ray`.
        pseudonyms: a file of a key, which is made where there is none: captions, labels and paths are left out, and ids
            and groups are keyed hashes, in the order of these. For embeddings that leave a site.

    Raises:
        UsageError: no such model or split, a model of other modalities, `out` holds something else, or `pseudonyms` is
            no key or lies in `out`.
        DataRefused: data that cannot be read. NeedsNetwork: a model that only the hub knows.
    """
    if ray and shard:
        raise UsageError("--ray hands out the shards itself; leave --shard away")
    checked_precision(precision)
    part, num_parts = part_of(shard, os.environ)
    out, names = Path(out), [str(name) for name in ([model] if isinstance(model, str | Path) else model)]
    _check_place(out)
    if pseudonyms is not None:
        _check_key_place(Path(pseudonyms), out)
    loaded = on_accelerator(load_model(names))
    source = _source_of(loaded, data, split)
    if pseudonyms is not None:
        source = pseudonymous(source, Pseudonyms.of_file(Path(pseudonyms)))
    options: dict[str, Any] = {
        "names": names,
        "dtype": dtype,
        "shard_size": shard_size,
        "batch_size": batch_size,
        "precision": precision,
    }
    if ray:
        from gapless.inference.embed_ray import write_embeddings_on_ray

        finished = write_embeddings_on_ray(ray, loaded, source, out, **options)
    else:
        finished = write_embeddings(loaded, source, out, part=part, num_parts=num_parts, num_workers=workers, **options)
        if shard is None and part == 0 and not finished:
            _wait_for(out)
            finished = True
    return Embedded(out, len(source.columns["id"]), list(loaded.modalities), finished, tuple(source.notes))


def _wait_for(out: Path) -> None:
    """Wait until all parts are written; where another process of torchrun fails, torchrun ends this one too."""
    while not (out / INDEX_FILE).exists():
        time.sleep(WAIT_SECONDS)


def opened_rows(data: RowsToEmbed, split: str | None = None) -> Manifest | EmbeddingSet:
    """The rows of a data set, or of one split of it; a path is a manifest unless `gapless embed` wrote it."""
    if isinstance(data, str | Path):
        data = read_embeddings(data) if is_embeddings_directory(data) else Manifest.read(data)
    return data.select(split) if split else data


def _source_of(model: GaplessModel, data: RowsToEmbed, split: str | None) -> Source:
    rows = opened_rows(data, split)
    return Source.of_manifest(model, rows) if isinstance(rows, Manifest) else Source.of_embeddings(model, rows)


def _check_place(out: Path) -> None:
    """Raise UsageError, before a model is loaded, for a directory in which embeddings cannot be begun or continued."""
    check_directory(out)
    if out.is_dir() and not is_embeddings_directory(out) and not all(e.name.startswith(".") for e in out.iterdir()):
        check_new_directory(out)


def _check_key_place(key: Path, out: Path) -> None:
    """Raise UsageError for a key that would leave together with the embeddings."""
    place = key.resolve()
    if out.resolve() in (place, *place.parents):
        raise UsageError(f"the key {key} would lie in {out} and leave with it; keep it elsewhere")


def part_of(shard: str | None, environment: Mapping[str, str]) -> tuple[int, int]:
    """Which part of the work this process has, from 0, and of how many: `shard` "I/N", or its rank under torchrun."""
    if shard is None:
        return rank_and_count(environment)
    index, _, count = shard.partition("/")
    if not (index.isdecimal() and count.isdecimal() and 1 <= int(index) <= int(count)):
        raise UsageError(f"--shard is I/N with I from 1 to N, got {shard!r}")
    return int(index) - 1, int(count)
