"""What a reviewer asks of a report: sources, number of comparisons, what did not work, how to repeat it, the audit."""

import shlex
from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
from fake_comparison import write_comparison

import gapless
from gapless.cli.main import main
from gapless.core.errors import UsageError
from gapless.core.files import write_json
from gapless.manifest.readers.phantom import write_phantom
from gapless.study.method_sources import UNKNOWN, method_sources
from gapless.study.multiplicity import multiplicity_of
from gapless.study.question import question_of
from gapless.study.repeat import repeat_of
from gapless.study.report import write_report
from gapless.study.results import Study, read_studies
from gapless.study.shortfalls import NOTHING, shortfalls_of
from gapless.study.table import paper_table
from gapless.training.recipes import apply_method, get_recipe
from gapless.training.run import Run

COSINE, GAP, RECALL = "gap/true_pair_cosine", "gap/centroid_distance", "retrieval/mean/R@10"


def interval(value: float, low: float, high: float) -> dict[str, float]:
    return {"value": value, "low": low, "high": high}


def study_of(differences: dict[str, Any], **changes: Any) -> Study:
    methods = ["clip", *differences]
    figures = {GAP: {"mean": 0.5, "sd": 0.1}, COSINE: {"mean": 0.5, "sd": 0.1}, RECALL: {"mean": 0.5, "sd": 0.1}}
    comparison = {
        "methods": methods,
        "baseline": "clip",
        "seeds": [0, 1, 2],
        "table": {method: dict(figures) for method in methods},
        "differences": differences,
        "runs": {method: [] for method in methods},
    } | changes
    return Study(Path("study"), "study", comparison, {method: [] for method in methods})


def shortfalls(study: Study) -> list[str]:
    return shortfalls_of(study, paper_table(study.comparison))


def test_methods_have_the_sources_that_their_doors_name() -> None:
    study = study_of(
        {"gapless": {}, "clip + center": {}, "nobody's": {}}, closed_afterwards={"clip + center": "center"}
    )
    sources = {one.name: one for one in method_sources(study)}
    assert "2602.20046" in sources["gapless"].source
    assert "2203.02053" in sources["clip + center"].source
    assert sources["clip + center"].kind == "closing method"
    assert sources["nobody's"].summary == UNKNOWN, "a method whose package is absent ends nothing"


def test_the_number_of_comparisons_is_counted_and_the_widening_is_bonferronis() -> None:
    differences = {
        "gapless": {
            GAP: interval(-1.0, -1.1, -0.9),
            COSINE: interval(0.2, 0.01, 0.4),
            RECALL: interval(0.1, -0.1, 0.3),
        },
        "siglip": {GAP: interval(-0.1, -0.3, 0.1), COSINE: {"value": 0.2}, "other/figure": interval(1.0, 0.9, 1.1)},
    }
    study = study_of(differences)
    counted = multiplicity_of(study.comparison, paper_table(study.comparison))
    assert counted is not None
    assert (counted.num_methods, counted.num_figures, counted.num_intervals) == (2, 3, 4)
    assert (counted.num_apart, counted.num_corrected) == (2, 1), "0.2 - 1.274 * 0.19 is below zero"
    assert counted.widening == pytest.approx(2.4977 / 1.9600, abs=1e-3)  # z of 0.05 / 4, from a printed table
    assert "not corrected" in counted.sentences[1]
    assert "about 0.2 of 4" in counted.sentences[1]


def test_without_intervals_no_number_of_comparisons_is_claimed() -> None:
    study = study_of({"gapless": {GAP: {"value": -1.0}}})
    assert multiplicity_of(study.comparison, paper_table(study.comparison)) is None


def test_a_method_that_is_worse_is_named_with_its_figures() -> None:
    differences = {
        "siglip": {GAP: interval(0.2, 0.1, 0.3), COSINE: interval(0.2, 0.1, 0.3), RECALL: interval(0.0, -1.0, 1.0)}
    }
    worse = shortfalls(study_of(differences))[0]
    assert worse.startswith(
        "siglip is worse than clip in 1 of 3 figures that have an interval: centroid distance +0.200 [0.100, 0.300]"
    )
    better = {"siglip": {GAP: interval(-0.2, -0.3, -0.1), COSINE: interval(0.2, 0.1, 0.3)}}
    assert shortfalls(study_of(better))[0] == NOTHING, "the control: a method that is better is no shortfall"


def test_left_out_pairs_lost_runs_and_empty_figures_are_told() -> None:
    study = study_of({}, pairs={"image-ecg": {"n": 1, "left_out": "too few rows"}}, runs={"clip": ["runs/gone"]})
    study.comparison["table"]["clip"][RECALL] = {"mean": None, "sd": None}
    text = "\n".join(shortfalls(study))
    assert "image-ecg has no figures: too few rows (1)." in text
    assert "directories of 1 of its 1 runs are gone" in text
    assert "clip has no value of mean R@10." in text


def test_a_diverged_run_is_told(tmp_path: Path) -> None:
    (tmp_path / "study").mkdir()
    write_comparison(tmp_path / "study", 1)
    log = tmp_path / "study/runs/gapless-seed0/metrics.jsonl"
    log.write_text(log.read_text() + '{"step": 210, "loss/total": null}\n')
    (study,) = read_studies([tmp_path / "study"])
    assert "gapless: the loss of 1 of 1 runs was not finite, first at step 210." in shortfalls(study)


def test_the_question_names_the_methods_and_the_controls() -> None:
    study = study_of({"gapless": {}, "clip + cca": {}}, closed_afterwards={"clip + cca": "cca"})
    assert "does gapless bring" in question_of(study.comparison)
    assert "(clip + cca)" in question_of(study.comparison)


@pytest.fixture
def repeated(tmp_path: Path) -> tuple[Study, dict[str, Any]]:
    """A comparison with other settings than the recipe's, and its plan."""
    path = tmp_path / "my study"
    path.mkdir()
    joint = {
        "image+history_to_text": {"n": 3, "gallery_size": 3, "all_parts": 3, "weights": {"image": 2.0, "history": 1.0}}
    }
    write_comparison(path, 2, joint=joint)
    chosen = replace(
        get_recipe("phantom-small"), training={"max_steps": 3, "lr_scheduler_type": "linear"}, vocab_size=99
    )
    plan: dict[str, Any] = {"split": "validation", "num_bootstrap": 7}
    for method in ("clip", "gapless"):
        for seed in range(2):
            settings = apply_method(chosen, method, {"temperature": 0.2})
            plan[f"{method}-seed{seed}"] = Run("phantom-small", method, seed, settings, "abc").to_dict()
    write_json(path / "plan.json", plan)
    (study,) = read_studies([path])
    return study, plan


def test_the_command_gives_the_plan_again(
    repeated: tuple[Study, dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    study, plan = repeated
    (command,) = repeat_of(study).commands
    given: dict[str, Any] = {}

    def compare(recipe: str, **arguments: Any) -> None:
        given.update(arguments, recipe=recipe)
        raise UsageError("nothing is trained here")

    monkeypatch.setattr(gapless, "compare", compare, raising=False)
    assert main(shlex.split(command)[1:]) == 2
    again: dict[str, Any] = {"split": given["split"], "num_bootstrap": given["num_bootstrap"]}
    for method in given["methods"]:
        settings = apply_method(given["settings"], method, given["loss"])
        for seed in given["seeds"]:
            again[f"{method}-seed{seed}"] = Run(given["recipe"], method, seed, settings, "abc").to_dict()
    assert again == plan
    assert given["joint"] == ["image=2+history->text"]
    assert given["closed_afterwards"] == []
    assert str(given["out"]) == "my study"


def test_digests_are_those_of_the_files_and_other_seeds_have_no_command(
    repeated: tuple[Study, dict[str, Any]],
) -> None:
    study, plan = repeated
    model = study.path / "runs/clip-seed1/model"
    model.mkdir()
    (model / "config.json").write_text("{}")
    (model / "model.safetensors").write_bytes(b"weights")
    assert repeat_of(study).digests == [("clip-seed1", "model.safetensors", sha256(b"weights").hexdigest())]
    plan["clip-seed0"]["seed"] = 5
    write_json(study.path / "plan.json", plan)
    assert not repeat_of(study).commands
    assert "were given in Python" in repeat_of(study).notes[0]


def test_the_audit_shows_counts_and_no_value_of_a_row(tmp_path: Path) -> None:
    manifest = write_phantom(tmp_path / "data", num_pairs=40, image_size=32)
    (tmp_path / "study").mkdir()
    write_comparison(tmp_path / "study", 1, runs={})
    write_report([tmp_path / "study"], tmp_path / "report.html", audited=manifest)
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert "<h2>The data, audited</h2>" in page
    assert "kept 40" in page
    assert "made from other data than this manifest" in page
    values = [str(value) for name in ("id", "group") for value in manifest.table[name].to_pylist()]
    values += [caption[:40] for caption in manifest.first_captions if caption]
    assert not [value for value in values if len(value) > 5 and value in page]
    assert str(tmp_path) not in page
    write_report([tmp_path / "study"], tmp_path / "cases.html", manifest=manifest)
    shown = (tmp_path / "cases.html").read_text(encoding="utf-8")
    assert [value for value in values if len(value) > 5 and value in shown], "the control: asked for, rows are shown"
