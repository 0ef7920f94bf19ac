"""Which loss and which heads close the gap of a frozen pair of encoders best? The study behind `gapless close`.

    python examples/recipe_study.py FEATURES.npz ROWS.jsonl                                  choose: held-back groups
    python examples/recipe_study.py FEATURES.npz ROWS.jsonl --test F.npz R.jsonl --arms "clip;gapless"     report

FEATURES.npz holds `image` [row, a] and `text` [row, b]; line i of ROWS.jsonl describes row i (`caption`, the group, the
label). Every arm goes through `close_gap`: same rows, splits, steps, batches and stopping rule; only what its name says
differs. Choosing measures held-back groups of the training rows, another part for each seed. Reporting trains on all of
them and measures the test rows, with 95 % intervals of the difference from `clip` over groups and seeds.
"""

import argparse
import json
import logging
import os
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch

from gapless import measure
from gapless.closing.close import close_gap
from gapless.closing.trained_heads import AdapterSettings, adapter_settings
from gapless.losses.gap_closing_methods import GapClosingSettings, Weight
from gapless.metrics.measure import measure_difference

HELD_BACK = 0.13
PARTS = ("gap", "retrieval", "probe", "grouping")
SHOWN = (
    "gap/centroid_distance_unbiased",
    "gap/centroid_distance_group_unbiased",
    "gap/true_pair_cosine",
    "gap/margin",
    "gap/separability_auc",
    "retrieval/mean/R@1",
    "retrieval/mean/R@10",
    "grouping/v_measure",
    "grouping/knn_accuracy",
)
COMPARED = SHOWN[:4] + SHOWN[5:7] + SHOWN[8:]  # the others carry no interval

Embeddings = Mapping[str, torch.Tensor]


@dataclass(frozen=True)
class Rows:
    """Frozen features and what is known of each row."""

    features: Mapping[str, np.ndarray]
    groups: np.ndarray
    labels: np.ndarray
    captions: Sequence[str]

    def take(self, rows: np.ndarray) -> "Rows":
        features = {name: matrix[rows] for name, matrix in self.features.items()}
        return Rows(features, self.groups[rows], self.labels[rows], [self.captions[row] for row in rows])


def ramp(weight: float, start: float = 0.3) -> Weight:
    """0 until `start` of the training, then linear up to `weight`."""
    return [[0.0, 0.0], [start, 0.0], [1.0, float(weight)]]


def fixed(temperature: float, weight: float) -> GapClosingSettings:
    """A temperature that does not learn; the same weight for both terms."""
    return GapClosingSettings(
        temperature=temperature, learn_temperature=False, alignment_weight=weight, uniformity_weight=weight
    )


def with_dropout(settings: AdapterSettings, like: AdapterSettings) -> AdapterSettings:
    return replace(settings, dropout=like.dropout, input_dropout=like.input_dropout)


def arms() -> dict[str, AdapterSettings]:
    """Every arm of the study; `gapless` and its plain heads are what `gapless close` does by itself."""
    gapless, clip, published = (adapter_settings(name) for name in ("gapless", "clip", "gapless-published"))
    regularised = with_dropout(clip, like=gapless)
    ramps = {
        f"ramp {alignment:g}, {uniformity:g}": replace(
            gapless, loss=replace(gapless.loss, alignment_weight=ramp(alignment), uniformity_weight=ramp(uniformity))
        )
        for alignment, uniformity in ((4, 1), (8, 1), (16, 1), (24, 1), (32, 1), (40, 1), (16, 2), (16, 4))
    }
    return {
        "clip": clip,
        "gapless-published": published,
        "gapless": gapless,
        "clip, regularised": regularised,
        "published, regularised": with_dropout(published, like=gapless),
        "gapless, bare heads": with_dropout(gapless, like=clip),
        "gapless, no mask": replace(gapless, loss=replace(gapless.loss, mask_duplicates=False)),
        "gapless, width 2048": replace(gapless, hidden=2048),
        "gapless, width 512": replace(gapless, hidden=512),
        "gapless, linear": replace(gapless, head="linear"),
        "gapless, start 0.5": replace(
            gapless, loss=replace(gapless.loss, alignment_weight=ramp(16, 0.5), uniformity_weight=ramp(1, 0.5))
        ),
        **ramps,
        "constant 3, 1": replace(clip, loss=GapClosingSettings(alignment_weight=3.0, uniformity_weight=1.0)),
        "constant 10, 3": replace(clip, loss=GapClosingSettings(alignment_weight=10.0, uniformity_weight=3.0)),
        "t 0.2 fixed, 1, 1": replace(regularised, loss=fixed(0.2, weight=1.0)),
        "t 0.4 fixed, 0, 0": replace(regularised, loss=fixed(0.4, weight=0.0)),
    }


def read(files: tuple[str, str], group: str, label: str) -> Rows:
    features, rows = files
    arrays = np.load(features, allow_pickle=False)
    described = [json.loads(line) for line in Path(rows).read_text().splitlines()]
    return Rows(
        features={name: arrays[name] for name in ("image", "text")},
        groups=np.array([str(row[group]) for row in described]),
        labels=np.array([str(row[label]) for row in described]),
        captions=[row["caption"] for row in described],
    )


def held_back(rows: Rows, seed: int) -> tuple[Rows, Rows]:
    """Rows to train on and rows to measure; no group is in both."""
    names = np.unique(rows.groups)
    np.random.default_rng(1000 + seed).shuffle(names)
    held = np.isin(rows.groups, names[: int(len(names) * HELD_BACK)])
    return rows.take(np.flatnonzero(~held)), rows.take(np.flatnonzero(held))


def closed(training: Rows, measured: Rows, settings: AdapterSettings, seed: int) -> Embeddings:
    """The measured rows in the space that was closed on the training rows."""
    with tempfile.TemporaryDirectory() as folder:
        model = close_gap(
            training.features,
            training.groups,
            settings,
            seed=seed,
            out=Path(folder) / "closed",
            captions=training.captions,
        ).model
    return {name: model.encode(name, matrix) for name, matrix in measured.features.items()}


def number(figure: float | dict[str, float]) -> float:
    return float(figure["mean"] if isinstance(figure, dict) else figure)


def figures_of(embeddings: Embeddings, rows: Rows) -> list[float]:
    figures = measure(embeddings, labels=rows.labels, groups=rows.groups, include=PARTS)
    return [number(figures[key]) for key in SHOWN]


def line(name: str, values: np.ndarray) -> str:
    """Means and standard deviations over seeds."""
    pairs = zip(values.mean(axis=0), values.std(axis=0, ddof=min(1, len(values) - 1)), strict=True)
    return " | ".join([name.ljust(24), *(f"{mean:.3f} ±{deviation:.3f}" for mean, deviation in pairs)])


def choose(rows: Rows, chosen: Mapping[str, AdapterSettings], seeds: int) -> Iterator[str]:
    for name, settings in chosen.items():
        found = []
        for seed in range(seeds):
            training, measured = held_back(rows, seed)
            found.append(figures_of(closed(training, measured, settings, seed), measured))
        yield line(name, np.array(found))


def report(rows: Rows, test: Rows, chosen: Mapping[str, AdapterSettings], seeds: int) -> Iterator[str]:
    runs = {}
    for name, settings in chosen.items():
        runs[name] = [closed(rows, test, settings, seed) for seed in range(seeds)]
        yield line(name, np.array([figures_of(run, test) for run in runs[name]]))
    baseline, *others = runs
    for name in others:
        yield f"\n{name} minus {baseline}, 95 % interval over groups"
        told = measure_difference(runs[name], runs[baseline], test.labels, test.groups, include=PARTS)
        for key in COMPARED:
            yield f"  {key:<40} {told[key]['value']:+.3f} [{told[key]['low']:+.3f}, {told[key]['high']:+.3f}]"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("features")
    parser.add_argument("rows")
    parser.add_argument("--test", nargs=2, metavar=("FEATURES", "ROWS"), help="report on these instead of choosing")
    parser.add_argument("--group", default="case")
    parser.add_argument("--label", default="location_category")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--arms", default=None, help="names of arms, separated by semicolons; default all")
    options = parser.parse_args()
    logging.disable(logging.WARNING)
    os.environ.setdefault("TQDM_DISABLE", "1")
    known = arms()
    chosen = {name: known[name] for name in (options.arms.split(";") if options.arms else known)}
    rows = read((options.features, options.rows), options.group, options.label)
    print("arm".ljust(24), *(key.split("/", 1)[1] for key in SHOWN), sep=" | ", flush=True)
    if options.test:
        told = report(rows, read(options.test, options.group, options.label), chosen, options.seeds)
    else:
        told = choose(rows, chosen, options.seeds)
    for text in told:
        print(text, flush=True)


if __name__ == "__main__":
    main()
