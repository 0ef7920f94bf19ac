"""A modality whose name a module of PyTorch has itself is refused in one sentence, before a model is built."""

import pytest
from absent_rows import vectors_model

from gapless.core.errors import UsageError
from gapless.models.modality_specs import modality_specs

VECTOR = {"input": {"kind": "vector", "size": 6}, "encoder": {"kind": "vector", "size": 6}}


@pytest.mark.parametrize("name", ["train", "forward", "keys", "a.b"])
def test_a_name_that_pytorch_uses_is_refused(name):
    with pytest.raises(UsageError, match=f"no modality '{name}': PyTorch uses this name itself; give the modality"):
        modality_specs({name: VECTOR, "text": VECTOR})


def test_names_that_look_odd_are_taken():
    model = vectors_model(["text", "scän", "map_to_left", "mean", "loss"])
    assert list(model.specs) == ["text", "scän", "map_to_left", "mean", "loss"]
