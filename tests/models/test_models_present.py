"""Rows that lack modalities in the aligner: encoders see what is there; weights without a row get a zero gradient."""

from unittest.mock import patch

import numpy as np
import pytest
import torch
from absent_rows import NAMES, present_part, vectors_model

from gapless.core.errors import UsageError
from gapless.embeddings.dataset import VectorPairs
from gapless.losses.engine.cached import split_present
from gapless.models.aligner import GaplessModel

NUM_ROWS = 9
MASKS = {
    "image": torch.tensor([1, 1, 1, 0, 1, 1, 0, 1, 1]).bool(),
    "text": torch.tensor([1, 1, 0, 1, 1, 1, 1, 1, 0]).bool(),
    "waveform": torch.tensor([0, 0, 0, 1, 0, 0, 1, 0, 1]).bool(),
}
NONE = {**MASKS, "waveform": torch.zeros(NUM_ROWS, dtype=torch.bool)}


def values():
    generator = torch.Generator().manual_seed(3)
    return {name: torch.randn(NUM_ROWS, 6, generator=generator) for name in NAMES}


def gradients(model, present, micro_batch_size=None):
    model.train().zero_grad()
    model.micro_batch_size = micro_batch_size
    output = model(batch=present_part(values(), present), present=present)
    output.loss.backward()
    return {name: weight.grad for name, weight in model.named_parameters()} | {"loss": output.loss.detach()}


def test_each_row_is_embedded_where_it_stands_and_absent_rows_are_zero():
    model = vectors_model().eval()
    seen = []
    with patch.object(GaplessModel, "embed", autospec=True, side_effect=GaplessModel.embed) as embed:
        rows = model(batch=present_part(values(), MASKS), present=MASKS).embeddings
        seen = {call.args[1]: len(call.args[2]["values"]) for call in embed.call_args_list}
    assert seen == {name: int(mask.sum()) for name, mask in MASKS.items()}
    complete = model(batch={name: {"values": x} for name, x in values().items()}).embeddings
    for name, mask in MASKS.items():
        torch.testing.assert_close(rows[name][mask], complete[name][mask])
        assert (rows[name][~mask] == 0).all()


@pytest.mark.parametrize("micro_batch_size", [1, 2, 4, 20])
@pytest.mark.parametrize("present", [MASKS, NONE])
def test_cached_accumulation_cuts_by_row_and_has_the_gradient_of_the_large_batch(micro_batch_size, present):
    whole, cached = gradients(vectors_model(), present), gradients(vectors_model(), present, micro_batch_size)
    assert whole.keys() == cached.keys()
    for name, gradient in whole.items():
        torch.testing.assert_close(cached[name], gradient, atol=1e-6, rtol=1e-5)


def test_micro_batches_hold_the_rows_of_their_part():
    numbered = {name: torch.arange(NUM_ROWS)[:, None].float() for name in NAMES}
    parts = split_present(present_part(numbered, MASKS), MASKS, 4)
    assert [len(masks["text"]) for _, masks in parts] == [4, 4, 1]
    assert [part.get("waveform", {"values": torch.empty(0)})["values"].flatten().tolist() for part, _ in parts] == [
        [3],
        [6],
        [8],
    ]
    assert "text" not in parts[2][0]
    with pytest.raises(ValueError, match=r"text: 7 rows are present, got inputs of \[9\] rows"):
        split_present({"text": {"values": numbered["text"]}}, MASKS, 4)


def test_weights_of_a_modality_that_no_row_has_get_a_zero_gradient():
    found = gradients(vectors_model(), NONE)
    own = [name for name in found if "waveform" in name]
    assert own
    for name, gradient in found.items():
        assert gradient is not None
        assert gradient.isfinite().all()
        assert (name in own) == bool((gradient == 0).all())


def test_the_control_without_the_touch_has_no_gradient():
    with patch.object(GaplessModel, "_untouched", lambda self, modality: torch.zeros(())):
        found = gradients(vectors_model(), NONE)
    assert {name for name, gradient in found.items() if gradient is None} == {
        name for name in found if "waveform" in name
    }


def test_a_batch_whose_masks_do_not_fit_is_refused():
    model = vectors_model()
    with pytest.raises(ValueError, match="image: 7 rows are present, got inputs of 9 rows"):
        model(batch={name: {"values": x} for name, x in values().items()}, present=MASKS)


def test_a_loss_that_takes_complete_rows_only_is_named():
    class Complete(torch.nn.Module):
        def forward(self, embeddings, *, positives=None):
            raise AssertionError

    model = vectors_model()
    model.loss = Complete()
    with pytest.raises(UsageError, match="the loss Complete takes complete rows only"):
        model(batch=present_part(values(), MASKS), present=MASKS)


def test_vector_pairs_give_the_rows_that_are_there():
    arrays = {name: np.arange(8.0).reshape(4, 2) for name in ("a", "b")}
    present = {"b": np.array([True, False, False, True])}
    pairs = VectorPairs(arrays, list("wxyz"), positives=np.arange(4), present=present)
    batch = pairs.__getitems__([(0, 3), (0, 1), (0, 0)])
    assert batch["present"]["a"].tolist() == [True] * 3
    assert batch["present"]["b"].tolist() == [True, False, True]
    assert batch["batch"]["a"]["values"][:, 0].tolist() == [6, 2, 0]
    assert batch["batch"]["b"]["values"][:, 0].tolist() == [6, 0]
    assert batch["positives"].tolist() == [3, 1, 0]
    assert "b" not in pairs.__getitems__([1, 2])["batch"]
    assert pairs.lacks_modalities
    assert not VectorPairs(arrays, list("wxyz"), rows=np.array([0, 3]), present=present).lacks_modalities
    assert "present" not in VectorPairs(arrays, list("wxyz"))[0]
    for bad, message in (({"c": present["b"]}, "present names 'c'"), ({"a": np.ones(4)}, r"must be 4 bools")):
        with pytest.raises(ValueError, match=message):
            VectorPairs(arrays, list("wxyz"), present=bad)
