"""A closing method from outside the tree, not affine, through the real command: one file and one entry point."""

import json
from pathlib import Path

import numpy as np
import pytest
from fakes import CAPTIONS, noise_images, tiny_bert, tiny_modalities, tiny_model
from outside_package import OutsideSite

pytestmark = pytest.mark.ci  # a package from outside, installed and used in processes of its own

METHOD = "outside-shift"


@pytest.fixture
def curved(tmp_path: Path) -> Path:
    """Pairs that are the two coordinates of one circle at double speed: no affine map brings them together."""
    random = np.random.default_rng(0)
    angle = random.uniform(0, 2 * np.pi, 400)
    slow, fast = (np.stack([np.cos(k * angle), np.sin(k * angle)], axis=1) for k in (1, 2))
    np.save(tmp_path / "image.npy", slow.astype(np.float32))
    np.save(tmp_path / "text.npy", fast.astype(np.float32))
    return tmp_path


def close(site: OutsideSite, folder: Path, *words: object) -> dict[str, object]:
    done = site.gapless("close", "--image=image.npy", "--text=text.npy", "--json", *words, cwd=folder)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_it_closes_what_no_affine_map_can_and_lives_on(outside_site: OutsideSite, curved: Path) -> None:
    closed = close(outside_site, curved, "--out=closed", "--method", METHOD, "--outside-shift.width", 64)
    affine = close(outside_site, curved, "--out=affine", "--method", "procrustes")
    assert closed["method"] == METHOD
    assert closed["settings"]["width"] == closed["width"] == 64
    key = "gap/true_pair_cosine"
    assert closed["figures"][key] > 0.99
    assert affine["figures"][key] < 0.3  # the control

    words = ["embed", "closed", "--image=image.npy", "--text=text.npy", "--out", "e"]
    assert outside_site.gapless(*words, cwd=curved).returncode == 0
    measured = outside_site.gapless("measure", "e", "--json", "--num_bootstrap=0", cwd=curved)
    assert json.loads(measured.stdout)["figures"][key] > 0.99
    exported = outside_site.gapless("export", "closed", "--to", "hub", "--out", "hub", cwd=curved)
    assert exported.returncode == 0, exported.stderr
    assert f"- method: {METHOD}\n" in (curved / "hub" / "README.md").read_text()


def test_the_model_is_read_where_the_package_is_not_installed(outside_site: OutsideSite, curved: Path) -> None:
    from gapless.closing.base import CLOSING_METHODS
    from gapless.models.aligner import GaplessModel

    close(outside_site, curved, "--out=closed", "--method", METHOD)
    assert METHOD not in CLOSING_METHODS
    model = GaplessModel.from_pretrained(curved / "closed")
    rows = {name: model.encode(name, np.load(curved / f"{name}.npy")) for name in ("image", "text")}
    assert float((rows["image"] * rows["text"]).sum(dim=1).mean()) > 0.99


def test_its_options_are_in_the_help_and_a_misspelt_one_is_refused(outside_site: OutsideSite, curved: Path) -> None:
    shown = outside_site.gapless("close", "--method", METHOD, "--help-all").stdout
    assert "--outside_shift.frequency" in shown
    assert "standard deviation of their frequencies" in shown
    assert "Rahimi and Recht" in shown
    files = ["--image=image.npy", "--text=text.npy", "--out=closed", "--method", METHOD]
    misspelt = outside_site.gapless("close", *files, "--outside-shift.widht=3", cwd=curved)
    assert misspelt.returncode == 2
    assert "unknown option --outside_shift.widht; did you mean --outside_shift.width?" in misspelt.stderr
    wrong = outside_site.gapless("close", *files, "--outside-shift.width=wide", cwd=curved)
    assert wrong.returncode == 2
    assert "--outside_shift.width: expected a whole number, got 'wide'" in wrong.stderr
    unknown = outside_site.gapless("close", *files[:3], "--method", "outside-shft", cwd=curved)
    assert unknown.returncode == 2
    assert METHOD in unknown.stderr
    assert not (curved / "closed").exists()


def test_it_goes_behind_a_frozen_model(outside_site: OutsideSite, tmp_path: Path) -> None:
    modalities = tiny_modalities()
    modalities["text"]["encoder"]["config"] = tiny_bert(400)
    frozen = tiny_model(modalities=modalities).train(False)
    frozen.save_pretrained(tmp_path / "frozen")
    inputs = {"image": noise_images(36), "text": [f"{CAPTIONS[i % 6]} number {i}" for i in range(36)]}
    np.savez(tmp_path / "rows.npz", **{name: frozen.encode(name, raw).numpy() for name, raw in inputs.items()})
    program = f"""
from pathlib import Path
import numpy as np
from gapless.closing.close import close_gap
from gapless.models.aligner import GaplessModel
frozen = GaplessModel.from_pretrained("frozen")
rows = dict(np.load("rows.npz"))
whole = close_gap(rows, method={METHOD!r}, frozen=frozen, out=Path("whole"))
vectors = close_gap(rows, method={METHOD!r}, out=Path("vectors"))
print(whole.takes)
np.savez("closed.npz", **{{name: vectors.model.encode(name, matrix).numpy() for name, matrix in rows.items()}})
"""
    done = outside_site.python("-c", program, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "raw inputs"
    from gapless.models.aligner import GaplessModel

    again = GaplessModel.from_pretrained(tmp_path / "whole")
    expected = np.load(tmp_path / "closed.npz")
    for name, raw in inputs.items():
        np.testing.assert_allclose(again.encode(name, raw).numpy(), expected[name], atol=1e-4)


def test_it_is_exported_to_onnx(outside_site: OutsideSite, curved: Path) -> None:
    pytest.importorskip("onnxruntime", reason="onnxruntime is not installed")
    pytest.importorskip("onnxscript", reason="onnxscript is not installed")
    close(outside_site, curved, "--out=closed", "--method", METHOD)
    done = outside_site.gapless("export", "closed", "--to", "onnx", "--out", "onnx", "--json", cwd=curved)
    assert done.returncode == 0, done.stderr
    assert max(json.loads(done.stdout)["largest_difference"].values()) < 1e-4


def test_heads_can_start_from_it(outside_site: OutsideSite, curved: Path) -> None:
    """What was fitted stays in front of the trained layers, and does not train."""
    words = ["--adapter.start", METHOD, "--adapter.max_steps=1", "--adapter.learning_rate=0", "--adapter.hidden=8"]
    started = close(outside_site, curved, "--out=started", *words)
    fitted = close(outside_site, curved, "--out=fitted", "--method", METHOD)
    key = "gap/true_pair_cosine"
    assert started["figures"][key] == pytest.approx(fitted["figures"][key], abs=1e-5)


def test_heads_train_with_a_loss_of_the_same_package(outside_site: OutsideSite, curved: Path) -> None:
    words = ["--loss=outside-sigmoid", "--adapter.max_steps=2", "--adapter.hidden=8", "--adapter.loss.bias=-3"]
    closed = close(outside_site, curved, "--out=closed", *words)
    assert closed["loss"] is None  # a changed setting: no longer the loss of that name
    assert closed["settings"]["loss"] == {"sharpness": 10.0, "bias": -3.0}
    assert close(outside_site, curved, "--out=same", *words[:3])["loss"] == "outside-sigmoid"
