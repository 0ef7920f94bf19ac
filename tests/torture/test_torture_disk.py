"""The trainer's own saves on a disk that fails: whatever writes, no save is reported that is not there."""

import errno
import json
import os
import resource
import shutil
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest
import yaml
from command_server import shared_server
from fakes import tiny_modalities
from faults import KINDS, SHORT, Faults
from ledger import record
from processes import exit_code, forked
from small_runs import small_phantom, small_run

from gapless.core.files import entries_below
from gapless.manifest.readers.phantom import write_phantom
from gapless.training.checkpoint import checkpoints_of, newest_valid
from gapless.training.run import train_run
from gapless.training.trainer import RunTrainer

REPORTED, SAVED, SILENT, LOST = range(10, 14)
OUTCOMES = {REPORTED: "reported", SAVED: "saved", SILENT: "silent", LOST: "lost"}
FAULTY_STEP = 4  # the second checkpoint


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return small_phantom(tmp_path_factory.mktemp("data"))


def digest_of(checkpoint: Path | None) -> dict[str, Any]:
    """What a checkpoint says it holds; nothing for none."""
    return json.loads((checkpoint / "seal.json").read_text()) if checkpoint else {}


def save_with(trainer: RunTrainer, save: Any, arguments: tuple[Any, ...], faults: Faults, expected: Any) -> int:
    """In a fork of a training process: save once more, with faults, into a copy of the run's checkpoints."""
    own = Path(str(trainer.args.output_dir))
    copy = own.with_name(f"copy-{os.getpid()}")
    shutil.copytree(own, copy)
    trainer.args.output_dir = str(copy)
    before = newest_valid(copy)[0]
    try:
        with faults.injected():
            save(trainer, *arguments)
    except Exception:
        outcome = REPORTED if newest_valid(copy)[0] in (before, copy / f"checkpoint-{FAULTY_STEP}") else LOST
    else:
        newest = newest_valid(copy)[0]
        is_saved = newest == copy / f"checkpoint-{FAULTY_STEP}" and digest_of(newest).keys() == expected.keys()
        outcome = SAVED if is_saved else SILENT
    shutil.rmtree(copy)
    return outcome


def check_saves(data, tmp_path: Path, step: int) -> None:
    """Every `step`-th call of one save of a real training fails, in every way."""
    original = RunTrainer._save_checkpoint
    report = tmp_path / "report.json"

    def try_faults(self: RunTrainer, *arguments: Any) -> None:
        if self.state.global_step == FAULTY_STEP:
            report.write_text(json.dumps(outcomes_of_faults(self, original, arguments, step)))
        original(self, *arguments)

    def work() -> None:
        with patch.object(RunTrainer, "_save_checkpoint", try_faults):
            train_run(small_run(data, num_train_epochs=1), data, tmp_path / "run")

    assert exit_code(forked(work)) == 0
    found = json.loads(report.read_text())
    record("faults in a training's save", **found)
    assert found["silent"] == found["lost"] == 0
    assert found["reported"] > 0


def outcomes_of_faults(trainer: RunTrainer, save: Any, arguments: tuple[Any, ...], step: int) -> dict[str, int]:
    calls = Faults()
    checkpoints = Path(str(trainer.args.output_dir))
    expected = digest_of(checkpoints_of(checkpoints)[0])
    before = [entry.name for entry in checkpoints.iterdir()]
    with calls.injected():  # counted in a rehearsal, which is undone
        save(trainer, *arguments)
    for entry in checkpoints.iterdir():
        if entry.name not in before:
            shutil.rmtree(entry)
    counts = dict.fromkeys(OUTCOMES.values(), 0)
    for kind in KINDS:
        for k in range(0, calls.num_writes if kind == SHORT else calls.num_calls, step):
            faults = Faults(k, kind)
            code = exit_code(forked(lambda f=faults: os._exit(save_with(trainer, save, arguments, f, expected))))
            counts[OUTCOMES[code]] += 1
    return {"calls of one save": calls.num_calls, "faults": sum(counts.values())} | counts


def test_no_failing_call_passes_for_a_save_of_a_training_short(data, tmp_path):
    check_saves(data, tmp_path, 37)


@pytest.mark.torture
def test_no_failing_call_passes_for_a_save_of_a_training(data, tmp_path):
    check_saves(data, tmp_path, 1)


# --- files that may not grow: also for what is not written by Python ------------------------------------------------


def limited(size: int) -> None:
    """The kernel then writes up to this size, which is a short write, and refuses the rest (EFBIG)."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, resource.getrlimit(resource.RLIMIT_FSIZE)[1]))


def test_a_file_that_is_one_byte_short_ends_the_training(data, tmp_path):
    """Each file of a checkpoint in turn is the largest that fits, less one byte; the control has no limit."""

    def work(out: Path, size: int | None) -> None:
        if size is not None:
            limited(size)
        train_run(small_run(data, num_train_epochs=1), data, out)

    assert exit_code(forked(lambda: work(tmp_path / "whole", None))) == 0
    newest = checkpoints_of(tmp_path / "whole" / "checkpoints")[0]
    sizes = sorted({file.stat().st_size for file in entries_below(newest) if file.is_file()}, reverse=True)[:5]
    ended = 0
    for size in sizes:
        out = tmp_path / f"run{size}"
        ended += exit_code(forked(lambda out=out, size=size: work(out, size - 1))) == 1
        assert not out.exists()  # nothing in it could be resumed
    record("files one byte short", sizes=len(sizes), ended_with_an_error=ended)
    assert ended == len(sizes) == 5


def test_the_command_says_that_the_disk_is_full(tmp_path):
    write_phantom(tmp_path / "data", num_pairs=40, num_validation=8, num_test=4, image_size=16)
    recipe = {"modalities": tiny_modalities(), "embedding_dim": 24, "vocab_size": 400}
    (tmp_path / "tiny.yaml").write_text(yaml.safe_dump(recipe))
    words = ("train", "phantom-small", "--config", "tiny.yaml", "--data", "data", "--out", "run")
    options = ("--training.per_device_train_batch_size=8", "--training.use_cpu=true")
    done = shared_server().run(*words, *options, cwd=tmp_path, largest_file=20_000)
    assert done.returncode == 1
    assert os.strerror(errno.EFBIG).lower() in done.stderr.lower()
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "run").exists()
