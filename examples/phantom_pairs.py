"""What the examples of other trainers share: drawn radiology, small encoders, losses by method, a line of figures.

The recipe `gapless` needs more of a trainer than a call of the loss: its weights rise with the progress of training,
so that the trainer says how far it is (`loss.set_progress`), and the temperature is clamped after each step
(`loss.clamp_logit_scale`). `TRAINING` is what `gapless demo` trains with; each example tells it to its own trainer.
"""

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from torch import Tensor

from gapless.losses.base import METHODS
from gapless.losses.gap_closing import GapClosingLoss
from gapless.manifest import Manifest
from gapless.manifest.readers.phantom import write_phantom
from gapless.models import GaplessModel
from gapless.training.recipes import phantom_small, small_image_modality, small_text_modality
from gapless.training.run import new_model

# learning_rate, weight_decay, warmup_steps (a share of all steps), lr_scheduler_type, max_grad_norm, num_train_epochs
TRAINING = phantom_small().training
KEYS = ("gap/centroid_distance", "gap/centroid_distance_unbiased", "gap/true_pair_cosine", "retrieval/mean/R@10")


def phantom_options(description: str) -> argparse.ArgumentParser:
    """The options of every example; `--pairs 5000 --size 64 --batch 256` is what the demonstration trains."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--pairs", type=int, default=800, help="of which a fifth is the test split, and the gallery")
    parser.add_argument("--size", type=int, default=32, help="side of the images in pixels")
    parser.add_argument("--epochs", type=int, default=TRAINING["num_train_epochs"])
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--methods", nargs="+", default=["clip", "gapless"])
    parser.add_argument("--seed", type=int, default=0, help="of the weights and the order of the rows, not of the data")
    return parser


def drawn_pairs(folder: Path, num_pairs: int, size: int) -> Manifest:
    """Images and captions, drawn; the splits share no article."""
    return write_phantom(folder, num_pairs=num_pairs, image_size=size, workers=1)


def columns_of(manifest: Manifest) -> dict[str, list[str]]:
    """The paths of the images and the captions."""
    images = [str(manifest.image_path(row)) for row in range(len(manifest))]
    return {"image": images, "text": manifest.first_captions}


def small_encoders(manifest: Manifest, size: int) -> GaplessModel:
    """A ResNet and a BERT from scratch: those of the demonstration from 64 pixels on, else narrower ones."""
    recipe = phantom_small()
    if size < 64:
        small = {"image": small_image_modality(size, (16, 32, 64), (1, 1, 1)), "text": small_text_modality(64, 1, 48)}
        recipe = replace(recipe, modalities=small, embedding_dim=128)
    return new_model(recipe, manifest.select("train").first_captions)


def loss_of(method: str) -> GapClosingLoss:
    """The loss that `gapless train --method` builds: `clip`, `gapless`, `gapless-published`, ..."""
    known = METHODS[method]
    loss = known.build(known.settings, "text")
    assert isinstance(loss, GapClosingLoss)
    return loss


def encoded(model: GaplessModel, columns: Mapping[str, Sequence[Any]]) -> dict[str, Tensor]:
    """The unit-norm rows of each column."""
    return {name: model.encode(name, values) for name, values in columns.items()}


def line_of(name: str, figures: Mapping[str, Any]) -> str:
    """One line of figures, which always names its gallery."""
    return " ".join((name, *(f"{key} {float(figures[key]):.3f}" for key in KEYS), f"of {int(figures['gallery_size'])}"))
