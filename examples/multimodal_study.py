"""Five modalities, some of them absent: what masks, weights and joint queries do to retrieval and to the gaps.

    python examples/multimodal_study.py DATA --arrays ARRAYS --choose 3 --out choice.json     held-out training cases
    python examples/multimodal_study.py DATA --arrays ARRAYS --seeds 5 --workers 8 --out study.json    the dev rows

DATA holds `train_multimodal.jsonl` and `dev_multimodal.jsonl` (a case, a caption, a history, an exam, age and sex a
line) and `features_train.npz`, `features_dev.npz` with `image` and `text`, row i being line i. ARRAYS (by default
DATA) holds `history_train.npy`, `exam_train.npy` and those of dev: features of these texts, NaN where a row has none.
`--embed MODEL` makes those four with a local sentence-transformers model and ends.

Every arm trains heads of one size with one optimizer for equally many steps; only what its name says differs. Choices
are made with --choose, on held-out cases of the training rows; the dev rows are for the final arms. A hit of `R@10` is
any row of the query's case. Beside study.json stand study.md (the table) and the folder study/ with the embeddings of
each arm and seed: what lies there with the same settings is not trained again.
"""

import argparse
import json
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict, dataclass, field, replace
from itertools import combinations
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from gapless.closing.folds import group_folds, mean_reciprocal_rank
from gapless.core.captions import caption_codes
from gapless.core.geometry import unit_norm
from gapless.inference.presence import hidden_modalities
from gapless.losses.base import METHODS, after_step, set_progress
from gapless.losses.gap_closing_methods import GapClosingSettings
from gapless.metrics.measure import measure_under_draws
from gapless.metrics.uncertainty import draw_counts
from gapless.modalities.table import TableInput, TableModality
from gapless.models.heads import build_head
from gapless.models.spec import layer_spec

ANCHOR = "text"
TWO = ("image", ANCHOR)
FIVE = ("image", ANCHOR, "history", "exam", "table")
TEXTS = (ANCHOR, "history", "exam")  # modalities of texts, whose rows may say the same
JOINT = "joint"  # the name under which the mean of a row's parts is compared with the anchor
JOINT = "joint"  # the name of a joint query among the modalities
JOINT_WEIGHTS = (1.0, 2.0, 3.0)  # of the image beside the history
CHOSEN_WEIGHT = 2.0  # with --choose 4, the best of those for "five"
NUM_FOLDS = 8  # of the training cases; a fold has about as many rows as the dev part
NUM_BOOTSTRAP = 2000
R10 = "lenient_R@10"
GAP = "gap/centroid_distance_unbiased"


@dataclass(frozen=True)
class Arm:
    """What is trained.

    Args:
        method: a name of `METHODS`; its settings for frozen embeddings.
        modalities: which ones.
        complete: train on the rows that have all five modalities alone.
        changes: settings of the loss that differ from the method's.
        own_weights: weights of the contrast by modality, chosen on held-out training cases (`chosen_weights`).
        joint: compare the mean of the parts that a row has, less some drawn ones, with the anchor too.
        positives: "text" (equal captions), "each" (equal rows of any modality of texts) or "case".
        hidden_share: modality -> the share of its rows that hide it in an epoch.
        training: fields of `Training` that differ.
    """

    method: str = "gapless"
    modalities: tuple[str, ...] = FIVE
    complete: bool = False
    changes: Mapping[str, Any] = field(default_factory=dict)
    own_weights: bool = False
    joint: bool = False
    positives: str = "text"
    hidden_share: Mapping[str, float] = field(default_factory=dict)
    training: Mapping[str, Any] = field(default_factory=dict)

    @property
    def loss(self) -> GapClosingSettings:
        method = METHODS[self.method]
        settings: GapClosingSettings = method.frozen_settings or replace(method.settings, mask_duplicates=True)
        if self.joint:
            names = [name for name in (*self.modalities, JOINT) if name != ANCHOR]
            settings = replace(settings, pairs=[(name, ANCHOR) for name in names])
        return replace(settings, **self.changes)


@dataclass(frozen=True)
class Training:
    """How every arm trains."""

    hidden: int = 512
    size: int = 256
    dropout: float = 0.5
    input_dropout: float = 0.2
    epochs: int = 60
    batches: int = 3
    learning_rate: float = 1e-3
    weight_decay: float = 0.05
    warmup_share: float = 0.1


def ramp(weight: float) -> list[list[float]]:
    """0 until 30 % of the training, then linear up to the weight, as in `gapless`."""
    return [[0.0, 0.0], [0.3, 0.0], [1.0, weight]]


WEAK = {"history": 0.1, "exam": 0.1, "table": 0.0}
HIDDEN = {"image": 0.3}
ALIGNED_ALL = {  # the contrast of the pairs with the anchor, Align True Pairs of all pairs
    "pairs": "all",
    "modality_weights": {f"{a}+{b}": 0.0 for a, b in combinations([name for name in FIVE if name != ANCHOR], 2)},
    "alignment_modality_weights": {},
}
WEAK_DROPOUT = {"dropout": 0.1, "input_dropout": 0.0}
FINAL: Mapping[str, Arm] = {
    "two, clip": Arm(method="clip", modalities=TWO),
    "two": Arm(modalities=TWO),
    "five, clip": Arm(method="clip"),
    "five, complete rows": Arm(complete=True),
    "five": Arm(),
    "five, alignment weights": Arm(changes={"alignment_modality_weights": WEAK}),
    "five, own weights": Arm(own_weights=True),
    "five, joint": Arm(joint=True, hidden_share=HIDDEN),
}
CANDIDATES: Mapping[str, Arm] = {  # for --choose alone
    "five, hidden": Arm(hidden_share=HIDDEN),
    "five, joint, nothing hidden": Arm(joint=True),
    "five, joint, own weights": Arm(joint=True, hidden_share=HIDDEN, own_weights=True),
    "five, joint, positives each": Arm(joint=True, hidden_share=HIDDEN, positives="each"),
    "five, joint, positives case": Arm(joint=True, hidden_share=HIDDEN, positives="case"),
    "five, positives each": Arm(positives="each"),
    "five, positives case": Arm(positives="case"),
    "two, positives case": Arm(modalities=TWO, positives="case"),
    "five, all pairs": Arm(changes={"pairs": "all"}),
    "five, all pairs aligned": Arm(changes=ALIGNED_ALL),
    "five, alignment 24": Arm(changes={"alignment_weight": ramp(24.0)}),
    "five, alignment 40": Arm(changes={"alignment_weight": ramp(40.0)}),
    "five, clip, weak dropout": Arm(method="clip", changes={"mask_duplicates": False}, training=WEAK_DROPOUT),
    "two, weak dropout": Arm(modalities=TWO, training=WEAK_DROPOUT),
    "five, weak dropout": Arm(training=WEAK_DROPOUT),
}
ARMS = {**FINAL, **CANDIDATES}


@dataclass(frozen=True)
class Rows:
    """Frozen features by modality, which rows have them, and what is known of each row."""

    features: Mapping[str, np.ndarray]
    present: Mapping[str, np.ndarray]
    cells: Sequence[Mapping[str, Any]]
    cases: np.ndarray
    codes: Mapping[str, np.ndarray]

    def take(self, rows: np.ndarray) -> "Rows":
        def of_each(arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
            return {name: values[rows] for name, values in arrays.items()}

        cells = [self.cells[row] for row in rows]
        return Rows(of_each(self.features), of_each(self.present), cells, self.cases[rows], of_each(self.codes))

    def masks(self, names: Sequence[str]) -> dict[str, Tensor]:
        return {name: torch.from_numpy(self.present[name]) for name in names}


def read_lines(data: Path, split: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (data / f"{split}_multimodal.jsonl").read_text().splitlines()]


def embed_texts(data: Path, arrays: Path, model: str) -> None:
    """Write the features of the histories and exams, fp16, a row of NaN where there is no text."""
    from sentence_transformers import SentenceTransformer

    encoder = SentenceTransformer(model, device="cpu")
    for split in ("train", "dev"):
        lines = read_lines(data, split)
        for name in ("history", "exam"):
            texts = sorted({line[name].strip() for line in lines if (line[name] or "").strip()})
            rows = dict(zip(texts, encoder.encode(texts, show_progress_bar=False), strict=True))
            absent = np.full_like(rows[texts[0]], np.nan)
            matrix = np.stack([rows.get((line[name] or "").strip(), absent) for line in lines])
            np.save(arrays / f"{name}_{split}.npy", matrix.astype(np.float16))


def read(data: Path, arrays: Path, split: str) -> Rows:
    lines = read_lines(data, split)
    with np.load(data / f"features_{split}.npz", allow_pickle=False) as stored:
        features = {name: stored[name].astype(np.float32) for name in TWO}
    for name in ("history", "exam"):
        features[name] = np.load(arrays / f"{name}_{split}.npy", allow_pickle=False).astype(np.float32)
    present = {name: np.isfinite(matrix).all(axis=1) for name, matrix in features.items()}
    cells = [{name: None if line[name] in ("", "N/A") else line[name] for name in ("age", "sex")} for line in lines]
    present["table"] = np.array([any(value is not None for value in row.values()) for row in cells])
    said = {ANCHOR: "caption", "history": "history", "exam": "exam"}
    codes = {name: np.array(caption_codes([line[key] or "" for line in lines])) for name, key in said.items()}
    cases = np.array([line["case"] for line in lines])
    codes["case"] = np.unique(cases, return_inverse=True)[1]
    return Rows({name: np.nan_to_num(matrix) for name, matrix in features.items()}, present, cells, cases, codes)


def with_table(training: Rows, measured: Rows) -> tuple[Rows, Rows]:
    """Both with age and sex as numbers, by the statistics of the training rows."""
    given = [row for row, has in zip(training.cells, training.present["table"], strict=True) if has]
    table = TableModality(TableModality.fit(TableInput(columns=("age", "sex")), given))

    def with_numbers(rows: Rows) -> Rows:
        present = [row for row, has in zip(rows.cells, rows.present["table"], strict=True) if has]
        numbers = np.stack([table.prepare(row) for row in present])
        matrix = np.zeros((len(rows.cells), numbers.shape[1]), dtype=np.float32)
        matrix[rows.present["table"]] = numbers
        return replace(rows, features={**rows.features, "table": matrix})

    return with_numbers(training), with_numbers(measured)


def new_heads(names: Sequence[str], rows: Rows, how: Training) -> nn.ModuleDict:
    """A small head for each modality, as those of `gapless close --method adapter`."""
    heads = nn.ModuleDict()
    for name in names:
        hidden = 64 if name == "table" else how.hidden
        layers: list[dict[str, Any]] = [
            *([] if name == "table" else [{"kind": "unit_norm"}]),
            {"kind": "dropout", "rate": how.input_dropout},
            {"kind": "mlp", "hidden": hidden, "size": how.size, "dropout": how.dropout},
        ]
        heads[name] = build_head([layer_spec(layer) for layer in layers], rows.features[name].shape[1], how.size)
    return heads


def optimizer_of(heads: nn.Module, loss: nn.Module, how: Training) -> torch.optim.Optimizer:
    matrices = [one for one in heads.parameters() if one.ndim > 1]
    others = [one for one in (*heads.parameters(), *loss.parameters()) if one.ndim <= 1]
    parts = [{"params": matrices, "weight_decay": how.weight_decay}, {"params": others, "weight_decay": 0.0}]
    return torch.optim.AdamW(parts, lr=how.learning_rate)


def trainable(rows: Rows, arm: Arm) -> Rows:
    """The rows that an arm learns from: those with two of its modalities, or with all five."""
    counts = np.sum([rows.present[name] for name in arm.modalities], axis=0)
    complete = np.all([rows.present[name] for name in FIVE], axis=0)
    return rows.take(np.flatnonzero(complete if arm.complete else counts >= 2))


def train(rows: Rows, arm: Arm, settings: GapClosingSettings, seed: int, how: Training) -> nn.ModuleDict:
    """The heads of an arm, trained on the rows that it learns from."""
    rows = trainable(rows, arm)
    torch.manual_seed(seed)
    heads = new_heads(arm.modalities, rows, how)
    loss: Any = METHODS[arm.method].build(settings, ANCHOR)
    optimizer = optimizer_of(heads, loss, how)
    num_steps = how.epochs * how.batches
    warmup = how.warmup_share * num_steps
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer,
        lambda step: min(
            (step + 1) / warmup, 0.5 * (1 + np.cos(np.pi * max(0.0, step - warmup) / (num_steps - warmup)))
        ),
    )
    features = {name: torch.from_numpy(rows.features[name]) for name in arm.modalities}
    for epoch in range(how.epochs):
        masks = masks_of_epoch(rows, arm, seed, epoch)
        for number, batch in enumerate(torch.randperm(len(rows.cases)).chunk(how.batches)):
            set_progress(loss, (epoch * how.batches + number) / num_steps)
            present = {name: mask[batch] for name, mask in masks.items()}
            embeddings = {name: embed_present(heads[name], features[name][batch], present[name]) for name in masks}
            if arm.joint:
                embeddings[JOINT], present[JOINT] = joint_rows(embeddings, present)
            terms = loss(embeddings, present=present, positives=positives_of(rows, arm, batch))
            optimizer.zero_grad()
            terms.total.backward()
            optimizer.step()
            after_step(loss)
            schedule.step()
    return heads.eval()


def masks_of_epoch(rows: Rows, arm: Arm, seed: int, epoch: int) -> dict[str, Tensor]:
    """modality -> [row] bool: what the rows have, less what they hide in this epoch."""
    masks = {name: mask.clone() for name, mask in rows.masks(arm.modalities).items()}
    if arm.hidden_share:
        for row in range(len(rows.cases)):
            has = [name for name, mask in masks.items() if mask[row]]
            for name in hidden_modalities(has, arm.hidden_share, seed, epoch, str(row)):
                masks[name][row] = False
    return masks


def embed_present(head: nn.Module, features: Tensor, mask: Tensor) -> Tensor:
    """[row, size] unit-norm rows, zeros where the mask is False."""
    embedded = unit_norm(head(features[mask]))
    return embedded.new_zeros(len(mask), embedded.shape[1]).index_copy(0, mask.nonzero().flatten(), embedded)


def joint_rows(embeddings: Mapping[str, Tensor], present: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
    """The unit-norm mean of a row's parts, less the anchor and three tenths drawn; and which rows have any left."""
    masks = {name: mask & (torch.rand(len(mask)) >= 0.3) for name, mask in present.items() if name != ANCHOR}
    total = torch.stack([embeddings[name] * mask[:, None] for name, mask in masks.items()]).sum(dim=0)
    return unit_norm(total), torch.stack(list(masks.values())).any(dim=0)


def positives_of(rows: Rows, arm: Arm, batch: Tensor) -> Tensor | dict[str, Tensor]:
    codes = {name: torch.from_numpy(values)[batch] for name, values in rows.codes.items()}
    if arm.positives == "each":
        return {name: codes[name] for name in TEXTS if name in arm.modalities}
    return codes["case" if arm.positives == "case" else ANCHOR]


@torch.no_grad()
def embed(heads: nn.ModuleDict, rows: Rows) -> dict[str, Tensor]:
    return {name: unit_norm(head(torch.from_numpy(rows.features[name]))) for name, head in heads.items()}


def chosen_weights(rows: Rows, arm: Arm, seed: int, how: Training) -> dict[str, float]:
    """The weight of each modality's contrast: how well it finds the captions of held-out cases, less chance.

    Heads with equal weights are trained without a quarter of the cases. Of each modality the mean reciprocal rank among
    these, less that of a random order, is divided by the largest one.
    """
    fold = group_folds(rows.codes["case"], num_folds=4, seed=seed)[0]
    fit, held = with_table(rows.take(fold.fit), rows.take(fold.held))
    embeddings = embed(train(fit, arm, arm.loss, seed, how), held)
    ready = {}
    for name in arm.modalities:
        both = torch.from_numpy(held.present[name] & held.present[ANCHOR])
        items = torch.from_numpy(held.codes[ANCHOR])[both]
        chance = float((1 / torch.arange(1, len(items) + 1)).mean())
        if name != ANCHOR:
            ready[name] = mean_reciprocal_rank(embeddings[name][both], embeddings[ANCHOR][both], items) - chance
    most = max(ready.values())
    return {name: round(max(value / most, 0.0), 3) for name, value in ready.items()}


@dataclass(frozen=True)
class Job:
    """One training and the rows that it embeds: the dev rows, or a fold of the training cases."""

    data: Path
    arrays: Path
    name: str
    seed: int
    fold: int | None
    how: Training
    folder: Path

    @property
    def path(self) -> Path:
        slug = self.name.replace(", ", "-").replace(" ", "-")
        return self.folder / f"{slug}_{'dev' if self.fold is None else f'fold{self.fold}'}_{self.seed}.npz"

    @property
    def settings(self) -> str:
        """What decides the embeddings, as JSON: embeddings of other settings are not taken."""
        arm = ARMS[self.name]
        what = {name: value for name, value in asdict(arm).items() if name != "training"}
        return json.dumps({"arm": what, "loss": asdict(arm.loss), "training": asdict(self.training)}, sort_keys=True)

    @property
    def training(self) -> Training:
        """How its arm trains."""
        return replace(self.how, **ARMS[self.name].training)

    def rows(self) -> tuple[Rows, Rows]:
        """The rows to train on and the rows to measure."""
        rows = read(self.data, self.arrays, "train")
        if self.fold is None:
            return with_table(rows, read(self.data, self.arrays, "dev"))
        fold = group_folds(rows.codes["case"], NUM_FOLDS, seed=1)[self.fold]
        return with_table(rows.take(fold.fit), rows.take(fold.held))

    def stored(self) -> tuple[dict[str, Tensor], dict[str, Any]] | None:
        """The embeddings, and the facts of the training; None where they are to be made."""
        if not self.path.exists():
            return None
        with np.load(self.path, allow_pickle=False) as stored:
            if str(stored["settings"]) != self.settings:
                return None
            names = ARMS[self.name].modalities
            return {name: torch.from_numpy(stored[name]) for name in names}, json.loads(str(stored["facts"]))


def run_job(job: Job) -> str:
    """Train, embed and store; a line for the log."""
    torch.set_num_threads(1)
    begun = time.monotonic()
    arm = ARMS[job.name]
    training, measured = job.rows()
    settings = arm.loss
    facts: dict[str, Any] = {}
    if arm.own_weights:
        facts["weights"] = chosen_weights(training, arm, job.seed, job.training)
        even = {} if settings.alignment_modality_weights is None else settings.alignment_modality_weights
        settings = replace(settings, modality_weights=facts["weights"], alignment_modality_weights=even)
    embeddings = embed(train(training, arm, settings, job.seed, job.training), measured)
    facts["seconds"] = round(time.monotonic() - begun, 1)
    partial = job.path.with_suffix(f".{os.getpid()}.partial")
    with partial.open("wb") as file:
        arrays: dict[str, Any] = {name: rows.numpy() for name, rows in embeddings.items()}
        np.savez(file, settings=np.array(job.settings), facts=np.array(json.dumps(facts)), **arrays)
    partial.replace(job.path)
    return f"{job.path.stem} {facts}"


def run_jobs(jobs: Sequence[Job], workers: int) -> Iterator[str]:
    left = [job for job in jobs if job.stored() is None] if workers else []
    if workers <= 1:
        yield from map(run_job, left)
        return
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
        for done in as_completed([pool.submit(run_job, job) for job in left]):
            yield done.result()


def joint_part(embeddings: Mapping[str, Tensor], rows: Rows, weight: float) -> Tensor:
    """Queries of the image times a weight and the history, as `measure(joint=...)` makes them."""
    history = embeddings["history"] * torch.from_numpy(rows.present["history"])[:, None]
    return unit_norm(weight * embeddings["image"] + history)


def figures_of(embeddings: Mapping[str, Tensor], rows: Rows, draws: Tensor | None) -> dict[str, Tensor]:
    """key -> [1 + replicate]: the figure, then its values under draws of cases; without draws the figure alone."""
    sets: dict[str, dict[str, Tensor]] = {
        f"{first}-{second}": {first: embeddings[first], second: embeddings[second]}
        for number, first in enumerate(embeddings)
        for second in list(embeddings)[number + 1 :]
    }
    masks = rows.masks(list(embeddings))
    if "history" in embeddings:
        for weight in JOINT_WEIGHTS:
            query = f"image={weight:g}+history"
            sets[query] = {JOINT: joint_part(embeddings, rows, weight), ANCHOR: embeddings[ANCHOR]}
        masks[JOINT] = masks["image"] | masks["history"]
    cases = np.unique(rows.cases)
    result = {}
    for key, pair in sets.items():
        both = torch.stack([masks[name] for name in pair]).all(dim=0)
        chosen = torch.from_numpy(np.isin(cases, rows.cases[both.numpy()]))
        none = torch.zeros(0, len(cases), dtype=torch.float64)
        values = measure_under_draws(
            {name: part[both] for name, part in pair.items()},
            (none if draws is None else draws)[:, chosen],
            rows.cases[both.numpy()],
            captions=list(rows.cases[both.numpy()]),  # rows of one "caption" are right for each other
            include=("gap", "retrieval"),
        )
        result[f"{GAP} {key}"] = values[GAP]
        result[f"cosine {key}"] = values["gap/true_pair_cosine"]
        if ANCHOR in pair:
            (other,) = set(pair) - {ANCHOR}
            for figure in (R10, "R@10"):
                name = key if other == JOINT else other
                result[f"{figure} {name}"] = values[f"retrieval/{other}_to_{ANCHOR}/{figure}"]
    return result


def interval(values: Tensor) -> dict[str, float]:
    """A figure with the 95 % interval of its replicates; without where some are not finite, as over a gap of 0."""
    result = {"value": float(values[0])}
    if len(values) > 1 and values.isfinite().all():
        low, high = np.quantile(values[1:].numpy(), [0.025, 0.975])
        result |= {"low": float(low), "high": float(high)}
    return result


def summary(jobs: Sequence[Job]) -> dict[str, Any]:
    """arm -> figures as means over seeds (or folds), with intervals over cases on the dev rows; and differences."""
    arms: dict[str, dict[str, Tensor]] = {}
    facts: dict[str, list[Any]] = {}
    measured = {fold: job.rows()[1] for fold, job in {job.fold: job for job in jobs}.items()}
    for name in dict.fromkeys(job.name for job in jobs):
        runs = []
        for job in (one for one in jobs if one.name == name):
            stored = job.stored()
            if stored is None:
                continue
            rows = measured[job.fold]
            draws = None
            if job.fold is None:
                draws = torch.cat(list(draw_counts(len(np.unique(rows.cases)), NUM_BOOTSTRAP, seed=0)))
            runs.append(figures_of(stored[0], rows, draws))
            facts.setdefault(name, []).append({"seed": job.seed, **stored[1]})
        if runs:
            arms[name] = {key: torch.stack([run[key] for run in runs]).mean(dim=0) for key in runs[0]}
    return {
        "arms": {name: {key: interval(values) for key, values in found.items()} for name, found in arms.items()},
        "runs": facts,
        "targets": targets(arms),
    }


def targets(arms: Mapping[str, Mapping[str, Tensor]]) -> dict[str, Any]:
    """What the study asks, where its arms were run: differences of R@10 and ratios of gaps, with intervals."""
    asked: dict[str, Any] = {}
    image, history, joint = f"{R10} image", f"{R10} history", f"{R10} image={CHOSEN_WEIGHT:g}+history"
    for name, found in arms.items():
        if not name.startswith("five") or name == "five, clip":
            continue
        if "two" in arms:
            asked[f"{name}: image to text, minus two"] = interval(found[image] - arms["two"][image])
        if "five, complete rows" in arms and name != "five, complete rows":
            complete = arms["five, complete rows"]
            asked[f"{name}: image to text, minus complete rows"] = interval(found[image] - complete[image])
        better = history if found[history][0] > found[image][0] else image
        asked[f"{name}: image+history to text, minus {better.split()[1]}"] = interval(found[joint] - found[better])
        if "five, clip" in arms:
            ratios = {key.removeprefix(f"{GAP} "): found[key] / arms["five, clip"][key] for key in found if is_gap(key)}
            worst = max(ratios, key=lambda pair: float(ratios[pair][0]))
            asked[f"{name}: largest gap over clip's ({worst})"] = interval(ratios[worst])
    return asked


def is_gap(key: str) -> bool:
    return key.startswith(GAP) and "+" not in key


def table_of(result: Mapping[str, Any]) -> str:
    """The arms as a table in Markdown, and what the study asks below it."""
    columns = {
        "image": f"{R10} image",
        "image, own row": "R@10 image",
        "history": f"{R10} history",
        "exam": f"{R10} exam",
        "table": f"{R10} table",
        **{f"image={w:g}+history": f"{R10} image={w:g}+history" for w in JOINT_WEIGHTS},
    }
    lines = [
        f"| arm | {' | '.join(columns)} | cosine image-text | largest gap |",
        f"|---|{'---|' * (len(columns) + 2)}",
    ]
    for name, found in result["arms"].items():
        cells = [percent(found.get(key)) for key in columns.values()]
        worst = max((key for key in found if is_gap(key)), key=lambda key: float(found[key]["value"]))
        cosine = found[f"cosine image-{ANCHOR}"]["value"]
        gap = f"{found[worst]['value']:.3f} {worst.removeprefix(GAP).strip()}"
        lines.append(f"| {name} | {' | '.join(cells)} | {cosine:.2f} | {gap} |")
    lines += ["", "| asked | value | 95 % interval |", "|---|---|---|"]
    for question, answer in result["targets"].items():
        scale = 1 if "gap" in question else 100
        bounds = [f"{scale * answer[side]:.2f}" for side in ("low", "high") if side in answer]
        lines.append(f"| {question} | {scale * answer['value']:.2f} | {' to '.join(bounds)} |")
    return "\n".join(lines) + "\n"


def percent(figure: Mapping[str, float] | None) -> str:
    if figure is None:
        return ""
    value = f"{100 * figure['value']:.1f}"
    return f"{value} ({100 * figure['low']:.1f} to {100 * figure['high']:.1f})" if "low" in figure else value


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("--arrays", type=Path, help="folder of the history and exam features; default DATA")
    parser.add_argument("--embed", metavar="MODEL", help="make the history and exam features with this model, and end")
    parser.add_argument("--choose", type=int, default=0, metavar="N", help="measure N folds of the training cases")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument(
        "--arms", help="names of arms, separated by semicolons; default: the final ones, with --choose all"
    )
    parser.add_argument("--epochs", type=int, default=Training.epochs)
    parser.add_argument(
        "--workers",
        type=int,
        default=1,
        help="trainings at a time, each in a process of one thread; 0 trains none and sums up what is stored",
    )
    parser.add_argument("--out", type=Path, default=Path("study.json"))
    options = parser.parse_args()
    arrays = options.arrays or options.data
    if options.embed:
        embed_texts(options.data, arrays, options.embed)
        return
    names = options.arms.split(";") if options.arms else list(ARMS if options.choose else FINAL)
    if unknown := [name for name in names if name not in ARMS]:
        parser.error(f"unknown arms {', '.join(unknown)}; the arms are {'; '.join(ARMS)}")
    if not 0 <= options.choose <= NUM_FOLDS:
        parser.error(f"--choose is at most {NUM_FOLDS}")
    folder = options.out.with_suffix("")
    folder.mkdir(parents=True, exist_ok=True)
    parts: list[tuple[int | None, int]] = [(fold, fold) for fold in range(options.choose)]
    parts = parts or [(None, seed) for seed in range(options.seeds)]
    how = Training(epochs=options.epochs)
    jobs = [Job(options.data, arrays, name, seed, fold, how, folder) for fold, seed in parts for name in names]
    for line in run_jobs(jobs, options.workers):
        print(line, flush=True)
    result = summary(jobs)
    options.out.write_text(json.dumps(result, indent=1) + "\n")
    options.out.with_suffix(".md").write_text(table_of(result))
    print(table_of(result))


if __name__ == "__main__":
    main()
