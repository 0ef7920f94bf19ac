"""Rows that lack a modality: training takes them, and what does not take them yet says so before any work."""

import json
from pathlib import Path

import numpy as np
import pytest
from command_server import gapless

from gapless.core.errors import DataRefused, UsageError
from gapless.embeddings.store import read_embeddings

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
  exam:
    input: {kind: text, max_length: 16}
    encoder: *tiny
anchor: note
embedding_dim: 8
vocab_size: 200
training: {max_steps: 2, per_device_train_batch_size: 8, eval_strategy: "no", save_strategy: "no"}
"""


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("absent")
    rows = [
        {
            "id": f"r{row}",
            "note": f"mass in lobe {row}",
            "history": None if row % 3 == 0 else f"cough {row}",
            "exam": None if row % 4 == 1 else f"fever {row}",
            "split": part,
        }
        for row, part in enumerate(["train"] * 24 + ["validation"] * 6 + ["test"] * 6)
    ]
    (place / "t.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    (place / "own.yaml").write_text(RECIPE)
    named = (
        "--modality",
        "note=text:note",
        "--modality",
        "history=text:history",
        "--modality",
        "exam=text:exam",
        "--split-key",
        "split",
    )
    for out, options in (("data", ("--min-present", "1")), ("complete", ("--missing", "drop"))):
        built = gapless("data", "table", "t.jsonl", *named, *options, "--out", out, cwd=place)
        assert built.returncode == 0, built.stderr
    trained = gapless("train", "--config", "own.yaml", "--data", "data", "--out", "run", cwd=place)
    assert trained.returncode == 0, trained.stderr
    assert "left out: they have fewer than two of note, history, exam" in trained.stderr
    return place


def test_rows_that_lack_a_modality_are_indexed_without_a_row_for_it(place: Path) -> None:
    done = gapless("index", "run", "--data", "data", "--out", "index-data", cwd=place)
    assert done.returncode == 0, done.stderr
    assert "36 samples added, 0 updated, 0 unchanged; 87 rows" in done.stdout
    done = gapless("index", "run", "--data", "complete", "--out", "index-complete", cwd=place)
    assert done.returncode == 0, done.stderr


def test_rows_that_lack_a_modality_are_embedded_with_a_mask(place: Path) -> None:
    for name in ("data", "complete"):
        done = gapless("embed", "run", "--data", name, "--out", f"embed-{name}", cwd=place)
        assert done.returncode == 0, done.stderr
    masked = read_embeddings(place / "embed-data", missing="keep")
    complete = read_embeddings(place / "embed-complete")
    rows = [row for row in range(36) if row % 12 != 9]  # the others have one modality, which pairs with nothing
    assert masked.ids == [f"t.jsonl:{row + 1}" for row in rows]
    assert masked.presence["history"].tolist() == [row % 3 != 0 for row in rows]
    assert masked.presence["exam"].tolist() == [row % 4 != 1 for row in rows]
    has_all = np.all(list(masked.presence.values()), axis=0)
    for name in ("note", "history", "exam"):  # the texts of a batch are padded alike: rows agree to rounding
        np.testing.assert_allclose(masked.embeddings[name][has_all], complete.embeddings[name], atol=1e-5)
    measured = gapless("measure", "embed-data", "--missing", "keep", "--split", "all", "--json", cwd=place)
    assert measured.returncode == 0, measured.stderr
    alone = gapless("measure", "embed-complete", "--split", "all", "--json", cwd=place)
    results, expected = (json.loads(done.stdout) for done in (measured, alone))
    assert {pair: one["n"] for pair, one in results["pairs"].items()} == {
        "exam-history": 18,
        "exam-note": 27,
        "history-note": 24,
    }
    key = "retrieval/mean/R@10"
    at_complete = results["figures"][f"{key}@complete"]["value"]
    assert at_complete == pytest.approx(expected["figures"][key]["value"], abs=0.05)
    refused = gapless("measure", "embed-data", "--split", "all", cwd=place)
    assert refused.returncode == DataRefused.exit_code
    assert "--missing" in refused.stderr


def test_a_captioner_names_the_text_that_it_needs(place: Path) -> None:
    refused = gapless("caption", "train", "run", "--data", "complete", "--out", "captioner", cwd=place)
    assert refused.returncode == UsageError.exit_code
    assert len(refused.stderr.strip().splitlines()) == 1
    assert not (place / "captioner").exists()
