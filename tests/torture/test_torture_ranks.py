"""Four processes under torchrun are told to end: they save, and the resumed run is the uninterrupted one."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml
from fakes import tiny_modalities
from torture.ledger import record

from gapless.manifest.readers.phantom import write_phantom
from gapless.training.checkpoint import newest_valid, step_of

pytestmark = pytest.mark.torture

RANKS = 4
SAVE_STEPS = 10


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    home = tmp_path_factory.mktemp("ranks")
    write_phantom(home / "data", num_pairs=130, num_validation=20, num_test=10, image_size=16)
    recipe = {"modalities": tiny_modalities(), "embedding_dim": 24, "vocab_size": 400, "augment_images": True}
    (home / "tiny.yaml").write_text(yaml.safe_dump(recipe))
    return home


def started(place: Path, out: str, *more: str) -> "subprocess.Popen[str]":
    """The command under torchrun."""
    command = [sys.executable, "-m", "torch.distributed.run", f"--nproc_per_node={RANKS}", "--standalone"]
    command += ["-m", "gapless", "train", "phantom-small", "--config", "tiny.yaml", "--method", "gapless"]
    command += ["--data", "data", "--out", out, "--training.num_train_epochs=20", "--training.logging_steps=1"]
    command += ["--training.per_device_train_batch_size=4", "--training.use_cpu=true", *more]
    command += ["--training.save_strategy=steps", f"--training.save_steps={SAVE_STEPS}"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(command, cwd=place, env=environment, stderr=subprocess.PIPE, text=True)


def ended(process: "subprocess.Popen[str]") -> tuple[int, str]:
    _, stderr = process.communicate(timeout=280)
    return process.returncode, stderr


def test_sigterm_to_torchrun_saves_the_step_in_which_it_came_and_the_run_is_resumed(place: Path) -> None:
    """torchrun passes the signal on to its processes, at moments of its own; all of them must stop at one step."""
    out = place / "run"
    process = started(place, out.name)
    end, log = time.monotonic() + 200, out / "metrics.jsonl"
    while time.monotonic() < end and not (log.exists() and log.read_text().count("\n") >= 14):
        time.sleep(0.01)
    process.send_signal(signal.SIGTERM)
    code, _ = ended(process)
    assert code != 0
    newest, passed_over = newest_valid(out / "checkpoints")
    assert newest is not None
    assert passed_over == {}
    assert step_of(newest) % SAVE_STEPS != 0, "the checkpoint is that of the step in which the signal came"
    assert not (out / "model").exists(), "it was stopped in the middle"
    code, stderr = ended(started(place, out.name, "--resume", "latest"))
    assert code == 0, stderr[-3000:]
    assert (out / "model").exists()
    code, stderr = ended(started(place, "whole"))
    assert code == 0, stderr[-3000:]
    lines = log.read_text().splitlines()
    assert lines == (place / "whole" / "metrics.jsonl").read_text().splitlines()
    record(f"SIGTERM to {RANKS} processes", saved_at=step_of(newest), ended_at=json.loads(lines[-1])["step"])
