"""Decoders of a captioner: causal language models of transformers with cross-attention, and what their tokenizers call
start and end."""

from collections.abc import Mapping
from typing import Any

from huggingface_hub.errors import StrictDataclassError
from transformers import CONFIG_MAPPING, AutoConfig, AutoModelForCausalLM

from gapless.core.errors import UsageError, unknown_name
from gapless.models.safe_loading import network_or_usage, saved_tokenizer

# small enough to train from scratch on a few thousand captions; any key can be overridden
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
    """Refuse captions that are longer than the decoder."""
    positions = decoder.config.max_position_embeddings
    if positions < max_tokens:
        raise UsageError(f"the decoder has {positions} positions, fewer than max_tokens {max_tokens}; lower max_tokens")


def _checked_family(model_type: Any) -> str:
    """Refuse what is not in `DECODERS`: others attend to an image too, but `generate` may count their positions from
    another number than training does, as those of RoBERTa."""
    if str(model_type) not in DECODERS:
        raise unknown_name("decoder", str(model_type), DECODERS)
    return str(model_type)


def _known_arguments(model_type: str) -> set[str]:
    """What the transformers configuration of a family takes; it would keep any other key and ignore it."""
    config = CONFIG_MAPPING[model_type]
    return {*config().to_dict(), *config.attribute_map, "is_decoder", "add_cross_attention"} - {"model_type"}


def decoder_spec(spec: Mapping[str, Any], tokenizer: Any, max_tokens: int) -> dict[str, Any]:
    """The whole description of a decoder that is named by some of its values; the rest are those of `DECODERS`."""
    model_type = _checked_family(spec.get("model_type", "bert"))
    fixed = {"model_type": model_type, "vocab_size": len(tokenizer), "is_decoder": True, "add_cross_attention": True}
    return {**DECODERS[model_type], LENGTH_KEYS[model_type]: max_tokens, **spec, **special_ids(tokenizer), **fixed}


def load_pretrained_decoder(source: str) -> tuple[dict[str, Any], Any, Any]:
    """The description, the decoder with its weights and its tokenizer, of a directory or hub name.

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
    known = _known_arguments(model_type)  # a configuration of years ago holds more, which transformers ignores
    spec = {name: value for name, value in decoder.config.to_diff_dict().items() if name in known}
    return spec | {"model_type": model_type}, decoder, tokenizer


def special_ids(tokenizer: Any) -> dict[str, int]:
    """Start, end and padding, whatever the tokenizer calls them: BOS or CLS, EOS or SEP, PAD or the end."""

    def first(*names: str) -> int | None:
        found = (getattr(tokenizer, f"{name}_token_id", None) for name in names)
        return next((number for number in found if number is not None), None)

    end = first("eos", "sep")
    start, pad = first("bos", "cls", "pad"), first("pad", "eos", "sep")
    if start is None or end is None or pad is None:
        raise UsageError("the tokenizer of the decoder has no start or no end token")
    return {"bos_token_id": start, "eos_token_id": end, "pad_token_id": pad}
