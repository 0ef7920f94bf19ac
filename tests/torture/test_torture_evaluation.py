"""Evaluation disturbs nothing, and one seed is one run: in two fresh processes, to the last byte."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest
import torch
import yaml
from fakes import tiny_modalities
from ledger import record
from processes import exit_code, forked
from small_runs import small_phantom, small_run

from gapless.cli.main import main
from gapless.manifest.readers.phantom import write_phantom
from gapless.training.run import train_run
from gapless.training.trainer import AlignerTrainer

WEIGHTS = "model/model.safetensors"
HOW_OFTEN: dict[str, dict[str, Any]] = {
    "never": {"eval_strategy": "no"},
    "every epoch": {"eval_strategy": "epoch"},
    "every step": {"eval_strategy": "steps", "eval_steps": 1},
    "every third step": {"eval_strategy": "steps", "eval_steps": 3, "eval_on_start": True},
}


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return small_phantom(tmp_path_factory.mktemp("data"))


def losses_of(out: Path) -> list[dict[str, Any]]:
    """The lines of `metrics.jsonl` that training wrote."""
    lines = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    return [line for line in lines if "loss" in line]


def disturbed(self: AlignerTrainer) -> dict[str, Any]:
    """The control: an evaluation that draws one number of the training's generator."""
    torch.rand(())
    return original(self)


original = AlignerTrainer.evaluation_figures


def train_apart(data, out: Path, careless: bool = False, **training: Any) -> None:
    def work() -> None:
        with patch.object(AlignerTrainer, "evaluation_figures", disturbed) if careless else nullcontext():
            train_run(small_run(data, **training), data, out)

    assert exit_code(forked(work)) == 0


def check_evaluations(data, tmp_path: Path, workers: int, kinds: tuple[str, ...]) -> None:
    for kind in kinds:
        train_apart(data, tmp_path / kind, dataloader_num_workers=workers, **HOW_OFTEN[kind])
    train_apart(data, tmp_path / "careless", careless=True, dataloader_num_workers=workers, **HOW_OFTEN["every step"])
    blind = tmp_path / "never"
    others = [kind for kind in kinds if kind != "never"]
    same_losses = [losses_of(tmp_path / kind) == losses_of(blind) for kind in others]
    same_weights = [(tmp_path / kind / WEIGHTS).read_bytes() == (blind / WEIGHTS).read_bytes() for kind in others]
    is_told = losses_of(tmp_path / "careless") != losses_of(blind)
    record(
        f"evaluation, {workers} workers",
        runs_with=len(others),
        same_losses=sum(same_losses),
        same_weights=sum(same_weights),
        careless_evaluation_is_told=is_told,
    )
    assert all(same_losses)
    assert all(same_weights)
    assert is_told


def test_evaluation_changes_no_loss_and_no_weight_short(data, tmp_path):
    check_evaluations(data, tmp_path, 0, ("never", "every step"))


@pytest.mark.torture
@pytest.mark.parametrize("workers", [0, 2])
def test_evaluation_changes_no_loss_and_no_weight(data, tmp_path, workers):
    check_evaluations(data, tmp_path, workers, tuple(HOW_OFTEN))


# --- two fresh processes ------------------------------------------------------------------------------------------


@pytest.fixture
def place(tmp_path) -> Path:
    write_phantom(tmp_path / "data", num_pairs=100, num_validation=20, num_test=30, image_size=16)
    recipe = {"modalities": tiny_modalities(), "embedding_dim": 24, "vocab_size": 400, "augment_images": True}
    (tmp_path / "tiny.yaml").write_text(yaml.safe_dump(recipe))
    return tmp_path


def fresh(place: Path, words: list[str], hash_seed: int) -> None:
    """The command in a process of its own, with another order of Python's sets."""
    environment = {**os.environ, "PYTHONHASHSEED": str(hash_seed)}
    command = [sys.executable, "-m", "gapless", *words]
    done = subprocess.run(command, cwd=place, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]


def in_fork(place: Path, words: list[str], hash_seed: int) -> None:
    def work() -> None:
        os.chdir(place)
        os._exit(main(words))

    assert exit_code(forked(work)) == 0


def trained_and_evaluated(place: Path, how: Callable[[Path, list[str], int], None], out: str, seed: int = 0) -> Path:
    training = ("--training.num_train_epochs=2", "--training.per_device_train_batch_size=16", "--training.use_cpu=true")
    train_words = ["train", "phantom-small", "--config", "tiny.yaml", "--out", out, f"--seed={seed}", *training]
    for words in (train_words, ["evaluate", out, "--num_bootstrap=50"]):
        how(place, [*words, "--data", "data"], len(out))
    return place / out


def check_twice(place: Path, how: Callable[[Path, list[str], int], None]) -> None:
    """The control is a run of another seed."""
    first, second = trained_and_evaluated(place, how, "first"), trained_and_evaluated(place, how, "second")
    other = trained_and_evaluated(place, in_fork, "other", seed=1)
    names = ("metrics.jsonl", "results.json", WEIGHTS, "embeddings.safetensors", "config.yaml")
    same = {name: (first / name).read_bytes() == (second / name).read_bytes() for name in names}
    as_other = {name: (first / name).read_bytes() == (other / name).read_bytes() for name in names}
    record("one seed twice", files=len(names), same=sum(same.values()), same_with_another_seed=sum(as_other.values()))
    assert all(same.values()), same
    assert not any(as_other.values()), as_other


def test_two_processes_write_the_same_bytes_short(place):
    check_twice(place, in_fork)


@pytest.mark.torture
def test_two_fresh_processes_write_the_same_bytes(place):
    check_twice(place, fresh)
