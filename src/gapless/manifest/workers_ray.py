"""Verifies images on the machines of a Ray cluster, in order; the manifest is the one that a single process builds.

All machines need a shared file system, with the images and the manifest under the same paths.
"""

import os
from collections import deque
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from gapless.core.pool import CHUNKS_AHEAD_PER_WORKER
from gapless.core.ray_cluster import ray_cluster, ray_errors
from gapless.manifest.options import ImageOptions
from gapless.manifest.verify import check_images
from gapless.manifest.workers import Work, check_one_by_one


def check_on_ray(
    chunks: Iterable[Work], options: ImageOptions, store: Path | None, address: str
) -> Iterator[list[dict[str, Any]]]:
    """The results of each chunk, in the order of the chunks; each chunk is a task of the cluster.

    Ray gives the tasks of a machine that dies to the others. An image that crashes its decoder makes only its own row
    faulty.

    Args:
        chunks, options, store: as in `check_in_order`.
        address: of the cluster.

    Raises:
        UsageError: no Ray at the address. GaplessError: the cluster cannot finish a chunk.
    """
    with ray_cluster(address) as ray:
        from ray.exceptions import WorkerCrashedError

        ahead = CHUNKS_AHEAD_PER_WORKER * int(ray.cluster_resources().get("CPU", 1))
        verify = ray.remote(num_cpus=1)(_check_there)
        directory = str(Path.cwd())
        pending: deque[tuple[Work, Any]] = deque()

        def result() -> list[dict[str, Any]]:
            chunk, answer = pending.popleft()
            if answer is None:
                return []
            with ray_errors():
                try:
                    checked: list[dict[str, Any]] = ray.get(answer)
                    return checked
                except WorkerCrashedError:
                    return list(check_one_by_one(chunk, options, store))

        for chunk in chunks:
            # A chunk is empty when all its rows were verified before an interruption.
            pending.append((chunk, verify.remote(chunk, options, store, directory) if chunk else None))
            if len(pending) > ahead:
                yield result()
        while pending:
            yield result()


def _check_there(chunk: Work, options: ImageOptions, store: Path | None, directory: str) -> list[dict[str, Any]]:
    """`check_images` in a process of a worker, where relative names start at the folder of the command."""
    os.chdir(directory)
    return check_images(chunk, options, store)
