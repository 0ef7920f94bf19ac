"""Two processes that are resumed in the middle of an epoch go on with its rows; both load the best checkpoint, and one
of them prints the outcome.
"""

import json
import shutil
from pathlib import Path

import pytest
import yaml
from fakes import tiny_modalities
from rank_processes import run_by_torchrun

from gapless.manifest.readers.phantom import write_phantom
from gapless.models.aligner import GaplessModel

pytestmark = pytest.mark.ci


def trained(place: Path, out: Path, *more: str) -> str:
    """What two processes print that train 8 steps in 2 epochs, save after 3 and 6, and end with the better of them."""
    words = ["train", "phantom-small", "--config", place / "tiny.yaml", "--data", place / "data", "--out", out]
    words += ["--method", "gapless", "--training.num_train_epochs=2", "--training.per_device_train_batch_size=8"]
    words += ["--training.use_cpu=true", "--training.logging_steps=1", "--training.load_best_model_at_end=true"]
    words += [f"--training.{what}_{how}" for what in ("save", "eval") for how in ("strategy=steps", "steps=3")]
    done = run_by_torchrun("-m", "gapless", *words, "--json", *more)
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


def test_a_run_of_two_processes_resumed_in_the_middle_of_an_epoch_is_the_uninterrupted_one(tmp_path: Path) -> None:
    write_phantom(tmp_path / "data", num_pairs=90, num_validation=10, num_test=10, image_size=16)
    recipe = {"modalities": tiny_modalities(), "embedding_dim": 24, "vocab_size": 400, "augment_images": True}
    (tmp_path / "tiny.yaml").write_text(yaml.safe_dump(recipe))
    whole, again = tmp_path / "whole", tmp_path / "again"
    assert Path(json.loads(trained(tmp_path, whole))["run"]) == whole  # one object: one process prints
    shutil.copytree(whole, again)
    shutil.rmtree(again / "model")
    shutil.rmtree(again / "checkpoints" / "checkpoint-8")  # so that it is resumed at step 6
    trained(tmp_path, again, "--resume", "latest")
    lines = [(out / "metrics.jsonl").read_text().splitlines() for out in (whole, again)]
    assert json.loads(lines[0][-1])["step"] == 8
    assert lines[0] == lines[1]
    for out in (whole, again):
        GaplessModel.from_pretrained(out / "model")
