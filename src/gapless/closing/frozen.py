"""The frozen model that made the embeddings, and its heads continued by those that a closing method fitted."""

from collections.abc import Mapping
from typing import Any

from torch import nn

from gapless.core.errors import GaplessError
from gapless.models.aligner import GaplessConfig, GaplessModel
from gapless.models.fingerprint import fingerprint_of
from gapless.models.load import load_model


def frozen_model(info: Mapping[str, Any]) -> tuple[GaplessModel | None, str]:
    """The model that made the embeddings, where it is named and still the same; and a sentence that says which.

    Args:
        info: what an `EmbeddingSet` says of its model, or of the models of its parts.
    """
    named = [part.get("model") for part in info.get("parts", [info])]
    if not named[0] or any(one != named[0] for one in named):
        return None, "the model takes embeddings (nothing is known of one encoder that made them)"
    source = " ".join(named[0]["source"])
    try:
        model = load_model(named[0]["source"])
    except GaplessError as error:
        return None, f"the model takes embeddings: {source} cannot be loaded ({error})"
    if fingerprint_of(model) != named[0]["fingerprint"]:
        return None, f"the model takes embeddings: {source} is no longer the model that made them"
    return model, f"the model takes raw inputs: {source} is inside, frozen"


def continued(frozen: GaplessModel, closing: GaplessModel) -> GaplessModel:
    """The frozen model with its heads continued by the fitted layers: raw inputs to the closed space.

    Args:
        frozen: the model that made the embeddings.
        closing: the model that a method fitted on them; whatever layers its heads have are taken over.
    """
    modalities = {}
    for name, spec in closing.config.modalities.items():
        own = frozen.config.modalities[name]
        modalities[name] = {
            **own,
            "encoder": {**own["encoder"], "trainable": False},
            "head": [*own.get("head", [{"kind": "linear", "size": frozen.config.embedding_dim}]), *spec["head"]],
        }
    encoders = {name: frozen.encoders[name].requires_grad_(False) for name in modalities}
    config = GaplessConfig(modalities, closing.config.embedding_dim, closing.config.loss)
    model = GaplessModel(config, encoders)
    for name in modalities:
        model.heads[name] = nn.Sequential(*frozen.heads[name].children(), *closing.heads[name].children())
    assert model.loss is not None
    assert closing.loss is not None
    model.loss.load_state_dict(closing.loss.state_dict())
    model.tokenizers = {name: tokenizer for name, tokenizer in frozen.tokenizers.items() if name in modalities}
    return model.train(False)
