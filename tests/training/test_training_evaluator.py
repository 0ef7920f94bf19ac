"""Any evaluator measures a training, and the best model is chosen by its primary figure, the way that one is better."""

import json
from collections.abc import Mapping
from pathlib import Path

import pytest
from fakes import tiny_modalities
from torch import Tensor

from gapless.core.errors import UsageError
from gapless.core.files import read_json
from gapless.manifest.manifest import Manifest
from gapless.manifest.readers.phantom import write_phantom
from gapless.training.checkpoint import checkpoints_of
from gapless.training.evaluator import GapAndRetrieval, higher_is_better
from gapless.training.recipes import Recipe
from gapless.training.run import Run, train_run, training_arguments

SELECTING = {"eval_strategy": "epoch", "save_strategy": "epoch", "load_best_model_at_end": True}


@pytest.fixture(scope="module")
def phantom(tmp_path_factory: pytest.TempPathFactory) -> Manifest:
    folder = tmp_path_factory.mktemp("data") / "phantom"
    return write_phantom(folder, num_pairs=40, num_validation=8, num_test=8, image_size=16)


def recipe(**training: object) -> Recipe:
    own = {"num_train_epochs": 3, "per_device_train_batch_size": 12, "use_cpu": True}
    return Recipe(tiny_modalities(), embedding_dim=8, vocab_size=200, training={**own, **training})


class Rising:
    """A gap that is larger at every evaluation: the first one is the best."""

    primary = "gap/centroid_distance"

    def __init__(self) -> None:
        self.sizes: list[int] = []

    def __call__(self, rows: Mapping[str, Tensor]) -> Mapping[str, float]:
        self.sizes.append(len(rows["image"]))
        return {"gap/centroid_distance": float(len(self.sizes)), "own/figure": 0.5}


def test_an_evaluator_of_ones_own_is_called_logged_and_chosen_by(phantom: Manifest, tmp_path: Path) -> None:
    evaluator = Rising()
    run = Run("tiny", "clip", 0, recipe(**SELECTING), phantom.fingerprint)
    train_run(run, phantom, tmp_path / "run", evaluator=evaluator)
    assert evaluator.sizes == [8, 8, 8]
    lines = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert [line["eval/own/figure"] for line in lines if "eval/own/figure" in line] == [0.5, 0.5, 0.5]
    newest = checkpoints_of(tmp_path / "run" / "checkpoints")[0]
    state = read_json(newest / "trainer_state.json")
    assert state["best_metric"] == 1.0  # lower is better: transformers by itself would take 3.0
    assert state["best_global_step"] == 2


def test_the_best_is_chosen_by_the_primary_figure_unless_a_recipe_names_one(tmp_path: Path) -> None:
    def chosen(**training: object) -> tuple[str | None, bool | None]:
        arguments = training_arguments(recipe(**training), tmp_path, 0, has_evaluation=True)
        return arguments.metric_for_best_model, arguments.greater_is_better

    assert chosen() == (None, None)
    assert chosen(**SELECTING) == (GapAndRetrieval.primary, True)
    assert chosen(**SELECTING, metric_for_best_model="eval_gap/centroid_distance") == (
        "eval_gap/centroid_distance",
        False,
    )
    assert chosen(**SELECTING, metric_for_best_model="own", greater_is_better=True) == ("own", True)
    with pytest.raises(UsageError, match="'own'"):
        chosen(**SELECTING, metric_for_best_model="own")


def test_the_direction_is_that_of_the_catalogue() -> None:
    assert higher_is_better("retrieval/image_to_text/R@10")
    assert not higher_is_better("gap/centroid_distance")
