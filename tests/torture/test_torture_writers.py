"""Two writers on one run: one wins, and the other is told so; the lock ends with the process that held it."""

import os
import signal
import time
from contextlib import nullcontext
from pathlib import Path
from unittest.mock import patch

import pytest
import yaml
from command_server import shared_server
from fakes import tiny_modalities, tiny_model
from ledger import record
from processes import exit_code, forked

from gapless.cli.main import main
from gapless.core import locks as writers
from gapless.core.errors import UsageError
from gapless.core.locks import LOCK_FILE, only_writer
from gapless.manifest.readers.phantom import write_phantom
from gapless.training.checkpoint import newest_valid

TOLD = 2  # the exit code of a usage error
TRAINING = ("--training.num_train_epochs=2", "--training.per_device_train_batch_size=16", "--training.use_cpu=true")
DECODER = ("--decoder.hidden_size=24", "--decoder.num_attention_heads=2", "--decoder.num_hidden_layers=1")


def contend(directory: Path, num_writers: int, locked: bool) -> list[int]:
    """Processes that start at one moment, each to write a file alone and to read it back; their exit codes."""
    gate_out, gate_in = os.pipe()
    directory.mkdir()
    (directory / "kept").touch()  # so that the first one to end does not remove it all

    def write() -> None:
        os.close(gate_in)
        os.read(gate_out, 1)  # until the gate opens
        with only_writer(directory) if locked else nullcontext():
            own = str(os.getpid())
            (directory / "owner").write_text(own)
            time.sleep(0.05)
            assert (directory / "owner").read_text() == own

    processes = [forked(write) for _ in range(num_writers)]
    os.close(gate_out)
    os.close(gate_in)
    return [exit_code(process) for process in processes]


def check_contention(tmp_path: Path, rounds: int, capfd) -> None:
    ours = [contend(tmp_path / f"locked{number}", 4, locked=True) for number in range(rounds)]
    control = [contend(tmp_path / f"free{number}", 4, locked=False) for number in range(rounds)]
    capfd.readouterr()  # what the losers were told, four a round
    with capfd.disabled():
        record(
            "writers",
            rounds=rounds,
            rounds_without_a_winner=sum(0 not in codes for codes in ours),
            overwritten=sum(1 in codes for codes in ours),
            rounds_overwritten_without_the_lock=sum(1 in codes for codes in control),
        )
    assert all(set(codes) <= {0, TOLD} and 0 in codes for codes in ours), ours
    assert any(1 in codes for codes in control)


def test_one_of_many_writers_wins_short(tmp_path, capfd):
    check_contention(tmp_path, 5, capfd)


@pytest.mark.torture
def test_one_of_many_writers_wins(tmp_path, capfd):
    check_contention(tmp_path, 100, capfd)


def test_the_lock_ends_with_its_process_although_its_children_live(tmp_path):
    """A loader's workers outlive a trainer that is killed by some seconds; in the control they inherit the lock."""

    def told_after_the_kill(keep: bool) -> bool:
        reading, writing = os.pipe()

        def hold() -> None:
            inherited = patch.object(writers, "not_inherited", lambda stream: nullcontext())
            with inherited if keep else nullcontext(), only_writer(tmp_path / "run"):
                child = forked(lambda: time.sleep(30))
                os.write(writing, child.to_bytes(4, "little"))
                time.sleep(30)

        holder = forked(hold)
        child = int.from_bytes(os.read(reading, 4), "little")
        with pytest.raises(UsageError, match="another process is writing"), only_writer(tmp_path / "run"):
            pass
        os.kill(holder, signal.SIGKILL)
        exit_code(holder)
        try:
            with only_writer(tmp_path / "run"):
                return False
        except UsageError:
            return True
        finally:
            os.kill(child, signal.SIGKILL)
            os.close(reading)
            os.close(writing)

    assert not told_after_the_kill(keep=False)
    assert told_after_the_kill(keep=True)


# --- real processes -----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Path:
    home = tmp_path_factory.mktemp("writers")
    write_phantom(home / "data", num_pairs=80, num_validation=16, num_test=8, image_size=16)
    tiny_model(modalities=tiny_modalities()).save_pretrained(home / "aligner")
    recipe = {"modalities": tiny_modalities(), "embedding_dim": 24, "vocab_size": 400}
    (home / "tiny.yaml").write_text(yaml.safe_dump(recipe))
    return home


COMMANDS = {
    "train": ("train", "phantom-small", "--config", "tiny.yaml", *TRAINING),
    "caption train": ("caption", "train", "aligner", "--max_tokens=16", *DECODER, *TRAINING),
    "compare": ("compare", "--methods=clip", "--seeds=1", "--num_bootstrap=0", "--config", "tiny.yaml", *TRAINING),
}


def check_two(place: Path, verb: str) -> None:
    """The same command twice at one moment."""
    out = place / verb.replace(" ", "-")
    words = [*COMMANDS[verb], "--data", "data", "--out", out.name]
    two = [process.communicate() for process in [shared_server().start(*words, cwd=place) for _ in range(2)]]
    told = [done.stderr for done in two]
    codes = sorted(done.returncode for done in two)
    loser = next((done.stderr for done in two if done.returncode), "")
    record(f"two writers, {verb}", won=codes.count(0), told=codes.count(TOLD))
    assert codes == [0, TOLD], told
    assert "another process is writing" in loser or "in use" in loser
    assert "Traceback" not in loser
    assert not list(out.rglob(LOCK_FILE))
    assert newest_valid(out / "checkpoints")[0] is not None
    assert (out / "model" / "model.safetensors").exists()


def test_two_trainings_on_one_run_short(place):
    check_two(place, "train")


@pytest.mark.torture
@pytest.mark.parametrize("verb", ["train", "caption train"])
def test_two_commands_on_one_run(place, verb):
    check_two(place, verb)


@pytest.mark.torture
def test_a_comparison_that_another_process_writes_is_left_alone(place, monkeypatch, capsys):
    """Held here: of two that start together the later one may find a finished comparison, which it keeps."""
    monkeypatch.chdir(place)
    words = [*COMMANDS["compare"], "--data", "data", "--out", "compare"]
    with only_writer(place / "compare"):
        assert main(words) == TOLD
        assert [entry.name for entry in (place / "compare").iterdir()] == [LOCK_FILE]
    assert "another process is writing" in capsys.readouterr().err
