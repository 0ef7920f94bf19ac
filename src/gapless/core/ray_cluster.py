"""Connects to a Ray cluster; what is embedded and what is verified there use it."""

import logging
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from gapless.core.errors import GaplessError, UsageError, missing_extra, one_line

CONNECT_SECONDS = 10


@contextmanager
def ray_cluster(address: str) -> Iterator[Any]:
    """Connect to a cluster for the block, without logs and without usage reports to Ray's makers.

    Args:
        address: of its head node, "auto" for the one that this machine belongs to, "local" for this machine alone.

    Yields:
        The module `ray`, connected.

    Raises:
        UsageError: Ray is not installed, or there is no cluster at the address.
    """
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")  # errors are raised too, so that logs repeat them
    try:
        import ray
        import ray.data
    except ImportError:
        raise missing_extra("ray", "ray") from None
    _check_reachable(address)
    try:
        ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR)
    except (ConnectionError, ValueError, RuntimeError) as error:
        raise _no_cluster(address, error) from None
    try:
        logging.getLogger("ray.data").setLevel(logging.ERROR)
        ray.data.DataContext.get_current().enable_progress_bars = False
        yield ray
    finally:
        ray.shutdown()


@contextmanager
def ray_errors() -> Iterator[None]:
    """What a task raised is raised here as it was; an error of the cluster becomes one sentence.

    Raises:
        GaplessError: the cluster cannot finish: a machine without memory, a cluster that died.
    """
    from ray.exceptions import RayError, RayTaskError, UserCodeException

    try:
        yield
    except UserCodeException:  # Ray Data's name for what our own code raised
        raise
    except RayTaskError as error:
        raise error.cause from None
    except RayError as error:
        reason = one_line(error, limit=120)
        raise GaplessError(f"Ray gave up ({reason}); the same command goes on from here") from None


def _check_reachable(address: str) -> None:
    """Raise UsageError for an address where nothing listens: Ray would retry for minutes and then exit the process."""
    host, colon, port = address.removeprefix("ray://").rpartition(":")
    if not colon:
        return
    try:
        socket.create_connection((host, int(port)), timeout=CONNECT_SECONDS).close()
    except (OSError, ValueError, OverflowError) as error:
        raise _no_cluster(address, error) from None


def _no_cluster(address: str, error: Exception) -> UsageError:
    reason = one_line(error, limit=120)
    return UsageError(f"no Ray cluster at {address!r} ({reason}); give HOST:PORT of its head node, 'auto' or 'local'")
