"""A kind of modality from a package outside the tree: the real command trains with it, and the model encodes."""

import json
from pathlib import Path

import pytest
from outside_package import OutsideSite, outside_site

pytestmark = pytest.mark.ci  # a package from outside, installed and used in processes of its own

__all__ = ["outside_site"]

COUNTS = ["--modalities.waveform", "{input: {kind: outside-counts, size: 64, scale: 10}}"]
SMALL = ["--modalities.image.input.size", 16, "--embedding-dim", 8, "--vocab-size", 300]
STEPS = ["--training.max_steps", 2, "--training.per_device_train_batch_size", 8, "--training.eval_strategy", "no"]
ENCODE = """
import json, sys
import torch
from gapless import GaplessModel
model = GaplessModel.from_pretrained("run/model")
waveform = [float(n - 32) for n in range(64)]
rows = model.encode("waveform", [waveform, waveform[::-1]])
print(json.dumps({"shape": list(rows.shape), "norms": rows.norm(dim=1).tolist(), "input": model.config.modalities}))
"""


@pytest.fixture(scope="module")
def run(outside_site: OutsideSite, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a phantom `data` and a `run` whose waveform is of the outside kind, without an encoder named."""
    place = tmp_path_factory.mktemp("door")
    sizes = ["--num-pairs", 40, "--num-validation", 4, "--num-test", 8, "--image-size", 16]
    made = outside_site.gapless("data", "phantom", "--out", "data", *sizes, cwd=place)
    assert made.returncode == 0, made.stderr
    words = ["train", "phantom-small", "--data", "data", "--out", "run"]
    trained = outside_site.gapless(*words, *COUNTS, *SMALL, *STEPS, cwd=place)
    assert trained.returncode == 0, trained.stderr
    return place


def test_a_kind_from_outside_trains_and_encodes(outside_site: OutsideSite, run: Path) -> None:
    done = outside_site.python("-c", ENCODE, cwd=run)
    assert done.returncode == 0, done.stderr
    answer = json.loads(done.stdout)
    assert answer["shape"] == [2, 8]
    assert answer["norms"] == pytest.approx([1, 1], abs=1e-5)
    assert answer["input"]["waveform"]["input"] == {"kind": "outside-counts", "size": 64, "scale": 10}
    assert answer["input"]["waveform"]["encoder"] == {"kind": "vector", "size": 64}


def test_its_rows_are_embedded_by_the_command(outside_site: OutsideSite, run: Path) -> None:
    done = outside_site.gapless("embed", "run", "--data", "data", "--split", "test", "--out", "emb", "--json", cwd=run)
    assert done.returncode == 0, done.stderr
    assert "waveform" in json.dumps(json.loads(done.stdout))


def test_its_keys_are_checked_and_an_unknown_kind_lists_the_known_ones(outside_site: OutsideSite, run: Path) -> None:
    words = ["train", "phantom-three", "--data", "data", "--out", "no"]
    mistyped = ["--modalities.waveform", "{input: {kind: outside-counts, size: 64, scael: 2}}"]
    done = outside_site.gapless(*words, *mistyped, cwd=run)
    assert done.returncode == 2
    assert "did you mean 'scale'?" in done.stderr
    done = outside_site.gapless(*words, "--modalities.waveform.input.kind", "outside-count", cwd=run)
    assert done.returncode == 2
    for name in ("image", "text", "vector", "outside-counts"):
        assert name in done.stderr
