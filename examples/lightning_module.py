"""The gap-closing loss in a Lightning module: the temperature without weight decay, clamped after each step.

    python examples/lightning_module.py [--steps 100]

Embeddings that other models made are the two modalities; the module learns a head for each. ("gapless close" does this
without any code.)
"""

import argparse
import logging
import warnings
from typing import Any

import lightning
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from gapless import GapClosingLoss, measure
from gapless.losses.gap_closing import GapLossTerms


class Aligner(lightning.LightningModule):
    """A linear head per modality, trained with the gap-closing loss."""

    def __init__(self, sizes: dict[str, int], dim: int = 16, **options: Any) -> None:
        super().__init__()
        self.heads = nn.ModuleDict({name: nn.Linear(size, dim) for name, size in sizes.items()})
        self.loss = GapClosingLoss(anchor=list(sizes)[-1], **options)

    def forward(self, *inputs: Tensor) -> dict[str, Tensor]:
        pairs = zip(self.heads.items(), inputs, strict=True)
        return {name: nn.functional.normalize(head(rows), dim=-1) for (name, head), rows in pairs}

    def training_step(self, batch: list[Tensor], batch_idx: int) -> Tensor:
        terms: GapLossTerms = self.loss(self(*batch))
        self.log_dict({name: value.detach() for name, value in terms._asdict().items()})
        return terms.total

    def on_train_batch_end(self, *args: Any) -> None:
        self.loss.clamp_logit_scale()

    def configure_optimizers(self) -> torch.optim.Optimizer:
        optimizer = torch.optim.AdamW(self.heads.parameters(), lr=1e-2)
        optimizer.add_param_group({"params": self.loss.parameters(), "weight_decay": 0.0})
        return optimizer


def frozen_pairs(num_pairs: int) -> list[Tensor]:
    """Two frozen models' views of the same hidden numbers, each in its own cone."""
    random = torch.Generator().manual_seed(0)
    hidden = torch.randn(num_pairs, 8, generator=random)
    views = []
    for size in (48, 32):
        seen = hidden @ torch.randn(8, size, generator=random) + torch.randn(num_pairs, size, generator=random)
        views.append(nn.functional.normalize(seen + 4 * torch.randn(size, generator=random), dim=-1))
    return views


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--steps", type=int, default=100)
    args = parser.parse_args()
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", module="lightning")
    lightning.seed_everything(0, verbose=False)
    views = frozen_pairs(768)
    seen, unseen = [rows[:512] for rows in views], [rows[512:] for rows in views]
    model = Aligner({"image": 48, "text": 32})
    trainer = lightning.Trainer(
        max_steps=args.steps,
        accelerator="cpu",
        devices=1,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    keys = ("gap/centroid_distance_unbiased", "gap/true_pair_cosine", "retrieval/mean/R@10")
    for name in ("before", "after"):
        if name == "after":
            trainer.fit(model, DataLoader(TensorDataset(*seen), batch_size=128, shuffle=True))
        with torch.no_grad():
            figures = measure(model(*unseen), include=("gap", "retrieval"))
        print(name, *(f"{key} {figures[key]:.3f}" for key in keys))


if __name__ == "__main__":
    main()
