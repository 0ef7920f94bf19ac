"""Which loss closes the gap of a frozen pair of encoders best? The study behind the recipe `gapless` (docs/method.md).

    python examples/recipe_study.py FEATURES.npz ROWS.jsonl --group case --label location_category

FEATURES.npz holds `image` [row, a] and `text` [row, b]; line i of ROWS.jsonl describes row i (`caption`, the group, the
label). Small heads are trained with each loss on a part of the rows and measured on held-back groups, several seeds.
Every arm has the same heads, steps, batches and splits; only the loss differs.
"""

import argparse
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from gapless import GapClosingLoss, measure
from gapless.geometry import unit_norm
from gapless.losses.schedules import Schedule

EPOCHS, BATCH, WIDTH, HELD_BACK = 30, 256, 512, 0.13
SHOWN = (
    "gap/centroid_distance_unbiased",
    "gap/true_pair_cosine",
    "gap/separability_auc",
    "retrieval/mean/R@10",
    "grouping/v_measure",
    "grouping/knn_accuracy",
)


def ramp(start: float, weight: float) -> Schedule:
    """0 until `start`, then linear up to `weight`."""
    return Schedule(((0.0, 0.0), (start, 0.0), (1.0, weight)))


def fixed(temperature: float, alignment: float | Schedule, uniformity: float | Schedule) -> dict[str, Any]:
    return {
        "temperature": temperature,
        "learn_temperature": False,
        "alignment_weight": alignment,
        "uniformity_weight": uniformity,
    }


def learned(alignment: float | Schedule, uniformity: float | Schedule) -> dict[str, Any]:
    return {"alignment_weight": alignment, "uniformity_weight": uniformity}


ARMS: dict[str, Mapping[str, Any]] = {
    "clip": learned(0.0, 0.0),
    "gapless-published": learned(1.0, 1.0),
    "constant 3, 1": learned(3.0, 1.0),
    "constant 5, 2": learned(5.0, 2.0),
    "constant 10, 3": learned(10.0, 3.0),
    "ramp 6, 1": learned(ramp(0.3, 6.0), ramp(0.3, 1.0)),
    "gapless (ramp 8, 1)": learned(ramp(0.3, 8.0), ramp(0.3, 1.0)),
    "ramp 12, 1": learned(ramp(0.3, 12.0), ramp(0.3, 1.0)),
    "t 0.2": fixed(0.2, 0.0, 0.0),
    "t 0.2, 1, 1": fixed(0.2, 1.0, 1.0),
    "t 0.2, 3, 3": fixed(0.2, 3.0, 3.0),
    "t 0.4": fixed(0.4, 0.0, 0.0),
    "t 0.4, 0, 0.3": fixed(0.4, 0.0, 0.3),
    "t 0.4, 1, 1": fixed(0.4, 1.0, 1.0),
    "t 0.3, ramp 3, 1": fixed(0.3, ramp(0.3, 3.0), ramp(0.3, 1.0)),
}


def read(features: Path, rows: Path, group: str, label: str) -> tuple[dict[str, Tensor], np.ndarray, np.ndarray]:
    arrays = np.load(features, allow_pickle=False)
    described = [json.loads(line) for line in rows.read_text().splitlines()]
    embeddings = {name: unit_norm(torch.from_numpy(arrays[name]).float()) for name in ("image", "text")}
    groups, labels = (np.array([str(row[key]) for row in described]) for key in (group, label))
    return embeddings, groups, labels


def split(groups: np.ndarray, seed: int) -> tuple[Tensor, Tensor]:
    """Rows to train on and rows to measure on; no group is in both."""
    names = np.unique(groups)
    np.random.default_rng(1000 + seed).shuffle(names)
    held_back = np.isin(groups, names[: int(len(names) * HELD_BACK)])
    return torch.from_numpy(np.flatnonzero(~held_back)), torch.from_numpy(np.flatnonzero(held_back))


def head(size: int) -> nn.Module:
    layers = (nn.Linear(size, WIDTH), nn.LayerNorm(WIDTH), nn.GELU(), nn.Dropout(0.2), nn.Linear(WIDTH, WIDTH))
    return nn.Sequential(*layers)


def train(embeddings: Mapping[str, Tensor], rows: Tensor, arm: Mapping[str, Any], seed: int) -> dict[str, nn.Module]:
    torch.manual_seed(seed)
    heads = {name: head(matrix.shape[1]) for name, matrix in embeddings.items()}
    loss = GapClosingLoss(anchor="text", **arm)
    weights = [parameter for one in heads.values() for parameter in one.parameters()]
    temperature = {"params": list(loss.parameters()), "weight_decay": 0.0}
    optimizer = torch.optim.AdamW([{"params": weights, "weight_decay": 0.1}, temperature], lr=1e-3)
    steps = EPOCHS * (len(rows) // BATCH)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 1e-3, total_steps=steps, pct_start=0.1)
    for step in range(steps):
        if step % (len(rows) // BATCH) == 0:
            order = rows[torch.randperm(len(rows))]
        batch = order[(step % (len(rows) // BATCH)) * BATCH :][:BATCH]
        loss.set_progress(step / steps)
        terms = loss({name: unit_norm(heads[name](embeddings[name][batch])) for name in heads})
        optimizer.zero_grad()
        terms.total.backward()
        optimizer.step()
        loss.clamp_logit_scale()
        schedule.step()
    return {name: one.eval() for name, one in heads.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("features", type=Path)
    parser.add_argument("rows", type=Path)
    parser.add_argument("--group", default="case")
    parser.add_argument("--label", default="location_category")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--arms", default=",".join(ARMS), help="names of ARMS, comma and no space between")
    options = parser.parse_args()
    embeddings, groups, labels = read(options.features, options.rows, options.group, options.label)
    print("arm".ljust(22), *(key.removeprefix("gap/").removeprefix("grouping/") for key in SHOWN), sep=" | ")
    for name in [name for name in ARMS if name in options.arms.split(",") or options.arms == ",".join(ARMS)]:
        found = []
        for seed in range(options.seeds):
            training, held_back = split(groups, seed)
            heads = train(embeddings, training, ARMS[name], seed)
            with torch.no_grad():
                closed = {key: heads[key](matrix[held_back]) for key, matrix in embeddings.items()}
            figures = measure(closed, labels=labels[held_back], groups=groups[held_back])
            numbers = [figures[key] for key in SHOWN]
            found.append([number["mean"] if isinstance(number, dict) else number for number in numbers])
        means, deviations = np.mean(found, axis=0), np.std(found, axis=0, ddof=1)
        cells = [f"{mean:.3f} ±{deviation:.3f}" for mean, deviation in zip(means, deviations, strict=True)]
        print(name.ljust(22), *cells, sep=" | ", flush=True)


if __name__ == "__main__":
    main()
