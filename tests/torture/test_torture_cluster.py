"""A Ray cluster of two nodes embeds, one of them is killed in the middle, and the same bytes are written."""

import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fakes import tiny_model
from torture.ledger import record

from gapless.cli.main import main
from gapless.manifest.readers.phantom import write_phantom

pytest.importorskip("ray")
pytestmark = [
    pytest.mark.torture,
    pytest.mark.filterwarnings("ignore::DeprecationWarning:ray", "ignore::FutureWarning:ray"),
]

SHARDS = 60
ROWS = 4  # of a shard
WRITTEN = 8  # shards, when the node is killed


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    home = tmp_path_factory.mktemp("cluster")
    write_phantom(home / "m", num_pairs=SHARDS * ROWS, num_validation=4, num_test=8, image_size=16)
    tiny_model().save_pretrained(home / "model")
    return home


@pytest.fixture
def cluster() -> Iterator[Any]:
    """A head without cores, for the command, and two nodes of one core; nobody else's processes are touched."""
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    from ray.cluster_utils import Cluster

    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
    for _ in range(2):
        cluster.add_node(num_cpus=1)
    cluster.wait_for_nodes()
    yield cluster
    cluster.shutdown()


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def written(folder: Path) -> int:
    return len(list(folder.glob("shard-*.json")))


class Killer(threading.Thread):
    """Kills a node of the cluster, with all its processes, when so many shards are written."""

    def __init__(self, cluster: Any, folder: Path) -> None:
        super().__init__()
        self.cluster, self.folder = cluster, folder
        self.before = self.after = 0

    def run(self) -> None:
        end = time.monotonic() + 120
        while written(self.folder) < WRITTEN and time.monotonic() < end:
            time.sleep(0.005)
        self.before = written(self.folder)
        self.cluster.remove_node(next(iter(self.cluster.worker_nodes)), allow_graceful=False)
        self.after = written(self.folder)


def test_a_node_is_killed_in_the_middle_and_the_bytes_are_those_of_one_process(
    home: Path, cluster: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(home)
    words = ["embed", "model", "--data", "m", "--shard_size", str(ROWS)]
    assert main([*words, "--out", "one"]) == 0
    killer = Killer(cluster, home / "many")
    killer.start()
    start = time.monotonic()
    assert main([*words, "--out", "many", "--ray", cluster.address]) == 0
    killer.join()
    record(
        "a node of two is killed",
        shards=SHARDS,
        before=killer.before,
        after=killer.after,
        seconds=round(time.monotonic() - start, 1),
    )
    assert WRITTEN <= killer.before <= killer.after < SHARDS
    assert contents(home / "many") == contents(home / "one")
