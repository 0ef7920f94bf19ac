"""Fingerprints of models: two models of one fingerprint give the same embeddings."""

import hashlib
import json
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from gapless.models.aligner import GaplessModel


@torch.no_grad()
def fingerprint_of(model: GaplessModel) -> str:
    """sha256 of what decides the embeddings: the description of the modalities and all weights but those of the loss.

    Returns:
        64 hexadecimal digits, the same on every device and for every order of the weights.
    """
    weights = {name: tensor for name, tensor in model.state_dict().items() if not name.startswith("loss.")}
    return weights_digest(model.config.modalities, weights)


def weights_digest(description: Any, weights: Mapping[str, Tensor]) -> str:
    """sha256 of a description and of weights by name, whatever their order.

    Args:
        description: anything that JSON can hold.
        weights: name -> tensor of any shape, type and device.
    """
    digest = hashlib.sha256(json.dumps(description, sort_keys=True, default=list).encode())
    for name, tensor in sorted(weights.items()):
        digest.update(name.encode())
        digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data)
    return digest.hexdigest()
