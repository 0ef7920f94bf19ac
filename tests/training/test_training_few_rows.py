"""Splits of no row, one row or two: an evaluation, a sentence that there is none, or a refusal before the work."""

import json
import logging

import numpy as np
import pyarrow as pa
import pytest
from fakes import tiny_modalities

from gapless.captioning.scores import score_captions
from gapless.cli.main import main
from gapless.closing.close import close_gap, split_rows
from gapless.core.errors import DataRefused, UsageError
from gapless.manifest.manifest import Manifest
from gapless.manifest.readers.phantom import write_phantom
from gapless.study.compare import compare
from gapless.training.evaluate import comparable_rows, evaluate
from gapless.training.recipes import Recipe
from gapless.training.run import Run, train_run

SENTENCE = "nothing is evaluated during this training"


@pytest.fixture(scope="module")
def phantom(tmp_path_factory):
    return write_phantom(
        tmp_path_factory.mktemp("data") / "phantom", num_pairs=24, num_validation=1, num_test=1, image_size=16
    )


def with_splits(manifest, **sizes) -> Manifest:
    """The rows with their splits given anew: so many of each, and `train` for the others."""
    splits = [name for name, size in sizes.items() for _ in range(size)]
    splits += ["train"] * (len(manifest) - len(splits))
    column = manifest.table.column_names.index("split")
    return Manifest(manifest.path, manifest.info, manifest.table.set_column(column, "split", pa.array(splits)))


def recipe(**training) -> Recipe:
    return Recipe(
        modalities=tiny_modalities(),
        embedding_dim=24,
        vocab_size=400,
        augment_images=False,
        training={
            "num_train_epochs": 1,
            "per_device_train_batch_size": 8,
            "eval_strategy": "epoch",
            "save_strategy": "no",
            **training,
        },
    )


def run_of(data, **training) -> Run:
    return Run("tiny", "gapless", 0, recipe(**training), data.fingerprint)


def evaluated(directory) -> bool:
    file = directory / "metrics.jsonl"
    lines = file.read_text().splitlines() if file.exists() else []
    return any(name.startswith("eval/") for line in lines for name in json.loads(line))


@pytest.mark.parametrize(
    ("count", "what"), [(0, "no validation rows"), (1, "one validation row"), (2, None), (5, None)]
)
def test_training_evaluates_or_says_that_it_does_not(phantom, tmp_path, caplog, count, what):
    data = with_splits(phantom, validation=count)
    with caplog.at_level(logging.WARNING):
        train_run(run_of(data), data, tmp_path / "run")
    assert evaluated(tmp_path / "run") == (what is None)
    said = [record.getMessage() for record in caplog.records if SENTENCE in record.getMessage()]
    assert len(said) == (what is not None)
    assert all(what in text and str(phantom.path) in text and "at least 2 rows" in text for text in said)


@pytest.mark.parametrize("strategy", ["no", False])
def test_a_training_that_asks_for_no_evaluation_hears_nothing(phantom, tmp_path, caplog, strategy):
    data = with_splits(phantom, validation=1)
    with caplog.at_level(logging.WARNING):
        train_run(run_of(data, eval_strategy=strategy), data, tmp_path / "run")
    assert SENTENCE not in caplog.text


def test_evaluate_refuses_a_split_of_one_row_and_one_of_none(phantom, tmp_path):
    data = with_splits(phantom, test=1)
    train_run(run_of(data, eval_strategy="no"), data, tmp_path / "run")
    with pytest.raises(DataRefused, match=r"has 1 row in split 'test', and figures compare at least 2 rows"):
        evaluate(tmp_path / "run", data=data, num_bootstrap=0)
    with pytest.raises(UsageError, match="no rows in split 'validation'"):
        evaluate(tmp_path / "run", data=data, split="validation", num_bootstrap=0)
    assert not (tmp_path / "run" / "results.json").exists()
    assert evaluate(tmp_path / "run", data=with_splits(phantom, test=9), num_bootstrap=0).n == 9, "the control"


def test_compare_refuses_before_it_trains(phantom, tmp_path):
    data = with_splits(phantom, test=1)
    with pytest.raises(DataRefused, match="1 row in split 'test'"):
        compare("tiny", settings=recipe(), data=data, methods=["clip"], seeds=[0], out=tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_captions_of_one_row_are_not_scored(phantom):
    """CIDEr would weigh every word with log 1 = 0, and each image would be found among itself alone."""
    with pytest.raises(DataRefused, match="1 row in split 'test'"):
        score_captions({}, with_splits(phantom, test=1))


def test_two_rows_can_be_compared(phantom):
    assert len(comparable_rows(with_splits(phantom, test=2), "test")) == 2


@pytest.mark.parametrize(("count", "speaks"), [(0, False), (1, True), (2, False)])
def test_close_says_when_it_holds_back_train_rows_instead_of_a_validation_row(caplog, count, speaks):
    splits = ["validation"] * count + ["train"] * 20
    with caplog.at_level(logging.WARNING):
        training, held = split_rows(np.arange(len(splits)), splits, 0.1, seed=0)
    assert ("1 validation row is too few" in caplog.text) == speaks
    assert (set(held) == set(range(count))) == (count >= 2)
    assert not set(training) & set(held)
    assert all(splits[row] == "train" for row in training)


@pytest.mark.parametrize("num_rows", [0, 1, 2, 3])
def test_close_refuses_too_few_rows(tmp_path, capsys, num_rows):
    rows = np.random.default_rng(0).normal(size=(num_rows, 6)).astype(np.float32)
    with pytest.raises(DataRefused, match=rf"{num_rows} row.*at least 4 groups"):
        close_gap({"image": rows, "text": rows[::-1].copy()}, method="procrustes", out=tmp_path / "closed")
    np.save(tmp_path / "a.npy", rows)
    out = str(tmp_path / "closed")
    assert main(["close", "--image", str(tmp_path / "a.npy"), "--text", str(tmp_path / "a.npy"), "--out", out]) == 3
    assert "Traceback" not in capsys.readouterr().err
    assert not (tmp_path / "closed").exists()
