"""Hostile files, offered to the real verbs: no code of theirs runs, each is refused in one sentence, none hangs.

The canary is a file that the code in the payload would write. The controls are readers as many are written.
"""

import json
import resource
import shutil
import signal
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout, suppress
from io import StringIO
from pathlib import Path

import numpy as np
import pytest
import torch
from fakes import CAPTIONS, tiny_bert, tiny_modalities, tiny_model
from torture.hostile_offer import Home, Offer
from torture.hostile_offers import offers
from torture.ledger import record

from gapless.captioning.captioner import assemble_captioner
from gapless.cli.main import main
from gapless.core.files import write_text
from gapless.models.tokenizers import train_tokenizer

SECONDS = 60  # of one offer, on a busy machine; the median is some hundredths
MEMORY = 3 << 30  # address space that one offer may add
EXPECTED = {"out", "e", "out.skipped.jsonl"}  # unfinished, which no reader takes for whole
SHORT_SHARE = 12  # every 12th offer in the default suite
DECODER = {"model_type": "bert", "hidden_size": 24, "num_attention_heads": 2, "num_hidden_layers": 1}
OPEN_CLIP = {
    "embed_dim": 12,
    "vision_cfg": {"image_size": 32, "layers": 1, "width": 16, "head_width": 8, "patch_size": 8},
    "text_cfg": {"context_length": 20, "vocab_size": 49408, "width": 16, "heads": 2, "layers": 1},
}


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Home:
    """Good files of every kind."""
    home = Home(tmp_path_factory.mktemp("code"))
    np.save(home / "good.npy", np.random.default_rng(0).standard_normal((16, 8)).astype(np.float32))
    tiny_model(modalities=tiny_modalities()).save_pretrained(home / "model")
    captioner = assemble_captioner(tiny_model(), DECODER, CAPTIONS, use_patches=True, max_tokens=16, vocab_size=400)
    captioner.save_pretrained(home / "captioner")
    write_bert(home / "bert")
    write_open_clip(home / "open_clip")
    sizes = ["--num_pairs", 24, "--num_validation", 4, "--num_test", 8, "--image_size", 16]
    for words in (
        ["data", "phantom", "--out", home / "m", *sizes],
        ["embed", home / "model", "--data", home / "m", "--out", home / "embeddings"],
        ["index", home / "model", "--data", home / "m", "--out", home / "collection"],
    ):
        assert main([str(word) for word in words]) == 0
    shutil.copytree(home / "model", home / "run" / "model")
    write_text(home / "run" / "config.yaml", "recipe: x\n")
    return home


def write_bert(directory: Path) -> None:
    """A text encoder with its tokenizer, as transformers saves one."""
    from transformers import BertConfig, BertModel

    spec = {key: value for key, value in tiny_bert(400).items() if key != "model_type"}
    BertModel(BertConfig(**spec)).save_pretrained(directory)
    train_tokenizer(CAPTIONS, 400, 32).save_pretrained(directory)


def write_open_clip(directory: Path) -> None:
    from open_clip.model import CLIP
    from safetensors.torch import save_file

    directory.mkdir()
    torch.manual_seed(0)
    weights = {name: tensor.contiguous() for name, tensor in CLIP(**OPEN_CLIP).state_dict().items()}
    save_file(weights, directory / "open_clip_model.safetensors")
    described = {"model_cfg": OPEN_CLIP, "preprocess_cfg": {"size": [32, 32], "mean": [0.5] * 3, "std": [0.5] * 3}}
    (directory / "open_clip_config.json").write_text(json.dumps(described))


@contextmanager
def bounded() -> Iterator[None]:
    """Time and address space; both end as exceptions inside."""

    def too_long(*_: object) -> None:
        raise TimeoutError(f"more than {SECONDS} s")

    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    before = resource.getrlimit(resource.RLIMIT_AS)
    handler = signal.signal(signal.SIGALRM, too_long)
    resource.setrlimit(resource.RLIMIT_AS, (used + MEMORY, before[1]))
    signal.alarm(SECONDS)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, handler)
        resource.setrlimit(resource.RLIMIT_AS, before)


def fault_of(offer: Offer, place: Path) -> str | None:
    """What is wrong with what an offer led to."""
    canary, out, err = place / "canary", StringIO(), StringIO()
    words = [str(word) for word in offer.make(place, canary)]
    (place / "secret.png").write_bytes(b"the secret of another file")
    before = set(place.iterdir())
    start = time.monotonic()
    with redirect_stdout(out), redirect_stderr(err):
        try:
            with bounded():
                code = main(words)
        except BaseException as error:
            return f"{type(error).__name__}: {error}"
    seconds = time.monotonic() - start
    if canary.exists():
        return "the code ran"
    told = [line for line in err.getvalue().split("\n") if line.startswith("gapless: ")]
    said = err.getvalue()
    if code not in (1, 2, 3, 4):
        return f"exit code {code}: {said[-200:]}"
    if len(told) != 1 or not said.endswith(f"{told[0]}\n") or "Traceback" in said:
        return f"no single sentence: {said[-400:]!r}"
    if "--debug shows where" in told[0]:
        return f"not foreseen: {told[0][:300]}"
    if ("more than" in told[0] and "TimeoutError" in told[0]) or seconds > SECONDS:
        return f"{seconds:.0f} s"
    if len(told[0]) > 1500:
        return f"a sentence of {len(told[0])} characters"
    left = {path.name for path in place.iterdir()} - {path.name for path in before} - EXPECTED
    return f"left {sorted(left)}" if left else None


def faults_of(chosen: list[Offer], place: Path) -> dict[str, str]:
    faults = {}
    for number, offer in enumerate(chosen):
        (place / str(number)).mkdir()
        fault = fault_of(offer, place / str(number))
        if fault is not None:
            faults[offer.name] = fault
        shutil.rmtree(place / str(number))
    return faults


def check(home: Home, place: Path, share: int) -> None:
    chosen = offers(home)[::share]
    faults = faults_of(chosen, place)
    ran = sum(fault == "the code ran" for fault in faults.values())
    record("hostile files", offered=len(chosen), executions=ran, refused=len(chosen) - len(faults))
    assert faults == {}, "\n".join(f"{name}: {fault}" for name, fault in faults.items())


def test_a_share_of_the_hostile_files_is_refused_in_one_sentence(home: Home, tmp_path: Path) -> None:
    check(home, tmp_path, SHORT_SHARE)


@pytest.mark.torture
def test_every_hostile_file_is_refused_in_one_sentence(home: Home, tmp_path: Path) -> None:
    assert len(offers(home)) >= 200
    assert len({offer.name for offer in offers(home)}) == len(offers(home))
    check(home, tmp_path, 1)


def runs_code(offer: Offer, place: Path) -> bool:
    """Whether the careless reader of an offer's file runs its code."""
    canary = place / "canary"
    offer.make(place, canary)
    assert offer.careless is not None
    with redirect_stdout(StringIO()), redirect_stderr(StringIO()), warnings.catch_warnings(), suppress(Exception):
        warnings.simplefilter("ignore")
        opened = offer.careless(place / offer.file)
        del opened
    return canary.exists()


@pytest.mark.parametrize("share", [SHORT_SHARE, pytest.param(1, marks=pytest.mark.torture)])
def test_the_control_careless_readers_run_the_code(home: Home, tmp_path: Path, share: int) -> None:
    carrying = [offer for offer in offers(home)[::share] if offer.careless is not None]
    harmless = []
    for number, offer in enumerate(carrying):
        (tmp_path / str(number)).mkdir()
        if not runs_code(offer, tmp_path / str(number)):
            harmless.append(offer.name)
    record("hostile files (control)", carrying=len(carrying), executions=len(carrying) - len(harmless))
    assert not harmless, "\n".join(harmless)
