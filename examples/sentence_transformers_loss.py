"""The gap-closing loss in the sentence-transformers trainer, under `clip` and under `gapless`, with our evaluator.

    python examples/sentence_transformers_loss.py                                      # seconds
    python examples/sentence_transformers_loss.py --pairs 5000 --size 64 --batch 256   # as the demonstration, minutes

The columns of the data set are the modalities: images by their paths, and captions. `SentenceGapLoss` takes any model
of sentence-transformers; the small encoders here are from scratch, so that nothing is downloaded. The trainer is one
of transformers, as that of gapless is, so that it takes the arguments of the demonstration as they are.
"""

import argparse
import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from datasets import Dataset
from phantom_pairs import TRAINING, columns_of, drawn_pairs, line_of, loss_of, phantom_options, small_encoders
from sentence_transformers import SentenceTransformer, SentenceTransformerTrainer, SentenceTransformerTrainingArguments
from sentence_transformers.base.modules import InputModule
from torch import Tensor, nn
from transformers import TrainerCallback, set_seed

from gapless.interop import GapEvaluator
from gapless.losses.gap_closing import GapClosingLoss
from gapless.manifest import Manifest
from gapless.models import GaplessModel


class SentenceGapLoss(nn.Module):
    """A loss as sentence-transformers takes it; `names` are the columns of the data set, in order."""

    def __init__(self, model: SentenceTransformer, names: Sequence[str], loss: GapClosingLoss) -> None:
        super().__init__()
        self.model = model
        self.names = names
        self.loss = loss

    def forward(
        self, sentence_features: Iterable[dict[str, Tensor]], labels: Tensor | None = None
    ) -> dict[str, Tensor]:
        rows = [self.model(features)["sentence_embedding"] for features in sentence_features]
        embeddings = {
            name: nn.functional.normalize(matrix, dim=-1) for name, matrix in zip(self.names, rows, strict=True)
        }
        terms = self.loss(embeddings)
        # the trainer sums the dictionary and logs each part
        return {"contrastive": terms.contrastive, "gap": terms.total - terms.contrastive}


class Progress(TrainerCallback):
    """Tells the loss how far the training is, for weights that change, and clamps its temperature after each step."""

    def __init__(self, loss: GapClosingLoss) -> None:
        self.loss = loss

    def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.loss.set_progress(state.global_step / state.max_steps)

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.loss.clamp_logit_scale()


class Trainer(SentenceTransformerTrainer):
    """The trainer, without weight decay on the temperature, which would pull it towards 1."""

    def get_decay_parameter_names(self, model: nn.Module) -> list[str]:
        names: list[str] = super().get_decay_parameter_names(model)
        return [name for name in names if not name.endswith("logit_scale")]


class Encoders(InputModule):
    """A model of gapless as a module of sentence-transformers; what ends in .png is an image, all else a text."""

    def __init__(self, encoders: GaplessModel) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.encoders = encoders

    @property
    def modalities(self) -> list[Any]:
        return ["image", "text"]

    def preprocess(self, inputs: Sequence[Any], prompt: str | None = None, **kwargs: Any) -> dict[str, Any]:
        kind = self.encoders.preprocessor("image" if str(inputs[0]).endswith(".png") else "text")
        return kind.collate([kind.prepare(one) for one in inputs])

    def forward(self, features: dict[str, Any], **kwargs: Any) -> dict[str, Any]:
        modality = "image" if "pixel_values" in features else "text"
        names = ("pixel_values",) if modality == "image" else ("input_ids", "attention_mask")
        rows = self.encoders.embed(modality, {name: features[name] for name in names})
        return {**features, "sentence_embedding": rows}

    def save(self, output_path: str, *args: Any, **kwargs: Any) -> None:
        self.encoders.save_pretrained(output_path)


def train(method: str, manifest: Manifest, folder: Path, args: argparse.Namespace) -> dict[str, float]:
    """The figures of the test split after training by a method."""
    set_seed(args.seed)
    model = SentenceTransformer(modules=[Encoders(small_encoders(manifest, args.size))], device="cpu")
    loss = loss_of(method)
    columns = columns_of(manifest.select("train"))
    trainer = Trainer(
        model=model,
        args=SentenceTransformerTrainingArguments(
            output_dir=str(folder / method),
            num_train_epochs=args.epochs,
            per_device_train_batch_size=args.batch,
            learning_rate=TRAINING["learning_rate"],
            weight_decay=TRAINING["weight_decay"],
            warmup_steps=TRAINING["warmup_steps"],
            lr_scheduler_type=TRAINING["lr_scheduler_type"],
            max_grad_norm=TRAINING["max_grad_norm"],
            dataloader_drop_last=True,
            seed=args.seed,
            save_strategy="no",
            report_to=[],
            use_cpu=True,
            dataloader_pin_memory=False,
            disable_tqdm=True,
            logging_strategy="no",
        ),
        train_dataset=Dataset.from_dict(columns),
        loss=SentenceGapLoss(model, list(columns), loss),
        callbacks=[Progress(loss)],
    )
    trainer.train()
    return GapEvaluator(columns_of(manifest.select("test")), batch_size=256)(model)


def main() -> None:
    args = phantom_options("the gap-closing loss in the sentence-transformers trainer").parse_args()
    with tempfile.TemporaryDirectory() as name:
        manifest = drawn_pairs(Path(name) / "phantom", args.pairs, args.size)
        for method in args.methods:
            print(line_of(method, train(method, manifest, Path(name), args)))


if __name__ == "__main__":
    main()
