"""Every loss of the table trains, is saved and built again, closes frozen rows, and says at once what it lacks."""

import json
import shutil
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from fakes import tiny_modalities

from gapless.closing.close import close_gap
from gapless.closing.trained_heads import adapter_settings
from gapless.core.errors import UsageError
from gapless.losses.base import FIRST, METHODS
from gapless.losses.pairs import check_settings_names
from gapless.losses.soft_targets import SoftTargetSettings
from gapless.manifest.manifest import Manifest
from gapless.manifest.readers.phantom import write_phantom
from gapless.models.aligner import GaplessModel
from gapless.study.compare import compare
from gapless.training.recipes import Recipe, apply_method
from gapless.training.run import Run, train_run


def takes_two(name: str) -> bool:
    """Whether a method takes two modalities; TRIANGLE takes three."""
    try:
        check_settings_names(METHODS[name].settings, ("image", "text"))
    except UsageError:
        return False
    return True


OTHERS = tuple(name for name in METHODS if name not in FIRST and takes_two(name))
OWN: Mapping[str, Mapping[str, Any]] = {
    "soft-targets": {"label_column": "finding"},
    "clip-swap-hard": {"swap_share": 1.0},
    "clip-swap-soft": {"swap_share": 1.0},
}


@pytest.fixture(scope="module")
def phantom(tmp_path_factory: pytest.TempPathFactory) -> Manifest:
    return write_phantom(tmp_path_factory.mktemp("d") / "p", num_pairs=24, num_validation=8, num_test=8, image_size=16)


def run_of(phantom: Manifest, name: str, **changes: Any) -> Run:
    training = {"max_steps": 3, "per_device_train_batch_size": 8, "use_cpu": True, "logging_steps": 1}
    training |= {"save_strategy": "steps", "save_steps": 2, "eval_strategy": "no"}
    recipe = Recipe(tiny_modalities(), embedding_dim=8, vocab_size=200, training=training)
    return Run("tiny", name, 1, apply_method(recipe, name, {**OWN.get(name, {}), **changes}), phantom.fingerprint)


@pytest.mark.parametrize("name", OTHERS)
def test_it_trains_and_a_saved_model_has_the_loss_that_was_trained(
    phantom: Manifest, tmp_path: Path, name: str
) -> None:
    run = run_of(phantom, name)
    train_run(run, phantom, tmp_path / "run")
    lines = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines if "loss/total" in line] == [1, 2, 3]
    again = GaplessModel.from_pretrained(tmp_path / "run" / "model").loss
    before = METHODS[name].build(run.settings.loss, "text")
    assert again is not None
    assert type(again) is type(before)
    moved = [not torch.equal(p, dict(before.named_parameters())[n]) for n, p in again.named_parameters()]
    assert all(moved)  # what is declared learnable was learned and saved


@pytest.mark.parametrize("name", ["clip-swap-soft", "soft-targets"])
def test_a_resumed_run_ends_with_the_weights_of_the_whole_one(phantom: Manifest, tmp_path: Path, name: str) -> None:
    train_run(run_of(phantom, name), phantom, tmp_path / "whole")
    whole = GaplessModel.from_pretrained(tmp_path / "whole" / "model").state_dict()
    for part in ("model", "checkpoints/checkpoint-3"):
        shutil.rmtree(tmp_path / "whole" / part)
    train_run(run_of(phantom, name), phantom, tmp_path / "whole", resume=True)
    resumed = GaplessModel.from_pretrained(tmp_path / "whole" / "model").state_dict()
    assert all(torch.equal(whole[key], resumed[key]) for key in whole)


@pytest.mark.ci
@pytest.mark.parametrize("name", OTHERS)
def test_small_heads_on_frozen_rows_train_with_it(tmp_path: Path, name: str) -> None:
    random = np.random.default_rng(0)
    hidden = random.standard_normal((80, 5))
    rows = {m: (hidden @ random.standard_normal((5, 8))).astype(np.float32) for m in ("image", "text")}
    settings = replace(adapter_settings(name), hidden=8, num_epochs=1, steps_per_epoch=1, max_steps=2)
    labels = [f"class {row % 3}" for row in range(80)]
    closed = close_gap(rows, np.arange(80), settings, out=tmp_path / "closed", labels=labels)
    assert np.isfinite(closed.figures["gap/margin"])
    if name == "soft-targets":
        with pytest.raises(UsageError, match="the loss soft-targets compares labels, and the rows have none"):
            close_gap(rows, np.arange(80), settings, out=tmp_path / "other")


@pytest.mark.parametrize(
    ("column", "message"),
    [
        ("", r"the method soft-targets compares labels: say in which column they are with --loss\.label_column; "),
        ("findings", "unknown label column 'findings'; known: .*finding"),
    ],
)
def test_labels_that_a_manifest_has_not_are_missed_before_anything_starts(
    phantom: Manifest, tmp_path: Path, column: str, message: str
) -> None:
    with pytest.raises(UsageError, match=message):
        train_run(run_of(phantom, "soft-targets", label_column=column), phantom, tmp_path / "run")
    recipe = replace(run_of(phantom, "clip").settings, loss=SoftTargetSettings(label_column=column))
    with pytest.raises(UsageError, match=message):
        compare(data=phantom, methods=["clip", "soft-targets"], seeds=1, settings=recipe, out=tmp_path / "both")
    assert not (tmp_path / "run" / "model").exists()
    assert not (tmp_path / "both" / "runs").exists()  # clip did not train first


def test_a_manifest_without_label_columns_says_so(phantom: Manifest, tmp_path: Path) -> None:
    table = phantom.table.drop_columns(list(phantom.labels))
    bare = Manifest(phantom.path, {**phantom.info, "labels": []}, table)
    with pytest.raises(UsageError, match=r"the method soft-targets compares labels, and .* has no label columns"):
        train_run(run_of(bare, "soft-targets"), bare, tmp_path / "run")
