"""The gap-closing loss in a plain PyTorch loop, with encoders of your own.

python examples/pytorch_loop.py [--steps 200]

Two made-up modalities see the same eight hidden numbers. The same loop with the weights at 0 is CLIP.
"""

import argparse

import torch
from torch import nn

from gapless import GapClosingLoss, measure


def pairs(num_pairs: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Images and texts: other maps of the same hidden numbers, with noise."""
    world, own = torch.Generator().manual_seed(0), torch.Generator().manual_seed(seed)
    hidden = torch.randn(num_pairs, 8, generator=own)
    images, texts = (hidden @ torch.randn(8, dim, generator=world) for dim in (48, 32))
    noise = (torch.randn(rows.shape, generator=own) for rows in (images, texts))
    return images + next(noise), texts + next(noise)


def encoder(dim: int) -> nn.Module:
    """A small network that starts in a cone of its own, as deep encoders do."""
    first, last = nn.Linear(dim, 64), nn.Linear(64, 16)
    nn.init.normal_(last.bias, std=2.0)
    return nn.Sequential(first, nn.GELU(), last)


def train(num_steps: int, alignment_weight: float, uniformity_weight: float) -> dict[str, float]:
    torch.manual_seed(0)
    encoders = nn.ModuleDict({"image": encoder(48), "text": encoder(32)})
    loss = GapClosingLoss(anchor="text", alignment_weight=alignment_weight, uniformity_weight=uniformity_weight)
    optimizer = torch.optim.AdamW(encoders.parameters(), lr=3e-3)
    optimizer.add_param_group({"params": loss.parameters(), "weight_decay": 0.0})
    images, texts = pairs(512, seed=1)

    def embed(images: torch.Tensor, texts: torch.Tensor) -> dict[str, torch.Tensor]:
        raw = {"image": encoders["image"](images), "text": encoders["text"](texts)}
        return {name: nn.functional.normalize(rows, dim=-1) for name, rows in raw.items()}

    for _ in range(num_steps):
        batch = torch.randint(len(images), (128,))
        terms = loss(embed(images[batch], texts[batch]))
        optimizer.zero_grad()
        terms.total.backward()
        optimizer.step()
        loss.clamp_logit_scale()  # temperature at or above 0.01

    with torch.no_grad():
        return measure(embed(*pairs(256, seed=2)), include=("gap", "retrieval"))


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--steps", type=int, default=200)
    steps = parser.parse_args().steps
    for name, weight in (("clip", 0.0), ("gapless", 1.0)):
        figures = train(steps, alignment_weight=weight, uniformity_weight=weight)
        keys = ("gap/centroid_distance_unbiased", "gap/true_pair_cosine", "retrieval/mean/R@10")
        print(name, *(f"{key} {figures[key]:.3f}" for key in keys))


if __name__ == "__main__":
    main()
