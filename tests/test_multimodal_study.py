"""`examples/multimodal_study.py` on drawn rows: what it trains, what it goes on from, and what its table says."""

import importlib.util
import json
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch

EXAMPLE = Path(__file__).parent.parent / "examples" / "multimodal_study.py"
NUM_CASES, ROWS_OF_CASE, SIZE = {"train": 24, "dev": 8}, 2, 6


@pytest.fixture(scope="module")
def study() -> ModuleType:
    spec = importlib.util.spec_from_file_location("multimodal_study", EXAMPLE)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Cases of two rows; a third of them lack the exam, one row lacks age and sex."""
    folder = tmp_path_factory.mktemp("medical")
    random = np.random.default_rng(0)
    for split, num_cases in NUM_CASES.items():
        hidden = random.standard_normal((num_cases, SIZE)).repeat(ROWS_OF_CASE, axis=0)
        has_exam = np.arange(len(hidden)) // ROWS_OF_CASE % 3 > 0
        lines = [
            {
                "case": f"{split}{row // ROWS_OF_CASE}",
                "caption": f"caption {row}",
                "history": f"history {row // ROWS_OF_CASE}",
                "exam": f"exam {row // ROWS_OF_CASE}" if has_exam[row] else None,
                "age": None if row == 0 else str(20 + row),
                "sex": "N/A" if row == 0 else ("female", "male")[row % 2],
            }
            for row in range(len(hidden))
        ]
        (folder / f"{split}_multimodal.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
        noisy = {name: hidden + 0.1 * random.standard_normal(hidden.shape) for name in ("image", "text")}
        np.savez(folder / f"features_{split}.npz", **{name: rows.astype(np.float16) for name, rows in noisy.items()})
        np.save(folder / f"history_{split}.npy", hidden.astype(np.float16))
        exam = np.where(has_exam[:, None], hidden, np.nan)
        np.save(folder / f"exam_{split}.npy", exam.astype(np.float16))
    return folder


@pytest.fixture
def run(study: ModuleType, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    """Run the command in this process and give what it wrote, and which arms it trained."""
    trained: list[str] = []
    run_job = study.run_job
    monkeypatch.setattr(study, "NUM_BOOTSTRAP", 40)
    monkeypatch.setattr(study, "run_job", lambda job: trained.append(job.name) or run_job(job))

    def call(*options: str) -> tuple[dict[str, Any], list[str]]:
        trained.clear()
        out = tmp_path / "study.json"
        arguments = [str(EXAMPLE), str(data), "--epochs", "2", "--seeds", "2", "--out", str(out), *options]
        monkeypatch.setattr(sys, "argv", arguments)
        study.main()
        return json.loads(out.read_text()), list(trained)

    return call


def test_each_arm_and_seed_is_trained_once(run: Callable[..., Any]) -> None:
    _, trained = run("--arms", "two", "--seeds", "1")
    assert trained == ["two"]
    both, added = run("--arms", "two;two, clip")
    assert added == ["two, clip", "two", "two, clip"]  # the second seed of one, both of the other
    assert [one["seed"] for one in both["runs"]["two"]] == [0, 1]
    summed, none = run("--arms", "two;two, clip;five", "--workers", "0")
    assert not none
    assert summed["arms"] == both["arms"]
    _, again = run("--arms", "two", "--epochs", "3")
    assert again == ["two", "two"]  # other settings: what is stored is of another training


def test_the_figures_stand_on_the_dev_rows_with_intervals_over_cases(run: Callable[..., Any]) -> None:
    result, _ = run("--arms", "two;five, clip;five", "--seeds", "1")
    five = result["arms"]["five"]
    recall = five["lenient_R@10 image"]
    assert 0 <= recall["low"] <= recall["value"] <= recall["high"] <= 1
    assert five["R@10 image"]["value"] <= recall["value"]
    assert sum(key.startswith("gap/") and "+" not in key for key in five) == 10  # every pair of five modalities
    asked = result["targets"]
    difference = recall["value"] - result["arms"]["two"]["lenient_R@10 image"]["value"]
    assert asked["five: image to text, minus two"]["value"] == pytest.approx(difference)
    assert any("gap over clip" in question for question in asked)


def test_choosing_never_reads_the_dev_rows(run: Callable[..., Any], study: ModuleType, monkeypatch: Any) -> None:
    read, splits = study.read, set()
    monkeypatch.setattr(study, "read", lambda data, arrays, split: splits.add(split) or read(data, arrays, split))
    result, _ = run("--arms", "five, own weights", "--choose", "1")
    assert splits == {"train"}
    (chosen,) = result["runs"]["five, own weights"]
    assert max(chosen["weights"].values()) == 1.0
    assert set(chosen["weights"]) == {"image", "history", "exam", "table"}


def test_absent_rows_change_nothing_and_complete_rows_are_those_with_all_five(study: ModuleType, data: Path) -> None:
    rows, _ = study.with_table(study.read(data, data, "train"), study.read(data, data, "dev"))
    complete = study.trainable(rows, study.ARMS["five, complete rows"])
    assert len(complete.cases) == 32  # of 48 rows, 16 lack the exam, and one of these age and sex
    how = study.Training(hidden=8, size=4, epochs=1, batches=2)
    arm = study.ARMS["five"]
    heads = study.train(rows, arm, arm.loss, 0, how)
    other = {**rows.features, "exam": rows.features["exam"].copy()}
    other["exam"][~rows.present["exam"]] = 7.0
    again = study.train(study.replace(rows, features=other), arm, arm.loss, 0, how)
    for one, same in zip(heads.parameters(), again.parameters(), strict=True):
        assert torch.equal(one, same)
    other["exam"][rows.present["exam"]] += 1.0  # the control: present rows do change something
    changed = study.train(study.replace(rows, features=other), arm, arm.loss, 0, how)
    pairs = zip(heads.parameters(), changed.parameters(), strict=True)
    assert not all(torch.equal(one, different) for one, different in pairs)


def test_an_arm_may_train_differently(study: ModuleType, data: Path) -> None:
    job = study.Job(data, data, "five, weak dropout", 0, None, study.Training(), data)
    assert (job.training.dropout, job.training.hidden) == (0.1, study.Training().hidden)
    assert job.settings != study.replace(job, name="five").settings
