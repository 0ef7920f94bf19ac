"""Figures of the rows that share nothing with training, beside those of the whole split."""

import json
from collections import Counter

import numpy as np
import pytest
import torch
from fakes import tiny_modalities
from safetensors.torch import load_file

from gapless.auditing.leakage import leaking_rows, manifest_share_in_train
from gapless.core.geometry import unit_norm
from gapless.manifest.readers.phantom import write_phantom
from gapless.metrics.measure import measure
from gapless.study.closed_afterwards import closed_runs
from gapless.study.disjoint_table import disjoint_table, disjoint_to_terminal
from gapless.study.report import report
from gapless.training.disjoint import _drawn, disjoint_figures
from gapless.training.evaluate import EMBEDDINGS, evaluate
from gapless.training.recipes import Recipe
from gapless.training.run import Run, train_run

NUM = 40


@pytest.fixture
def rows():
    torch.manual_seed(0)
    image = unit_norm(torch.randn(NUM, 8))
    return {"image": image, "text": unit_norm(image + 0.8 * torch.randn(NUM, 8))}


@pytest.fixture
def groups():
    return [f"g{row // 2}" for row in range(NUM)]


def test_the_clean_rows_are_measured_alone(rows, groups):
    leaks = [row >= 24 for row in range(NUM)]
    figures = disjoint_figures(rows, leaks, groups, {}, num_bootstrap=0)
    own = measure({name: part[:24] for name, part in rows.items()}, groups=groups[:24], include=("gap", "retrieval"))
    assert figures["n"] == figures["gallery_size"] == 24
    assert figures["figures"] == {key: value for key, value in own.items() if "/" in key}


def test_the_third_column_is_drawn_from_all_rows(rows, groups):
    leaks = [row >= 24 for row in range(NUM)]
    figures = disjoint_figures(rows, leaks, groups, {}, num_bootstrap=0)["same_size"]["figures"]
    drawn = [
        measure(
            {name: part[torch.from_numpy(_drawn(groups, 24, seed))] for name, part in rows.items()}, include=("gap",)
        )
        for seed in range(5)
    ]
    expected = np.mean([one["gap/true_pair_cosine"] for one in drawn])
    assert figures["gap/true_pair_cosine"]["mean"] == pytest.approx(expected, abs=1e-6)


def test_a_draw_keeps_groups_whole(groups):
    drawn = _drawn(groups, 24, seed=3)
    assert len(set(drawn)) == 24
    assert set(Counter(groups[row] for row in drawn).values()) == {2}
    assert set(drawn) != set(_drawn(groups, 24, seed=4))


def test_too_few_clean_rows_are_said(rows, groups):
    figures = disjoint_figures(rows, [True] * (NUM - 1) + [False], groups, {}, num_bootstrap=0)
    assert figures == {"n": 1, "left_out": "fewer than 2 rows share nothing with training"}


def test_rows_that_lack_a_modality(rows, groups):
    rows["text"][3] = float("nan")
    figures = disjoint_figures(rows, [row >= 24 for row in range(NUM)], groups, {}, num_bootstrap=10)
    assert figures["n"] == 23


@pytest.fixture(scope="module")
def evaluated(tmp_path_factory):
    """A run on a manifest of which a third of the test rows has an article of train."""
    folder = tmp_path_factory.mktemp("disjoint")
    data = write_phantom(folder / "data", num_pairs=80, num_validation=0, num_test=30, image_size=16)
    splits, names = data.table["split"].to_pylist(), data.table["group"].to_pylist()
    test = [row for row, split in enumerate(splits) if split == "test"]
    for row in test[:10]:
        names[row] = names[splits.index("train")]
    table = data.table.set_column(data.table.column_names.index("group"), "group", [names])
    leaky = type(data)(data.path, data.info, table)
    recipe = Recipe(tiny_modalities(), embedding_dim=8, vocab_size=300, training={"max_steps": 2, "use_cpu": True})
    train_run(Run("tiny", "gapless-published", 0, recipe, leaky.fingerprint), leaky, folder / "run")
    return leaky, folder / "run", evaluate(folder / "run", data=leaky, num_bootstrap=0)


def test_an_evaluation_holds_both(evaluated):
    data, run, evaluation = evaluated
    leaks = leaking_rows(data, "test")
    assert (
        sum(leaks) / len(leaks)
        == manifest_share_in_train(data, "test")
        == evaluation.data["leakage"]["test_rows_in_train_share"]
    )
    assert evaluation.disjoint["n"] == len(leaks) - sum(leaks) < evaluation.n
    assert json.loads((run / "results.json").read_text())["disjoint"] == evaluation.disjoint


def test_terminal_and_report_show_them(evaluated, tmp_path):
    _, run, evaluation = evaluated
    text = disjoint_to_terminal(evaluation.as_json())
    assert text.splitlines()[0].split("  ")[-1] == "as many of all rows"
    assert f"{evaluation.disjoint['n']} of {evaluation.n} rows" in text
    assert "Rows that share nothing with training" in report([run], out=tmp_path / "r").report.read_text()


def test_nothing_is_added_where_nothing_leaks(evaluated):
    _, _, evaluation = evaluated
    clean = {key: value for key, value in evaluation.as_json().items() if key != "disjoint"}
    assert disjoint_table({"a": [clean]}) is None
    assert disjoint_to_terminal(clean) == ""


def test_a_run_that_is_closed_afterwards_has_figures_of_its_own(evaluated, tmp_path):
    data, run, evaluation = evaluated
    closed = closed_runs({"clip": [run]}, data, tmp_path, "test", 0, ["center"])["clip + center"][0]
    results = json.loads((closed / "results.json").read_text())
    leaks = leaking_rows(data, "test")
    rows = {name: matrix[~torch.tensor(leaks)] for name, matrix in load_file(closed / EMBEDDINGS).items()}
    expected = measure(rows, include=("gap",))["gap/centroid_distance"]
    assert results["disjoint"]["figures"]["gap/centroid_distance"] == pytest.approx(expected, abs=1e-6)
    assert expected != pytest.approx(evaluation.disjoint["figures"]["gap/centroid_distance"], abs=1e-3)
