"""Tokenizers: trained on a manifest's captions, or taken from a checkpoint; saved in the model's directory."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

TOKENIZER_DIRECTORY = "tokenizer"
SPECIAL_TOKENS = {
    "pad_token": "[PAD]",
    "unk_token": "[UNK]",
    "cls_token": "[CLS]",
    "sep_token": "[SEP]",
    "mask_token": "[MASK]",
}


def train_tokenizer(captions: Iterable[str], vocab_size: int, max_length: int) -> Any:
    """Train a lower-case byte-level byte-pair tokenizer, which can encode every character.

    A WordPiece tokenizer would not be reproducible: its trainer breaks ties at random.

    Args:
        captions: the texts to train on.
        vocab_size: the largest number of tokens.
        max_length: tokens of a text that are kept, start and end included.

    Returns:
        A `PreTrainedTokenizerFast`, the same for the same captions.
    """
    from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE())
    tokenizer.normalizer = normalizers.Sequence([normalizers.NFKC(), normalizers.Lowercase()])
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=list(SPECIAL_TOKENS.values()),
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(captions, trainer)
    special = [(name, tokenizer.token_to_id(name)) for name in ("[CLS]", "[SEP]")]
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B [SEP]", special_tokens=special
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        model_max_length=max_length,
        model_input_names=["input_ids", "attention_mask"],
        **SPECIAL_TOKENS,
    )


class OpenClipTokenizer:
    """open_clip's byte-pair tokenizer with the interface of transformers tokenizers; `input_ids` is [text, token]."""

    model_input_names = ("input_ids",)

    def __init__(self, context_length: int = 77) -> None:
        from open_clip.tokenizer import SimpleTokenizer

        self.tokenizer = SimpleTokenizer(context_length=context_length)
        self.context_length = context_length

    def __call__(self, texts: Sequence[str], **_: Any) -> dict[str, Tensor]:
        return {"input_ids": self.tokenizer(list(texts))}

    def num_tokens(self, text: str) -> int:
        """Tokens of the whole text, with the start and end marks."""
        return len(self.tokenizer.encode(text)) + 2


def tokenizer_home(directory: str | Path, modality: str) -> Path:
    """Where a model directory holds the tokenizer of a modality."""
    return Path(directory) / TOKENIZER_DIRECTORY / modality
