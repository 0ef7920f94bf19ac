"""Rows that lack a modality: training takes them, and what does not take them yet says so before any work."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from gapless.core.errors import DataRefused, UsageError

RECIPE = """
recipe: table-small
modalities:
  note:
    input: {kind: text, max_length: 16}
    encoder: &tiny
      kind: transformers
      pooling: mean
      config: {model_type: bert, hidden_size: 16, num_hidden_layers: 1, num_attention_heads: 2, intermediate_size: 32}
  history:
    input: {kind: text, max_length: 16}
    encoder: *tiny
anchor: note
embedding_dim: 8
vocab_size: 200
training: {max_steps: 2, per_device_train_batch_size: 8, eval_strategy: "no", save_strategy: "no"}
"""


def gapless(*words: str, place: Path) -> "subprocess.CompletedProcess[str]":
    return subprocess.run([sys.executable, "-m", "gapless", *words], cwd=place, capture_output=True, text=True)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("absent")
    rows = [
        {
            "id": f"r{row}",
            "note": f"mass in lobe {row}",
            "history": None if row % 3 == 0 else f"cough {row}",
            "split": part,
        }
        for row, part in enumerate(["train"] * 24 + ["validation"] * 6 + ["test"] * 6)
    ]
    (place / "t.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    (place / "own.yaml").write_text(RECIPE)
    named = ("--modality", "note=text:note", "--modality", "history=text:history", "--split-key", "split")
    for out, options in (("data", ("--min-present", "1")), ("complete", ("--missing", "drop"))):
        built = gapless("data", "table", "t.jsonl", *named, *options, "--out", out, place=place)
        assert built.returncode == 0, built.stderr
    trained = gapless("train", "--config", "own.yaml", "--data", "data", "--out", "run", place=place)
    assert trained.returncode == 0, trained.stderr
    assert "left out: they have fewer than two of note, history" in trained.stderr
    return place


@pytest.mark.parametrize("verb", ["embed", "index"])
def test_rows_that_lack_a_modality_are_refused_by_name(place: Path, verb: str) -> None:
    refused = gapless(verb, "run", "--data", "data", "--out", f"{verb}-data", place=place)
    assert refused.returncode == DataRefused.exit_code
    assert "of 36 rows of data 12 lack history" in refused.stderr
    assert "--missing drop" in refused.stderr
    assert not (place / f"{verb}-data").exists()
    done = gapless(verb, "run", "--data", "complete", "--out", f"{verb}-complete", place=place)
    assert done.returncode == 0, done.stderr


def test_a_captioner_names_the_text_that_it_needs(place: Path) -> None:
    refused = gapless("caption", "train", "run", "--data", "complete", "--out", "captioner", place=place)
    assert refused.returncode == UsageError.exit_code
    assert len(refused.stderr.strip().splitlines()) == 1
    assert not (place / "captioner").exists()
