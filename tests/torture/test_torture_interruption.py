"""Killed at any moment and run again: what is written equals what an uninterrupted run writes, and half of it is never
taken for the whole.

Every verb runs as a process of its own that is killed (SIGKILL) or interrupted (SIGINT) at a random moment, once or
twice, and is then let go through. The control is a writer as many are written, under the same kills.
"""

import json
import os
import random
import shutil
import signal
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from command_server import CommandServer, shared_server
from fakes import CAPTIONS, tiny_modalities, tiny_model
from torture.ledger import record

from gapless.captioning.caption_files import read_captions
from gapless.captioning.captioner import assemble_captioner
from gapless.cli.main import main
from gapless.core.errors import DataRefused, UsageError
from gapless.embeddings.store import read_embeddings
from gapless.manifest.manifest import Manifest
from gapless.search.collection import Collection

DECODER = {"model_type": "bert", "hidden_size": 24, "num_attention_heads": 2, "num_hidden_layers": 1}
NUM_PAIRS = 120
IN_USE = 2  # what a verb says of a finished output that it does not write twice


@dataclass(frozen=True)
class Work:
    """One verb under torture.

    Args:
        words: the command that writes into an output path.
        opened: what a reader of the output gets, in a form that can be compared; it raises where there is no whole one.
        before: what stands at the output path before the command, if anything.
    """

    words: Callable[[Path], list[object]]
    opened: Callable[[Path], Any]
    before: Path | None = None


def bytes_below(directory: Path) -> dict[str, bytes]:
    """Every file, hidden ones too, also those beside that carry the name."""
    beside = [entry for entry in directory.parent.iterdir() if directory.name in entry.name]
    files = [file for entry in beside for file in ([entry] if entry.is_file() else entry.rglob("*")) if file.is_file()]
    return {str(file.relative_to(directory.parent)): file.read_bytes() for file in files}


def opened_with(reader: Callable[[Path], Any]) -> Callable[[Path], Any]:
    def opened(path: Path) -> Any:
        reader(path)
        return bytes_below(path)

    return opened


def rows_of(path: Path) -> Any:
    """The rows of a collection, vectors to the bit."""
    table = Collection.open(path).table.to_arrow().sort_by("row")
    tables = {entry.name for entry in path.iterdir() if entry.name != "staging"}
    assert tables == {"rows.lance", "balance.lance"}
    return table


def every_image(path: Path) -> None:
    manifest = Manifest.read(path)
    for row in range(len(manifest)):
        manifest.image_path(row).stat()


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two models, a manifest, one with other captions and more rows, and a table of images."""
    home = tmp_path_factory.mktemp("interruption")
    tiny_model(modalities=tiny_modalities()).save_pretrained(home / "model")
    torch.manual_seed(0)  # it has learnt nothing, so that captions are long
    captioner = assemble_captioner(tiny_model(), DECODER, CAPTIONS, use_patches=True, max_tokens=30, vocab_size=400)
    captioner.save_pretrained(home / "captioner")
    sizes = ["--num_validation", 6, "--num_test", 40, "--image_size", 16]
    assert main([str(word) for word in ["data", "phantom", "--num_pairs", NUM_PAIRS, *sizes, "--out", home / "m"]]) == 0
    images = Manifest.read(home / "m")
    names = [str(images.image_path(row).relative_to(home)) for row in range(NUM_PAIRS)]
    tables = {"rows": [(name, f"{CAPTIONS[row % 6]} {row}") for row, name in enumerate(names)]}
    tables["half"] = [(name, f"{text} of before") for name, text in tables["rows"][::3]]
    for name, rows in tables.items():
        lines = [json.dumps({"image": image, "caption": text}) + "\n" for image, text in rows]
        (home / f"{name}.jsonl").write_text("".join(lines))
        assert main(["data", "table", str(home / f"{name}.jsonl"), "--out", str(home / name)]) == 0
    words = ["index", home / "model", "--data", home / "half", "--out", home / "collection"]
    assert main([str(word) for word in words]) == 0
    return home


@pytest.fixture(scope="module")
def prepared() -> CommandServer:
    return shared_server()


def works(place: Path) -> dict[str, Work]:
    phantom = ["--num_pairs", NUM_PAIRS, "--num_validation", 6, "--num_test", 40, "--image_size", 16, "--workers", 1]
    table = ["data", "table", place / "rows.jsonl", "--store_images", "true", "--workers", 1, "--out"]
    embed = ["embed", place / "model", "--data", place / "m", "--batch_size", 7, "--shard_size", 16, "--out"]
    index = ["index", place / "model", "--batch_size", 7, "--data"]
    caption = ["caption", "generate", place / "captioner", "--data", place / "m", "--batch_size", 4, "--out"]
    naive = f"{Path(__file__).with_name('naive_writer.py')}:write_naively"
    return {
        "data phantom": Work(lambda out: ["data", "phantom", *phantom, "--out", out], opened_with(every_image)),
        "data table": Work(lambda out: [*table, out], opened_with(every_image)),
        "embed": Work(lambda out: [*embed, out], opened_with(read_embeddings)),
        "caption generate": Work(lambda out: [*caption, out, "--method", "sample"], opened_with(read_captions)),
        "index": Work(lambda out: [*index, place / "m", "--out", out], rows_of),
        "index --update": Work(
            lambda out: [*index, place / "rows", "--update", "--out", out], rows_of, place / "collection"
        ),
        "a naive writer": Work(lambda out: [naive, out], bytes_below),
    }


@dataclass
class Tally:
    """What became of the interruptions."""

    runs: int = 0
    interrupted: int = 0
    half_taken: int = 0
    unequal: int = 0
    unclear: int = 0  # ends other than by the signal, with 130, or well


def torture(work: Work, prepared: CommandServer, place: Path, count: int, seed: int) -> Tally:
    """So many outputs, each interrupted once or twice and then finished; more where none was hit before its end."""
    drawn = random.Random(seed)
    log = place / "log"

    def fresh(name: str) -> Path:
        out = place / name / "out"
        out.parent.mkdir(parents=True)
        if work.before is not None:
            shutil.copytree(work.before, out)
        return out

    whole_at = fresh("whole")
    start = time.monotonic()
    assert prepared.start(*work.words(whole_at), streams=(log, log)).wait() == 0, log.read_text()
    seconds = time.monotonic() - start
    whole = work.opened(whole_at)
    allowed = [whole] if work.before is None else [whole, work.opened(work.before)]
    tally = Tally()
    for number in range(4 * count):
        if number >= count and tally.interrupted:
            break
        out = fresh(str(number))
        for _ in range(drawn.choice([1, 1, 2])):
            was_whole = is_one_of([whole], work, out)
            running = prepared.start(*work.words(out), streams=(log, log))
            time.sleep(drawn.uniform(0.0, seconds))
            with suppress(ProcessLookupError):
                os.kill(running.pid, drawn.choice([signal.SIGKILL, signal.SIGINT]))
            code = running.wait()
            tally.runs += 1
            tally.interrupted += code != 0
            tally.unclear += code not in (0, 130, -signal.SIGKILL) and not (code == IN_USE and was_whole)
            tally.half_taken += is_one_of(allowed, work, out) is False
        was_whole = is_one_of([whole], work, out)
        code = prepared.start(*work.words(out), streams=(log, log)).wait()
        if is_one_of([whole], work, out) and (code == 0 or (code == IN_USE and was_whole)):
            shutil.rmtree(out.parent)
        else:  # stays, to be looked at
            tally.unequal += 1
    return tally


def is_one_of(allowed: list[Any], work: Work, out: Path) -> bool | None:
    """Whether a reader of the output gets one of these; None where it gets nothing."""
    try:
        found = work.opened(out)
    except (DataRefused, UsageError, FileNotFoundError):
        return None
    return any(found.equals(one) if hasattr(one, "equals") else found == one for one in allowed)


def check(name: str, place: Path, prepared: CommandServer, tmp_path: Path, count: int) -> None:
    tally = torture(works(place)[name], prepared, tmp_path, count, seed=count)
    record(f"interrupted {name}", **vars(tally))
    assert (tally.half_taken, tally.unequal, tally.unclear) == (0, 0, 0), (tmp_path / "log").read_text()[-3000:]
    assert tally.interrupted > 0


SHORT = {"data phantom": 2, "data table": 2, "embed": 3, "caption generate": 3, "index": 1}
LONG = dict.fromkeys(["data phantom", "data table", "embed", "caption generate"], 25) | {
    "index": 12,
    "index --update": 12,
}


@pytest.mark.parametrize("name", SHORT)
def test_interrupted_and_run_again(name: str, place: Path, prepared: CommandServer, tmp_path: Path) -> None:
    check(name, place, prepared, tmp_path, SHORT[name])


@pytest.mark.torture
@pytest.mark.parametrize("name", LONG)
def test_interrupted_and_run_again_at_length(name: str, place: Path, prepared: CommandServer, tmp_path: Path) -> None:
    check(name, place, prepared, tmp_path, LONG[name])


def test_the_control_a_naive_writer_fails(place: Path, prepared: CommandServer, tmp_path: Path) -> None:
    tally = torture(works(place)["a naive writer"], prepared, tmp_path, count=10, seed=0)
    record("interrupted naive writer (control)", **vars(tally))
    assert tally.half_taken > 0
    assert tally.unequal > 0
