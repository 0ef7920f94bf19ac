"""The gap-closing loss in Lightning, under `clip` and under `gapless`, with our figures as torchmetrics metrics.

    python examples/lightning_module.py                                      # seconds
    python examples/lightning_module.py --pairs 5000 --size 64 --batch 256   # as the demonstration, minutes

The loss is a part of the module: its temperature gets no weight decay and is clamped after each step, and the weights
of `gapless` follow the progress of the training. Optimizer and schedule are those of the demonstration.
"""

import argparse
import logging
import math
import tempfile
import warnings
from pathlib import Path
from typing import Any

import lightning
import torch
from phantom_pairs import TRAINING, drawn_pairs, line_of, loss_of, phantom_options, small_encoders
from torch import Tensor
from torch.utils.data import DataLoader
from transformers import get_cosine_schedule_with_warmup

from gapless.inference.embed import Collator
from gapless.inference.pairs import PairDataset
from gapless.interop import GapMetrics
from gapless.losses.gap_closing import GapClosingLoss
from gapless.manifest import Manifest
from gapless.models import GaplessModel


class Aligner(lightning.LightningModule):
    """Encoders and a loss; any module that gives unit-norm rows of each modality stands in their place."""

    def __init__(self, encoders: GaplessModel, loss: GapClosingLoss) -> None:
        super().__init__()
        self.encoders = encoders
        self.loss = loss
        self.figures = GapMetrics(("image", "text"))

    def forward(self, batch: dict[str, Any]) -> dict[str, Tensor]:
        rows: dict[str, Tensor] = self.encoders.embed_all(batch["batch"])
        return rows

    def training_step(self, batch: dict[str, Any], batch_idx: int) -> Tensor:
        self.loss.set_progress(self.trainer.global_step / self.trainer.estimated_stepping_batches)
        terms = self.loss(self(batch))
        self.log_dict({name: value.detach() for name, value in terms._asdict().items()}, batch_size=len(batch["ids"]))
        total: Tensor = terms.total
        return total

    def on_train_batch_end(self, *args: Any) -> None:
        self.loss.clamp_logit_scale()

    def test_step(self, batch: dict[str, Any], batch_idx: int) -> None:
        self.figures.update(self(batch))

    def on_test_epoch_end(self) -> None:
        self.log_dict(self.figures.compute())
        self.figures.reset()

    def configure_optimizers(self) -> Any:
        parameters = [*self.encoders.parameters(), *self.loss.parameters()]
        groups = [  # no weight decay on biases, norms and the temperature
            {"params": [one for one in parameters if one.ndim > 1], "weight_decay": TRAINING["weight_decay"]},
            {"params": [one for one in parameters if one.ndim < 2], "weight_decay": 0.0},
        ]
        optimizer = torch.optim.AdamW(groups, lr=TRAINING["learning_rate"])
        steps = int(self.trainer.estimated_stepping_batches)
        rate = get_cosine_schedule_with_warmup(optimizer, math.ceil(TRAINING["warmup_steps"] * steps), steps)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": rate, "interval": "step"}}


def loader(rows: Manifest, encoders: GaplessModel, batch: int, training: bool) -> DataLoader[Any]:
    kinds = {name: encoders.preprocessor(name) for name in ("image", "text")}
    dataset = PairDataset(rows, kinds)
    return DataLoader(dataset, batch, shuffle=training, drop_last=training, collate_fn=Collator(kinds))


def train(method: str, manifest: Manifest, args: argparse.Namespace) -> dict[str, Any]:
    """The figures of the test split after training by a method."""
    lightning.seed_everything(args.seed, verbose=False)
    encoders = small_encoders(manifest, args.size)
    model = Aligner(encoders, loss_of(method))
    trainer = lightning.Trainer(
        max_epochs=args.epochs,
        accelerator="cpu",
        devices=1,
        gradient_clip_val=TRAINING["max_grad_norm"],
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(model, loader(manifest.select("train"), encoders, args.batch, training=True))
    test = loader(manifest.select("test"), encoders, args.batch, training=False)
    (figures,) = trainer.test(model, test, verbose=False)
    return dict(figures)


def main() -> None:
    args = phantom_options("the gap-closing loss in Lightning").parse_args()
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", module="lightning")
    with tempfile.TemporaryDirectory() as folder:
        manifest = drawn_pairs(Path(folder) / "phantom", args.pairs, args.size)
        for method in args.methods:
            print(line_of(method, train(method, manifest, args)))


if __name__ == "__main__":
    main()
