"""Low-rank adapters (LoRA) on the linear layers of an encoder: the encoder's own weights stay, the adapters learn.

A layer `W x + b` becomes `W x + b + (alpha / rank) B A x` with A [rank, in] and B [out, rank], B zero at the start
(Hu et al., arXiv 2106.09685, equation 3; the `peft` package). The optimizer then holds two moments for A and B alone,
which is what lets an encoder of a billion weights train on one GPU of 24 GB. A finished model has them added into W, so
that it is saved, loaded and exported as any other, without `peft`.
"""

from collections.abc import Iterable
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from torch import nn

from gapless.core.errors import UsageError, listed, missing_extra

if TYPE_CHECKING:
    from gapless.models.aligner import GaplessModel
    from gapless.models.spec import LoraSpec


def add_lora(model: nn.Module, spec: "LoraSpec") -> None:
    """Put adapters beside linear layers of a model, in place; all its own weights are frozen.

    Args:
        model: with linear layers; their weights must be loaded before.
        spec: which layers, and the size of the adapters.

    Raises:
        UsageError: no linear layer has a name that ends as asked. MissingExtra: `peft` is not installed.
    """
    if find_spec("peft") is None:
        raise missing_extra("peft", "lora")
    from peft import LoraConfig, inject_adapter_in_model

    linear = [name for name, module in model.named_modules() if type(module) is nn.Linear]
    chosen = [name for name in linear if spec.targets is None or any(_ends_in(name, target) for target in spec.targets)]
    if not chosen:
        raise UsageError(
            f"lora: no linear layer of the encoder is named as {spec.targets} asks (it has {listed(linear)})"
        )
    layers: Iterable[Any] = model.modules()
    for module in layers:
        if hasattr(module, "qkv_bias_separate"):
            # The attention of timm's EVA and BEiT otherwise reads the weight of its layer `qkv` and never calls it, so
            # that adapters beside it would have no effect and no gradient.
            module.qkv_bias_separate = True
    config = LoraConfig(r=spec.rank, lora_alpha=spec.alpha, lora_dropout=spec.dropout, target_modules=chosen)
    inject_adapter_in_model(config, model)


def _ends_in(name: str, target: str) -> bool:
    """Whether a dotted name is the target or ends in it, at a dot."""
    return name == target or name.endswith(f".{target}")


def merge_lora(model: "GaplessModel") -> None:
    """Add the adapters of every encoder into its weights, in place; the model and its configuration then have none.

    Outputs stay the same up to rounding, except that the dropout of the adapters is gone.
    """
    for name, described in model.config.modalities.items():
        if described["encoder"].get("lora"):
            _merge(model.encoders[name])
            described["encoder"] = {key: value for key, value in described["encoder"].items() if key != "lora"}
    model.specs = model.config.specs()


def _merge(encoder: nn.Module) -> None:
    """Replace every layer that has adapters by the linear layer with the sum of the weights."""
    from peft.tuners.lora import LoraLayer

    for parent in list(encoder.modules()):
        for name, child in list(parent.named_children()):
            if isinstance(child, LoraLayer):
                child.merge(safe_merge=True)
                setattr(parent, name, child.get_base_layer())
