"""The inference loop on a local Ray of two workers writes what one process writes, byte for byte."""

import json
import os
import time
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace

import pytest
from fakes import tiny_model
from modality_run_samples import samples_manifest, untrained_model

from gapless.cli.main import main
from gapless.embeddings.store import read_embeddings
from gapless.inference import embed_ray
from gapless.manifest.readers.phantom import write_phantom
from gapless.search.collection import Collection

pytest.importorskip("ray")
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning:ray", "ignore::FutureWarning:ray")


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    home = tmp_path_factory.mktemp("ray")
    write_phantom(home / "m", num_pairs=40, num_validation=4, num_test=8, image_size=16)
    tiny_model().save_pretrained(home / "model")
    return home


@pytest.fixture(scope="module")
def address():
    """A cluster of two workers on this machine, for the tests of this file; nobody else's processes are touched."""
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    from ray.cluster_utils import Cluster

    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 2, "include_dashboard": False})
    yield cluster.address
    cluster.shutdown()


@pytest.fixture
def gapless(home, monkeypatch, capsys):
    """What a command prints: its output, or its error line."""
    monkeypatch.chdir(home)

    def call(*words: object, code: int = 0) -> str:
        capsys.readouterr()
        found = main([*map(str, words)])
        captured = capsys.readouterr()
        assert found == code, captured.err[-3000:]
        return captured.out if code == 0 else captured.err.strip().splitlines()[-1]

    return call


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.mark.parametrize(
    ("resources", "readers"),
    [({"CPU": 8.0}, 0), ({"CPU": 8.0, "GPU": 0.0}, 0), ({"CPU": 64.0, "GPU": 8.0}, 8), ({"CPU": 64.0, "GPU": 1.0}, 16)],
)
def test_a_worker_with_a_gpu_has_its_share_of_the_cores_to_read_images(resources, readers):
    assert embed_ray.readers_each(resources) == readers


@pytest.mark.ci
def test_a_cluster_writes_the_rows_that_one_process_writes_and_keeps_shards_that_are_there(
    home, gapless, address, monkeypatch
):
    monkeypatch.setattr(embed_ray, "readers_each", lambda resources: 1)  # as where a worker has a GPU
    words = ("embed", "model", "--data", "m", "--shard_size", 9)
    gapless(*words, "--out", "one")
    gapless(*words, "--out", "many", "--shard", "1/5")  # an unfinished directory
    kept = home / "many" / "shard-00000.safetensors"
    before = kept.stat().st_mtime_ns
    told = json.loads(gapless(*words, "--out", "many", "--ray", address, "--json"))
    assert told == {"embeddings": "many", "finished": True, "modalities": ["image", "text"], "rows": 40}
    assert len(contents(home / "one")) == 2 + 3 * 5
    assert contents(home / "many") == contents(home / "one")
    assert kept.stat().st_mtime_ns == before


@pytest.mark.slow
def test_rows_that_lack_modalities_are_the_same_on_a_cluster(home, gapless, address):
    """Images of several views, texts, fields and waveforms, each read by the workers where the manifest says."""
    manifest = samples_manifest(home / "several")
    untrained_model(manifest).save_pretrained(home / "several" / "model")
    words = ("embed", "several/model", "--data", "several/M", "--shard_size", 9)
    gapless(*words, "--out", "one4")
    gapless(*words, "--out", "many4", "--ray", address)
    assert contents(home / "many4") == contents(home / "one4")
    rows = read_embeddings(home / "many4", missing="keep")
    assert {name: int(mask.sum()) for name, mask in rows.presence.items()} == {
        name: int(mask.sum()) for name, mask in manifest.presence().items()
    }


@pytest.mark.slow
def test_index_on_a_cluster_gives_the_collection_that_one_process_gives(home, gapless, address):
    gapless("index", "model", "--data", "m", "--out", "c1")
    gapless("index", "model", "--data", "m", "--out", "c2", "--ray", address)
    first, second = Collection.open(home / "c1").table.to_arrow(), Collection.open(home / "c2").table.to_arrow()
    assert second.sort_by("row").equals(first.sort_by("row"))
    assert len(first) == 80


@pytest.mark.slow
def test_what_a_worker_refuses_is_said_in_one_sentence(home, gapless, address):
    write_phantom(home / "broken", num_pairs=20, num_validation=2, num_test=4, image_size=16)
    images = sorted((home / "broken").rglob("*.png"))
    images[3].write_bytes(images[3].read_bytes()[:60])
    words = ("embed", "model", "--data", "broken", "--out", "e", "--shard_size", 5)
    alone = gapless(*words, code=3)
    assert "unreadable image" in alone
    assert gapless(*words, "--ray", address, code=3) == alone


@pytest.mark.parametrize(
    ("address", "said"),
    [("127.0.0.1:9", "no Ray cluster at '127.0.0.1:9'"), ("somewhere:port", "no Ray cluster at 'somewhere:port'")],
)
def test_an_address_without_a_cluster_is_refused_at_once(home, gapless, address, said):
    start = time.monotonic()
    assert said in gapless("embed", "model", "--data", "m", "--out", "nothing", "--ray", address, code=2)
    assert time.monotonic() - start < 60
    assert not (home / "nothing").exists()


def test_ray_and_shards_by_hand_exclude_each_other(gapless):
    words = ("embed", "model", "--data", "m", "--out", "e", "--ray", "auto", "--shard", "1/2")
    assert "--shard" in gapless(*words, code=2)


def test_a_cluster_that_gives_up_is_one_sentence(monkeypatch, gapless):
    """Such as one whose last machine dies: the same command goes on later."""
    from ray.exceptions import NodeDiedError

    class Dying:
        def __getattr__(self, name):
            return lambda *_, **__: self

        def cluster_resources(self):
            return {"CPU": 1.0}

        data = property(lambda self: SimpleNamespace(from_items=self.from_items, TaskPoolStrategy=self.from_items))

        def iter_rows(self):
            raise NodeDiedError("the node died")
            yield

    monkeypatch.setattr(embed_ray, "ray_cluster", lambda address: nullcontext(Dying()))
    said = gapless("embed", "model", "--data", "m", "--out", "given-up", "--ray", "local", code=1)
    assert said.startswith("gapless: Ray gave up (")
    assert said.endswith("the same command goes on from here")
    gapless("embed", "model", "--data", "m", "--out", "given-up")
