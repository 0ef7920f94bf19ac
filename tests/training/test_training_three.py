"""Three modalities through the whole of training and evaluation, with the keys that carry the pair."""

from fakes import tiny_modalities

from gapless.manifest.readers.phantom import write_phantom
from gapless.training.evaluate import evaluate
from gapless.training.recipes import RECIPES, Recipe, apply_method, phantom_three
from gapless.training.run import Run, train_run


def test_three_modalities_are_trained_and_measured(tmp_path):
    data = write_phantom(tmp_path / "data", num_pairs=120, num_validation=20, num_test=30, image_size=16)
    waveform = {
        "input": {"kind": "vector", "size": 64},
        "encoder": {"kind": "vector", "size": 64},
        "head": [{"kind": "mlp", "hidden": 32, "size": 24}],
    }
    recipe = Recipe(
        modalities={**tiny_modalities(), "waveform": waveform},
        embedding_dim=24,
        vocab_size=400,
        training={"num_train_epochs": 1, "per_device_train_batch_size": 16, "save_strategy": "no", "logging_steps": 1},
    )
    run = Run("three", "gapless", 0, apply_method(recipe, "gapless"), data.fingerprint)
    train_run(run, data, tmp_path / "run")
    figures = evaluate(tmp_path / "run", data=data, num_bootstrap=0).figures
    pairs = [f"gap/centroid_distance/{pair}" for pair in ("image-text", "image-waveform", "text-waveform")]
    assert sum(figures[key] for key in pairs) / 3 == figures["gap/centroid_distance"]
    assert "retrieval/waveform_to_image/R@10" in figures


def test_the_embedded_recipe_of_three_names_what_the_phantom_has():
    assert "phantom-three" in RECIPES
    assert set(phantom_three().modalities) == {"image", "text", "waveform"}
