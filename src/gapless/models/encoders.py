"""Encoders of transformers, timm and open_clip, and the identity for vectors: how each is built, loaded and pooled.

An encoder is described by a specification (`spec.EncoderSpec`), in the model's configuration as a mapping:

    {"kind": "transformers", "config": {"model_type": "bert", ...}, "pooling": "mean", "trainable": true}
    {"kind": "open_clip", "tower": "visual", "config": {...}, "trainable": false}
    {"kind": "vector", "size": 1280}
    {"kind": "mlp", "size": 24, "hidden": 256, "output": 128}

timm models are transformers models of type `timm_wrapper`. Weights come from `pretrained`, which is used once, when a
new model is assembled; a saved model carries its weights itself.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from copy import deepcopy
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from torch import Tensor, nn

from gapless.core.errors import UsageError, missing_extra
from gapless.core.files import write_json
from gapless.models.lora import add_lora
from gapless.models.safe_loading import SAFE, network_or_usage
from gapless.models.spec import (
    EncoderSpec,
    MlpEncoderSpec,
    OpenClipEncoderSpec,
    TransformersEncoderSpec,
    VectorEncoderSpec,
    encoder_spec,
)


class Encoder(nn.Module):
    """The base of every encoder: a module from inputs by keyword to pooled features, [pair, output_size]."""

    output_size: int
    model: Any
    has_tokens = False  # whether it has the method `pooled_and_tokens`


class TransformersEncoder(Encoder):
    """Any `transformers` model that returns token features or pooled features.

    Raises:
        UsageError: a configuration without a model type, or an unknown architecture.
    """

    has_tokens = True

    def __init__(self, spec: TransformersEncoderSpec) -> None:
        super().__init__()
        import transformers

        self.pooling = spec.pooling
        config = dict(spec.config or {})
        model_type = config.pop("model_type", "")
        if not model_type:
            raise UsageError("the config of a transformers encoder has no model_type (bert, vit, resnet, ...)")
        if model_type == "timm_wrapper":
            _check_torchvision("timm")
        architecture = spec.architecture
        model_class: Any = getattr(transformers, architecture, None)
        if architecture != "AutoModel" and not _is_architecture(model_class):
            raise UsageError(f"unknown transformers architecture {architecture!r}")
        built_config = transformers.AutoConfig.for_model(model_type, **config)
        from_config = model_class.from_config if architecture == "AutoModel" else model_class._from_config
        self.model = from_config(built_config)
        self.output_size = _feature_size(built_config, self.pooling)

    def forward(self, **inputs: Tensor) -> Tensor:
        """Pooled features, [pair, output_size]."""
        return _pool(self.model(**inputs), self.pooling, _mask_of(inputs))

    def pooled_and_tokens(self, **inputs: Tensor) -> tuple[Tensor, Tensor]:
        """Pooled features, and the token or patch features before pooling, [pair, token, size], from one pass."""
        output = self.model(**inputs)
        return _pool(output, self.pooling, _mask_of(inputs)), _token_features(output, self.pooling)


def _is_architecture(found: Any) -> bool:
    import transformers

    return isinstance(found, type) and issubclass(found, transformers.PreTrainedModel)


class OpenClipEncoder(Encoder):
    """One tower of an open_clip model; `config` is open_clip's own `model_cfg`."""

    def __init__(self, spec: OpenClipEncoderSpec) -> None:
        super().__init__()
        _check_torchvision("open_clip_torch")
        from open_clip.model import CLIP, CustomTextCLIP

        config = deepcopy(dict(spec.config or {}))
        custom = config.pop("custom_text", False) or "hf_model_name" in config.get("text_cfg", {})
        with _local_text_config(config):
            model = (CustomTextCLIP if custom else CLIP)(**config)
        self.tower = spec.tower
        for name in ("visual",) if self.tower == "text" else TEXT_PARTS:
            if hasattr(model, name):
                delattr(model, name)
        for module in model.modules():
            # `from_pretrained` builds the model on the meta device and fills it from the file. A buffer that the file
            # lacks, such as the causal mask, would hold uninitialised memory, so every buffer is saved.
            module._non_persistent_buffers_set.clear()
        self.model = model
        self.output_size = int(config["embed_dim"])

    def forward(self, **inputs: Tensor) -> Tensor:
        if self.tower == "visual":
            features: Tensor = self.model.encode_image(inputs["pixel_values"])
        else:
            features = self.model.encode_text(inputs["input_ids"])
        return features


@contextmanager
def _local_text_config(config: dict[str, Any]) -> Iterator[None]:
    """Give open_clip the saved configuration of a transformers text tower, for which it would ask the hub."""
    text = config.get("text_cfg", {})
    saved = text.pop("hf_config", None)
    if saved is None:
        yield
        return
    with TemporaryDirectory() as folder:
        write_json(Path(folder) / "config.json", saved)
        text["hf_model_name"] = folder
        yield


LOCAL = "local-dir:"
TEXT_PARTS = ("text", "transformer", "token_embedding", "positional_embedding", "ln_final", "text_projection")


class VectorEncoder(Encoder):
    """The identity, for modalities whose values are features already."""

    def __init__(self, spec: VectorEncoderSpec) -> None:
        super().__init__()
        self.output_size = spec.size

    def forward(self, values: Tensor) -> Tensor:
        return values


class MlpEncoder(Encoder):
    """Two linear layers with layer norm, GELU and dropout between them.

    Raises:
        UsageError: a specification without the size of the input, which the statistics of the training rows give.
    """

    def __init__(self, spec: MlpEncoderSpec) -> None:
        super().__init__()
        if spec.size is None:
            raise UsageError("the size of an mlp encoder is unknown until its input is fitted to training rows")
        self.layers = nn.Sequential(
            nn.Linear(spec.size, spec.hidden),
            nn.LayerNorm(spec.hidden),
            nn.GELU(),
            nn.Dropout(spec.dropout),
            nn.Linear(spec.hidden, spec.output),
        )
        self.output_size = spec.output

    def forward(self, values: Tensor) -> Tensor:
        features: Tensor = self.layers(values)
        return features


ENCODERS: dict[type[Any], Callable[[Any], Encoder]] = {
    TransformersEncoderSpec: TransformersEncoder,
    OpenClipEncoderSpec: OpenClipEncoder,
    VectorEncoderSpec: VectorEncoder,
    MlpEncoderSpec: MlpEncoder,
}


def build_encoder(spec: EncoderSpec, weights: Mapping[str, Tensor] | None = None) -> Encoder:
    """The encoder that `spec` describes, frozen unless `trainable`.

    Args:
        weights: the state of the library's own model; None is fresh weights.
    """
    encoder = ENCODERS[type(spec)](spec)
    if weights is not None:
        encoder.model.load_state_dict(weights)
    encoder.requires_grad_(spec.trainable)
    lora = getattr(spec, "lora", None)
    if lora is not None:
        add_lora(encoder.model, lora)
    return encoder


def _check_torchvision(package: str) -> None:
    """timm and open_clip need torchvision, which a CPU-only torch may lack."""
    from importlib.util import find_spec

    for needed in (package.removesuffix("_torch"), "torchvision"):
        if find_spec(needed) is None:
            raise missing_extra(needed, "openclip")


def _feature_size(config: Any, pooling: str) -> int:
    """The width of the pooled features of a model with this transformers configuration."""
    if pooling in ("image_embeds", "text_embeds"):
        return int(config.projection_dim)
    if config.model_type == "timm_wrapper":
        import timm

        with torch.device("meta"):  # builds a model of any size without memory for its weights
            model: Any = timm.create_model(config.architecture, num_classes=0, **(config.model_args or {}))
        return int(model.num_features)
    if getattr(config, "hidden_sizes", None):
        return int(config.hidden_sizes[-1])
    return int(config.hidden_size)


def _mask_of(inputs: dict[str, Tensor]) -> Tensor | None:
    """What pooling leaves out: of tokens or samples [pair, position], of time series [pair, time, channel]."""
    return inputs.get("attention_mask", inputs.get("past_observed_mask"))


def _pool(output: Any, pooling: str, mask: Tensor | None = None) -> Tensor:
    """Pooled features, [pair, size], of the output of a transformers model.

    Args:
        output: has `last_hidden_state`, `pooler_output` or the projected embeddings, as `pooling` needs.
        pooling: image_embeds, text_embeds, pooler, cls, mean or series.
        mask: from `_mask_of`; the mean leaves out where it is 0.
    """
    if pooling in ("image_embeds", "text_embeds"):
        projected: Tensor = getattr(output, pooling)
        return projected
    if pooling == "pooler":
        pooled: Tensor = output.pooler_output
        return pooled.flatten(1)
    tokens = _token_features(output, pooling)
    if pooling == "cls":
        return tokens[:, 0]
    if mask is None:
        return tokens.mean(dim=1)
    if pooling == "series":  # [pair, time, channel] to [pair, channel x patch], as the tokens are ordered
        shares = _shares(mask.to(tokens.dtype).transpose(1, 2), output.last_hidden_state.shape[2]).flatten(1)
    else:
        shares = _shares(mask.to(tokens.dtype), tokens.shape[1])
    weights = shares.unsqueeze(-1)
    # The floor is below the weight of one observed sample; it matters for a row that has none at all.
    return (tokens * weights).sum(dim=1) / weights.sum(dim=1).clamp_min(1e-6)


def _shares(mask: Tensor, num_tokens: int) -> Tensor:
    """The share of each token's stretch that is observed: a mask [..., position] as [..., token].

    The mask of texts has one position a token and stays as it is; encoders of signals make one token of many samples.
    """
    if mask.shape[-1] == num_tokens:
        return mask
    return nn.functional.adaptive_avg_pool1d(mask if mask.ndim == 3 else mask.unsqueeze(1), num_tokens).reshape(
        *mask.shape[:-1], num_tokens
    )


def _token_features(output: Any, pooling: str) -> Tensor:
    """Features before pooling, [pair, token, size].

    Feature maps [pair, size, height, width] and series [pair, channel, patch, size] are flattened to tokens.
    """
    features: Tensor = output.last_hidden_state
    if pooling == "series":
        return features.flatten(1, 2)
    return features.flatten(2).transpose(1, 2) if features.ndim == 4 else features


def load_pretrained_encoder(spec: dict[str, Any]) -> tuple[dict[str, Any], Encoder]:
    """Assemble an encoder from `spec["pretrained"]`, a local directory or a hub name.

    Returns:
        the specification with the configuration filled in and `pretrained` removed, and the encoder with its weights.

    Raises:
        UsageError: when the directory does not hold such a model.
        NeedsNetwork: when the name is not local and the hub cannot be reached.
    """
    import transformers

    spec = dict(spec)
    source = spec.pop("pretrained")
    if spec["kind"] == "open_clip":
        return open_clip_tower(spec, *load_open_clip(source))
    model_class = getattr(transformers, spec.get("architecture", "AutoModel"))
    try:
        model = model_class.from_pretrained(source, trust_remote_code=False, use_safetensors=True)
    except OSError as error:
        raise network_or_usage(source, error) from None
    spec["config"] = {**spec.get("config", {}), **model.config.to_diff_dict(), "model_type": model.config.model_type}
    return spec, build_encoder(encoder_spec(spec), model.state_dict())


def open_clip_tower(spec: dict[str, Any], model: nn.Module, config: dict[str, Any]) -> tuple[dict[str, Any], Encoder]:
    """The description and the encoder of one tower of a model from `load_open_clip`."""
    described = {key: value for key, value in spec.items() if key != "pretrained"} | {"config": config}
    encoder = build_encoder(encoder_spec(described))
    weights = model.state_dict()
    own: dict[str, Tensor] = encoder.model.state_dict()
    encoder.model.load_state_dict({key: weights.get(key, value) for key, value in own.items()})
    return described, encoder


def open_clip_parts(source: str) -> tuple[str, str]:
    """The name of an open_clip model and its checkpoint; "" where the name brings its own weights."""
    if source.startswith(LOCAL):
        if "@" in source and not Path(source.removeprefix(LOCAL)).exists():
            raise UsageError(f"{source} names a checkpoint, but a directory of open_clip brings its own weights")
        return source, ""
    name, _, checkpoint = source.partition("@")
    return name, checkpoint


def load_open_clip(source: str) -> tuple[Any, dict[str, Any]]:
    """An open_clip model, and the `model_cfg` that builds it again without the network.

    Args:
        source: `local-dir:PATH`, `hf-hub:NAME`, or `NAME@CHECKPOINT` with a local safetensors file.

    Raises:
        UsageError: no such model, weights that are not safetensors, or a CoCa model. NeedsNetwork: only the hub has it.
    """
    _check_torchvision("open_clip_torch")
    import open_clip

    name, checkpoint = open_clip_parts(source)
    if checkpoint and not checkpoint.endswith(SAFE):
        raise UsageError(f"{checkpoint} is no {SAFE} file; others may hold code: convert it to safetensors")
    directory = Path(name.removeprefix(LOCAL))
    if (directory / "open_clip_config.json").is_file() and not any(directory.glob(f"*{SAFE}")):
        raise UsageError(f"{directory} holds no {SAFE} weights; others may hold code: convert them to safetensors")
    try:
        model = open_clip.create_model(name, pretrained=checkpoint or None, weights_only=True)
        config = deepcopy(open_clip.get_model_config(name))
    except (OSError, RuntimeError, ValueError) as error:
        raise network_or_usage(source, error) from None
    if "multimodal_cfg" in config:
        raise UsageError(f"{source} is a captioning model (CoCa), and only its contrastive kind can be taken")
    if "timm_model_name" in config["vision_cfg"]:
        config["vision_cfg"]["timm_model_pretrained"] = False
    if "hf_model_name" in config["text_cfg"]:
        config["text_cfg"] |= {"hf_model_pretrained": False, "hf_config": model.text.config.to_dict()}
    return model, config


@torch.no_grad()
def num_parameters(module: nn.Module) -> int:
    """How many numbers the parameters of a module hold."""
    return sum(parameter.numel() for parameter in module.parameters())
