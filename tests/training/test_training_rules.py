"""The rules around a step: what decays, what is refused, where the best checkpoint is looked for."""

import pytest
from fakes import tiny_modalities

from gapless.core.errors import UsageError
from gapless.inference.embed import preprocessors_of
from gapless.inference.pairs import PairDataset
from gapless.manifest.readers.phantom import write_phantom
from gapless.training.recipes import Recipe
from gapless.training.run import all_captions, new_model, training_arguments
from gapless.training.trainer import AlignerTrainer


@pytest.fixture(scope="module")
def trainer(tmp_path_factory):
    place = tmp_path_factory.mktemp("rules")
    data = write_phantom(place / "phantom", num_pairs=40, num_validation=8, num_test=0, image_size=16)
    recipe = Recipe(
        modalities=tiny_modalities(),
        embedding_dim=24,
        vocab_size=400,
        training={"weight_decay": 0.1, "per_device_train_batch_size": 8, "learning_rate": 1e-3},
    )
    model = new_model(recipe, all_captions(data))
    rows = PairDataset(data, preprocessors_of(model), training_seed=0)
    return AlignerTrainer(model, training_arguments(recipe, place / "run", 0, False), rows, run=place / "run")


def test_matrices_decay_and_the_temperature_does_not(trainer):
    decay = {id(p): group["weight_decay"] for group in trainer.create_optimizer().param_groups for p in group["params"]}
    named = {name: decay[id(parameter)] for name, parameter in trainer.whole_model.named_parameters()}
    assert named.pop("loss.logit_scale") == 0.0
    matrices = {name: value for name, value in named.items() if name.startswith("heads.") and name.endswith("weight")}
    assert set(matrices.values()) == {0.1}
    assert {value for name, value in named.items() if name.endswith("bias")} == {0.0}


@pytest.mark.parametrize(
    ("name", "value"), [("seed", 5), ("save_only_model", True), ("ignore_data_skip", True), ("output_dir", "elsewhere")]
)
def test_what_gapless_fixes_cannot_be_asked_for(tmp_path, name, value):
    """Such a request was once dropped without a word."""
    recipe = Recipe(modalities=tiny_modalities(), training={name: value})
    with pytest.raises(UsageError, match=rf"training\.{name} is always"):
        training_arguments(recipe, tmp_path, 0, has_evaluation=False)
