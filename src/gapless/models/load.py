"""Loads any model as a `GaplessModel`. Encoders of other libraries get identity heads, so that all code has one kind.

    load_model(["runs/x"])                                     a run or model directory of gapless
    load_model(["models/clip-vit-base"])                       a transformers CLIP or SigLIP directory
    load_model(["local-dir:models/biomedclip"])                an open_clip directory
    load_model(["ViT-B-32@weights.safetensors"])               an open_clip architecture and a checkpoint
    load_model(["image=models/dinov2", "text=models/minilm"])  separate encoders, each in a space of its own

A name that is no local path is looked up on the hub.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast, get_args

from gapless.core.errors import DataRefused, UsageError, unknown_name
from gapless.core.files import read_json, read_object
from gapless.models.aligner import GaplessConfig, GaplessModel, assemble
from gapless.models.encoders import load_open_clip, open_clip_parts, open_clip_tower
from gapless.models.image_processors import image_input_of, image_processor_config
from gapless.models.safe_loading import loading, network_or_usage, saved_tokenizer
from gapless.models.spec import Pooling
from gapless.models.tokenizers import OpenClipTokenizer

# model type -> modality -> (architecture of the tower, pooling)
TOWERS: dict[str, dict[str, tuple[str, str]]] = {
    "clip": {
        "image": ("CLIPVisionModelWithProjection", "image_embeds"),
        "text": ("CLIPTextModelWithProjection", "text_embeds"),
    },
    "siglip": {"image": ("SiglipVisionModel", "pooler"), "text": ("SiglipTextModel", "pooler")},
}
POOLED_BY_CLASS_TOKEN = ("vit", "deit", "beit")  # their pooler is often saved without weights
SENTENCE_POOLINGS = {"pooling_mode_mean_tokens": "mean", "pooling_mode_cls_token": "cls"}
SENTENCE_MODULES = {"Transformer", "Pooling", "Normalize"}

Modality = dict[str, Any]


def load_model(sources: Sequence[str | Path]) -> GaplessModel:
    """Load the model that the argument MODEL of a command names.

    Args:
        sources: one model, or several `MODALITY=DIRECTORY`. `@POOLING` after a directory replaces its usual pooling.

    Returns:
        The model, in evaluation mode on the CPU. Encoders of other libraries are frozen.

    Raises:
        UsageError: no such model, or one of a kind that is not read. NeedsNetwork: a name that only the hub knows.
        DataRefused: a directory that lacks a part, or a damaged file.
    """
    names = [str(source) for source in sources]
    with loading(" ".join(names)):
        return _model_named(names)


def _model_named(names: list[str]) -> GaplessModel:
    """The model of these names, by what lies at each: a run, a directory of some library, or nothing."""
    if all("=" in name and not Path(name).exists() for name in names):
        return _load_pair(dict(name.split("=", 1) for name in names))
    if len(names) != 1:
        raise UsageError(f"one model, or several MODALITY=DIRECTORY, got {' '.join(names)}")
    name = names[0]
    path = Path(name)
    if (path / "model" / "config.json").exists():
        return GaplessModel.from_pretrained(path / "model")
    if (path / "open_clip_config.json").exists() and not (path / "config.json").exists():
        name = f"local-dir:{name}"
    if name.startswith(("local-dir:", "hf-hub:")) or ("@" in name and not path.exists()):
        return _load_open_clip_model(name)
    if path.exists() and not (path / "config.json").exists():
        raise DataRefused(f"{path} is not a model: it lacks config.json")
    if not path.exists() and name in _open_clip_names():
        raise UsageError(f"{name} is an architecture without weights; give {name}@CHECKPOINT")
    if not path.exists() and (path.is_absolute() or name.startswith(".") or len(path.parts) > 2):
        raise UsageError(f"{name} does not exist")  # a name on the hub is one word, or two with a slash
    model_type = _config_of(name).model_type
    if model_type == GaplessConfig.model_type:
        return GaplessModel.from_pretrained(name)
    if model_type not in TOWERS:
        loadable_types = ", ".join([GaplessConfig.model_type, *TOWERS])
        raise UsageError(
            f"{name} is a model of type {model_type!r}, which holds no pair of encoders ({loadable_types} do); "
            "give separate encoders as image=DIR text=DIR"
        )
    return _load_pair(dict.fromkeys(TOWERS[model_type], name))


def _open_clip_names() -> list[str]:
    """The architectures that open_clip builds; none where it is not installed."""
    try:
        import open_clip
    except ImportError:
        return []
    names: list[str] = open_clip.list_models()
    return names


def _config_of(source: str) -> Any:
    """The transformers configuration of a directory or hub name."""
    from transformers import AutoConfig

    if (
        Path(source).exists()
        and read_object(Path(source) / "config.json").get("model_type") == GaplessConfig.model_type
    ):
        return GaplessConfig.from_pretrained(source)
    try:
        return AutoConfig.from_pretrained(source, trust_remote_code=False)
    except (OSError, ValueError) as error:
        raise network_or_usage(source, error) from None


def _load_pair(sources: dict[str, str]) -> GaplessModel:
    """A model of one transformers encoder per modality, with identity heads."""
    modalities, tokenizers = {}, {}
    for name, source in sources.items():
        directory, _, pooling = source.partition("@")
        if pooling and pooling not in get_args(Pooling):
            raise unknown_name("pooling", pooling, get_args(Pooling))
        modalities[name], tokenizer = _transformers_modality(directory, name, pooling)
        if tokenizer is not None:
            tokenizers[name] = tokenizer
    return _with_identity_heads(modalities, tokenizers)


def _with_identity_heads(modalities: dict[str, Modality], tokenizers: dict[str, Any]) -> GaplessModel:
    """A model of these modalities; encoders of one output size share a space, as those of a CLIP model do."""
    model = assemble(GaplessConfig(modalities, embedding_dim=None), tokenizers)
    sizes = {cast(int, encoder.output_size) for encoder in model.encoders.values()}
    if len(sizes) == 1:
        loss = {"anchor": "text" if "text" in modalities else list(modalities)[-1]}
        shared = GaplessConfig(model.config.modalities, embedding_dim=sizes.pop(), loss=loss)
        own_tokenizers = model.tokenizers
        model = GaplessModel(shared, dict(model.encoders.items()))
        model.tokenizers = own_tokenizers
    return model.train(False)


def _transformers_modality(source: str, modality: str, pooling: str = "") -> tuple[Modality, Any]:
    """The description of a modality with the encoder of a directory or hub name; its tokenizer, None for images."""
    config = _config_of(source)
    encoder: dict[str, Any] = {"kind": "transformers", "pretrained": source, "trainable": False}
    towers = TOWERS.get(config.model_type)
    if towers is not None and modality not in towers:
        raise unknown_name(f"tower of {source}", modality, towers)
    is_image = modality == "image" if towers else image_processor_config(Path(source)) is not None
    if towers is not None:
        encoder["architecture"], usual = towers[modality]
    elif is_image:
        usual = "cls" if config.model_type in POOLED_BY_CLASS_TOKEN else "pooler"
    else:
        usual = _sentence_pooling(Path(source))
    encoder["pooling"] = pooling or usual
    if is_image:
        return {"input": image_input_of(source), "encoder": encoder, "head": []}, None
    try:
        tokenizer = saved_tokenizer(source)
    except (OSError, ValueError) as error:
        raise network_or_usage(source, error) from None
    text = config.text_config if towers else config
    length = min(getattr(text, "max_position_embeddings", 512), tokenizer.model_max_length)
    text_input: dict[str, Any] = {"kind": "text", "max_length": int(length)}
    if config.model_type == "siglip":
        text_input["padding"] = "max_length"  # SigLIP was trained on padded texts, and takes no attention mask
    return {"input": text_input, "encoder": encoder, "head": []}, tokenizer


def _sentence_pooling(directory: Path) -> str:
    """How a sentence-transformers directory pools; the mean for any other text encoder."""
    module_list = directory / "modules.json"
    if not module_list.exists():
        return "mean"
    modules = read_json(module_list)
    kinds = {str(module["type"]).rsplit(".", 1)[-1] for module in modules}
    if not kinds <= SENTENCE_MODULES:
        unknown = ", ".join(sorted(kinds - SENTENCE_MODULES))
        raise UsageError(f"{directory} ends in modules that cannot be taken over ({unknown}); use one without them")
    pooling = next((module["path"] for module in modules if str(module["type"]).endswith("Pooling")), None)
    config = read_json(directory / pooling / "config.json") if pooling else {}
    pooling_mode = config.get("pooling_mode")
    poolings = [pooling_mode] if pooling_mode else [name for key, name in SENTENCE_POOLINGS.items() if config.get(key)]
    if len(poolings) != 1 or poolings[0] not in SENTENCE_POOLINGS.values():
        raise UsageError(f"{directory} pools in another way than by mean or cls; name one with @mean or @cls")
    return str(poolings[0])


def _load_open_clip_model(source: str) -> GaplessModel:
    """Both towers of an open_clip model, with its preprocessing and tokenizer."""
    model, config = load_open_clip(source)
    import open_clip

    text, tokenizer = _open_clip_text_input(open_clip_parts(source)[0], config["text_cfg"])
    inputs = {"image": _open_clip_image_input(open_clip.get_model_preprocess_cfg(model)), "text": text}
    modalities, encoders = {}, {}
    for name, tower in {"image": "visual", "text": "text"}.items():
        tower_spec = {"kind": "open_clip", "tower": tower, "trainable": False}
        encoder_description, encoders[name] = open_clip_tower(tower_spec, model, config)
        modalities[name] = {"input": inputs[name], "encoder": encoder_description, "head": []}
    shared = GaplessConfig(modalities, int(config["embed_dim"]), loss={"anchor": "text"})
    aligner = GaplessModel(shared, encoders)
    aligner.tokenizers["text"] = OpenClipTokenizer(text["max_length"]) if tokenizer is None else tokenizer
    return aligner.train(False)


def _open_clip_image_input(config: dict[str, Any]) -> dict[str, Any]:
    """The `input` of a model that stands for open_clip's preprocessing configuration."""
    size = config["size"]
    if isinstance(size, (list, tuple)):
        size = size[0]
    fits = {"shortest": "crop", "longest": "pad", "squash": "stretch"}
    filters = {"bilinear": 2, "bicubic": 3}
    return {
        "kind": "image",
        "size": int(size),
        "channels": 3,
        "fit": fits[config.get("resize_mode") or "shortest"],
        "resample": filters.get(config.get("interpolation", "bicubic"), 3),
        "mean": list(config["mean"]),
        "std": list(config["std"]),
    }


def _open_clip_text_input(name: str, config: dict[str, Any]) -> tuple[dict[str, Any], Any]:
    """The `input` for texts, and the tokenizer; None for open_clip's own, which needs no file in the model."""
    from open_clip import get_tokenizer
    from open_clip.tokenizer import HFTokenizer, SimpleTokenizer

    length = int(config.get("context_length", 77))
    if "trust_remote_code" in config.get("tokenizer_kwargs", {}):
        raise UsageError(f"{name} asks for a tokenizer that would run code of its author; such models are not taken")
    if "clean" in config.get("tokenizer_kwargs", {}):
        raise UsageError(
            f"{name} cleans its texts in open_clip's own way; use the transformers directory of this model"
        )
    tokenizer = get_tokenizer(name)
    if isinstance(tokenizer, SimpleTokenizer):
        return {"kind": "text", "max_length": length, "tokenizer": "open_clip"}, None
    if not isinstance(tokenizer, HFTokenizer):
        raise UsageError(f"{name} has a tokenizer that cannot be saved; use its transformers directory")
    return {"kind": "text", "max_length": length, "padding": "max_length"}, tokenizer.tokenizer
