"""Decoders of a captioner: causal language models of transformers with cross-attention, and what their tokenizers call
start and end."""

from collections.abc import Mapping
from inspect import signature
from typing import Any

from huggingface_hub.errors import StrictDataclassError
from transformers import AutoConfig, AutoModelForCausalLM

from gapless.errors import UsageError
from gapless.models.loading import network_or_usage, saved_tokenizer

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
        UsageError: an unknown model type or argument, or a decoder that cannot attend to an image.
    """
    arguments = dict(spec)
    try:
        config = AutoConfig.for_model(arguments.pop("model_type"), **arguments)
        decoder = AutoModelForCausalLM.from_config(config)
    except (KeyError, ValueError, TypeError, StrictDataclassError) as error:
        raise UsageError(f"decoder: {' '.join(str(error).split())}") from None
    return with_cross_attention(decoder)


def with_cross_attention(decoder: Any) -> Any:
    if not (decoder.config.is_decoder and getattr(decoder.config, "add_cross_attention", False)):
        raise UsageError("a decoder needs is_decoder and add_cross_attention")
    if "encoder_hidden_states" not in signature(decoder.forward).parameters:
        raise UsageError(f"decoder: {decoder.config.model_type} cannot attend to an image; bert and gpt2 can")
    return decoder


def decoder_spec(spec: Mapping[str, Any], tokenizer: Any, max_tokens: int) -> dict[str, Any]:
    """The whole description of a decoder that is named by some of its values; the rest are those of `DECODERS`."""
    model_type = str(spec.get("model_type", "bert"))
    length = {LENGTH_KEYS[model_type]: max_tokens} if model_type in LENGTH_KEYS else {}
    fixed = {"model_type": model_type, "vocab_size": len(tokenizer), "is_decoder": True, "add_cross_attention": True}
    return {**DECODERS.get(model_type, {}), **length, **spec, **special_ids(tokenizer), **fixed}


def load_pretrained_decoder(source: str) -> tuple[dict[str, Any], Any, Any]:
    """The description, the decoder with its weights and its tokenizer, of a directory or hub name.

    Raises:
        UsageError: no such decoder in the directory. NeedsNetwork: a name that only the hub knows.
    """
    try:
        decoder = AutoModelForCausalLM.from_pretrained(
            source, is_decoder=True, add_cross_attention=True, trust_remote_code=False, use_safetensors=True
        )
        tokenizer = saved_tokenizer(source)
    except (OSError, ValueError) as error:
        raise network_or_usage(source, error) from None
    spec = {**decoder.config.to_diff_dict(), "model_type": decoder.config.model_type}
    return spec, with_cross_attention(decoder), tokenizer


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
