"""Heads: what stands between an encoder's pooled features and the shared space.

A head is a list of layer descriptions, saved in the model's configuration, applied in order:

    [{"kind": "linear", "size": 512}]                      the usual CLIP projection
    [{"kind": "mlp", "hidden": 1024, "size": 512}]
    [{"kind": "unit_norm"}, {"kind": "affine"}]            a fitted map of unit-norm embeddings (centre, Procrustes)
    [{"kind": "unit_norm"}, {"kind": "residual", "hidden": 256}]
    [{"kind": "affine", "size": 99}, {"kind": "activation", "function": "tanh"}, {"kind": "affine", "size": 64}]
    [{"kind": "parallel", "branches": [[{"kind": "affine", "size": 64}], [{"kind": "unit_norm"}]], "weights": [1, 0.5]}]

The space after the last layer is normalised by the aligner.
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from gapless.core.errors import UsageError
from gapless.core.geometry import unit_norm
from gapless.models.spec import (
    ActivationLayer,
    AffineLayer,
    DropoutLayer,
    LayerNormLayer,
    LayerSpec,
    LinearLayer,
    MlpLayer,
    ParallelLayer,
    ResidualLayer,
    UnitNormLayer,
    head_size,
)

ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "relu": torch.relu,
    "gelu": nn.functional.gelu,
    "tanh": torch.tanh,
    "sigmoid": torch.sigmoid,
    "sin": torch.sin,
    "cos": torch.cos,
    "exp": torch.exp,
}


class Activation(nn.Module):
    """A function of each number."""

    def __init__(self, function: str) -> None:
        super().__init__()
        self.function = ACTIVATIONS[function]

    def forward(self, x: Tensor) -> Tensor:
        return self.function(x)


class UnitNorm(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return unit_norm(x)


class Affine(nn.Module):
    """`(x - offset) @ rotation`: the closed-form maps that `gapless close` fits; the identity until then."""

    offset: Tensor
    rotation: Tensor

    def __init__(self, size: int, output_size: int) -> None:
        super().__init__()
        self.register_buffer("offset", torch.zeros(size))
        self.register_buffer("rotation", torch.eye(size, output_size))

    def forward(self, x: Tensor) -> Tensor:
        return (x - self.offset) @ self.rotation


class Residual(nn.Module):
    """`x + up(gelu(down(x)))`, the identity at the start."""

    def __init__(self, size: int, hidden: int, dropout: float, input_dropout: float) -> None:
        super().__init__()
        self.input_dropout = nn.Dropout(input_dropout)
        self.down = nn.Linear(size, hidden)
        self.up = nn.Linear(hidden, size)
        self.dropout = nn.Dropout(dropout)
        nn.init.zeros_(self.up.weight)
        nn.init.zeros_(self.up.bias)

    def forward(self, x: Tensor) -> Tensor:
        change: Tensor = self.up(self.dropout(nn.functional.gelu(self.down(self.input_dropout(x)))))
        return x + change


class Parallel(nn.Module):
    """Branches that take the same rows; their outputs, each times its weight, side by side."""

    def __init__(self, branches: Sequence[nn.Module], weights: Sequence[float]) -> None:
        super().__init__()
        self.branches = nn.ModuleList(branches)
        self.weights = tuple(weights)

    def forward(self, x: Tensor) -> Tensor:
        parts = zip(self.branches, self.weights, strict=True)
        return torch.cat([weight * branch(x) for branch, weight in parts], dim=-1)


def mlp(size: int, hidden: int, output_size: int, dropout: float) -> nn.Module:
    return nn.Sequential(
        nn.Linear(size, hidden),
        nn.LayerNorm(hidden),
        nn.GELU(),
        nn.Dropout(dropout),
        nn.Linear(hidden, output_size),
    )


def build_layer(spec: LayerSpec, size: int) -> nn.Module:
    """The layer that a specification describes, for rows of `size`."""
    match spec:
        case LinearLayer():
            return nn.Linear(size, spec.size, bias=spec.bias)
        case MlpLayer():
            return mlp(size, spec.hidden, spec.size, spec.dropout)
        case ResidualLayer():
            return Residual(size, spec.hidden, spec.dropout, spec.input_dropout)
        case AffineLayer():
            return Affine(size, spec.size or size)
        case ActivationLayer():
            return Activation(spec.function)
        case UnitNormLayer():
            return UnitNorm()
        case LayerNormLayer():
            return nn.LayerNorm(size)
        case DropoutLayer():
            return nn.Dropout(spec.rate)
        case ParallelLayer():
            return Parallel([build_layers(branch, size) for branch in spec.branches], spec.weights)


def build_layers(specs: Sequence[LayerSpec], size: int) -> nn.Sequential:
    """Layers one after another, for rows of `size`."""
    layers = nn.Sequential()
    for spec in specs:
        layers.append(build_layer(spec, size))
        size = head_size([spec], size)
    return layers


def build_head(specs: Sequence[LayerSpec] | None, input_size: int, output_size: int | None) -> nn.Sequential:
    """The head that `specs` describe; any size is right where there is no shared space (`output_size` None).

    Args:
        specs: the layers in order; None is one linear layer to `output_size`.

    Raises:
        UsageError: a head that does not end at `output_size`, or none where there is no size to end at.
    """
    layers = default_head(output_size) if specs is None else specs
    head = build_layers(layers, input_size)
    size = head_size(layers, input_size)
    if output_size is not None and size != output_size:
        raise UsageError(f"the head ends at size {size}, but the shared space has {output_size}; end it with a linear")
    return head


def default_head(output_size: int | None) -> tuple[LayerSpec, ...]:
    """One linear layer to the shared space."""
    if output_size is None:
        raise UsageError("without a shared space (embedding_dim) a modality must say what its head is")
    return (LinearLayer(output_size),)
