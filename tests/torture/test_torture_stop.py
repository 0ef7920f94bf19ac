"""The real command, stopped by a scheduler's SIGTERM, and resumed: with what it was started with, and nothing else."""

import json
import os
import signal
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml
from command_server import shared_server
from fakes import tiny_modalities, tiny_model
from ledger import record
from processes import exit_code, forked
from small_runs import small_phantom, small_run

from gapless.cli.main import main
from gapless.core.errors import UsageError
from gapless.core.plan import differences
from gapless.manifest.readers.phantom import write_phantom
from gapless.training.checkpoint import checkpoints_of, newest_valid, step_of
from gapless.training.run import Run, resumed, train_run

ALIGNER = ("train", "phantom-small", "--config", "tiny.yaml", "--method", "gapless")
CAPTIONER = (
    *("caption", "train", "aligner", "--decoder.hidden_size=24", "--decoder.num_attention_heads=2"),
    *("--decoder.num_hidden_layers=1", "--max_tokens=16", "--training.eval_strategy=steps", "--training.eval_steps=3"),
    *("--training.save_strategy=steps", "--training.save_steps=3"),
)
TRAINING = (
    *("--training.num_train_epochs=6", "--training.per_device_train_batch_size=16", "--training.logging_steps=1"),
    *("--training.dataloader_num_workers=2", "--training.use_cpu=true"),
)
VERBS = {"aligner": ALIGNER, "captioner": CAPTIONER}


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Path:
    home = tmp_path_factory.mktemp("stop")
    write_phantom(home / "data", num_pairs=130, num_validation=20, num_test=10, image_size=16)
    write_phantom(home / "other", num_pairs=131, num_validation=20, num_test=11, image_size=16)
    tiny_model(modalities=tiny_modalities()).save_pretrained(home / "aligner")
    recipe = {"modalities": tiny_modalities(), "embedding_dim": 24, "vocab_size": 400, "augment_images": True}
    (home / "tiny.yaml").write_text(yaml.safe_dump(recipe))
    return home


def words_of(kind: str, out: str, *more: str, data: str = "data") -> list[str]:
    return [*VERBS[kind], "--data", data, "--out", out, *TRAINING, *more]


def in_fork(place: Path, words: list[str]) -> int:
    """The command in a forked process, which has imported everything already."""

    def work() -> None:
        os.chdir(place)
        code = main(words)
        sys.stderr.flush()
        os._exit(code)

    return exit_code(forked(work))


def stopped_run(place: Path, words: list[str], out: Path, num_lines: int) -> tuple[int, str]:
    """Start the command, and send SIGTERM to all of its processes once so many lines are logged; exit code, stderr."""
    process = shared_server().start(*words, cwd=place)
    deadline = time.monotonic() + 120
    log = out / "metrics.jsonl"
    while time.monotonic() < deadline:
        if log.exists() and log.read_text().count("\n") >= num_lines:
            break
        time.sleep(0.01)
    os.killpg(process.pid, signal.SIGTERM)
    done = process.communicate()
    return done.returncode, done.stderr


def check_stopped(place: Path, kind: str, num_lines: int) -> None:
    whole, out = place / f"{kind}-whole", place / f"{kind}-{num_lines}"
    if not whole.exists():
        assert in_fork(place, words_of(kind, whole.name)) == 0
    code, stderr = stopped_run(place, words_of(kind, out.name), out, num_lines)
    assert code == 130, stderr[-2000:]
    newest, passed_over = newest_valid(out / "checkpoints")
    assert newest is not None
    assert passed_over == {}
    assert f"stopped by SIGTERM at step {step_of(newest)} and saved" in stderr
    assert "Traceback" not in stderr
    assert in_fork(place, words_of(kind, out.name, "--resume", "latest")) == 0
    same = {
        name: (out / name).read_bytes() == (whole / name).read_bytes()
        for name in ("metrics.jsonl", "model/model.safetensors", "config.yaml")
    }
    record(f"SIGTERM to {kind}", stopped_at_step=step_of(newest), **{f"same {name}": x for name, x in same.items()})
    assert all(same.values()), same


def test_sigterm_saves_and_the_resumed_run_is_the_uninterrupted_one_short(place):
    check_stopped(place, "aligner", 5)


@pytest.mark.torture
@pytest.mark.parametrize("kind", VERBS)
@pytest.mark.parametrize("num_lines", [1, 6, 7, 9, 20])
def test_sigterm_saves_and_the_resumed_run_is_the_uninterrupted_one(place, kind, num_lines):
    check_stopped(place, kind, num_lines)


# --- what a resume refuses ----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def started(tmp_path_factory) -> tuple[Path, Any]:
    home = tmp_path_factory.mktemp("started")
    data = small_phantom(home)
    train_run(small_run(data, num_train_epochs=1), data, home / "run")
    return home / "run", small_run(data, num_train_epochs=1)


def leaves(value: Any, prefix: str = "") -> Iterator[str]:
    if isinstance(value, Mapping) and value:
        for name, item in value.items():
            yield from leaves(item, f"{prefix}{name}.")
    else:
        yield prefix.removesuffix(".")


class Changed(Run):
    """A run of which one value, named by its dotted key, is another."""

    def __init__(self, run: Run, key: str) -> None:
        self.run, self.key = run, key

    def to_dict(self) -> dict[str, Any]:
        described = json.loads(json.dumps(self.run.to_dict()))
        *parents, last = self.key.split(".")
        inner = described
        for name in parents:
            inner = inner[name]
        inner[last] = {"another": inner[last]}
        return described


def test_every_single_change_is_refused_and_named(started):
    """Each value of the recipe, the seed, the method and the data; the control is the run as it was."""
    out, run = started
    keys = list(leaves(run.to_dict()))
    named = 0
    for key in keys:
        with pytest.raises(UsageError) as refusal:
            resumed(Changed(run, key), out)
        named += key in str(refusal.value) and "differing" in str(refusal.value)
    record("changed on resume", keys=len(keys), refused_and_named=named)
    assert named == len(keys) > 40
    assert resumed(run, out)[0] == checkpoints_of(out / "checkpoints")[0]
    assert {"settings.loss.temperature", "settings.training.learning_rate", "data_fingerprint", "seed"} < set(keys)


def test_a_key_that_is_new_or_gone_is_named_too():
    before, now = {"a": {"b": 1, "gone": 2}, "c": [1, 2]}, {"a": {"b": 1}, "c": [1, 3], "new": 0}
    assert differences(before, now) == ["a.gone", "c", "new"]


@pytest.mark.parametrize(
    ("more", "data", "said"),
    [
        (["--training.learning_rate=0.5"], "data", "settings.training.learning_rate"),
        (["--seed=1"], "data", "seed"),
        (["--loss.temperature=0.5"], "data", "settings.loss.temperature"),
        ([], "other", "data_fingerprint"),
    ],
)
def test_the_command_refuses_another_recipe_or_other_data(place, capsys, monkeypatch, more, data, said):
    monkeypatch.chdir(place)
    run = place / "refusing"
    if not run.exists():
        assert in_fork(place, words_of("aligner", "refusing", "--training.num_train_epochs=1")) == 0
    before = {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}
    words = words_of("aligner", "refusing", "--training.num_train_epochs=1", "--resume", "latest", *more, data=data)
    assert main(words) == 2
    assert said in capsys.readouterr().err
    assert {path: path.read_bytes() for path in run.rglob("*") if path.is_file()} == before


def test_a_run_is_described_by_what_yaml_gives_back(started):
    out, run = started
    assert yaml.safe_load((out / "config.yaml").read_text()) == run.to_dict()
