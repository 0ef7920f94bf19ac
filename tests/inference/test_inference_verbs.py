"""embed, measure, close and export as a user types them: what is written, what is printed, which exit code."""

import json
from pathlib import Path

import numpy as np
import pytest
from fakes import tiny_bert, tiny_modalities, tiny_model
from rank_processes import run_by_torchrun

from gapless.cli.main import main
from gapless.inference.embed_data import part_of
from gapless.manifest.readers.phantom import write_phantom
from gapless.models.aligner import GaplessModel

QUICK = ["--num_bootstrap", "20"]


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def arrays(home: Path) -> Path:
    """Three modalities of 40 pairs that share 4 hidden numbers, groups of 2, labels of 2 classes."""
    random = np.random.default_rng(0)
    hidden = random.standard_normal((40, 4))
    for name, size in (("image", 12), ("text", 12), ("waveform", 12)):
        np.save(home / f"{name}.npy", (hidden @ random.standard_normal((4, size)) + 1).astype(np.float32))
    (home / "groups.txt").write_text("\n".join(f"case {row // 2}" for row in range(40)))
    (home / "labels.txt").write_text("\n".join("ct" if row % 3 else "mr" for row in range(40)))
    return home


def run(capsys: pytest.CaptureFixture[str], *words: str, code: int = 0) -> str:
    """What a call printed on stdout, or its error line."""
    capsys.readouterr()
    found = main([*words])
    captured = capsys.readouterr()
    assert found == code, captured.err
    return captured.out if code == 0 else captured.err.strip().splitlines()[-1]


def save_model(folder: Path) -> None:
    modalities = tiny_modalities()
    modalities["text"]["encoder"]["config"] = tiny_bert(400)
    tiny_model(modalities=modalities).save_pretrained(folder)


def test_from_a_manifest_to_a_closed_model_that_takes_raw_inputs(
    home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_phantom(home / "m", num_pairs=60, num_validation=8, num_test=20, image_size=16)
    save_model(home / "model")
    told = json.loads(run(capsys, "embed", "model", "--data", "m", "--out", "e", "--dtype", "float16", "--json"))
    assert told == {"embeddings": "e", "finished": True, "modalities": ["image", "text"], "rows": 60}

    figures = json.loads(run(capsys, "measure", "e", "--json", "--html", "map.html", "--out", "measured", *QUICK))
    assert figures["n"] == 20  # the test split is the gallery
    assert figures["data"]["source"] == json.loads((home / "m" / "manifest.json").read_text())["source"]
    assert set(figures["figures"]["gap/centroid_distance"]) == {"value", "low", "high"}
    page = (home / "map.html").read_text()
    assert "data:image/jpeg;base64," in page  # the manifest is known: thumbnails
    assert json.loads((home / "measured" / "results.json").read_text())["figures"] == figures["figures"]
    assert (home / "measured" / "latent.safetensors").exists()

    told = json.loads(run(capsys, "close", "e", "--method", "procrustes", "--out", "closed", "--json"))
    assert told["takes"] == "raw inputs"
    assert told["rows"] == {"train": 32, "validation": 8}  # never the test split
    assert "gap/true_pair_cosine" in told["before"]
    run(capsys, "embed", "closed", "--data", "m", "--out", "e2", "--split", "test")
    again = json.loads(run(capsys, "measure", "e2", "--json", *QUICK))
    assert again["n"] == 20
    assert again["figures"]["gap/true_pair_cosine"] != figures["figures"]["gap/true_pair_cosine"]

    run(capsys, "export", "closed", "--to", "hub", "--out", "hub", "--data", "m")
    assert "| frozen model | this model |" in (home / "hub" / "README.md").read_text()
    assert GaplessModel.from_pretrained(home / "hub").modalities == ("image", "text")


def test_a_model_that_changed_since_is_not_put_inside(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_phantom(home / "m", num_pairs=40, num_validation=8, num_test=8, image_size=16)
    save_model(home / "model")
    run(capsys, "embed", "model", "--data", "m", "--out", "e")
    model = GaplessModel.from_pretrained(home / "model")
    next(model.encoders.parameters()).data.add_(0.1)
    model.save_pretrained(home / "model")
    told = run(capsys, "close", "e", "--method", "center", "--out", "closed")
    assert "no longer the model that made them" in told
    (home / "model" / "config.json").unlink()
    assert "cannot be loaded" in run(capsys, "close", "e", "--method", "center", "--out", "closed2")


def test_plain_arrays_of_three_modalities(arrays: Path, capsys: pytest.CaptureFixture[str]) -> None:
    files = [f"--{name}={name}.npy" for name in ("image", "text", "waveform")]
    rest = ["--groups", "groups.txt", "--labels", "labels.txt", "--json"]
    figures = json.loads(run(capsys, "measure", *files, *rest, *QUICK))
    assert figures["n"] == 40
    assert figures["data"]["groups"] == 20
    assert "gap/centroid_distance/image-waveform" in figures["figures"]
    assert "grouping/v_measure" in figures["figures"]
    settings = ["--adapter.max_steps", "3", "--adapter.hidden", "8", "--loss", "clip", "--seed", "2"]
    told = json.loads(run(capsys, "close", *files, *rest[:2], *settings, "--out", "closed", "--json"))
    assert told["loss"] == "clip"
    assert told["settings"]["hidden"] == 8
    assert told["settings"]["loss"]["alignment_weight"] == 0.0
    run(capsys, "embed", "closed", *files, *rest[:4], "--out", "e")
    assert json.loads(run(capsys, "measure", "e", "--json", *QUICK))["n"] == 40


def test_single_settings_override_those_of_the_loss(arrays: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["close", "--image", "image.npy", "--text", "text.npy", "--out", "closed", "--json"]
    words += ["--adapter.max_steps=1", "--loss=gapless-published", "--adapter.loss.uniformity_weight=0.25"]
    told = json.loads(run(capsys, *words))
    assert told["settings"]["loss"]["alignment_weight"] == 1.0
    assert told["settings"]["loss"]["uniformity_weight"] == 0.25


def test_onnx_and_its_refusals(arrays: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("onnxruntime", reason="onnxruntime is not installed")
    pytest.importorskip("onnxscript", reason="onnxscript is not installed")
    run(capsys, "close", "--image=image.npy", "--text=text.npy", "--method=center", "--out=closed")
    told = json.loads(run(capsys, "export", "closed", "--to", "onnx", "--out", "onnx", "--json"))
    assert max(told["largest_difference"].values()) < 1e-4
    assert (arrays / "onnx" / "text.onnx").exists()
    assert "in use" in run(capsys, "export", "closed", "--to", "onnx", "--out", "onnx", code=2)
    assert "--to hub" in run(capsys, "export", "closed", "--to", "onnx", "--out", "o", "--push", "me/x", code=2)


def test_a_card_needs_figures_and_sending_needs_the_network(
    arrays: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from huggingface_hub import HfApi

    def offline(*_: object, **__: object) -> None:
        raise ConnectionError

    run(capsys, "close", "--image=image.npy", "--text=text.npy", "--method=center", "--out=closed")
    monkeypatch.setattr(HfApi, "create_repo", offline)
    assert "cannot be reached" in run(
        capsys, "export", "closed", "--to", "hub", "--out", "hub", "--push", "me/x", code=4
    )
    assert (arrays / "hub" / "README.md").exists()
    (arrays / "closed" / "results.json").unlink()
    assert "gapless evaluate" in run(capsys, "export", "closed", "--to", "hub", "--out", "hub2", code=2)


def with_row(value: float) -> np.ndarray:
    rows = np.random.default_rng(1).standard_normal((40, 12)).astype(np.float32)
    rows[7] = value
    return rows


BAD = {
    "short": (np.ones((39, 12), np.float32), 3, "image 40"),
    "nan": (with_row(np.nan), 3, "1 of 40 rows hold NaN"),
    "zero": (with_row(0.0), 3, "1 of 40 rows are all zeros"),
    "integers": (np.ones((40, 12), np.int64), 3, "int64"),
    "objects": (np.array([[{"a": 1}] * 12] * 40, dtype=object), 3, "refused unread"),
    "wide": (np.ones((40, 3), np.float32), 3, "gapless close"),
}


@pytest.mark.parametrize("fault", BAD)
@pytest.mark.parametrize("verb", ["measure", "close"])
def test_bad_arrays_are_refused_with_the_count_and_the_row(
    arrays: Path, capsys: pytest.CaptureFixture[str], fault: str, verb: str
) -> None:
    value, code, said = BAD[fault]
    if fault == "wide" and verb == "close":
        pytest.skip("closing is what brings sizes together")
    np.save(arrays / "bad.npy", value)
    out = ["--out", "closed", "--method", "procrustes"] if verb == "close" else QUICK
    assert said in run(capsys, verb, "--image", "image.npy", "--text", "bad.npy", *out, code=code)
    assert not (arrays / "closed").exists()


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["measure"], 2, "give embeddings directories, or one array per modality"),
        (["measure", "e", "--image", "image.npy"], 2, "give embeddings directories, or one array per modality"),
        (["measure", "--image", "image.npy"], 3, "at least 2 modalities"),
        (["close", "--image", "image.npy", "--out", "c"], 2, "at least 2 modalities"),
        (["measure", "--image", "image.npy", "--text", "text.npy", "--labels", "one.txt"], 3, "class"),
        (["measure", "--image", "image.npy", "--text", "text.npy", "--labels", "short.txt"], 3, "one line per row"),
        (["measure", "--image", "image.npy", "--text", "text.npy", "--label", "organ"], 2, "unknown label 'organ'"),
        (["measure", "--image", "image.npy", "--text", "text.npy", "--split", "test"], 2, "no split 'test'"),
        (["measure", "--image", "image.npy", "--text", "missing.npy"], 2, "missing.npy does not exist"),
        (["measure", "nowhere"], 2, "nowhere does not exist"),
        (["close", "--image", "image.npy", "--text", "text.npy", "--out", "c", "--method", "pca"], 2, "known: adapter"),
        (["close", "--image", "image.npy", "--text", "text.npy", "--out", "c", "--loss", "x"], 2, "known: align-clip"),
        (["embed", "nowhere/at/all", "--data", "m", "--out", "e"], 2, "does not exist"),
        (["embed", "m", "--data", "m", "--out", "e", "--shard", "3/2"], 2, "--shard is I/N"),
        (["close", "--image", "image.npy", "--text", "text.npy", "--out", "c", "--metod", "center"], 2, "metod"),
    ],
)
def test_wrong_words_are_one_sentence_and_the_right_code(
    arrays: Path, capsys: pytest.CaptureFixture[str], words: list[str], code: int, said: str
) -> None:
    (arrays / "one.txt").write_text("ct\n" * 40)
    (arrays / "short.txt").write_text("ct\nmr\n")
    line = run(capsys, *words, code=code)
    assert said in line
    assert line.startswith("gapless: ")
    assert "Traceback" not in line


def test_the_part_of_a_process_comes_from_the_option_or_from_torchrun() -> None:
    assert part_of("2/5", {"RANK": "0", "WORLD_SIZE": "9"}) == (1, 5)
    assert part_of(None, {"RANK": "3", "WORLD_SIZE": "4"}) == (3, 4)
    assert part_of(None, {}) == (0, 1)


@pytest.mark.ci
def test_two_processes_of_torchrun_share_the_work_and_the_first_prints(home: Path) -> None:
    write_phantom(home / "m", num_pairs=24, num_validation=4, num_test=4, image_size=16)
    save_model(home / "model")
    words = ["embed", "model", "--data", "m", "--shard_size", "5"]
    done = run_by_torchrun("-m", "gapless", *words, "--out", "two", "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == {
        "embeddings": "two",
        "finished": True,
        "modalities": ["image", "text"],
        "rows": 24,
    }
    assert main([*words, "--out", "one"]) == 0
    assert {path.name: path.read_bytes() for path in (home / "two").iterdir()} == {
        path.name: path.read_bytes() for path in (home / "one").iterdir()
    }
