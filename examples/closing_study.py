"""What closing brings beyond the strongest simple thing: methods fitted on one folder of pairs, judged on another.

    python examples/closing_study.py --train DIR --held DIR [--seeds 0,1,2,3,4] [--arms clip,cca,...] --out study.json

Each folder holds `image.npy`, `text.npy`, `groups.txt` and `labels.txt` (a line a row), as for `gapless close`; rows of
one group must not be in both. Every arm is fitted on the first folder with each seed and measured on the second, whose
rows choose nothing. Prints a table with 95 % intervals over groups and the paired differences to each baseline.
"""

import argparse
import json
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from gapless.closing.auto import AutoSettings
from gapless.closing.base import ClosingSettings
from gapless.closing.cca import CcaSettings
from gapless.closing.close import close_gap
from gapless.closing.procrustes import ProcrustesSettings
from gapless.closing.stack import StackSettings
from gapless.closing.trained_heads import adapter_settings
from gapless.metrics.measure import measure, measure_difference

REGULARISED = replace(adapter_settings("clip"), dropout=0.5, input_dropout=0.2)  # as the gapless heads are
ARMS: dict[str, tuple[str, ClosingSettings]] = {
    "clip": ("adapter", adapter_settings("clip")),
    "clip less means": ("adapter", replace(adapter_settings("clip"), remove_mean=True)),
    "clip regularised": ("adapter", REGULARISED),
    "clip regularised less means": ("adapter", replace(REGULARISED, remove_mean=True)),
    "gapless": ("adapter", adapter_settings()),
    "gapless less means": ("adapter", replace(adapter_settings(), remove_mean=True)),
    "procrustes": ("procrustes", ProcrustesSettings()),
    "cca": ("cca", CcaSettings()),
    "stack": ("stack", StackSettings()),
    "auto": ("auto", AutoSettings(seconds=0)),
}
KEYS = (
    "gap/centroid_distance_unbiased",
    "gap/true_pair_cosine",
    "gap/margin",
    "gap/margin_centred",
    "gap/d_prime",
    "retrieval/mean/R@10",
    "retrieval/mean/MRR",
    "gap/mixing@10",
    "mixed/R@10",
)
SHOWN = ("retrieval/mean/R@10", "retrieval/mean/MRR", "gap/margin")


def read_folder(folder: Path) -> tuple[dict[str, np.ndarray], list[str], list[str]]:
    """Embeddings by modality, groups and labels."""
    rows = {name: np.load(folder / f"{name}.npy").astype(np.float32) for name in ("image", "text")}
    groups, labels = ((folder / f"{name}.txt").read_text().splitlines() for name in ("groups", "labels"))
    return rows, groups, labels


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--train", type=Path, required=True)
    parser.add_argument("--held", type=Path, required=True)
    parser.add_argument("--seeds", default="0,1,2,3,4")
    parser.add_argument("--arms", default=",".join(ARMS))
    parser.add_argument("--baselines", default="clip,clip regularised,cca,gapless")
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    train, train_groups, train_labels = read_folder(args.train)
    held, held_groups, held_labels = read_folder(args.held)
    seeds = [int(seed) for seed in args.seeds.split(",")]
    spaces: dict[str, list[dict[str, torch.Tensor]]] = {}
    facts: dict[str, list[Any]] = {}
    for arm in args.arms.split(","):
        method, settings = ARMS[arm]
        for seed in seeds:
            with tempfile.TemporaryDirectory() as place:
                closed = close_gap(
                    train, train_groups, settings, method, seed, out=Path(place) / "m", labels=train_labels
                )
            facts.setdefault(arm, []).append(closed.results.get("choice", {}).get("name"))
            spaces.setdefault(arm, []).append({name: closed.model.encode(name, rows) for name, rows in held.items()})
        print(row_of(arm, spaces[arm], held_groups, held_labels), facts[arm], flush=True)
    figures = {arm: [figures_of(one, held_groups, held_labels) for one in runs] for arm, runs in spaces.items()}
    differences = {
        f"{arm} minus {baseline}": measure_difference(
            spaces[arm], spaces[baseline], groups=held_groups, include=("gap", "retrieval", "mixed")
        )
        for baseline in args.baselines.split(",")
        for arm in spaces
        if baseline in spaces and arm != baseline
    }
    args.out.write_text(json.dumps({"figures": figures, "chosen": facts, "differences": differences}, indent=1))
    for name, values in differences.items():
        shown = [f"{key} {v['value']:+.3f} [{v['low']:+.3f}, {v['high']:+.3f}]" for key in SHOWN for v in [values[key]]]
        print(f"{name:<44}{'; '.join(shown)}")


def figures_of(space: dict[str, torch.Tensor], groups: list[str], labels: list[str]) -> dict[str, float]:
    """The figures of one run on the held rows."""
    figures = measure(space, labels, groups, include=("gap", "retrieval", "mixed", "further", "grouping"))
    return {key: figures[key] for key in KEYS} | {"grouping/v_measure": figures["grouping/v_measure"]["mean"]}


def row_of(arm: str, runs: list[dict[str, torch.Tensor]], groups: list[str], labels: list[str]) -> str:
    """One line of the table: means over seeds."""
    values = [figures_of(run, groups, labels) for run in runs]
    means = (f"{key.split('/')[-1]} {np.mean([one[key] for one in values]):.3f}" for key in values[0])
    return f"{arm:<30}{' '.join(means)}"


if __name__ == "__main__":
    main()
