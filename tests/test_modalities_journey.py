"""A table of images, reports, lab values and ECGs, some absent, through the real command, to measured embeddings."""

import json

import numpy as np
import pytest
import torch
import yaml
from modality_run_samples import ROWS, SETTINGS, WORDS, write_samples

from gapless.cli.main import main
from gapless.core.errors import DataRefused, UsageError
from gapless.embeddings.store import read_embeddings
from gapless.manifest.manifest import Manifest
from gapless.manifest.readers.table import read_table
from gapless.models.aligner import GaplessModel
from gapless.training.recipes import Recipe
from gapless.training.run import all_captions
from gapless.training.train import train

NAMES = ("ecg", "labs", "report", "scan")  # of a saved model, in the order of its JSON


def said(capsys, *words):
    capsys.readouterr()
    assert main([*map(str, words), "--json"]) == 0
    return json.loads(capsys.readouterr().out)


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    return tmp_path_factory.mktemp("journey")


@pytest.fixture(scope="module")
def split(place):
    """The manifest, split by patients, and the run that the journey trains."""
    table = write_samples(place / "source")
    words = [word for one in WORDS for word in ("--modality", one)]
    assert main(["data", "table", str(table), "--out", str(place / "M"), "--group-key", "patient", *words]) == 0
    assert main(["data", "split", str(place / "M"), "--out", str(place / "S"), "--fractions", "0.6,0.1,0.3"]) == 0
    return Manifest.read(place / "S")


@pytest.fixture(scope="module")
def run(place, split):
    (place / "settings.yaml").write_text(yaml.safe_dump(SETTINGS))
    words = ["train", "any-small", "--config", place / "settings.yaml", "--data", place / "S", "--out", place / "R"]
    assert main([*map(str, words)]) == 0
    return place / "R"


@pytest.fixture(scope="module")
def embedded(run, split, place):
    """The embeddings of all rows."""
    assert main(["embed", str(run), "--data", str(split.path), "--out", str(place / "all")]) == 0
    return read_embeddings(place / "all", missing="keep")


def test_what_is_absent_is_counted_and_nothing_is_lost(split, capsys):
    assert len(split) == ROWS
    present = {name: int(mask.sum()) for name, mask in split.presence().items()}
    assert present == {"scan": 39, "report": 39, "labs": 38, "ecg": 32}
    audited = said(capsys, "data", "audit", split.path)
    assert audited["presence"]["present"] == present
    assert audited["leakage"]["group or item"]["test in train"]["share"] == 0


def test_the_statistics_are_those_of_the_training_rows(run, split):
    model = GaplessModel.from_pretrained(run / "model")
    assert model.modalities == NAMES
    rows = split.select("train")
    ages = [cell[0]["age"] for cell in rows.cells("labs") if cell]
    fields = model.config.modalities["labs"]["input"]["fields"]
    assert (fields["age"]["quantiles"][0], fields["age"]["quantiles"][-1]) == (min(ages), max(ages))
    waves = np.concatenate([np.load(cell[0]) for cell in rows.cells("ecg") if cell], axis=1)
    np.testing.assert_allclose(model.config.modalities["ecg"]["input"]["mean"], waves.mean(axis=1), atol=1e-5)
    assert (model.specs["ecg"].input.rate, model.specs["scan"].input.channels) == (100.0, 1)
    described = yaml.safe_load((run / "config.yaml").read_text())["settings"]["modalities"]
    assert described["ecg"]["input"] == {"kind": "waveform", "rate": 100, "seconds": 2.0}
    assert not any(".npy" in text for text in all_captions(rows))  # names of files are no texts


def test_every_pair_is_measured_on_its_own_rows(run, split, place, capsys):
    figures = said(capsys, "evaluate", run, "--data", split.path, "--num_bootstrap", 0)
    rows = split.select("test")
    present = rows.presence()
    for first in range(4):
        for second in range(first + 1, 4):
            pair = NAMES[first], NAMES[second]
            n = int((present[pair[0]] & present[pair[1]]).sum())
            assert figures["pairs"]["-".join(pair)] == {"n": n, "gallery_size": n}
            assert 0 <= figures["figures"][f"retrieval/{pair[0]}_to_{pair[1]}/R@1"] <= 1
    assert figures["complete"]["n"] == int(np.logical_and.reduce([*present.values()]).sum())
    assert figures["data"]["leakage"] == {"test_rows_in_train_share": 0.0}
    said(capsys, "embed", run, "--data", split.path, "--split", "test", "--out", place / "E")
    measured = said(capsys, "measure", place / "E", "--missing", "keep", "--num_bootstrap", 0)
    assert measured["pairs"] == figures["pairs"]
    key = "gap/true_pair_cosine/ecg-scan"
    assert measured["figures"][key] == pytest.approx(figures["figures"][key], abs=1e-6)


def test_an_embedding_is_that_of_what_the_user_has(run, split, embedded):
    """`encode` takes paths, arrays and mappings, and gives what `embed` wrote for the row."""
    model = GaplessModel.from_pretrained(run / "model")
    row = next(r for r in range(ROWS) if all(mask[r] for mask in split.presence().values()))
    for name in ("report", "labs", "ecg"):
        source = split.views(name, row)[0]
        ours = model.encode(name, [source])[0]
        torch.testing.assert_close(ours, torch.tensor(np.array(embedded.embeddings[name][row])), atol=1e-5, rtol=0)
    path = split.views("ecg", row)[0]
    torch.testing.assert_close(model.encode("ecg", [np.load(path)]), model.encode("ecg", [str(path)]))
    with pytest.raises(UsageError, match="encode takes a list of inputs, got one mapping"):
        model.encode("labs", {"age": 50})


def test_several_views_are_the_mean_of_their_features(run, split, embedded):
    model = GaplessModel.from_pretrained(run / "model").eval()
    row = next(r for r in range(ROWS) if len(split.views("scan", r) or ()) == 2)
    kind = model.preprocessor("scan")
    views = kind.collate([kind.prepare(path) for path in split.views("scan", row)])
    with torch.no_grad():
        features = model.encoders["scan"](**views)
        expected = torch.nn.functional.normalize(model.heads["scan"](features.mean(dim=0, keepdim=True)).float())
    written = torch.tensor(np.array(embedded.embeddings["scan"][row]))
    torch.testing.assert_close(written, expected[0], atol=1e-5, rtol=0)
    first = model.encode("scan", split.views("scan", row)[:1])[0]
    assert (written - first).abs().max() > 1e-4  # the control: one view alone is another embedding


def test_a_resumed_run_keeps_the_statistics_it_began_with(split, tmp_path, monkeypatch):
    """The checkpoint's statistics are taken; files that were changed meanwhile would give others."""
    settings = Recipe(**SETTINGS)
    whole = train("any-small", data=split, out=tmp_path / "whole", settings=settings)
    import shutil

    shutil.copytree(whole.run, tmp_path / "half")
    shutil.rmtree(tmp_path / "half" / "model")
    steps = sorted((tmp_path / "half" / "checkpoints").iterdir(), key=lambda p: int(p.name.split("-")[1]))
    shutil.rmtree(steps[-1])
    import gapless.training.from_manifest as module

    monkeypatch.setattr(module, "_fitted_entry", lambda *args: pytest.fail("fitted again"))
    train("any-small", data=split, out=tmp_path / "half", settings=settings, resume=True)
    ours, expected = (GaplessModel.from_pretrained(tmp_path / name / "model") for name in ("half", "whole"))
    assert ours.config.modalities == expected.config.modalities
    for name, value in expected.state_dict().items():
        assert torch.equal(ours.state_dict()[name], value), name


def test_a_file_that_cannot_be_read_names_row_modality_and_reason(split, place, tmp_path):
    """At training time: the manifest was sound, a file of it is gone or of another rate."""
    table = write_samples(tmp_path / "source")
    manifest = read_table(table, tmp_path / "M", modality=WORDS, group_key="patient", workers=1)
    row = next(r for r in manifest.rows_with("ecg").tolist())
    row_id, path = manifest.table["id"][row].as_py(), manifest.views("ecg", row)[0]
    kept = path.read_bytes()
    path.unlink()
    with pytest.raises(DataRefused, match=rf"^{row_id}: ecg: missing file .*; build the manifest again"):
        train("any-small", data=manifest, out=tmp_path / "R", settings=Recipe(**SETTINGS))
    path.write_bytes(kept)
    np.save(path, np.zeros((3, 200), np.float32))
    with pytest.raises(DataRefused, match=r": ecg: waveforms of [23] and of [23] channels; name those to read"):
        train("any-small", data=manifest, out=tmp_path / "R", settings=Recipe(**SETTINGS))
    assert not (tmp_path / "R").exists()
