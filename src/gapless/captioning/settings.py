"""The settings of a captioner's training, in a module that the help imports without the models."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from gapless.captioning.route import Route, route_of
from gapless.closing.base import CLOSING_METHODS
from gapless.core.errors import UsageError, unknown_name

MODES = ("frozen", "joint", "text")
NO_BRIDGE = "none"
FITTED: Literal["fitted"] = "fitted"
CLOCK: Literal["clock"] = "clock"
HELD_OUT: Literal["held-out"] = "held-out"
NOTHING: Literal["nothing"] = "nothing"


def check_bridge(name: str) -> None:
    """Raise UsageError for a name that is neither a closing method nor "none"."""
    if name != NO_BRIDGE and name not in CLOSING_METHODS:
        raise unknown_name("bridge", name, (NO_BRIDGE, *CLOSING_METHODS.names()))


def check_noise(noise: Any) -> bool:
    """Whether a setting of the noise is a number of at least 0, or "fitted"."""
    if isinstance(noise, str):
        return noise == FITTED
    return isinstance(noise, int | float) and not isinstance(noise, bool) and 0 <= noise < math.inf


@dataclass(frozen=True)
class CaptionSettings:
    """The settings of a captioner: everything that its training needs besides aligner, data and seed.

    Args:
        mode: frozen, joint or text.
        decoder: `pretrained` (a directory or hub name), or `model_type` (bert or gpt2) and any argument of that
            transformers configuration.
        use_patches: attend to the patch tokens of the image beside its embedding; never in mode text.
        num_slots: rows of the prefix that the embedding becomes.
        max_tokens: longest caption.
        noise_std: standard deviation per dimension of the Gaussian noise that training adds to the embedding; fitted is
            that which turns it by the angle between a text and its image on rows that are not trained on.
        bridge: of mode text: a closing method (cca, center, auto, ...) that is fitted on the train rows and brings the
            images to the texts; none uses the model's space as it is.
        gap_weight: of the aligner's own loss in mode joint, beside the captioning loss.
        follow: what the closing terms of that loss follow in mode joint: nothing leaves alignment and uniformity out,
            and contrast is left; held-out keeps uniformity, and alignment is 0 until the gap of held-out pairs
            opens, and then what they have earned; clock takes the weights at the end of the aligner's training.
        augment_images: small shifts and intensity changes while training; never a flip.
        held_back: share of the train groups, in [0, 1), by whose loss the epoch is chosen where the manifest has no
            validation split.
        vocab_size: of the tokenizer trained on the captions, where neither decoder nor text encoder brings one.
        store_texts: keep the training texts in the model, so that `caption generate --nearest` can show them; whoever
            has the model can then read them.
        near_texts: choose on held-out rows how many training texts near a row vote on its caption, and how; `caption
            generate` then asks them. It takes them from the model with store_texts, else from the manifest.
        training: arguments of `transformers.TrainingArguments`, by their own names.
        sources: modality -> its weight in the embedding that a caption is made from.
        target: the modality of texts that is learnt.
    """

    mode: str = "frozen"
    decoder: Mapping[str, Any] = field(default_factory=lambda: {"model_type": "bert"})
    use_patches: bool = True
    num_slots: int = 4
    max_tokens: int = 64
    noise_std: float | Literal["fitted"] = 0.0
    bridge: str = NO_BRIDGE
    gap_weight: float = 1.0
    follow: Literal["nothing", "held-out", "clock"] = NOTHING
    augment_images: bool = False
    held_back: float = 0.1
    vocab_size: int = 4096
    store_texts: bool = False
    near_texts: bool = False
    training: Mapping[str, Any] = field(
        default_factory=lambda: {
            "num_train_epochs": 12,
            "per_device_train_batch_size": 64,
            "per_device_eval_batch_size": 128,
            "learning_rate": 1e-3,
            "weight_decay": 0.05,
            "warmup_steps": 0.1,
            "lr_scheduler_type": "cosine",
            "max_grad_norm": 1.0,
            "eval_strategy": "epoch",
            "save_strategy": "epoch",
            "save_total_limit": 1,
            "load_best_model_at_end": True,
            "logging_steps": 10,
        }
    )
    sources: Mapping[str, float] = field(default_factory=lambda: dict(Route().sources))
    target: str = Route().target

    @property
    def route(self) -> Route:
        """The sources and the target."""
        return route_of(self.sources, self.target, Route())

    def __post_init__(self) -> None:
        if self.mode not in MODES:
            raise unknown_name("mode", self.mode, MODES)
        for name, minimum in (("num_slots", 1), ("max_tokens", 3), ("gap_weight", 0)):
            if getattr(self, name) < minimum:
                raise UsageError(f"{name} must be at least {minimum}, got {getattr(self, name)}")
        if not check_noise(self.noise_std):
            raise UsageError(f"noise_std is a number of at least 0, or {FITTED}; got {self.noise_std}")
        if self.follow not in (NOTHING, HELD_OUT, CLOCK):
            raise unknown_name("follow", self.follow, (NOTHING, HELD_OUT, CLOCK))
        if self.follow != NOTHING and self.mode != "joint":
            raise UsageError(f"--follow is of mode joint; mode {self.mode} does not train the aligner")
        check_bridge(self.bridge)
        if self.bridge != NO_BRIDGE and self.mode != "text":
            raise UsageError(
                f"--bridge is of mode text; a decoder of mode {self.mode} learns from the images themselves"
            )
        if self.near_texts and self.mode == "joint":
            raise UsageError(
                "near_texts is chosen in the space of a fixed aligner, and mode joint changes it; leave it out, give "
                "--near_texts 100 to 'caption generate'"
            )
        if not 0 <= self.held_back < 1:
            raise UsageError(f"held_back must be at least 0 and less than 1, got {self.held_back}")
        _ = self.route
