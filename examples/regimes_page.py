"""Writes docs/regimes.md from what `regimes_study.py run` has finished; every figure on the page is computed here."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.torch import load_file
from torch import Tensor

from gapless.core.files import read_json
from gapless.metrics.measure import measure, measure_difference

PARTS = ("gap", "retrieval", "grouping")
GAP, COSINE, MARGIN = "gap/centroid_distance_unbiased", "gap/true_pair_cosine", "gap/margin"
RECALL, MRR, V_MEASURE, NEIGHBOURS = (
    "retrieval/mean/R@10",
    "retrieval/mean/MRR",
    "grouping/v_measure",
    "grouping/knn_accuracy",
)
SHOWN = (GAP, COSINE, MARGIN, RECALL, MRR, V_MEASURE, NEIGHBOURS)
PERCENT = (RECALL, MRR, V_MEASURE, NEIGHBOURS)
HEADS = ("gap, unbiased", "true-pair cosine", "margin", "R@10 %", "MRR %", "V-measure %", "kNN %")
FOLLOWING, CLOCK = "gapless-held-out", "gapless"
CENTRED = f"{FOLLOWING}, then center"
NUM_BOOTSTRAP = 1000
MOST_GAP, LEAST_RECALL, FROZEN_RECALL = 0.31, -0.01, 0.03

TITLES = {
    "frozen": "Heads on frozen MedPix features",
    "growing-frozen": "Growing data: heads on frozen MedPix features",
    "phantom-two": "The phantom from scratch, two modalities",
    "phantom-three": "The phantom from scratch, three modalities",
    "growing-phantom": "Growing data: the phantom from scratch",
    "medpix-scratch": "MedPix from scratch at 64 pixels",
    "medpix-finetuned": "Pretrained on the phantom, fine-tuned on MedPix",
}

Embeddings = Mapping[str, Tensor]


@dataclass(frozen=True)
class Regime:
    """The finished runs of one folder.

    Args:
        name: of the folder.
        columns: groups, labels and captions of the measured rows.
        runs: arm -> the embeddings of its runs, by seed.
        facts: arm -> what its runs say of themselves.
    """

    name: str
    columns: Mapping[str, Sequence[str]]
    runs: Mapping[str, Sequence[Embeddings]]
    facts: Mapping[str, Sequence[Mapping[str, Any]]]

    @property
    def reference(self) -> str:
        """The strongest arm of `clip`: the one with the regularisation of the others."""
        return "clip, regularised" if "clip, regularised" in self.runs else "clip"

    @property
    def title(self) -> str:
        kind = next(kind for kind in sorted(TITLES, key=len, reverse=True) if self.name.startswith(kind))
        count = self.name.removeprefix(kind).strip("-")
        return TITLES[kind] + (f", {int(count):,} pairs" if count else "")

    @property
    def measured(self) -> dict[str, Any]:
        """The arguments of `measure`."""
        return {"groups": self.columns["groups"], "labels": self.columns.get("labels"), "include": PARTS}


def read_regime(folder: Path) -> Regime | None:
    """The seeds that every arm has finished; None where that is none."""
    if not (folder / "rows.json").exists():
        return None
    seeds: dict[str, set[int]] = {}
    for path in sorted(folder.glob("*-seed*/run.json")):
        arm, _, seed = path.parent.name.rpartition("-seed")
        seeds.setdefault(arm, set()).add(int(seed))
    common = sorted(set.intersection(*seeds.values())) if seeds else []
    if not common:
        return None

    def paths(arm: str) -> list[Path]:
        return [folder / f"{arm}-seed{seed}" for seed in common]

    return Regime(
        folder.name,
        read_json(folder / "rows.json"),
        {arm: [load_file(path / "embeddings.safetensors") for path in paths(arm)] for arm in seeds},
        {arm: [read_json(path / "run.json") for path in paths(arm)] for arm in seeds},
    )


def number(figure: Any) -> float:
    return float(figure["mean"] if isinstance(figure, Mapping) else figure)


def figures_of(regime: Regime) -> dict[str, np.ndarray]:
    """Arm -> [seed, figure of `SHOWN`]; a figure that the rows have no labels for is NaN."""
    return {
        arm: np.array(
            [
                [number(found.get(key, np.nan)) for key in SHOWN]
                for found in (measure(run, **regime.measured) for run in runs)
            ]
        )
        for arm, runs in regime.runs.items()
    }


def cell(values: np.ndarray, key: str) -> str:
    scale, digits = (100, 1) if key in PERCENT else (1, 3)
    mean = f"{scale * values.mean():.{digits}f}"
    return mean if len(values) < 2 else f"{mean} ±{scale * values.std(ddof=1):.{digits}f}"


def interval(found: Mapping[str, Any], key: str) -> str:
    scale, digits = (100, 1) if key in PERCENT else (1, 3)
    return "{:+.{d}f} [{:+.{d}f}, {:+.{d}f}]".format(
        *(scale * found[end] for end in ("value", "low", "high")), d=digits
    )


def table(head: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    return "\n".join("| " + " | ".join(line) + " |" for line in (head, ["---"] * len(head), *lines))


def size_of(regime: Regime) -> str:
    """What the runs cost and stand on, in one sentence."""
    facts = regime.facts[regime.reference]
    groups = len(set(regime.columns["groups"]))
    rows = len(regime.columns["groups"])
    most = "at most " if "frozen" in regime.name else ""  # heads stop when their validation rows get no better
    steps = max(one["steps"] for runs in regime.facts.values() for one in runs)
    return (
        f"{facts[0]['pairs']:,} training pairs, {most}{steps:,} steps, {rows} measured rows in {groups} groups "
        f"as one gallery, {len(facts)} seed{'s' if len(facts) > 1 else ''}."
    )


def followed_line(regime: Regime) -> str:
    """What the controller did, seed by seed; empty where the runs do not say."""
    told = [one["followed"] for one in regime.facts.get(FOLLOWING, ()) if one.get("followed")]
    if not told:
        return ""
    stopped = sum(one["stopped_at"] is not None for one in told)
    readiness, weight = (np.mean([one[key] for one in told]) for key in ("readiness", "alignment_weight"))
    return (
        f"`{FOLLOWING}`: held-out readiness reached {readiness:.3f}, alignment ended at weight {weight:.2f} (means); "
        f"closing stopped in {stopped} of {len(told)} runs.\n\n"
    )


def differences_of(regime: Regime) -> dict[str, Mapping[str, Any]]:
    """Arm -> figure -> arm minus the reference with its 95 % interval over groups, means over seeds."""
    baseline = regime.runs[regime.reference]
    return {
        arm: measure_difference(runs, baseline, **regime.measured, num_bootstrap=NUM_BOOTSTRAP)
        for arm, runs in regime.runs.items()
        if arm != regime.reference
    }


def verdicts(regime: Regime, arm: str, figures: Mapping[str, np.ndarray], found: Mapping[str, Any]) -> list[list[str]]:
    """The targets of an arm in this regime: what was asked, what came out, met or missed."""
    mean = {arm: dict(zip(SHOWN, values.mean(axis=0), strict=True)) for arm, values in figures.items()}
    ours, theirs = mean[arm], mean[regime.reference]
    ratio = ours[GAP] / max(theirs[GAP], 1e-9)
    lines = [
        (
            "R@10: low end of the interval above −1 point",
            interval(found[RECALL], RECALL),
            found[RECALL]["low"] > LEAST_RECALL,
        ),
        (f"unbiased gap at most {MOST_GAP}x", f"{ratio:.2f}x", ratio <= MOST_GAP),
        ("margin not lower", interval(found[MARGIN], MARGIN), ours[MARGIN] >= theirs[MARGIN]),
    ]
    for key, name in ((V_MEASURE, "V-measure not lower"), (NEIGHBOURS, "kNN not lower")):
        if np.isfinite(ours[key]):
            lines.append((name, f"{100 * (ours[key] - theirs[key]):+.1f}", ours[key] >= theirs[key]))
    if regime.name == "frozen":
        gained = found[RECALL]["value"]
        lines.append(("R@10 +3 points", f"{100 * gained:+.1f}", gained >= FROZEN_RECALL))
    return [[regime.title, f"`{arm}`", asked, came, "met" if is_met else "**missed**"] for asked, came, is_met in lines]


def section(regime: Regime) -> tuple[str, list[list[str]]]:
    """The part of the page of one regime, and its lines of the table of targets."""
    figures = figures_of(regime)
    found = differences_of(regime)
    compared = (GAP, MARGIN, RECALL, NEIGHBOURS)
    of_arms = [
        [f"`{arm}`", *(cell(values[:, i], key) for i, key in enumerate(SHOWN))] for arm, values in figures.items()
    ]
    of_differences = [
        [f"`{arm}`", *(interval(one[key], key) if key in one else "–" for key in compared)]
        for arm, one in found.items()
    ]
    names = [HEADS[SHOWN.index(key)] for key in compared]
    text = (
        f"## {regime.title}\n\n{size_of(regime)}\n\n{table(('arm', *HEADS), of_arms)}\n\n"
        f"{followed_line(regime)}Less `{regime.reference}`, 95 % intervals over groups:\n\n"
        f"{table(('arm', *names), of_differences)}\n"
    )
    judged = [arm for arm in (FOLLOWING, CENTRED) if arm in found]
    return text, [line for arm in judged for line in verdicts(regime, arm, figures, found[arm])]


def cost_part(out: Path) -> str:
    """What following held-out pairs costs, where `regimes_study.py cost` has measured it."""
    if not (out / "cost.json").exists():
        return ""
    cost = json.loads((out / "cost.json").read_text())
    lines = [
        ["time of a training", f"{cost['time']:+.1%}", "met" if cost["time"] <= 0.05 else "**missed**"],
        ["most memory", f"{cost['memory']:+.1%}", "met" if cost["memory"] <= 0.02 else "**missed**"],
    ]
    return (
        f"## What it costs\n\n`{FOLLOWING}` against `gapless-published`, {cost['what']}:\n\n"
        f"{table(('', 'more', 'at most 5 % and 2 %'), lines)}\n"
    )


INTRODUCTION = """# When does closing the gap while training pay?

Written by `python examples/regimes_study.py page --out OUT --page docs/regimes.md` from the runs of
`examples/regimes.sh`; no figure is copied by hand. All arms of a regime have the same rows, steps, batches and start
weights. `{clock}` raises the weights by the clock; `{following}` raises them as far as held-out pairs have earned
([method.md](method.md)). `clip, then center` and `clip, then cca` close the gap of the finished
`clip` model on its training rows. Values are means ± standard deviations over seeds. Sizes are stated with each regime;
where fewer than 5 seeds or fewer epochs than the recipe's were run, time was the reason. Intervals are over groups of
rows: they leave out how seeds differ, so that of one or two seeds "met" and "missed" are no more than a first look.
"""


def write_page(out: Path, page: Path) -> None:
    """Write the page from every regime in `out` that has finished runs."""
    order = list(TITLES)
    folders = [path for path in out.iterdir() if path.is_dir() and any(path.name.startswith(kind) for kind in order)]

    def place(path: Path) -> tuple[int, int]:
        kind = max((kind for kind in order if path.name.startswith(kind)), key=len)
        count = path.name.removeprefix(kind).strip("-")
        return order.index(kind), int(count or 0)

    regimes = [regime for path in sorted(folders, key=place) if (regime := read_regime(path)) is not None]
    sections = [section(regime) for regime in regimes]
    targets = [line for _, lines in sections for line in lines]
    met = sum(line[-1] == "met" for line in targets)
    missing = [title for kind, title in TITLES.items() if not any(regime.name.startswith(kind) for regime in regimes)]
    parts = [
        INTRODUCTION.format(clock=CLOCK, following=FOLLOWING),
        f"## Targets\n\nAgainst the strongest `clip` arm of each regime: {met} of {len(targets)} met.\n\n"
        f"{table(('regime', 'arm', 'asked', 'came out', ''), targets)}\n",
        cost_part(out),
        *(text for text, _ in sections),
        f"Not run yet: {'; '.join(missing)}.\n" if missing else "",
    ]
    page.write_text("\n".join(part for part in parts if part))
