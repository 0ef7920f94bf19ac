"""What a model is made of, as typed and frozen specifications: modality, input, encoder, head.

    spec = modality_spec("image", {
        "input": {"kind": "image", "size": 224},
        "encoder": {"kind": "transformers", "config": {"model_type": "vit"}, "pooling": "cls"},
        "head": [{"kind": "linear", "size": 512}],
    })
    spec.input.size, spec.encoder.trainable, spec.head[0].size

A configuration file, a recipe and the command line give mappings; here they become dataclasses, once. A key that
nothing reads is refused with the nearest right one, so that no misspelt option is passed over in silence.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, Field, asdict, dataclass, fields, is_dataclass
from types import UnionType
from typing import Any, ClassVar, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from gapless.core.errors import UsageError, did_you_mean, unknown_name
from gapless.modalities.base import MODALITIES

Pooling = Literal["cls", "mean", "series", "pooler", "image_embeds", "text_embeds"]


# ---- encoders -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class LoraSpec:
    """Low-rank adapters on linear layers; see `models.lora`.

    Args:
        rank: of the adapters.
        alpha: their output is multiplied by alpha / rank.
        dropout: of their input while training, in [0, 1).
        targets: how the names of the layers end, such as `query` and `value`; None is every linear layer.
    """

    rank: int = 16
    alpha: int = 32
    dropout: float = 0.05
    targets: tuple[str, ...] | None = None

    def __post_init__(self) -> None:
        if self.rank < 1 or self.alpha < 1 or not 0 <= self.dropout < 1:
            raise UsageError(
                "lora takes a rank and an alpha of at least 1 and a dropout in [0, 1), "
                f"got {self.rank}, {self.alpha} and {self.dropout}"
            )


@dataclass(frozen=True)
class TransformersEncoderSpec:
    """A model of transformers (timm's are of type `timm_wrapper`).

    Args:
        config: the keyword arguments of its configuration, `model_type` among them.
        pooling: how token features become one row; "series" is the mean over channels and patches of a model of time
            series, such as PatchTST, weighted by what was observed.
        architecture: the class; default `AutoModel`.
        pretrained: a local directory or hub name whose weights a new model starts from; a saved model has none.
        trainable: whether it learns; a frozen encoder stays in evaluation mode.
        lora: low-rank adapters, which then learn alone; a finished model has them merged into its weights.
    """

    kind: ClassVar[str] = "transformers"
    config: Mapping[str, Any] | None = None
    pooling: Pooling = "pooler"
    architecture: str = "AutoModel"
    pretrained: str | None = None
    trainable: bool = True
    lora: LoraSpec | None = None

    def __post_init__(self) -> None:
        if self.lora is not None and not self.trainable:
            raise UsageError("an encoder with lora learns by its adapters, and trainable: false freezes them too")


@dataclass(frozen=True)
class OpenClipEncoderSpec:
    """One tower of an open_clip model; `config` is open_clip's own `model_cfg`, the rest as for transformers."""

    kind: ClassVar[str] = "open_clip"
    tower: Literal["visual", "text"]
    config: Mapping[str, Any] | None = None
    pretrained: str | None = None
    trainable: bool = True


@dataclass(frozen=True)
class VectorEncoderSpec:
    """Ready features of `size` numbers, taken as they are."""

    kind: ClassVar[str] = "vector"
    size: int
    trainable: bool = True


@dataclass(frozen=True)
class MlpEncoderSpec:
    """Two linear layers with layer norm, GELU and dropout between them, from `size` numbers to `output` features.

    Args:
        size: numbers of a row; None where they depend on statistics that are not fitted yet, as those of a table.
        hidden: width between the layers.
        output: features of a row.
        dropout: of the hidden features.
    """

    kind: ClassVar[str] = "mlp"
    size: int | None = None
    hidden: int = 256
    output: int = 128
    dropout: float = 0.0
    trainable: bool = True


# ---- layers of a head -----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class LinearLayer:
    """The usual CLIP projection to `size`."""

    kind: ClassVar[str] = "linear"
    size: int
    bias: bool = False


@dataclass(frozen=True)
class MlpLayer:
    """Linear, layer norm, GELU, dropout, linear: to `size` by way of `hidden`."""

    kind: ClassVar[str] = "mlp"
    hidden: int
    size: int
    dropout: float = 0.0


@dataclass(frozen=True)
class ResidualLayer:
    """`x + up(gelu(down(x)))`, the identity at the start; `size` is the input's and may be left out."""

    kind: ClassVar[str] = "residual"
    hidden: int
    size: int | None = None
    dropout: float = 0.0
    input_dropout: float = 0.0


@dataclass(frozen=True)
class AffineLayer:
    """`(x - offset) @ rotation`, a fitted map; `size` defaults to the input's."""

    kind: ClassVar[str] = "affine"
    size: int | None = None


@dataclass(frozen=True)
class ActivationLayer:
    """A function of each number, such as tanh: between two affine layers it makes a map that is not affine."""

    kind: ClassVar[str] = "activation"
    function: Literal["relu", "gelu", "tanh", "sigmoid", "sin", "cos", "exp"]


@dataclass(frozen=True)
class UnitNormLayer:
    """Each row over its norm."""

    kind: ClassVar[str] = "unit_norm"


@dataclass(frozen=True)
class LayerNormLayer:
    """`torch.nn.LayerNorm`."""

    kind: ClassVar[str] = "layer_norm"


@dataclass(frozen=True)
class DropoutLayer:
    """`torch.nn.Dropout` of this rate."""

    kind: ClassVar[str] = "dropout"
    rate: float


@dataclass(frozen=True)
class ParallelLayer:
    """Several heads side by side: all take the same rows, and their outputs, each times its weight, are concatenated.

    Args:
        branches: the layers of each branch in order; a branch may hold parallel layers itself.
        weights: one number per branch.
    """

    kind: ClassVar[str] = "parallel"
    branches: tuple[tuple["LayerSpec", ...], ...]
    weights: tuple[float, ...]

    def __post_init__(self) -> None:
        if not self.branches or len(self.branches) != len(self.weights):
            raise UsageError(
                f"a parallel layer has one weight per branch, got {len(self.branches)} branch(es) and "
                f"{len(self.weights)} weight(s)"
            )


EncoderSpec = TransformersEncoderSpec | OpenClipEncoderSpec | VectorEncoderSpec | MlpEncoderSpec
LayerSpec = (
    LinearLayer
    | MlpLayer
    | ResidualLayer
    | AffineLayer
    | ActivationLayer
    | UnitNormLayer
    | LayerNormLayer
    | DropoutLayer
    | ParallelLayer
)


@dataclass(frozen=True)
class ModalitySpec:
    """One modality of a model.

    Args:
        input: the `Input` of a registered kind of modality, such as `ImageInput`.
        encoder: from the kind's tensors to features.
        head: None stands for one linear layer to the shared space.
    """

    input: Any
    encoder: EncoderSpec
    head: tuple[LayerSpec, ...] | None = None


# ---- from mappings --------------------------------------------------------------------------------------------------

Spec = TypeVar("Spec")


def modality_spec(name: str, mapping: Mapping[str, Any]) -> ModalitySpec:
    """The typed specification of a modality.

    Raises:
        UsageError: an unknown kind or key (the nearest right one is named), a missing or unfit value.
    """
    where = f"modality {name!r}"
    _check_mapping(mapping, where)
    _check_keys(mapping, [field.name for field in fields(ModalitySpec)], where)
    if "input" not in mapping:
        raise UsageError(f"{where} has no input; see docs/train.md")
    head = mapping.get("head")
    if head is not None and (isinstance(head, str | Mapping) or not isinstance(head, Sequence)):
        raise UsageError(f"{where}: head is a list of layers, got {head!r}")
    taken = input_spec(mapping["input"], f"the input of {where}")
    return ModalitySpec(
        input=taken,
        encoder=encoder_spec(with_encoder(name, mapping)["encoder"], f"the encoder of {where}"),
        head=None if head is None else _layers(head, f"head layer {{}} of {where}"),
    )


def with_encoder(name: str, mapping: Mapping[str, Any]) -> dict[str, Any]:
    """The mapping of a modality with the encoder that its kind of input has by default, where it names none."""
    if "encoder" in mapping or not isinstance(mapping.get("input"), Mapping):
        return dict(mapping)
    taken = input_spec(mapping["input"], f"the input of modality {name!r}")
    return {**mapping, "encoder": MODALITIES[taken.kind].default_encoder(taken)}


def with_fitted_input(name: str, mapping: Mapping[str, Any], rows: Sequence[Any]) -> dict[str, Any]:
    """The mapping of a modality with the statistics of the training rows in its input; see `Modality.fit`.

    Call it before `with_encoder`: the default encoder of a table depends on what is fitted.

    Args:
        rows: sources of the training rows that have the modality.
    """
    settings = input_spec(mapping["input"], f"the input of modality {name!r}")
    fitted = MODALITIES[settings.kind].fit(settings, rows)
    return {**mapping, "input": json.loads(json.dumps({"kind": settings.kind, **asdict(fitted)}))}


def input_spec(mapping: Mapping[str, Any], where: str = "the input") -> Any:
    """`{"kind": "image", "size": 224}` as an `ImageInput`; likewise every registered kind of modality."""
    return _of_kind({name: kind.Input for name, kind in MODALITIES.items()}, "input kind", mapping, where)


def encoder_spec(mapping: Mapping[str, Any], where: str = "the encoder") -> EncoderSpec:
    """`{"kind": "vector", "size": 64}` as a `VectorEncoderSpec`; likewise transformers and open_clip."""
    spec: EncoderSpec = _of_kind(_by_kind(EncoderSpec), "encoder kind", mapping, where)
    return spec


def layer_spec(mapping: Mapping[str, Any], where: str = "the head layer") -> LayerSpec:
    """`{"kind": "linear", "size": 512}` as a `LinearLayer`; likewise the other layers."""
    if isinstance(mapping, Mapping) and mapping.get("kind") == ParallelLayer.kind and "branches" in mapping:
        mapping = {**mapping, "branches": _branches(mapping["branches"], where)}
    spec: LayerSpec = _of_kind(_by_kind(LayerSpec), "head layer", mapping, where)
    return spec


def _layers(mappings: Sequence[Mapping[str, Any]], where: str) -> tuple[LayerSpec, ...]:
    """The layers of a head; `where` has a place for the number of the layer."""
    return tuple(layer_spec(layer, where.format(number)) for number, layer in enumerate(mappings, 1))


def _branches(value: Any, where: str) -> tuple[tuple[LayerSpec, ...], ...]:
    """The layers of each branch of a parallel layer."""
    branches = value if _is_list(value) else [value]
    if not all(map(_is_list, branches)):
        raise UsageError(f"branches of {where} is a list of lists of layers, got {value!r}")
    return tuple(
        _layers(branch, f"layer {{}} of branch {number} of {where}") for number, branch in enumerate(branches, 1)
    )


def _is_list(value: Any) -> bool:
    return isinstance(value, Sequence) and not isinstance(value, str)


def head_size(layers: Sequence[LayerSpec], size: int) -> int:
    """The size that rows of `size` have after the layers.

    >>> head_size([LinearLayer(8), ParallelLayer(((UnitNormLayer(),), (LinearLayer(3),)), (1.0, 1.0))], 5)
    11
    """
    for layer in layers:
        if isinstance(layer, ParallelLayer):
            size = sum(head_size(branch, size) for branch in layer.branches)
        else:
            size = getattr(layer, "size", None) or size
    return size


def _by_kind(specs: Any) -> dict[str, type[Any]]:
    return {spec.kind: spec for spec in get_args(specs)}


def _of_kind(by_name: Mapping[str, type[Any]], what: str, mapping: Mapping[str, Any], where: str) -> Any:
    _check_mapping(mapping, where)
    name = mapping.get("kind", "")
    if name not in by_name:
        raise unknown_name(f"{what} in {where}", str(name), by_name)
    return _filled(by_name[name], {key: value for key, value in mapping.items() if key != "kind"}, f"{where} ({name})")


def _filled(spec: type[Spec], values: Mapping[str, Any], where: str) -> Spec:
    known: dict[str, Field[Any]] = {field.name: field for field in fields(spec)}  # type: ignore[arg-type]
    _check_keys(values, list(known), where)
    missing = [name for name, field in known.items() if field.default is MISSING and name not in values]
    if missing:
        raise UsageError(f"{where} has no {' and no '.join(missing)}")
    hints = get_type_hints(spec)
    return spec(**{key: _checked(value, hints[key], f"{key} of {where}") for key, value in values.items()})


def _check_mapping(value: Any, where: str) -> None:
    if not isinstance(value, Mapping):
        raise UsageError(f"{where} is a mapping of keys to values, got {value!r}")


def _check_keys(values: Mapping[str, Any], known: Sequence[str], where: str) -> None:
    for key in values:
        if key not in known:
            meant = did_you_mean(str(key), known, cutoff=0.5)
            raise UsageError(f"{where} has an unknown key {key!r}{meant} (known: {', '.join(known) or 'none'})")


def _checked(value: Any, hint: Any, where: str) -> Any:
    """The value as its type asks: whole numbers of at least 1, finite floats, lists as tuples."""
    options = get_args(hint) if get_origin(hint) in (Union, UnionType) else (hint,)
    for option in options:
        if is_dataclass(option) and isinstance(option, type) and isinstance(value, Mapping):
            return _filled(option, value, where)
        fits, converted = _as_type(value, option)
        if fits:
            return converted
    expected = " or ".join(_type_text(option) for option in options)
    raise UsageError(f"{where} must be {expected}, got {value!r}")


def _as_type(value: Any, option: Any) -> tuple[bool, Any]:
    origin = get_origin(option)
    if option is type(None):
        return value is None, None
    if origin is Literal:
        return any(value == one and type(value) is type(one) for one in get_args(option)), value
    if option is bool:
        return isinstance(value, bool), value
    if option is int:
        return isinstance(value, int) and not isinstance(value, bool) and value >= 0, value
    if option is float:
        is_number = isinstance(value, int | float) and not isinstance(value, bool)
        return is_number and value == value and abs(value) != float("inf"), float(value) if is_number else value
    if origin is tuple:
        item = get_args(option)[0]
        return _as_items(value, item) if item in (float, str) else (isinstance(value, tuple), value)
    return isinstance(value, origin or option), value


def _as_items(value: Any, item: type) -> tuple[bool, Any]:
    if isinstance(value, str) or not isinstance(value, Sequence):
        return False, value
    parts = [_as_type(one, item) for one in value]
    return all(fits for fits, _ in parts), tuple(part for _, part in parts)


def _type_text(option: Any) -> str:
    if get_origin(option) is Literal:
        return " or ".join(map(repr, get_args(option)))
    names = {type(None): "null", bool: "true or false", int: "a whole number", float: "a number", str: "a text"}
    if get_origin(option) is tuple:
        return "a list of texts" if get_args(option)[0] is str else "a list of numbers"
    return names.get(option, "a mapping")
