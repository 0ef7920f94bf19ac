"""The layers that a closing method fits, and the model that is made of them.

    heads = {name: [unit_norm_layer(), affine_layer(mean, rotation), activation_layer("tanh")] for name in pairs.sizes}
    vector_model(pairs, heads)

A fitted layer is data: its specification, as the model's configuration has it, and its tensors. So a saved model is
read without the method that made it, and nothing in it runs.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

from torch import Tensor

from gapless.closing.base import ClosingPairs
from gapless.models.heads import default_head
from gapless.models.spec import (
    ActivationLayer,
    AffineLayer,
    LayerSpec,
    LinearLayer,
    ParallelLayer,
    UnitNormLayer,
    head_size,
    layer_spec,
)

if TYPE_CHECKING:
    from gapless.models.aligner import GaplessModel


@dataclass(frozen=True)
class FittedLayer:
    """A layer of a head and its tensors, by the names that `models.heads` gives them."""

    spec: LayerSpec
    weights: Mapping[str, Tensor] = field(default_factory=dict)


class AffineMap(NamedTuple):
    """`(x - offset) @ rotation + shift`: [size], [size, output_size] and [output_size]; no shift is one of 0."""

    offset: Tensor
    rotation: Tensor
    shift: Tensor | None = None


def unit_norm_layer() -> FittedLayer:
    """Each row over its norm."""
    return FittedLayer(UnitNormLayer())


def affine_layer(offset: Tensor, rotation: Tensor) -> FittedLayer:
    """`(x - offset) @ rotation`, of any matrix [size, output_size]."""
    tensors = {"offset": offset, "rotation": rotation}
    return FittedLayer(AffineLayer(rotation.shape[1]), {key: tensor.float() for key, tensor in tensors.items()})


def linear_layer(matrix: Tensor, bias: Tensor) -> FittedLayer:
    """`x @ matrix + bias`, of any matrix [size, output_size]."""
    return FittedLayer(LinearLayer(matrix.shape[1], bias=True), {"weight": matrix.T.float(), "bias": bias.float()})


def activation_layer(function: str) -> FittedLayer:
    """A function of each number: relu, gelu, tanh, sigmoid, sin, cos or exp.

    Raises:
        UsageError: another function.
    """
    spec = layer_spec({"kind": ActivationLayer.kind, "function": function})
    return FittedLayer(spec)


def parallel_layer(branches: Sequence[Sequence[FittedLayer]], weights: Sequence[float]) -> FittedLayer:
    """Branches that take the same rows; their outputs, each times its weight, are concatenated.

    Args:
        branches: the layers of each branch in order.
        weights: one per branch.

    Raises:
        UsageError: another number of weights than branches, or no branch.
    """
    spec = ParallelLayer(tuple(tuple(layer.spec for layer in branch) for branch in branches), tuple(weights))
    tensors = {
        f"branches.{number}.{place}.{key}": tensor
        for number, branch in enumerate(branches)
        for place, layer in enumerate(branch)
        for key, tensor in layer.weights.items()
    }
    return FittedLayer(spec, tensors)


def layers_of(model: "GaplessModel", modality: str) -> list[FittedLayer]:
    """The head of a fitted model as layers, so that a method can go on from them or stand another beside them."""
    specs = model.specs[modality].head or default_head(model.config.embedding_dim)
    modules = model.heads[modality].children()
    return [
        FittedLayer(spec, {key: tensor.detach() for key, tensor in module.state_dict().items()})
        for spec, module in zip(specs, modules, strict=True)
    ]


def vector_model(
    pairs: ClosingPairs, heads: Mapping[str, Sequence[FittedLayer]], loss_of: "GaplessModel | None" = None
) -> "GaplessModel":
    """The model that takes rows of each modality as vectors and applies fitted layers to them.

    Args:
        heads: modality -> its layers in order; all heads end at one size.
        loss_of: a model whose loss the new one has too, with what was learned in it; default: the paper's.

    Raises:
        ValueError: a head that ends at another size, tensors that do not fit their layer.
    """
    from gapless.models.aligner import GaplessConfig, GaplessModel

    described = {name: [described_layer(layer.spec) for layer in layers] for name, layers in heads.items()}
    size = head_size([layer.spec for layer in heads[pairs.anchor]], pairs.sizes[pairs.anchor])
    loss = {"anchor": pairs.anchor} if loss_of is None else loss_of.config.loss
    model = GaplessModel(GaplessConfig(vector_modalities(pairs, described), size, loss=loss))
    if loss_of is not None and loss_of.loss is not None and model.loss is not None:
        model.loss.load_state_dict(loss_of.loss.state_dict())
    for name, layers in heads.items():
        for module, layer in zip(model.heads[name].children(), layers, strict=True):
            try:
                module.load_state_dict(dict(layer.weights))
            except RuntimeError as error:
                raise ValueError(f"the {layer.spec.kind} layer of {name} cannot take its tensors: {error}") from None
    return model.train(False)


def affine_model(pairs: ClosingPairs, maps: Mapping[str, AffineMap]) -> "GaplessModel":
    """The model that applies one affine map to the unit-norm rows of each modality."""
    return vector_model(pairs, {name: [unit_norm_layer(), _layer_of(fitted)] for name, fitted in maps.items()})


def _layer_of(fitted: AffineMap) -> FittedLayer:
    """A map without a shift subtracts its offset first, which keeps digits that `x @ rotation + bias` would lose."""
    if fitted.shift is None:
        return affine_layer(fitted.offset, fitted.rotation)
    matrix = fitted.rotation.double()
    return linear_layer(matrix, fitted.shift.double() - fitted.offset.double() @ matrix)


def described_layer(spec: LayerSpec) -> dict[str, Any]:
    """The mapping that `models.spec.layer_spec` reads."""
    if isinstance(spec, ParallelLayer):
        branches = [[described_layer(layer) for layer in branch] for branch in spec.branches]
        return {"kind": spec.kind, "branches": branches, "weights": list(spec.weights)}
    return {"kind": spec.kind, **{key: value for key, value in asdict(spec).items() if value is not None}}


def vector_modalities(pairs: ClosingPairs, heads: Mapping[str, list[dict[str, Any]]]) -> dict[str, Any]:
    """The modalities of a model's configuration: vectors in, and these layers as heads."""
    return {
        name: {
            "input": {"kind": "vector", "size": size},
            "encoder": {"kind": "vector", "size": size},
            "head": heads[name],
        }
        for name, size in pairs.sizes.items()
    }
