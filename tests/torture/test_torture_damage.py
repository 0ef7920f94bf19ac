"""Checkpoints damaged after saving: every flip, cut, loss and addition is seen, and the last good one stays."""

import json
import os
import random
import shutil
from pathlib import Path

import pytest
import torch
from ledger import record
from safetensors.torch import load_file
from small_runs import small_phantom, small_run
from transformers.trainer_utils import rotate_checkpoints

from gapless.core.files import entries_below
from gapless.training.checkpoint import checkpoints_of, fault_of, newest_valid, rotate, seal
from gapless.training.run import train_run


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory) -> Path:
    """The checkpoints of a real run: two of them."""
    place = tmp_path_factory.mktemp("damage")
    data = small_phantom(place)
    train_run(small_run(data, num_train_epochs=1), data, place / "run")
    return place / "run" / "checkpoints"


def flip(file: Path, rng: random.Random) -> None:
    content = bytearray(file.read_bytes())
    content[rng.randrange(len(content))] ^= 1 << rng.randrange(8)
    file.write_bytes(content)


def cut(file: Path, rng: random.Random) -> None:
    content = file.read_bytes()
    file.write_bytes(content[: rng.choice((0, len(content) // 2, len(content) - 1, rng.randrange(len(content))))])


def remove(file: Path, rng: random.Random) -> None:
    file.unlink()


def add(file: Path, rng: random.Random) -> None:
    other = file.with_name(f"{rng.choice(('.', ''))}extra{rng.randrange(100)}{file.suffix}")
    other.write_bytes(rng.randbytes(rng.randrange(3)))


DAMAGES = {"bit flips": (flip, 450), "truncations": (cut, 150), "missing files": (remove, 75), "extra files": (add, 75)}


def leaky_fault(directory: Path) -> str | None:
    """The control: what a reader sees who opens the files and asks no digest."""
    try:
        load_file(directory / "model.safetensors")
        for name in ("optimizer.pt", "scheduler.pt"):
            torch.load(directory / name, weights_only=True)
        for name in ("trainer_state.json", "config.json"):
            json.loads((directory / name).read_text())
    except Exception as error:
        return str(error)
    return None


def check_damages(checkpoints: Path, part: int) -> None:
    """One damage at a time to the newest checkpoint; resume then takes the one before and says why."""
    newest, before = checkpoints_of(checkpoints)
    whole = {file.relative_to(newest): file.read_bytes() for file in entries_below(newest) if file.is_file()}
    rng, detected, leaked, total = random.Random(0), dict.fromkeys(DAMAGES, 0), 0, 0
    for name, (damage, count) in DAMAGES.items():
        for _ in range(count // part):
            chosen = rng.choice(list(whole))
            damage(newest / chosen, rng)
            found, passed_over = newest_valid(checkpoints)
            detected[name] += found == before and list(passed_over) == [newest.name]
            leaked += leaky_fault(newest) is None
            total += 1
            for file in entries_below(newest):
                if file.is_file() and file.relative_to(newest) not in whole:
                    file.unlink()
            (newest / chosen).write_bytes(whole[chosen])
    assert fault_of(newest) is None
    record("checkpoint damage", files=len(whole), damages=total, detected=sum(detected.values()), **detected)
    record("checkpoint damage, control", accepted_by_a_reader_without_digests=leaked)
    assert total == 750 // part
    assert sum(detected.values()) == total
    assert leaked > total / 4


def test_every_damage_is_seen_short(checkpoints):
    check_damages(checkpoints, part=15)


@pytest.mark.torture
def test_every_damage_is_seen(checkpoints):
    check_damages(checkpoints, part=1)


def test_what_is_no_damage_and_what_is(checkpoints, tmp_path):
    """Empty folders and times of files are no damage; a folder in place of a file is."""
    copy = tmp_path / "checkpoint-8"
    shutil.copytree(checkpoints_of(checkpoints)[0], copy)
    (copy / "empty").mkdir()
    assert fault_of(copy) is None
    (copy / "config.json").unlink()
    (copy / "config.json").mkdir()
    assert "config.json" in fault_of(copy)
    (copy / "seal.json").unlink()
    (copy / "seal.json").mkdir()
    assert fault_of(copy) == "it was not finished"


def fake_checkpoints(directory: Path, rng: random.Random) -> None:
    """Up to six checkpoints of one file, each damaged or not."""
    for step in sorted(rng.sample(range(1, 30), rng.randint(1, 6))):
        checkpoint = directory / f"checkpoint-{step}"
        checkpoint.mkdir(parents=True)
        (checkpoint / "weights").write_bytes(b"%d" % step)
        seal(checkpoint)
        if rng.random() < 0.5:
            (checkpoint / "weights").write_bytes(b"damaged")


def test_rotation_never_removes_the_last_good_one(tmp_path, monkeypatch):
    """Random sets of good and damaged checkpoints; the control is the rotation of transformers, which goes by age."""
    monkeypatch.setattr(os, "fsync", lambda handle: None)  # no power is cut here, and a disk takes its time
    lost = lost_by_age = kept_too_many = trials = 0
    for seed in range(120):
        rng = random.Random(seed)
        ours, theirs = tmp_path / "ours", tmp_path / "theirs"
        fake_checkpoints(ours, rng)
        shutil.copytree(ours, theirs)
        good = [checkpoint.name for checkpoint in checkpoints_of(ours) if fault_of(checkpoint) is None]
        limit = rng.randint(1, 3)
        best = rng.choice([checkpoint.name for checkpoint in checkpoints_of(ours)] + [None])
        rotate(ours, limit, best)
        rotate_checkpoints(output_dir=str(theirs), save_total_limit=limit, use_mtime=False)
        left = [checkpoint.name for checkpoint in checkpoints_of(ours)]
        trials += bool(good)
        lost += not set(good[:limit]) <= set(left) or (best is not None and best not in left)
        kept_too_many += len([name for name in left if name in good and name != best]) > limit
        lost_by_age += bool(good) and newest_valid(theirs)[0] is None
        shutil.rmtree(ours)
        shutil.rmtree(theirs)
    record("checkpoint rotation", rotations=120, with_a_good_one=trials, lost_the_last_good_or_best=lost)
    record("checkpoint rotation, control", rotation_by_age_lost_the_last_good=lost_by_age)
    assert lost == kept_too_many == 0
    assert lost_by_age > 10
