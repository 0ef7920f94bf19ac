"""Closing the gap of frozen embeddings: oracles for the closed forms, and what trained heads must and must not do."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from fakes import CAPTIONS, noise_images, tiny_bert, tiny_modalities, tiny_model
from transformers import TrainerState

from gapless.cli.main import main
from gapless.closing.base import CLOSING_METHODS, ClosingPairs, ClosingSettings, FittedMethod
from gapless.closing.center import fit_center
from gapless.closing.close import close_gap, positives_of, split_rows
from gapless.closing.head_training import KeepBest, settled_at
from gapless.closing.layers import FittedLayer, activation_layer, affine_layer, linear_layer, vector_model
from gapless.closing.procrustes import fit_procrustes
from gapless.closing.trained_heads import AdapterSettings, adapter_settings, loss_name
from gapless.core.errors import DataRefused, UsageError
from gapless.core.files import read_json
from gapless.core.geometry import unit_norm
from gapless.losses.base import METHODS
from gapless.metrics.measure import measure
from gapless.models.aligner import GaplessModel

FAST = AdapterSettings(max_steps=40, num_epochs=40, batch_size=64, hidden=32, embedding_dim=16, dropout=0.0)


def rotation(size: int, seed: int = 0) -> np.ndarray:
    return np.linalg.qr(np.random.default_rng(seed).standard_normal((size, size)))[0]


def shared_latent(num_rows: int = 240, dims: tuple[int, int] = (24, 16), seed: int = 0) -> dict[str, np.ndarray]:
    """Two modalities that see the same hidden 6 numbers, each by its own random map, apart by an offset."""
    random = np.random.default_rng(seed)
    hidden = random.standard_normal((num_rows, 6))
    maps = np.random.default_rng(99)
    return {
        name: (hidden @ maps.standard_normal((6, dim)) + 3 * maps.standard_normal(dim)).astype(np.float32)
        for name, dim in zip(("image", "text"), dims, strict=True)
    }


def figures_of(model: GaplessModel, arrays: dict[str, np.ndarray]) -> dict[str, float]:
    rows = {name: model.encode(name, matrix) for name, matrix in arrays.items()}
    return measure(rows, include=("gap", "retrieval"))


def test_center_is_the_rows_minus_their_mean(tmp_path: Path) -> None:
    arrays = shared_latent(dims=(16, 16))
    model = close_gap(arrays, method="center", out=tmp_path / "m").model
    train, _ = split_rows(np.arange(240), None, 0.1, 0)
    unit = arrays["image"] / np.linalg.norm(arrays["image"], axis=1, keepdims=True)
    moved = unit - unit[train].mean(axis=0)
    expected = moved / np.linalg.norm(moved, axis=1, keepdims=True)
    np.testing.assert_allclose(model.encode("image", arrays["image"]).numpy(), expected, atol=1e-5)


def test_procrustes_undoes_an_offset_and_a_rotation_it_never_saw() -> None:
    random = np.random.default_rng(0)
    target = unit_norm(torch.from_numpy(random.standard_normal((200, 12))))
    turned = target @ torch.from_numpy(rotation(12)) + 0.5
    maps = fit_procrustes({"image": turned[:100].float(), "text": target[:100].float()}, "text")
    back = (turned.float() - maps["image"].offset) @ maps["image"].rotation
    wanted = target.float() - maps["text"].offset
    torch.testing.assert_close(back[100:], wanted[100:], atol=1e-5, rtol=0)
    only_center = fit_center({"image": turned[:100].float(), "text": target[:100].float()})
    not_back = (turned.float() - only_center["image"].offset) @ only_center["image"].rotation
    assert (not_back - wanted).abs().max() > 0.1  # the control: without the rotation it stays apart


def test_procrustes_is_the_best_orthogonal_map_among_many() -> None:
    arrays = {name: torch.from_numpy(rows) for name, rows in shared_latent(dims=(8, 8)).items()}
    maps = fit_procrustes(arrays, "text")
    centred = {name: rows - rows.mean(0) for name, rows in arrays.items()}
    best = (centred["image"] @ maps["image"].rotation - centred["text"]).norm()
    for seed in range(50):
        other = torch.from_numpy(rotation(8, seed)).float()
        assert (centred["image"] @ other - centred["text"]).norm() >= best
    identity = maps["image"].rotation @ maps["image"].rotation.T
    torch.testing.assert_close(identity, torch.eye(8), atol=1e-5, rtol=0)


@pytest.mark.parametrize("dims", [(24, 16), (16, 24)])
def test_procrustes_takes_dims_that_differ(tmp_path: Path, dims: tuple[int, int]) -> None:
    arrays = shared_latent(dims=dims)
    model = close_gap(arrays, method="procrustes", out=tmp_path / "m").model
    assert model.encode("image", arrays["image"]).shape == (240, dims[1])
    assert figures_of(model, arrays)["retrieval/mean/R@10"] > 0.3  # chance is 0.04


def test_center_refuses_dims_that_differ(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="image 24, text 16"):
        close_gap(shared_latent(), method="center", out=tmp_path / "m")
    assert not (tmp_path / "m").exists()


def test_the_adapter_closes_what_it_never_saw_and_is_read_back(tmp_path: Path) -> None:
    whole = shared_latent(480)
    seen = {name: rows[:240] for name, rows in whole.items()}
    unseen = {name: rows[240:] for name, rows in whole.items()}
    settings = replace(FAST, loss=METHODS["gapless-published"].settings)
    model = close_gap(seen, settings=settings, out=tmp_path / "m").model
    figures = figures_of(model, unseen)
    assert figures["retrieval/mean/R@10"] > 0.35  # chance is 0.04
    assert figures["gap/true_pair_cosine"] > 0.5
    again = GaplessModel.from_pretrained(tmp_path / "m")
    torch.testing.assert_close(again.encode("text", unseen["text"]), model.encode("text", unseen["text"]))
    results = read_json(tmp_path / "m" / "results.json")
    assert results["rows"] == {"train": 216, "validation": 24}
    assert results["before"] is None  # there is no cosine between dims 24 and 16
    assert results["settings"]["anchor"] == "text"
    assert (tmp_path / "m" / "metrics.jsonl").exists()
    assert not (tmp_path / "m" / "checkpoints").exists()


def test_the_same_seed_gives_the_same_model_and_another_seed_another(tmp_path: Path) -> None:
    settings = replace(FAST, max_steps=4)
    weights = [
        close_gap(shared_latent(), settings=settings, seed=seed, out=tmp_path / name).model.heads["image"].state_dict()
        for name, seed in (("a", 0), ("b", 0), ("c", 1))
    ]
    assert all(torch.equal(weights[0][key], weights[1][key]) for key in weights[0])
    assert not all(torch.equal(weights[0][key], weights[2][key]) for key in weights[0])


def test_a_residual_head_starts_as_the_frozen_space(tmp_path: Path) -> None:
    """Nothing that the frozen model knew is lost before the first step; an mlp starts anew (the control)."""
    arrays = shared_latent(dims=(16, 16))
    unit = unit_norm(torch.from_numpy(arrays["image"]))
    still = replace(FAST, max_steps=1, learning_rate=0.0)
    residual = close_gap(arrays, settings=still, out=tmp_path / "residual").model
    torch.testing.assert_close(residual.encode("image", arrays["image"]), unit, atol=1e-6, rtol=0)
    mlp = close_gap(arrays, settings=replace(still, head="mlp"), out=tmp_path / "mlp").model
    assert (mlp.encode("image", arrays["image"]) - unit).abs().max() > 0.1
    results = read_json(tmp_path / "residual" / "results.json")
    assert results["before"]["gap/true_pair_cosine"] == pytest.approx(results["figures"]["gap/true_pair_cosine"])


def test_training_can_start_from_a_closed_form(tmp_path: Path) -> None:
    arrays = shared_latent()
    still = replace(FAST, start="procrustes", max_steps=1, learning_rate=0.0)
    started = close_gap(arrays, settings=still, out=tmp_path / "a").model
    fitted = close_gap(arrays, method="procrustes", out=tmp_path / "b").model
    torch.testing.assert_close(
        started.encode("image", arrays["image"]), fitted.encode("image", arrays["image"]), atol=1e-5, rtol=0
    )


def test_the_frozen_model_goes_inside(tmp_path: Path) -> None:
    modalities = tiny_modalities()
    modalities["text"]["encoder"]["config"] = tiny_bert(400)
    frozen = tiny_model(modalities=modalities).train(False)
    inputs = {"image": noise_images(36), "text": [f"{CAPTIONS[i % 6]} number {i}" for i in range(36)]}
    embeddings = {name: frozen.encode(name, raw) for name, raw in inputs.items()}
    settings = replace(FAST, max_steps=4, batch_size=16)
    whole = close_gap(embeddings, settings=settings, frozen=frozen, out=tmp_path / "whole").model
    vectors = close_gap(embeddings, settings=settings, out=tmp_path / "vectors").model
    again = GaplessModel.from_pretrained(tmp_path / "whole")
    for name, raw in inputs.items():
        expected = vectors.encode(name, embeddings[name])
        torch.testing.assert_close(whole.encode(name, raw), expected, atol=1e-5, rtol=0)
        torch.testing.assert_close(again.encode(name, raw), expected, atol=1e-5, rtol=0)
    assert not any(parameter.requires_grad for parameter in whole.encoders.parameters())


def test_no_group_trains_and_validates() -> None:
    groups = np.random.default_rng(0).integers(0, 40, 300)
    train, validation = split_rows(groups, None, 0.2, seed=3)
    assert not set(groups[train]) & set(groups[validation])
    assert sorted([*train, *validation]) == list(range(300))
    assert 0.1 < len(validation) / 300 < 0.35
    train, validation = split_rows(np.arange(300), None, 0.2, seed=3)
    assert set(groups[train]) & set(groups[validation]), "the control: rows that are their own groups split the 40"


def test_test_rows_neither_train_nor_validate() -> None:
    splits = ["train"] * 50 + ["validation"] * 10 + ["test"] * 40
    train, validation = split_rows(np.arange(100), splits, 0.1, seed=0)
    assert list(train) == list(range(50))
    assert list(validation) == list(range(50, 60))
    train, validation = split_rows(np.arange(100), ["train"] * 60 + ["test"] * 40, 0.1, seed=0)
    assert max([*train, *validation]) < 60
    assert len(validation) > 1


def test_many_rows_are_validated_on_a_bounded_part() -> None:
    train, validation = split_rows(np.arange(70_000), None, 0.1, seed=0)
    assert len(validation) == pytest.approx(2000, abs=2)
    assert len(train) + len(validation) == 70_000


def test_equal_captions_and_equal_rows_are_duplicates() -> None:
    assert list(positives_of(["A  b", "c", "a B"])) == [0, 1, 0]
    rows = torch.tensor([[1.0, 0.0], [0.6, 0.8], [1.0, 1e-7]])
    assert list(positives_of(rows)) == [0, 1, 0]


def test_masked_duplicates_change_the_training(tmp_path: Path) -> None:
    arrays = {name: np.repeat(rows[:60], 4, axis=0) for name, rows in shared_latent().items()}
    arrays["image"] = shared_latent()["image"]
    plain = replace(FAST, max_steps=3)
    masked = replace(plain, loss=replace(plain.loss, mask_duplicates=True))
    heads = [
        close_gap(arrays, np.repeat(np.arange(60), 4), settings, out=tmp_path / str(i)).model.heads["text"].state_dict()
        for i, settings in enumerate((plain, masked))
    ]
    assert any(not torch.equal(heads[0][key], heads[1][key]) for key in heads[0])


def test_the_best_weights_are_kept_and_patience_ends_the_training() -> None:
    model = tiny_model()
    parameter = next(model.parameters())
    best = KeepBest(model, "x", patience=2)

    class Control:
        should_training_stop = False

    control = Control()
    for step, value in enumerate([0.1, 0.5, 0.4, 0.3]):
        with torch.no_grad():
            parameter.fill_(step)
        best.on_evaluate(None, TrainerState(global_step=step, max_steps=10), control, metrics={"eval_x": value})
    assert control.should_training_stop
    best.restore()
    assert (parameter == 1).all()
    with pytest.raises(UsageError, match="known: x"):
        KeepBest(model, "y", 1).on_evaluate(None, TrainerState(), control, metrics={"eval_x": 1.0})


def test_a_rising_loss_is_trained_to_its_end(tmp_path: Path) -> None:
    """Chosen by retrieval before the weights rise, the model would be that of the contrastive loss alone."""
    ramp = [[0.0, 0.0], [0.5, 0.0], [1.0, 8.0]]
    rising = replace(FAST, patience=1, loss=replace(FAST.loss, alignment_weight=ramp, uniformity_weight=0.0))
    assert settled_at(rising.loss) == 1.0
    assert settled_at(FAST.loss) == 0.0
    constant = replace(rising, loss=replace(rising.loss, alignment_weight=0.0))
    cosine = {}
    for name, settings in (("rising", rising), ("constant", constant)):
        close_gap(shared_latent(), settings=settings, out=tmp_path / name)
        cosine[name] = read_json(tmp_path / name / "results.json")["figures"]["gap/true_pair_cosine"]
        steps = [json.loads(line)["step"] for line in (tmp_path / name / "metrics.jsonl").read_text().splitlines()]
        if name == "rising":
            assert max(steps) == 40
    assert cosine["rising"] > cosine["constant"] + 0.05


def test_the_loss_is_named_after_its_method() -> None:
    assert [loss_name(adapter_settings(name)) for name in ("clip", "gapless")] == ["clip", "gapless"]
    own = replace(FAST, loss=replace(FAST.loss, alignment_weight=0.123))
    assert loss_name(own) is None
    with pytest.raises(UsageError, match="known: align-clip, align-only"):
        adapter_settings("supcon")


def broken(value: float) -> dict[str, np.ndarray]:
    arrays = shared_latent()
    arrays["image"][5] = value
    return arrays


@pytest.mark.parametrize(
    ("arrays", "groups", "error", "said"),
    [
        ({"image": np.ones((5, 3), np.float32)}, None, UsageError, "at least 2 modalities, got 1 \\(image\\)"),
        ({"image": np.ones((5, 3)), "text": np.ones((4, 3))}, None, DataRefused, "image 5, text 4"),
        (broken(np.nan), None, DataRefused, "1 of 240 rows hold NaN or infinite values \\(row 5\\)"),
        (broken(0.0), None, DataRefused, "1 of 240 rows are all zeros .* \\(row 5\\)"),
        (shared_latent(), ["one"] * 240, DataRefused, "240 rows in 1 group"),
        ({"image": np.ones((9, 3), np.int64), "text": np.ones((9, 3))}, None, ValueError, "floating-point"),
    ],
)
def test_bad_rows_are_refused_and_nothing_is_left(
    tmp_path: Path, arrays: dict[str, np.ndarray], groups: list[str] | None, error: type[Exception], said: str
) -> None:
    with pytest.raises(error, match=said):
        close_gap(arrays, groups, method="procrustes", out=tmp_path / "m")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"method": "whiten"}, "known: adapter, auto, cca, center, procrustes"),
        ({"settings": replace(FAST, head="tree")}, "known: auto, linear, mlp, residual"),
        ({"settings": replace(FAST, start="pca")}, "known: cca, center, identity, procrustes"),
        ({"settings": replace(FAST, head="residual")}, "image 24, text 16"),
        ({"settings": replace(FAST, anchor="audio")}, "known: image, text"),
        ({"settings": replace(FAST, select_by="gap/x", max_steps=1)}, "known:"),
    ],
)
def test_unknown_names_list_the_known_ones(tmp_path: Path, options: dict[str, object], said: str) -> None:
    with pytest.raises(UsageError, match=said):
        close_gap(shared_latent(), out=tmp_path / "m", **options)
    assert list(tmp_path.iterdir()) == []


def test_an_output_in_use_is_refused_before_any_work(tmp_path: Path) -> None:
    (tmp_path / "m").mkdir()
    (tmp_path / "m" / "mine.txt").write_text("keep")
    with pytest.raises(UsageError, match="in use"):
        close_gap(shared_latent(), out=tmp_path / "m")
    assert json.dumps([p.name for p in (tmp_path / "m").iterdir()]) == '["mine.txt"]'


def test_the_result_has_what_the_directory_has(tmp_path: Path) -> None:
    closed = close_gap(shared_latent(dims=(16, 16)), method="center", out=tmp_path / "m")
    assert closed.results == read_json(closed.path / "results.json")
    assert closed.figures is closed.results["figures"]
    assert closed.before is not None
    assert closed.before["gap/centroid_distance"] > closed.figures["gap/centroid_distance"]
    assert closed.takes == "vectors"
    assert closed.results["settings"] == {"anchor": "text", "validation_share": 0.1, "remove_mean": False}


class WrongModel:
    """A method whose model takes other rows than it was given."""

    name = "wrong"
    summary = source = ""
    settings = ClosingSettings

    def fit(self, pairs: ClosingPairs, settings: ClosingSettings, seed: int, *, folder: Path) -> FittedMethod:
        return FittedMethod(tiny_model())


def test_a_method_that_gives_another_model_is_refused_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(CLOSING_METHODS._things, "wrong", WrongModel())
    with pytest.raises(ValueError, match="'wrong' gave a model for"):
        close_gap(shared_latent(), method="wrong", out=tmp_path / "m")
    assert not (tmp_path / "m").exists()


def test_options_are_those_of_the_chosen_method(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    for name, rows in shared_latent().items():
        np.save(f"{name}.npy", rows)
    files = ["close", "--image", "image.npy", "--text", "text.npy", "--json"]
    assert main([*files, "--out", "a", "--method", "cca", "--cca.ridge", "0.25", "--cca.anchor=image"]) == 0
    assert json.loads(capsys.readouterr().out)["settings"]["ridge"] == 0.25
    Path("c.yaml").write_text("method: cca\ncca:\n  ridge: 0.5\n")
    assert main([*files, "--out", "b", "--config", "c.yaml", "--cca.weight=0"]) == 0
    settings = json.loads(capsys.readouterr().out)["settings"]
    assert (settings["ridge"], settings["weight"], settings["anchor"]) == (0.5, 0.0, "text")
    assert main([*files, "--out", "c", "--method", "procrustes", "--adapter.hidden=3"]) == 2
    assert (
        "--adapter.hidden is an option of the method adapter, and the method is procrustes" in capsys.readouterr().err
    )
    assert main([*files, "--out", "c", "--method", "procrustes", "--loss=clip"]) == 2
    assert main([*files, "--out", "c", "--method", "cca", "--cca.ridge=-1"]) == 2
    assert "ridge is a number of at least 0" in capsys.readouterr().err
    assert not Path("c").exists()


def test_a_fitted_layer_needs_its_own_tensors() -> None:
    pairs = ClosingPairs({"text": torch.ones(4, 3)}, "text", list("abcd"), *[np.arange(4)] * 4)
    spec = affine_layer(torch.zeros(3), torch.eye(3)).spec
    with pytest.raises(ValueError, match="the affine layer of text cannot take its tensors"):
        vector_model(pairs, {"text": [FittedLayer(spec, {"offset": torch.zeros(2)})]})
    with pytest.raises(UsageError, match="tnah"):
        activation_layer("tnah")


def test_every_layer_computes_what_it_says() -> None:
    x = torch.tensor([[3.0, 4.0]])
    matrix = torch.tensor([[1.0, 0.0, 2.0], [0.0, 1.0, 1.0]])
    pairs = ClosingPairs({"text": x}, "text", ["a"], *[np.arange(1)] * 4)
    layers = [linear_layer(matrix, torch.tensor([0.0, 0.5, -1.0])), activation_layer("tanh")]
    head = vector_model(pairs, {"text": layers}).heads["text"]
    torch.testing.assert_close(head(x), torch.tanh(torch.tensor([[3.0, 4.5, 9.0]])))
