"""Volumes, sounds and vectors of any name are trained on by name, from tables and from tar shards."""

import csv
import io

import numpy as np
import pytest
import torch
from shard_samples import write_shard
from signal_samples import npy_bytes, wav_bytes

from gapless.core.errors import DataRefused, UsageError
from gapless.inference.embed import embed_dataset, evaluation_dataset
from gapless.manifest.readers.shards import read_shards
from gapless.manifest.readers.table import read_table
from gapless.models.aligner import GaplessModel
from gapless.training.from_manifest import completed_recipe, fitted_recipe
from gapless.training.recipes import Recipe, get_recipe
from gapless.training.train import train

pytest.importorskip("soundfile")
TRAINING = {"num_train_epochs": 1, "per_device_train_batch_size": 5, "save_strategy": "no", "use_cpu": True}
SMALL = {
    "scan": {"input": {"depth": 2, "size": 16}},
    "heart": {"input": {"seconds": 2.0}},
    "*": {},
}
WORDS = ["scan=volume:volume", "heart=audio:sound,rate=1000", "lab=vector:numbers"]


def recipe(**modalities):
    return Recipe(modalities={**SMALL, **modalities}, embedding_dim=8, vocab_size=100, training=TRAINING)


@pytest.fixture(scope="module")
def manifest(tmp_path_factory):
    """Ten rows; the third has no sound, the fourth no volume, the fifth two volumes, the sixth no numbers."""
    folder = tmp_path_factory.mktemp("kinds")
    random = np.random.default_rng(0)
    with (folder / "t.csv").open("w", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(["volume", "more", "sound", "numbers"])
        for row in range(10):
            for name in (f"{row}.npy", f"{row}b.npy"):
                np.save(folder / name, random.random((3, 8, 8)).astype(np.float32))
            (folder / f"{row}.wav").write_bytes(wav_bytes(random.random((1, 500)) - 0.5, 1000))
            cells = ["" if row == 3 else f"{row}.npy", f"{row}b.npy" if row == 4 else "", f"{row}.wav"]
            numbers = " ".join(f"{value:.3f}" for value in random.random(4))
            writer.writerow([*cells[:2], "" if row == 2 else cells[2], "" if row == 5 else numbers])
    words = ["scan=volume:volume,more", *WORDS[1:]]
    return read_table(folder / "t.csv", folder / "M", modality=words, workers=1)


def test_volumes_sounds_and_vectors_are_trained_and_embedded(manifest, tmp_path):
    trained = train("any-small", data=manifest, out=tmp_path / "run", settings=recipe())
    model = GaplessModel.from_pretrained(trained.run / "model")
    assert {name: spec.input.kind for name, spec in model.specs.items()} == {
        "scan": "volume",
        "heart": "audio",
        "lab": "vector",
    }
    assert (model.specs["heart"].input.rate, model.specs["lab"].input.size) == (1000.0, 4)
    rows = embed_dataset(model, evaluation_dataset(model, manifest), batch_size=10)
    present = manifest.presence()
    for name, matrix in rows.items():
        assert torch.isnan(matrix).any(dim=1).numpy().tolist() == (~present[name]).tolist()
    for name in rows:  # what a user gives by hand is what the manifest's row gave
        row = 7
        torch.testing.assert_close(
            model.encode(name, [manifest.views(name, row)[0]])[0], rows[name][row], atol=1e-5, rtol=0
        )


def test_an_entry_says_what_differs_from_the_manifest(manifest):
    described = completed_recipe(recipe(), manifest).modalities
    assert list(described) == ["scan", "heart", "lab"]
    assert described["heart"]["input"] == {"kind": "audio", "rate": 1000, "seconds": 2.0}
    assert described["lab"]["input"] == {"kind": "vector", "size": 4}
    two = completed_recipe(Recipe({"heart": {}, "lab": {}}), manifest)
    assert list(two.modalities) == ["heart", "lab"]
    assert completed_recipe(get_recipe("phantom-small"), manifest) == get_recipe("phantom-small")
    # A kind that a recipe names itself is not looked up, and nothing of these kinds is fitted.
    assert fitted_recipe(two, manifest) is two
    with pytest.raises(UsageError, match="unknown modality 'hart'; known: heart, lab, scan"):
        completed_recipe(Recipe({"hart": {}, "lab": {}}), manifest)
    with pytest.raises(UsageError, match="unknown key 'secs'"):
        completed_recipe(Recipe({"heart": {"input": {"secs": 2}}, "lab": {}}), manifest)
    with pytest.raises(UsageError, match="needs more samples than 500"):
        completed_recipe(Recipe({"heart": {"input": {"seconds": 0.5}}, "lab": {}}), manifest)
    with pytest.raises(UsageError, match="mappings of keys to values"):
        Recipe({"heart": "audio"})
    with pytest.raises(UsageError, match="anchor"):
        completed_recipe(Recipe({"*": {}}, anchor="text"), manifest)


def test_a_file_modality_that_no_training_row_has_is_refused_before_anything_starts(manifest, tmp_path):
    import pyarrow as pa

    table = manifest.table
    place = table.column_names.index("scan")
    none = type(manifest)(
        manifest.path, manifest.info, table.set_column(place, "scan", pa.nulls(10, table["scan"].type))
    )
    with pytest.raises(DataRefused, match=r"no training row of .* has 'scan' beside another modality"):
        train("any-small", data=none, out=tmp_path / "run", settings=recipe())
    few = [None if row > 2 else cell for row, cell in enumerate(table["scan"].to_pylist())]
    sparse = type(manifest)(
        manifest.path, manifest.info, table.set_column(place, "scan", pa.array(few, table["scan"].type))
    )
    asked = Recipe(modalities=SMALL, anchor="scan", embedding_dim=8, training=TRAINING)
    with pytest.raises(UsageError, match=r"the anchor 'scan' is in 3 of 9 training rows.*use --anchor"):
        train("any-small", data=sparse, out=tmp_path / "run", settings=asked)
    assert not (tmp_path / "run").exists()


def test_members_of_shards_are_waveforms_sounds_and_volumes(tmp_path):
    random = np.random.default_rng(1)
    members = []
    for number in range(6):
        name = f"case{number}"
        buffer = io.BytesIO()
        np.save(buffer, random.random((3, 8, 8)).astype(np.float32))
        members.append((f"{name}.report.txt", f"report {number}"))
        members.append((f"{name}.ecg.npy", npy_bytes(random.standard_normal((2, 100)).astype(np.float32))))
        if number:
            members.append((f"{name}.heart.wav", wav_bytes(random.random((1, 500)) - 0.5, 1000)))
        if number != 1:
            members.append((f"{name}.ct.npy", buffer.getvalue()))
    words = ["report=text:report.txt", "ecg=waveform:ecg.npy,rate=100", "heart=audio:heart.wav,rate=1000"]
    shard = write_shard(tmp_path / "a.tar", members)
    manifest = read_shards(shard, tmp_path / "m", modality=[*words, "ct=volume:ct.npy"], workers=1)
    assert {name: int(mask.sum()) for name, mask in manifest.presence().items()} == {
        "report": 6,
        "ecg": 6,
        "heart": 5,
        "ct": 5,
    }
    settings = Recipe(
        {"ct": SMALL["scan"], "heart": SMALL["heart"], "ecg": {"input": {"seconds": 1.0}}, "report": {}},
        embedding_dim=8,
        vocab_size=100,
        training=TRAINING,
    )
    trained = train("any-small", data=manifest, out=tmp_path / "run", settings=settings)
    model = GaplessModel.from_pretrained(trained.run / "model")
    assert len(model.specs["ecg"].input.mean) == 2
