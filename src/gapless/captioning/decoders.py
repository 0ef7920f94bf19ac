"""Decoders of captioners: causal language models of transformers with cross-attention, and their special tokens."""

from collections.abc import Mapping
from typing import Any

from huggingface_hub.errors import StrictDataclassError
from transformers import CONFIG_MAPPING, AutoConfig, AutoModelForCausalLM

from gapless.core.errors import UsageError, unknown_name
from gapless.models.safe_loading import network_or_usage, saved_tokenizer

# Configurations that are small enough to train from scratch on a few thousand captions; users may override any key.
DECODERS: dict[str, dict[str, Any]] = {
    "bert": {
        "hidden_size": 192,
        "num_hidden_layers": 2,
        "num_attention_heads": 6,
        "intermediate_size": 384,
    },
    "gpt2": {"n_embd": 192, "n_layer": 2, "n_head": 6},
}
LENGTH_KEYS = {"bert": "max_position_embeddings", "gpt2": "n_positions"}


def build_decoder(spec: Mapping[str, Any]) -> Any:
    """A decoder with fresh weights.

    Args:
        spec: `model_type` and the arguments of its configuration.

    Raises:
        UsageError: an unknown family or argument, a value that no decoder can have, or a decoder that cannot attend to
            an image.
    """
    arguments = dict(spec)
    model_type = _checked_family(arguments.pop("model_type", ""))
    for name in sorted(arguments.keys() - _known_arguments(model_type)):
        raise unknown_name(f"argument of a {model_type} decoder", name, _known_arguments(model_type))
    try:
        config = AutoConfig.for_model(model_type, **arguments)
        decoder = AutoModelForCausalLM.from_config(config)
    except (KeyError, ValueError, TypeError, ArithmeticError, RuntimeError, StrictDataclassError) as error:
        raise UsageError(f"decoder: {' '.join(str(error).split())}") from None
    if not (decoder.config.is_decoder and decoder.config.add_cross_attention):
        raise UsageError("a decoder needs is_decoder and add_cross_attention")
    if decoder.config.num_hidden_layers < 1:
        raise UsageError(f"a decoder needs a layer, got {decoder.config.num_hidden_layers}")
    return decoder


def check_positions(decoder: Any, max_tokens: int) -> None:
    """Raise UsageError for a decoder with fewer positions than `max_tokens`."""
    positions = decoder.config.max_position_embeddings
    if positions < max_tokens:
        raise UsageError(f"the decoder has {positions} positions, fewer than max_tokens {max_tokens}; lower max_tokens")


def _checked_family(model_type: Any) -> str:
    """The name of a family in `DECODERS`. Raises UsageError for any other.

    Other families have cross-attention too. Some, such as RoBERTa, number their positions differently in `generate`
    than in training.
    """
    if str(model_type) not in DECODERS:
        raise unknown_name("decoder", str(model_type), DECODERS)
    return str(model_type)


def _known_arguments(model_type: str) -> set[str]:
    """The names of the arguments of a family's configuration; transformers would ignore any other key."""
    config = CONFIG_MAPPING[model_type]
    return {*config().to_dict(), *config.attribute_map, "is_decoder", "add_cross_attention"} - {"model_type"}


def decoder_spec(spec: Mapping[str, Any], tokenizer: Any, max_tokens: int) -> dict[str, Any]:
    """The whole description of a decoder: the given values, the others of `DECODERS`, and those of the tokenizer."""
    model_type = _checked_family(spec.get("model_type", "bert"))
    fixed = {"model_type": model_type, "vocab_size": len(tokenizer), "is_decoder": True, "add_cross_attention": True}
    return {**DECODERS[model_type], LENGTH_KEYS[model_type]: max_tokens, **spec, **special_ids(tokenizer), **fixed}


def load_pretrained_decoder(source: str) -> tuple[dict[str, Any], Any, Any]:
    """Load a decoder of a directory or hub name: its description, the decoder with its weights, and its tokenizer.

    Raises:
        UsageError: no such decoder in the directory. NeedsNetwork: a name that only the hub knows.
    """
    try:
        _checked_family(AutoConfig.from_pretrained(source, trust_remote_code=False).model_type)
        decoder = AutoModelForCausalLM.from_pretrained(
            source, is_decoder=True, add_cross_attention=True, trust_remote_code=False, use_safetensors=True
        )
        tokenizer = saved_tokenizer(source)
    except UsageError:
        raise
    except (OSError, ValueError) as error:
        raise network_or_usage(source, error) from None
    model_type = decoder.config.model_type
    valid_names = _known_arguments(model_type)  # older configurations hold further names, which transformers ignores
    spec = {name: value for name, value in decoder.config.to_diff_dict().items() if name in valid_names}
    return spec | {"model_type": model_type}, decoder, tokenizer


def special_ids(tokenizer: Any) -> dict[str, int]:
    """The ids of start, end and padding: BOS or CLS, EOS or SEP, PAD or the end, whichever the tokenizer has.

    Raises:
        UsageError: a tokenizer without a start or an end.
    """

    def first(*names: str) -> int | None:
        token_ids = (getattr(tokenizer, f"{name}_token_id", None) for name in names)
        return next((number for number in token_ids if number is not None), None)

    end = first("eos", "sep")
    start, pad = first("bos", "cls", "pad"), first("pad", "eos", "sep")
    if start is None or end is None or pad is None:
        raise UsageError("the tokenizer of the decoder has no start or no end token")
    return {"bos_token_id": start, "eos_token_id": end, "pad_token_id": pad}
