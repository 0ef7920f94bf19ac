"""The layer that holds several heads side by side: its values, its checks, and every way that a model goes."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from gapless.closing.base import ClosingPairs
from gapless.closing.frozen import continued
from gapless.closing.layers import (
    FittedLayer,
    activation_layer,
    affine_layer,
    layers_of,
    parallel_layer,
    unit_norm_layer,
    vector_model,
)
from gapless.core.errors import UsageError
from gapless.models.aligner import GaplessConfig, GaplessModel
from gapless.models.export import export_onnx
from gapless.models.spec import layer_spec

X = torch.tensor([[3.0, 4.0], [-1.0, 0.0]])


def pairs_of(sizes: dict[str, int], num_rows: int = 4) -> ClosingPairs:
    random = np.random.default_rng(0)
    rows = {name: torch.from_numpy(random.standard_normal((num_rows, size))).float() for name, size in sizes.items()}
    return ClosingPairs(rows, list(sizes)[-1], [str(row) for row in range(num_rows)], *[np.arange(num_rows)] * 4)


def side_by_side() -> FittedLayer:
    doubled = affine_layer(torch.tensor([1.0, 0.0]), 2 * torch.eye(2))
    summed = [affine_layer(torch.zeros(2), torch.ones(2, 1)), activation_layer("relu")]
    return parallel_layer([[doubled], summed, [unit_norm_layer()]], [1.0, 0.5, -2.0])


def both_heads() -> dict[str, list[FittedLayer]]:
    return {name: [unit_norm_layer(), side_by_side()] for name in ("image", "text")}


def test_the_branches_stand_side_by_side_times_their_weights() -> None:
    model = vector_model(pairs_of({"image": 2, "text": 2}), {name: [side_by_side()] for name in ("image", "text")})
    expected = torch.tensor([[4.0, 8.0, 3.5, -1.2, -1.6], [-4.0, 0.0, 0.0, 2.0, 0.0]])
    torch.testing.assert_close(model.heads["image"](X), expected)
    assert model.config.embedding_dim == 5


def test_a_branch_may_hold_branches() -> None:
    inner = parallel_layer([[unit_norm_layer()], [side_by_side()]], [2.0, 1.0])
    outer = parallel_layer([[inner], [affine_layer(torch.zeros(2), torch.eye(2))]], [1.0, 1.0])
    model = vector_model(pairs_of({"image": 2, "text": 2}), {name: [outer] for name in ("image", "text")})
    assert model.heads["text"](X).shape == (2, 9)
    torch.testing.assert_close(model.heads["text"](X)[0, :2], torch.tensor([1.2, 1.6]))


def test_it_is_saved_and_read_and_its_layers_are_found_again(tmp_path: Path) -> None:
    pairs = pairs_of({"image": 2, "text": 2})
    model = vector_model(pairs, both_heads())
    model.save_pretrained(tmp_path / "model")
    again = GaplessModel.from_pretrained(tmp_path / "model")
    torch.testing.assert_close(again.encode("image", X.numpy()), model.encode("image", X.numpy()))
    rebuilt = vector_model(pairs, {name: layers_of(again, name) for name in pairs.sizes})
    torch.testing.assert_close(rebuilt.encode("text", X.numpy()), model.encode("text", X.numpy()), rtol=0, atol=0)


def test_it_goes_behind_a_frozen_encoder_and_to_onnx(tmp_path: Path) -> None:
    part = {"input": {"kind": "vector", "size": 3}, "encoder": {"kind": "vector", "size": 3}}
    frozen = GaplessModel(GaplessConfig({"image": part, "text": part}, 2))
    closing = vector_model(pairs_of({"image": 2, "text": 2}), both_heads())
    whole = continued(frozen, closing)
    raw = np.random.default_rng(1).standard_normal((5, 3)).astype(np.float32)
    torch.testing.assert_close(
        whole.encode("image", raw), closing.encode("image", frozen.encode("image", raw).numpy()), rtol=1e-5, atol=1e-6
    )
    whole.save_pretrained(tmp_path / "whole")
    pytest.importorskip("onnxruntime")
    differences = export_onnx(GaplessModel.from_pretrained(tmp_path / "whole"), tmp_path / "onnx")
    assert set(differences) == {"image", "text"}
    assert max(differences.values()) < 1e-5


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"branches": [[{"kind": "unit_nrm"}], []]}, ["unit_nrm", "layer 1 of branch 1 of the head layer"]),
        ({"branches": [[], [{"kind": "linear", "sise": 3}]]}, ["sise", "'size'", "branch 2"]),
        ({"wieghts": [1, 1]}, ["wieghts", "'weights'"]),
        ({"weights": [1]}, ["one weight per branch", "2 branch(es) and 1 weight(s)"]),
        ({"weights": [1, float("nan")]}, ["weights", "list of numbers"]),
        ({"branches": [{"kind": "unit_norm"}]}, ["list of lists of layers"]),
        ({"branches": "all"}, ["list of lists of layers"]),
        ({"branches": [], "weights": []}, ["0 branch(es)"]),
    ],
)
def test_what_does_not_fit_is_one_sentence(changes: dict[str, Any], words: list[str]) -> None:
    right = {"kind": "parallel", "branches": [[{"kind": "unit_norm"}], []], "weights": [1, 2]}
    assert layer_spec(right).weights == (1.0, 2.0)  # type: ignore[union-attr]
    with pytest.raises(UsageError) as refused:
        layer_spec({**right, **changes})
    for word in words:
        assert word in str(refused.value)
    with pytest.raises(UsageError, match="no branches and no weights"):
        layer_spec({"kind": "parallel"})
