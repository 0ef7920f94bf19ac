"""Recipes: frozen dataclasses that say what is trained. A variant is a function that changes a few fields of another.

A recipe holds the settings of the loss of a method; `gapless.losses.base.METHODS` lists the methods.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from gapless.core.errors import UsageError, unknown_name
from gapless.losses.base import METHODS, changes_of
from gapless.losses.gap_closing_methods import GapClosingSettings
from gapless.losses.pairs import check_settings_names
from gapless.modalities.image import small_resnet
from gapless.modalities.text import small_bert
from gapless.models.modality_specs import modality_specs

OTHERS = "*"  # an entry of `modalities` for all further ones of the manifest
# Sizes of the inputs that a recipe takes from a manifest, for encoders that train from scratch on a laptop.
SMALL_INPUTS: dict[str, dict[str, Any]] = {"image": {"size": 64, "channels": 1}, "text": {"max_length": 96}}


def is_described(modalities: Mapping[str, Any]) -> bool:
    """Whether each entry says the kind of its input; what it leaves open is otherwise taken from the manifest."""
    return OTHERS not in modalities and all(
        isinstance(entry, Mapping) and isinstance(entry.get("input"), Mapping) and "kind" in entry["input"]
        for entry in modalities.values()
    )


@dataclass(frozen=True)
class Recipe:
    """Everything that a run needs besides data, method and seed.

    Args:
        modalities: name -> its input, encoder and head, the mappings of `models.spec.modality_spec`. An entry whose
            input says no kind, such as `{}`, is as the manifest says; the entry "*" stands for all its other
            modalities.
        anchor: the modality that every other one is contrasted with; by default the one that most training rows share
            with others, of equals text.
        embedding_dim: size of the shared space.
        vocab_size: of the tokenizer trained on the captions, where the text encoder brings none.
        augment_images: small shifts and intensity changes while training; never a flip.
        micro_batch_size: pairs encoded at a time, while the loss sees the whole batch (GradCache); None is off.
        modality_dropout: modality -> the share of its training rows that hide it, drawn anew in each epoch; a row keeps
            at least two modalities.
        loss: the settings of its loss, those of a method in `gapless.losses.base.METHODS`; default: the paper's loss.
        training: arguments of `transformers.TrainingArguments`, by their own names.
    """

    modalities: Mapping[str, Mapping[str, Any]]
    anchor: str | None = None
    embedding_dim: int = 512
    vocab_size: int = 4096
    augment_images: bool = False
    micro_batch_size: int | None = None
    modality_dropout: Mapping[str, float] = field(default_factory=dict)
    loss: Any = field(default_factory=GapClosingSettings)
    training: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.micro_batch_size is not None and self.micro_batch_size < 1:
            raise UsageError(f"micro_batch_size must be at least 1, got {self.micro_batch_size}")
        if not is_described(self.modalities):
            check_entries(self.modalities)
            return  # names and kinds are checked when the manifest is known
        modality_specs(self.modalities, self.anchor, self.embedding_dim)
        check_modality_dropout(self.modality_dropout, tuple(self.modalities))
        check_settings_names(self.loss, tuple(self.modalities))


def check_entries(modalities: Mapping[str, Any]) -> None:
    """Raise UsageError for an entry, or the input of one, that is no mapping."""
    for name, entry in modalities.items():
        if not isinstance(entry, Mapping) or not isinstance(entry.get("input", {}), Mapping):
            raise UsageError(f"modality {name!r} and its input are mappings of keys to values, got {entry!r}")


def check_modality_dropout(shares: Mapping[str, float], modalities: Sequence[str]) -> None:
    """Raise UsageError for a share of an unknown modality, outside of [0, 1), or where rows have two modalities."""
    for name, share in shares.items():
        if name not in modalities:
            raise unknown_name("modality of modality_dropout", name, modalities)
        if isinstance(share, bool) or not isinstance(share, int | float) or not 0 <= share < 1:
            raise UsageError(f"modality_dropout.{name} must be at least 0 and below 1, got {share!r}")
    if len(modalities) < 3 and any(shares.values()):
        raise UsageError(
            f"modality_dropout needs three modalities, because a row keeps two, and the recipe has {len(modalities)}"
        )


def small_image_modality(image_size: int, widths: tuple[int, ...], depths: tuple[int, ...]) -> dict[str, Any]:
    """A small grey-level ResNet from a configuration."""
    return {
        "input": {"kind": "image", "size": image_size, "channels": 1},
        "encoder": small_resnet(1, widths, depths),
    }


def small_text_modality(hidden: int, layers: int, max_length: int) -> dict[str, Any]:
    """A small BERT from a configuration; its vocabulary is that of the tokenizer trained with it."""
    return {"input": {"kind": "text", "max_length": max_length}, "encoder": small_bert(hidden, layers, max_length)}


def phantom_small() -> Recipe:
    """Small image and text encoders for the phantom, trained from scratch in a minute or two on two cores."""
    return Recipe(
        modalities={
            "image": small_image_modality(64, (32, 64, 128, 256), (1, 1, 1, 1)),
            "text": small_text_modality(128, 2, 48),
        },
        vocab_size=2048,
        training={
            "num_train_epochs": 8,
            "per_device_train_batch_size": 256,
            "learning_rate": 1e-3,
            "weight_decay": 0.05,
            "warmup_steps": 0.1,
            "lr_scheduler_type": "cosine",
            "max_grad_norm": 1.0,
            "eval_strategy": "epoch",
            "save_strategy": "epoch",
            "save_total_limit": 2,
            "logging_steps": 5,
        },
    )


def phantom_three() -> Recipe:
    """`phantom-small` with the waveform as a third modality."""
    base = phantom_small()
    waveform = {
        "input": {"kind": "vector", "size": 64},
        "encoder": {"kind": "vector", "size": 64},
        "head": [{"kind": "mlp", "hidden": 256, "size": base.embedding_dim}],
    }
    return replace(base, modalities={**base.modalities, "waveform": waveform})


def table_small() -> Recipe:
    """Small encoders from scratch at 64 pixels, to try any data set of images and captions on a laptop."""
    base = phantom_small()
    return replace(
        base,
        modalities={
            "image": small_image_modality(64, (32, 64, 128, 256), (1, 1, 1, 1)),
            "text": small_text_modality(128, 2, 96),
        },
        vocab_size=4096,
        augment_images=True,
        training={**base.training, "num_train_epochs": 30, "per_device_train_batch_size": 128},
    )


def any_small() -> Recipe:
    """Every modality of the manifest, each with the small default encoder of its kind, from scratch on a laptop."""
    return replace(table_small(), modalities={OTHERS: {}})


def roco_eva_bert() -> Recipe:
    """The paper's set-up, arXiv 2602.20046: EVA-CLIP ViT-g and BERT-base into 512 dimensions.

    It needs a GPU and downloaded weights.
    """
    return Recipe(
        modalities={
            "image": {
                "input": {
                    "kind": "image",
                    "size": 224,
                    "channels": 3,
                    "mean": [0.48145466, 0.4578275, 0.40821073],
                    "std": [0.26862954, 0.26130258, 0.27577711],
                },
                "encoder": {
                    "kind": "transformers",
                    "pretrained": "timm/eva_giant_patch14_clip_224.laion400m",
                    "config": {"model_type": "timm_wrapper", "architecture": "eva_giant_patch14_clip_224"},
                    "pooling": "pooler",
                },
            },
            "text": {
                "input": {"kind": "text", "max_length": 128},
                "encoder": {
                    "kind": "transformers",
                    "pretrained": "bert-base-uncased",
                    "config": {"model_type": "bert"},
                    "pooling": "cls",
                },
            },
        },
        training={
            "num_train_epochs": 20,
            "per_device_train_batch_size": 64,
            "learning_rate": 1e-5,
            "weight_decay": 0.01,
            "warmup_steps": 0.05,
            "lr_scheduler_type": "cosine",
            "bf16": True,
            "activation_checkpointing": True,
            "eval_strategy": "epoch",
            "save_strategy": "epoch",
            "save_total_limit": 2,
            "dataloader_num_workers": 8,
            "logging_steps": 50,
        },
    )


def roco_eva_bert_lora() -> Recipe:
    """The paper's set-up with low-rank adapters, which one GPU of 24 GB trains; docs/train.md has the arithmetic."""
    base = roco_eva_bert()
    lora = {"rank": 16, "alpha": 32, "dropout": 0.05}
    return replace(
        base,
        modalities={
            name: {**modality, "encoder": {**modality["encoder"], "lora": lora}}
            for name, modality in base.modalities.items()
        },
        micro_batch_size=64,
        training={**base.training, "per_device_train_batch_size": 256, "learning_rate": 2e-4},
    )


RECIPES: dict[str, Callable[[], Recipe]] = {
    "phantom-small": phantom_small,
    "phantom-three": phantom_three,
    "table-small": table_small,
    "any-small": any_small,
    "roco-eva-bert": roco_eva_bert,
    "roco-eva-bert-lora": roco_eva_bert_lora,
}


def get_recipe(name: str) -> Recipe:
    """The recipe of that name in `RECIPES`. Raises UsageError for an unknown name."""
    if name not in RECIPES:
        raise unknown_name("recipe", name, tuple(RECIPES))
    return RECIPES[name]()


def apply_method(recipe: Recipe, method: str, changes: Mapping[str, Any] | None = None) -> Recipe:
    """The recipe with the loss of a method.

    Args:
        changes: settings of losses by name. The method takes those that it has and does not fix, also from the
            settings of the recipe's own loss that are not defaults.

    Raises:
        UsageError: an unknown method.
    """
    return replace(recipe, loss=METHODS[method].changed({**changes_of(recipe.loss), **(changes or {})}))
