"""Tiny models and data for tests: built from configurations, in milliseconds, without a download."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from gapless.models.aligner import GaplessConfig, GaplessModel, assemble
from gapless.models.tokenizers import train_tokenizer

CAPTIONS = [
    "chest radiograph, left pleural effusion",
    "axial CT of the abdomen without a lesion",
    "MR of the brain, right frontal mass",
    "ultrasound of the liver with a small cyst",
    "chest radiograph after removal of the drain",
    "sagittal MR of the knee, torn meniscus",
]


def tiny_bert(vocab_size: int = 400, hidden: int = 16) -> dict[str, Any]:
    """The configuration of a BERT of one layer."""
    return {
        "model_type": "bert",
        "vocab_size": vocab_size,
        "hidden_size": hidden,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "intermediate_size": 32,
        "max_position_embeddings": 64,
    }


def tiny_modalities() -> dict[str, Any]:
    """Image and text modalities of a recipe: a small ResNet on 16 x 16 pixels, and `tiny_bert`."""
    return {
        "image": {
            "input": {"kind": "image", "size": 16, "channels": 1},
            "encoder": {
                "kind": "transformers",
                "config": {
                    "model_type": "resnet",
                    "num_channels": 1,
                    "embedding_size": 8,
                    "hidden_sizes": [8, 16],
                    "depths": [1, 1],
                    "layer_type": "basic",
                },
                "pooling": "pooler",
            },
        },
        "text": {
            "input": {"kind": "text", "max_length": 32},
            "encoder": {"kind": "transformers", "config": tiny_bert(), "pooling": "mean"},
        },
    }


def tiny_model(seed: int = 0, **changes: Any) -> GaplessModel:
    """An aligner of `tiny_modalities` into 24 dimensions; `changes` are arguments of its configuration."""
    torch.manual_seed(seed)
    config = GaplessConfig(modalities=changes.pop("modalities", tiny_modalities()), embedding_dim=24, **changes)
    return assemble(config, {"text": train_tokenizer(CAPTIONS, 400, 32)})


def noise_images(num_images: int, size: int = 16, seed: int = 0) -> list[np.ndarray]:
    """uint8 [size, size] images of noise."""
    return list(np.random.default_rng(seed).integers(0, 256, (num_images, size, size), dtype=np.uint8))


def write_images(folder: Path, num_images: int, size: int = 16, seed: int = 0) -> list[Path]:
    """Write images of noise as PNG, and return their paths."""
    from PIL import Image

    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / f"{i}.png" for i in range(num_images)]
    for path, pixels in zip(paths, noise_images(num_images, size, seed), strict=True):
        Image.fromarray(pixels).save(path)
    return paths


def tiny_sentence_model(folder: Path, texts: Sequence[str]) -> Any:
    """A SentenceTransformer of one layer whose vocabulary are the words of the texts; no download."""
    from sentence_transformers import SentenceTransformer
    from transformers import BertConfig, BertModel, BertTokenizer

    words = sorted({word for text in texts for word in text.split()})
    (folder / "vocab.txt").write_text("\n".join(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *words]))
    BertTokenizer(str(folder / "vocab.txt")).save_pretrained(folder)
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=len(words) + 5,
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        max_position_embeddings=16,
    )
    BertModel(config).save_pretrained(folder)
    return SentenceTransformer(str(folder), device="cpu")
