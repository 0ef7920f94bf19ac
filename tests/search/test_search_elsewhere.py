"""Beyond one machine: an object store in place of a directory, and a Ray cluster in place of one process."""

import filecmp
from pathlib import Path

import pytest
from fakes import tiny_bert, tiny_modalities, tiny_model
from search_samples import brute_force, collection_of, embedding_set, keyed, unit_rows

from gapless import cli
from gapless.data.readers.phantom import write_phantom
from gapless.errors import DataRefused, UsageError
from gapless.search.collection import Collection


@pytest.fixture
def bucket(monkeypatch):
    """An S3 stand-in on this machine."""
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    address = "http://{}:{}".format(*server.get_host_and_port())
    for name, value in {
        "AWS_ACCESS_KEY_ID": "nobody",
        "AWS_SECRET_ACCESS_KEY": "nothing",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_ENDPOINT_URL": address,
        "AWS_ALLOW_HTTP": "true",
    }.items():
        monkeypatch.setenv(name, value)
    import boto3

    boto3.client("s3").create_bucket(Bucket="bucket")
    yield "s3://bucket/department/collection"
    server.stop()


def test_a_collection_in_an_object_store_is_the_same_collection(bucket, tmp_path):
    drawn = embedding_set({"text": unit_rows(30)}, captions=[f"finding {n}" for n in range(30)])
    with pytest.raises(UsageError, match="no collection"):
        Collection.open(bucket)
    collection = collection_of(bucket, drawn, staging=tmp_path / "work")
    query = unit_rows(1, seed=2)[0]
    expected = brute_force(keyed(drawn), query, 5)
    assert [(hit.row, hit.score) for hit in Collection.open(bucket).search(query, k=5)] == expected
    assert collection.search(query, words="finding 7", k=1)[0].caption is not None
    assert cli.main(["index", "delete", bucket, "--where", "caption like 'finding 1_'"]) == 0
    assert collection.count() == 20
    collection_of(bucket, drawn, staging=tmp_path / "work")
    assert [(hit.row, hit.score) for hit in collection.search(query, k=5)] == expected


def test_a_store_out_of_reach_is_one_sentence(bucket):
    with pytest.raises(DataRefused, match="check the address and the credentials"):
        Collection.open("s3://another-bucket/collection")


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    place = tmp_path_factory.mktemp("ray")
    modalities = tiny_modalities()
    modalities["text"]["encoder"]["config"] = tiny_bert(400)
    tiny_model(modalities=modalities).save_pretrained(place / "model")
    write_phantom(place / "data", num_pairs=60, num_validation=6, num_test=10, image_size=16)
    return place


def same_files(left: Path, right: Path) -> bool:
    names = sorted(entry.name for entry in left.iterdir())
    assert names == sorted(entry.name for entry in right.iterdir())
    return filecmp.cmpfiles(left, right, names, shallow=False) == (names, [], [])


@pytest.fixture
def ray_of_two():
    import os

    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    from ray.cluster_utils import Cluster

    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 2, "include_dashboard": False})
    yield cluster.address
    cluster.shutdown()


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # Ray's own, of its processes and sockets
def test_a_ray_cluster_of_two_workers_gives_the_same_rows(place, ray_of_two, capsys, monkeypatch):
    monkeypatch.chdir(place)
    options = ("--data", "data", "--batch_size", "8")
    embed = ("embed", "model", *options, "--shard_size", "16", "--out")
    assert cli.main([*embed, "alone"]) == 0
    assert cli.main([*embed, "ray", "--ray", ray_of_two]) == 0
    assert same_files(place / "alone", place / "ray")
    assert cli.main(["index", "model", *options, "--out", "c-alone"]) == 0
    assert cli.main(["index", "model", *options, "--out", "c-ray", "--ray", ray_of_two]) == 0
    alone, ray = (Collection.open(place / name).table.to_arrow().sort_by("row") for name in ("c-alone", "c-ray"))
    assert alone.equals(ray)

    capsys.readouterr()
    next((place / "data").rglob("*.png")).write_bytes(b"broken")
    assert cli.main([*embed, "broken", "--ray", ray_of_two]) == 3
    assert "unreadable image" in capsys.readouterr().err
