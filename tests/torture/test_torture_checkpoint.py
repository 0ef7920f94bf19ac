"""Checkpoints under SIGKILL, a failing disk and damage: nothing acknowledged is lost, nothing broken is used."""

import mmap
import os
import random
import select
import shutil
import signal
import time
from contextlib import suppress
from pathlib import Path

import pytest
from faults import KINDS, SHORT, Faults
from ledger import record
from processes import exit_code, forked

from gapless.core.files import PARTIAL_MARK
from gapless.training.checkpoint import checkpoints_of, newest_valid, publish, remove_unfinished, rotate, step_of

PHASES = IDLE, WRITING, PUBLISHING, ROTATING = range(4)
PHASE_NAMES = ("between", "writing", "publishing", "rotating")
LIMIT = 2


def content_of(step: int) -> dict[str, bytes]:
    """The files of a checkpoint of this step."""
    random_bytes = random.Random(step).randbytes
    return {"model.safetensors": random_bytes(60_000), "optimizer.pt": random_bytes(90_000), "text/vocab": b"%d" % step}


def write_content(directory: Path, step: int) -> None:
    for name, content in content_of(step).items():
        (directory / name).parent.mkdir(parents=True, exist_ok=True)
        (directory / name).write_bytes(content)


def is_whole(directory: Path) -> bool:
    """Whether a checkpoint has, byte for byte, what was saved; the judge of every writer here, which trusts no seal."""
    expected = content_of(step_of(directory))
    try:
        return all((directory / name).read_bytes() == content for name, content in expected.items())
    except OSError:
        return False


def save(directory: Path, step: int, phase=lambda number: None, acknowledge=lambda step: None) -> None:
    """What the trainer does around `transformers`: write, publish, rotate."""
    final = directory / f"checkpoint-{step}"
    partial = directory / f"{PARTIAL_MARK}{final.name}"
    remove_unfinished(directory)
    phase(WRITING)
    write_content(partial / final.name, step)
    phase(PUBLISHING)
    publish(partial / final.name, final)
    partial.rmdir()
    acknowledge(step)
    phase(ROTATING)
    rotate(directory, LIMIT, None)
    phase(IDLE)


def save_naively(directory: Path, step: int, phase=lambda number: None, acknowledge=lambda step: None) -> None:
    """The control: room is made first, and files are written where they are to be read."""
    phase(ROTATING)
    for old in checkpoints_of(directory):
        shutil.rmtree(old)
    phase(WRITING)
    write_content(directory / f"checkpoint-{step}", step)
    acknowledge(step)
    phase(IDLE)


def last_acknowledged(pipe: int) -> int:
    """The last of the four-byte numbers that came before the writer was killed."""
    received = b""
    while part := os.read(pipe, 65536):
        received += part
    return int.from_bytes(received[len(received) // 4 * 4 - 4 :][:4], "little") if len(received) >= 4 else 0


def killed_writer(directory: Path, writer, delay: float) -> tuple[int, int]:
    """Let a process save in a loop, SIGKILL it after `delay` seconds; the last acknowledged step and where it was."""
    reading, writing = os.pipe()
    shared = mmap.mmap(-1, 1)

    def loop() -> None:
        os.close(reading)
        step = max(map(step_of, checkpoints_of(directory)), default=0)
        os.write(writing, step.to_bytes(4, "little") if step else b"")
        while True:
            step += 1
            writer(
                directory,
                step,
                phase=lambda number: shared.__setitem__(0, number),
                acknowledge=lambda step: os.write(writing, step.to_bytes(4, "little")),
            )

    process = forked(loop)
    os.close(writing)
    select.select([reading], [], [], 30)  # it is at work
    time.sleep(delay)
    os.kill(process, signal.SIGKILL)
    assert exit_code(process) == -signal.SIGKILL
    acknowledged = last_acknowledged(reading)
    os.close(reading)
    return acknowledged, shared[0]


def seconds_of_a_save(directory: Path, writer) -> float:
    directory.mkdir()
    started = time.perf_counter()
    for step in range(1, 6):
        writer(directory, step)
    shutil.rmtree(directory)
    return (time.perf_counter() - started) / 5


def under_kills(directory: Path, writer, num_kills: int, seed: int = 0) -> dict[str, int]:
    """Kill a writer again and again in one directory; every life goes on from what the one before left."""
    directory.mkdir()
    rng = random.Random(seed)
    seconds = seconds_of_a_save(directory.with_name("timed"), writer)
    acknowledged, lost, unusable, phases = 0, 0, 0, [0] * len(PHASES)
    for _ in range(num_kills):
        step, phase = killed_writer(directory, writer, rng.uniform(0, 3 * seconds))
        acknowledged = max(acknowledged, step)
        phases[phase] += 1
        found = checkpoints_of(directory)
        unusable += bool(found) and not is_whole(found[0])
        whole = max((step_of(checkpoint) for checkpoint in found if is_whole(checkpoint)), default=0)
        lost += whole < acknowledged
        acknowledged = whole  # a save is lost once
    counts = {f"killed while {name}": phases[number] for number, name in enumerate(PHASE_NAMES)}
    return {"kills": num_kills, "saves acknowledged": acknowledged, "lost": lost, "unusable newest": unusable} | counts


def check_kills(tmp_path: Path, num_kills: int) -> None:
    ours = under_kills(tmp_path / "ours", save, num_kills)
    control = under_kills(tmp_path / "naive", save_naively, num_kills)
    record("checkpoint kills", **ours)
    record("checkpoint kills, control", **control)
    assert ours["lost"] == ours["unusable newest"] == 0
    newest, passed_over = newest_valid(tmp_path / "ours")
    assert newest is not None
    assert is_whole(newest)
    assert passed_over == {}
    assert ours["killed while publishing"] > 0
    assert control["lost"] > 0
    assert control["unusable newest"] > 0


def test_kills_lose_nothing_short(tmp_path):
    check_kills(tmp_path, 20)


@pytest.mark.torture
def test_kills_lose_nothing(tmp_path):
    check_kills(tmp_path, 200)


# --- a disk that fails --------------------------------------------------------------------------------------------


def save_trustingly(directory: Path, step: int) -> None:
    """The control: as `save`, by a writer that does not look at how much was written, and removes what it can."""
    final = directory / f"checkpoint-{step}"
    for name, content in content_of(step).items():
        (final / name).parent.mkdir(parents=True, exist_ok=True)
        handle = os.open(final / name, os.O_WRONLY | os.O_CREAT)
        os.write(handle, content)
        with suppress(OSError):
            os.fsync(handle)
        os.close(handle)
    for old in checkpoints_of(directory)[LIMIT:]:
        shutil.rmtree(old, ignore_errors=True)


def newest_by_name(directory: Path) -> Path:
    """What a reader takes who trusts names; the control's."""
    return checkpoints_of(directory)[0]


def newest_by_seal(directory: Path) -> Path | None:
    return newest_valid(directory)[0]


def outcome_of(before: Path, writer, reader, faults: Faults) -> str:
    """Save step 3 after what was saved `before`, with faults: 'reported', 'saved' or 'silent'; else 'lost'."""
    directory = before.with_name("run")
    shutil.copytree(before, directory)
    try:
        with faults.injected():
            writer(directory, 3)
    except OSError:
        result = "reported"
    else:
        result = "saved" if reader(directory) == directory / "checkpoint-3" else "silent"
    newest = reader(directory)
    is_usable = newest is not None and is_whole(newest)
    shutil.rmtree(directory)
    if is_usable:
        return result
    return "lost" if result == "reported" else "silent"


def under_faults(tmp_path: Path, writer, reader, step: int = 1) -> dict[str, int]:
    """Every `step`-th call of one save fails, in every way."""
    before, calls = tmp_path / "before", Faults()
    if not before.exists():
        for saved in (1, 2):
            save(before, saved)
    assert outcome_of(before, writer, reader, calls) == "saved"
    counts = dict.fromkeys(("reported", "saved", "silent", "lost"), 0)
    for kind in KINDS:
        for k in range(0, calls.num_writes if kind == SHORT else calls.num_calls, step):
            counts[outcome_of(before, writer, reader, Faults(k, kind))] += 1
    return {"calls of one save": calls.num_calls, "faults": sum(counts.values())} | counts


def check_faults(tmp_path: Path, step: int) -> None:
    ours = under_faults(tmp_path, save, newest_by_seal, step)
    control = under_faults(tmp_path, save_trustingly, newest_by_name)
    record("checkpoint faults", **ours)
    record("checkpoint faults, control", **control)
    assert ours["silent"] == ours["lost"] == 0
    assert ours["reported"] > 0
    assert control["silent"] > 0


def test_no_failing_call_passes_for_a_save_short(tmp_path):
    check_faults(tmp_path, 7)


@pytest.mark.torture
def test_no_failing_call_passes_for_a_save(tmp_path):
    check_faults(tmp_path, 1)


def test_the_faults_reach_what_they_claim_to(tmp_path):
    """A short write is short; a buffered one goes on after it, as the rules of POSIX ask."""
    with Faults(0, SHORT).injected():
        handle = os.open(tmp_path / "raw", os.O_WRONLY | os.O_CREAT)
        assert os.write(handle, b"abcd") == 2
        os.close(handle)
    with Faults(0, SHORT).injected():
        (tmp_path / "buffered").write_bytes(b"abcd")
    assert (tmp_path / "raw").read_bytes() == b"ab"
    assert (tmp_path / "buffered").read_bytes() == b"abcd"
    for k in range(3):  # open, write; the third call does not exist
        with Faults(k).injected() as faults:
            if k < 2:
                with pytest.raises(OSError, match="Input/output"):
                    (tmp_path / "failing").write_bytes(b"abcd")
            else:
                (tmp_path / "failing").write_bytes(b"abcd")
                assert faults.num_calls == 2
