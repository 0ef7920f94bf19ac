"""A local Ray of two workers builds the manifest that one process builds, byte for byte."""

import os
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from gapless.cli.main import main
from gapless.core.errors import GaplessError, UsageError
from gapless.manifest import workers_ray
from gapless.manifest.build import build_manifest
from gapless.manifest.options import BuildOptions, ImageOptions
from gapless.manifest.raw_rows import FileSource, RawRow
from gapless.manifest.readers.table import read_table
from gapless.manifest.verify import encode_png

pytest.importorskip("ray")
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning:ray", "ignore::FutureWarning:ray")


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """90 images, three chunks of work; one is damaged, one is missing, and two rows have one name."""
    home = tmp_path_factory.mktemp("ray")
    (home / "images").mkdir()
    lines = ["image,caption,patient"]
    for number in range(90):
        pixels = np.random.default_rng(number).integers(0, 256, (12, 10), dtype=np.uint8)
        Image.fromarray(pixels).save(home / "images" / f"{number}.png")
        lines.append(f"images/{number}.png,chest {number},p{number // 2}")
    damaged = home / "images" / "40.png"
    damaged.write_bytes(damaged.read_bytes()[:60])
    lines += ["images/none.png,chest,p99", "images/3.png,again,p1"]
    (home / "rows.csv").write_text("\n".join(lines) + "\n")
    return home


@pytest.fixture(scope="module")
def address():
    """A cluster of two workers on this machine, for the tests of this file; nobody else's processes are touched."""
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    from ray.cluster_utils import Cluster

    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 2, "include_dashboard": False})
    yield cluster.address
    cluster.shutdown()


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.ci
@pytest.mark.parametrize("store", [False, True], ids=["in place", "copied"])
def test_a_cluster_builds_the_manifest_that_one_process_builds(home, address, monkeypatch, store):
    """Also with relative names, which start at the folder of the command and not of the worker."""
    monkeypatch.chdir(home)
    words = ["data", "table", "rows.csv", "--group_key", "patient", "--max_bad", "0.5", "--store_images", str(store)]
    assert main([*words, "--out", f"one-{store}"]) == 0
    assert main([*words, "--out", f"many-{store}", "--ray", address]) == 0
    one, many = contents(home / f"one-{store}"), contents(home / f"many-{store}")
    assert many == one
    assert len(one) == (93 if store else 3)  # a copy for each of 90 rows
    assert b"unreadable image" in one["skipped.jsonl"]
    assert b"missing image" in one["skipped.jsonl"]
    assert [path.name for path in home.iterdir() if path.name.startswith(".")] == []


@pytest.mark.ci
def test_a_decoder_that_crashes_its_worker_costs_one_row(tmp_path, address):
    content = encode_png(np.zeros((4, 4), np.uint8))

    class CrashingSource:
        def __init__(self, number):
            self.number = number

        def read(self):
            if self.number == 40:
                os._exit(139)
            return content

        def key(self):
            return str(self.number)

    rows = (RawRow(str(n), f"id{n}", CrashingSource(n), "x", ["c"]) for n in range(100))
    manifest = build_manifest(rows, tmp_path / "m", BuildOptions(source="s", ray=address, max_bad=0.1))
    assert manifest.info["counts"] == {"read": 100, "kept": 99, "skipped": 1}
    assert manifest.info["skipped"] == {"decoder crashed": 1}


def test_a_cluster_that_gives_up_is_one_sentence(monkeypatch):
    """Such as a machine whose memory is full: Ray ends the task again and again."""
    from ray.exceptions import OutOfMemoryError

    class FullCluster:
        def cluster_resources(self):
            return {"CPU": 1.0}

        def remote(self, **_):
            return lambda function: SimpleNamespace(remote=lambda *work: work)

        def get(self, answer):
            raise OutOfMemoryError("Task was killed due\n to the node running low on memory.")

    monkeypatch.setattr(workers_ray, "ray_cluster", lambda address: nullcontext(FullCluster()))
    with pytest.raises(GaplessError, match=r"Ray gave up \(.*low on memory.*the same command goes on from here"):
        list(workers_ray.check_on_ray([[(FileSource(Path("."), "a.png"), "a")]], ImageOptions(), None, "local"))


def test_a_chunk_without_rows_is_no_task(monkeypatch):
    """All its rows were verified before an interruption."""
    cluster = SimpleNamespace(cluster_resources=dict, remote=lambda **_: lambda function: None)
    monkeypatch.setattr(workers_ray, "ray_cluster", lambda address: nullcontext(cluster))
    assert list(workers_ray.check_on_ray([[], []], ImageOptions(), None, "local")) == [[], []]


def test_a_cluster_and_processes_of_this_machine_exclude_each_other(home, tmp_path):
    with pytest.raises(UsageError, match="--ray names a cluster"):
        read_table(home / "rows.csv", tmp_path / "m", workers=2, ray="local")


def test_an_address_without_a_cluster_is_refused_and_leaves_nothing(home, tmp_path):
    with pytest.raises(UsageError, match="no Ray cluster at"):
        read_table(home / "rows.csv", tmp_path / "m", ray="127.0.0.1:9")
    assert list(tmp_path.iterdir()) == []
