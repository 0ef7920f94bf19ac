"""Embedding to disk: every row in its place, whatever interrupted or shared the work."""

from pathlib import Path

import numpy as np
import pytest
import torch
from fakes import tiny_bert, tiny_modalities, tiny_model

from gapless.core.errors import DataRefused, UsageError
from gapless.embeddings.array_sets import read_arrays
from gapless.embeddings.dataset import VectorPairs
from gapless.embeddings.store import EmbeddingsWriter, read_embeddings
from gapless.inference.embed import Source, embed_dataset, evaluation_dataset, usual_readers, write_embeddings
from gapless.manifest.manifest import Manifest
from gapless.manifest.readers.phantom import write_phantom
from gapless.models.aligner import GaplessConfig, GaplessModel
from gapless.models.fingerprint import fingerprint_of
from gapless.models.safe_loading import on_accelerator
from gapless.training.evaluate import embed_split


@pytest.fixture(scope="module")
def manifest(tmp_path_factory: pytest.TempPathFactory) -> Manifest:
    return write_phantom(
        tmp_path_factory.mktemp("phantom") / "m", num_pairs=50, num_validation=6, num_test=10, image_size=16
    )


@pytest.fixture(scope="module")
def model() -> GaplessModel:
    modalities = tiny_modalities()
    modalities["text"]["encoder"]["config"] = tiny_bert(400)
    return tiny_model(modalities=modalities).train(False)


def vector_model(dims: dict[str, int]) -> GaplessModel:
    modalities = {
        name: {
            "input": {"kind": "vector", "size": size},
            "encoder": {"kind": "vector", "size": size},
            "head": [{"kind": "linear", "size": 8}],
        }
        for name, size in dims.items()
    }
    torch.manual_seed(0)
    return GaplessModel(GaplessConfig(modalities, 8, loss={"anchor": list(dims)[-1]})).train(False)


def write(model: GaplessModel, manifest: Manifest, out: Path, **options: object) -> bool:
    return write_embeddings(model, Source.of_manifest(model, manifest), out, shard_size=16, batch_size=7, **options)


def test_rows_come_back_in_order_with_what_is_known_of_them(
    model: GaplessModel, manifest: Manifest, tmp_path: Path
) -> None:
    assert write(model, manifest, tmp_path / "e", names=["runs/x"])
    found = read_embeddings(tmp_path / "e")
    expected = embed_dataset(model, evaluation_dataset(model, manifest))
    for name, rows in expected.items():
        np.testing.assert_allclose(found.embeddings[name], rows.numpy(), atol=1e-6)
    table = manifest.table
    assert found.ids == table["id"].to_pylist()
    assert found.groups == table["group"].to_pylist()
    assert found.splits == table["split"].to_pylist()
    assert found.captions == [captions[0] for captions in table["captions"].to_pylist()]
    assert list(found.labels) == list(manifest.labels)
    assert found.info["model"] == {"source": ["runs/x"], "fingerprint": fingerprint_of(model)}
    assert found.info["data"]["fingerprint"] == manifest.fingerprint


def test_an_interrupted_run_writes_only_what_is_missing(
    model: GaplessModel, manifest: Manifest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(model, manifest, tmp_path / "whole")
    real = EmbeddingsWriter.write

    def killed(self: EmbeddingsWriter, shard: object, *args: object) -> None:
        if shard.index == 2:
            raise KeyboardInterrupt
        real(self, shard, *args)

    monkeypatch.setattr(EmbeddingsWriter, "write", killed)
    with pytest.raises(KeyboardInterrupt):
        write(model, manifest, tmp_path / "cut")
    with pytest.raises(UsageError, match="unfinished"):
        read_embeddings(tmp_path / "cut")
    before = (tmp_path / "cut" / "shard-00000.safetensors").stat().st_mtime_ns
    monkeypatch.setattr(EmbeddingsWriter, "write", real)
    assert write(model, manifest, tmp_path / "cut")
    assert (tmp_path / "cut" / "shard-00000.safetensors").stat().st_mtime_ns == before
    assert contents(tmp_path / "cut") == contents(tmp_path / "whole")


def contents(directory: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in directory.iterdir()}


def test_processes_share_the_work(model: GaplessModel, manifest: Manifest, tmp_path: Path) -> None:
    finished = [write(model, manifest, tmp_path / "e", part=part, num_parts=3) for part in (2, 0, 1)]
    assert finished == [False, False, True]
    write(model, manifest, tmp_path / "alone")
    assert contents(tmp_path / "e") == contents(tmp_path / "alone")
    found = read_embeddings(tmp_path / "e")
    expected = embed_dataset(model, evaluation_dataset(model, manifest))
    np.testing.assert_allclose(found.embeddings["text"], expected["text"].numpy(), atol=1e-6)


def test_processes_that_start_at_the_same_moment_share_one_plan(tmp_path: Path) -> None:
    """A sibling's plan that is being written is no other content; a foreign file is (the control)."""
    (tmp_path / "e").mkdir()
    (tmp_path / "e" / ".plan.json.partial-x1").write_text("{")
    EmbeddingsWriter(tmp_path / "e", num_rows=3, info={})
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "notes.txt").write_text("mine")
    with pytest.raises(UsageError, match="in use"):
        EmbeddingsWriter(tmp_path / "other", num_rows=3, info={})


def test_a_directory_of_another_model_is_not_continued(model: GaplessModel, manifest: Manifest, tmp_path: Path) -> None:
    write(model, manifest, tmp_path / "e")
    other = tiny_model(seed=1, modalities=model.config.modalities)
    with pytest.raises(UsageError, match="holds other embeddings"):
        write(other, manifest, tmp_path / "e")


def test_half_precision_halves_the_file_and_keeps_the_cosine(
    model: GaplessModel, manifest: Manifest, tmp_path: Path
) -> None:
    write(model, manifest, tmp_path / "full")
    write(model, manifest, tmp_path / "half", dtype="float16")
    full, half = (read_embeddings(tmp_path / name).embeddings["image"] for name in ("full", "half"))
    assert half.dtype == np.float16
    assert half.nbytes * 2 == full.nbytes
    assert (full * half).sum(axis=1).min() > 0.999


def test_a_model_of_vectors_embeds_arrays(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    arrays = {"image": random.standard_normal((20, 6)), "text": random.standard_normal((20, 5))}
    for name, rows in arrays.items():
        np.save(tmp_path / f"{name}.npy", rows.astype(np.float32))
    (tmp_path / "groups.txt").write_text("\n".join(f"g{row // 2}" for row in range(20)))
    given = read_arrays({name: tmp_path / f"{name}.npy" for name in arrays}, groups=tmp_path / "groups.txt")
    model = vector_model({"image": 6, "text": 5})
    write_embeddings(model, Source.of_embeddings(model, given), tmp_path / "e", shard_size=8, batch_size=3)
    found = read_embeddings(tmp_path / "e")
    np.testing.assert_allclose(found.embeddings["text"], model.encode("text", arrays["text"]).numpy(), atol=1e-5)
    assert found.groups == [f"g{row // 2}" for row in range(20)]


def test_what_a_model_cannot_take_is_refused(model: GaplessModel, tmp_path: Path) -> None:
    for name, size in (("image", 6), ("text", 5)):
        np.save(tmp_path / f"{name}.npy", np.ones((4, size), np.float32))
    given = read_arrays({name: tmp_path / f"{name}.npy" for name in ("image", "text")})
    with pytest.raises(UsageError, match="raw inputs: give it a manifest"):
        Source.of_embeddings(model, given)
    with pytest.raises(DataRefused, match="image: the model takes vectors of 7, the embeddings have 6"):
        Source.of_embeddings(vector_model({"image": 7, "text": 5}), given)
    with pytest.raises(UsageError, match="takes ecg, text, and the embeddings hold image, text"):
        Source.of_embeddings(vector_model({"ecg": 6, "text": 5}), given)


def test_vector_pairs_give_whole_batches_by_row_and_by_epoch_key() -> None:
    arrays = {"a": np.arange(12.0).reshape(6, 2).astype(np.float16), "b": np.ones((6, 3), np.float32)}
    pairs = VectorPairs(arrays, list("uvwxyz"), rows=np.array([5, 3, 1]), positives=np.arange(6) // 2)
    batch = pairs.__getitems__([(0, 2), (7, 0)])
    assert batch["ids"] == ["v", "z"]
    assert batch["positives"].tolist() == [0, 2]
    assert batch["batch"]["a"]["values"].tolist() == [[2.0, 3.0], [10.0, 11.0]]
    assert batch["batch"]["a"]["values"].dtype == torch.float32
    assert len(pairs) == 3


def test_bfloat16_is_recorded_near_to_float32_and_not_mixed_with_it(model, manifest, tmp_path):
    source = Source.of_manifest(model, manifest)
    exact, out = tmp_path / "float32", tmp_path / "bfloat16"
    write_embeddings(model, source, exact)
    write_embeddings(model, source, out, precision="bfloat16")
    first, second = read_embeddings(exact), read_embeddings(out)
    assert second.info["precision"] == "bfloat16"
    assert "precision" not in first.info
    for name, rows in second.embeddings.items():
        cosines = (rows * first.embeddings[name]).sum(axis=1)
        assert cosines == pytest.approx(1, abs=1e-3)
        assert np.abs(rows - first.embeddings[name]).max() > 1e-5  # the control: something was computed otherwise
        assert np.linalg.norm(rows, axis=1) == pytest.approx(1, abs=1e-5)
    with pytest.raises(UsageError, match="precision"):
        write_embeddings(model, source, exact, precision="bfloat16")
    with pytest.raises(UsageError, match="precision"):
        write_embeddings(model, source, out)


def test_an_unknown_precision_is_refused_before_anything_is_written(model, manifest, tmp_path):
    with pytest.raises(UsageError, match="bfloat16"):
        write_embeddings(model, Source.of_manifest(model, manifest), tmp_path / "e", precision="float8")
    assert not (tmp_path / "e").exists()


def test_readers_are_used_beside_an_accelerator_and_shared_by_its_processes(monkeypatch):
    monkeypatch.setattr("gapless.inference.embed.available_cores", lambda: 12)
    assert usual_readers(torch.device("cpu")) == 0
    assert usual_readers(torch.device("cuda")) == 12
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "4")
    assert usual_readers(torch.device("cuda")) == 3
    monkeypatch.setattr("gapless.inference.embed.available_cores", lambda: 200)
    assert usual_readers(torch.device("cuda")) == 16


@pytest.mark.parametrize("work", [embed_split, write], ids=["evaluate", "embed"])
def test_readers_of_images_are_asked_for_where_nobody_says_how_many(model, manifest, tmp_path, monkeypatch, work):
    asked = []
    monkeypatch.setattr("gapless.inference.embed.usual_readers", lambda device: asked.append(device.type) or 0)
    work(model, manifest, *([] if work is embed_split else [tmp_path / "e"]))
    assert asked == ["cpu"]


@pytest.mark.parametrize(
    ("gpus", "rank", "device"), [(0, 1, "cpu"), (1, 0, "cuda:0"), (4, 3, "cuda:3"), (2, 3, "cuda:1")]
)
def test_each_process_of_a_machine_takes_a_gpu_of_its_own(monkeypatch, gpus, rank, device):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: gpus)
    monkeypatch.setenv("LOCAL_RANK", str(rank))
    moved = []

    class Model:
        def to(self, place):
            moved.append(place)

    on_accelerator(Model())
    assert moved == [torch.device(device)]
