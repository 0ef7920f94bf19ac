"""Does closing the gap make better captions? Aligners of several methods, and captioners around them at equal budget.

    python examples/caption_study.py MANIFEST OUT --recipe phantom-small --seeds 3 --arms text,embedding,frozen,joint \\
        --aligner_options "--training.num_train_epochs 12" --caption_options "--training.num_train_epochs 10"

Every step is a command that a user would type: `gapless compare` trains the aligners, then each captioner is trained,
captions the test split and is scored. What is finished is kept, so that a second call goes on where the first stopped;
arms can be added later. `OUT/study.md` and `OUT/study.json` hold means over seeds and the differences of the methods
with 95 % intervals over groups, beside what needs no captioner; `OUT/captions.html` shows images with their true and
generated captions (seed 0). The epoch is chosen on the validation split.
The judge that finds an image by its caption is one more aligner, of the first method and a seed of its own, which
belongs to no arm; or it is given (--judge). Research use, not for diagnosis.
"""

import argparse
import shlex
import statistics
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import redirect_stdout
from dataclasses import dataclass
from pathlib import Path

import torch

from gapless.captioning.caption_files import read_captions
from gapless.captioning.captioner import Captioner
from gapless.captioning.data import source_features
from gapless.captioning.generation import NOTICE
from gapless.captioning.metrics import CaptionScorer
from gapless.captioning.route import IMAGE, TEXT, Route
from gapless.captioning.scores import CONSTANT, RANDOM, baselines, caption_rows, judged, source_rows
from gapless.cli.main import main as gapless
from gapless.core.files import write_json, write_text
from gapless.core.plan import claimed_for
from gapless.manifest.manifest import Manifest
from gapless.metrics.uncertainty import Figure, GroupSums, Interval, bootstrap_difference, combine, mean_figure
from gapless.models.aligner import GaplessModel
from gapless.study.table import SEEDS_FOR_A_CLAIM
from gapless.training.run import all_captions

ARMS = {
    "text": "--mode text",
    "text-noise": "--mode text --noise_std 0.04",
    "embedding": "--mode frozen --use_patches false",
    "frozen": "--mode frozen",
    "joint": "--mode joint",
    "joint-held": "--mode joint --follow held-out",
    "joint-clock": "--mode joint --follow clock",
    "joint-light": "--mode joint --follow clock --gap_weight 0.1",
}
JUDGE_SEED = 1000
SHOWN = {
    "loss/image": ("loss, image", 1),
    "loss/text": ("loss, text", 1),
    "caption/BLEU-1": ("BLEU-1", 100),
    "caption/BLEU-4": ("BLEU-4", 100),
    "caption/METEOR": ("METEOR", 100),
    "caption/ROUGE-L": ("ROUGE-L", 100),
    "caption/CIDEr": ("CIDEr", 1),
    "caption/retrieval/R@10": ("R@10", 100),
    "caption/distinct-2": ("distinct-2", 100),
    "caption/length": ("tokens", 1),
}
Figures = Mapping[str, Figure]
Scores = dict[tuple[str, str], list[Figures]]  # (arm, method) -> one entry per seed


@dataclass(frozen=True)
class Study:
    """What is compared, and where."""

    data: Path
    out: Path
    recipe: str
    methods: Sequence[str]
    seeds: int
    arms: Mapping[str, int]  # with how many of the seeds
    aligner_options: Sequence[str]
    caption_options: Sequence[str]
    generate_options: Sequence[str]
    given_judge: str | None

    def aligner(self, method: str, seed: int) -> Path:
        return self.out / "aligners" / "runs" / f"{method}-seed{seed}"

    def captioner(self, arm: str, method: str, seed: int) -> Path:
        return self.out / "captioners" / f"{arm}-{method}-seed{seed}"

    @property
    def judge(self) -> Path:
        return Path(self.given_judge) if self.given_judge else self.out / "judge"

    def plan(self) -> dict[str, object]:
        """What an output directory that is continued must share; arms may be added."""
        return {name: value for name, value in vars(self).items() if name not in ("data", "out", "arms")} | {
            "data": Manifest.read(self.data).fingerprint
        }


def command(*words: object) -> None:
    """One gapless command; what it prints goes to stderr, and what it refuses ends the study with its exit code."""
    print("gapless", shlex.join(map(str, words)), file=sys.stderr, flush=True)
    with redirect_stdout(sys.stderr):
        code = gapless([str(word) for word in words])
    if code:
        sys.exit(code)


def once(run: Path, *words: object) -> None:
    """A training, unless its model is there; one that was interrupted is resumed."""
    if not (run / "model" / "config.json").exists():
        resume = ["--resume", "latest"] if (run / "config.yaml").exists() else []
        command(*words, "--out", run, *resume)


def run_commands(study: Study) -> None:
    data = ["--data", study.data]
    compare = ["compare", *data, "--recipe", study.recipe, "--methods", ",".join(study.methods)]
    options = study.aligner_options
    command(*compare, "--seeds", study.seeds, "--num_bootstrap", 200, "--out", study.out / "aligners", *options)
    if not study.given_judge:
        judge = ["train", study.recipe, *data, "--method", study.methods[0], "--seed", JUDGE_SEED]
        once(study.judge, *judge, *options)
    for arm, seeds in study.arms.items():
        for seed in range(seeds):
            for method in study.methods:
                run = study.captioner(arm, method, seed)
                words = ["caption", "train", study.aligner(method, seed), *data, "--seed", seed]
                once(run, *words, *ARMS[arm].split(), *study.caption_options)
                command("caption", "generate", run, *data, *study.generate_options)
                if seed == 0 and not (run / "results.json").exists():  # what the report shows
                    judged_by = ["--judge", study.judge, "--num_bootstrap", 200]
                    command("caption", "evaluate", run, *data, *judged_by)


@torch.no_grad()
def losses(run: Path, rows: Manifest, groups: GroupSums) -> Figures:
    """Mean negative log-likelihood of a token of the true caption, mean over rows: given the image and, for a captioner
    that attends to an embedding alone, given the embedding of the caption itself. Their difference is what it costs to
    caption from the other modality."""
    model = Captioner.from_pretrained(run / "model").train(False)
    captions = rows.first_captions
    images = source_features(model, rows)
    sources = {IMAGE: (images.embedding, images.tokens)}
    if images.tokens is None:
        sources[TEXT] = (model.aligner.encode(TEXT, captions), None)
    figures = {}
    for name, (embedding, tokens) in sources.items():
        found = []
        for start in range(0, len(captions), 64):
            part = slice(start, start + 64)
            prefix = model.prefix(embedding[part], None if tokens is None else tokens[part])
            values, is_token = model.token_losses(prefix, **model.encode_captions(captions[part]))
            found.append(values.sum(dim=1) / is_token.sum(dim=1))
        figures[f"loss/{name}"] = mean_figure(torch.cat(found), groups)
    return figures


def retrieved(aligner: GaplessModel, manifest: Manifest, rows: Manifest) -> Iterator[tuple[str, list[str]]]:
    """What an aligner gives without a captioner: the caption of the nearest train image, and the nearest train text,
    which works as far as the gap is closed."""
    train = manifest.select("train")
    images = source_rows(aligner, rows, Route())
    texts = all_captions(train)
    for name, gallery, captions in (
        ("nearest image", source_rows(aligner, train, Route()), train.first_captions),
        ("nearest text", caption_rows(aligner, texts), texts),
    ):
        yield name, [captions[row] for row in (images @ gallery.T).argmax(dim=1).tolist()]


def score(study: Study, manifest: Manifest, rows: Manifest, scorer: CaptionScorer) -> Scores:
    judge = GaplessModel.from_pretrained(study.judge / "model")
    images = source_rows(judge, rows, Route())

    def figures(captions: Sequence[str]) -> Figures:
        return scorer.figures(captions, {"caption": caption_rows(judge, captions), "image": images})

    found: Scores = {}
    for seed in range(study.seeds):
        for method in study.methods:
            for arm in (arm for arm, seeds in study.arms.items() if seed < seeds):
                run = study.captioner(arm, method, seed)
                lines = read_captions(run / "captions-test.jsonl")
                task = judged(lines, rows, rows.table["id"].to_pylist())
                told = {**losses(run, rows, scorer.groups), **figures(task.captions)}
                found.setdefault((arm, method), []).append(told)
            aligner = GaplessModel.from_pretrained(study.aligner(method, seed) / "model")
            for name, captions in retrieved(aligner, manifest, rows):
                found.setdefault((name, method), []).append(figures(captions))
        plain = baselines(task, manifest.select("train"), {}, "test", seed)
        for name in (CONSTANT, RANDOM):
            found.setdefault((name, ""), []).append(figures(plain[name]))
        print(f"scored seed {seed}", file=sys.stderr, flush=True)
    return found


def over_seeds(seeds: Sequence[Figures]) -> Figures:
    """The means of what the tables show."""
    return {key: combine([figures[key] for figures in seeds]) for key in SHOWN if key in seeds[0]}


def differences(study: Study, found: Scores, num_groups: int, num_bootstrap: int) -> dict[str, dict[str, Interval]]:
    """Every other method minus the first: means over seeds, the same draws of groups for both."""
    first, *others = study.methods
    return {
        f"{arm}: {method} - {first}": bootstrap_difference(
            over_seeds(seeds), over_seeds(found[arm, first]), num_groups, num_bootstrap
        )
        for (arm, method), seeds in found.items()
        if method in others
    }


def shown(numbers: Sequence[float], unit: int) -> str:
    """Mean and standard deviation over seeds."""
    digits = 1 if unit == 100 else 3
    mean = f"{unit * statistics.fmean(numbers):.{digits}f}"
    return f"{mean} ±{unit * statistics.stdev(numbers):.{digits}f}" if len(set(numbers)) > 1 else mean


def tables(found: Scores, told: Mapping[str, Mapping[str, Interval]]) -> Iterator[str]:
    """Markdown: the systems, then the differences; from 3 seeds on bold where the interval leaves 0 out."""
    yield "| captions | method | " + " | ".join(name for name, _ in SHOWN.values()) + " |"
    yield "|---|---" + "|---:" * len(SHOWN) + "|"
    for (arm, method), seeds in found.items():
        values = [
            shown([figures[key].value for figures in seeds], unit) if key in seeds[0] else "–"
            for key, (_, unit) in SHOWN.items()
        ]
        yield f"| {arm} | {method} | {' | '.join(values)} |"
    num_seeds = {f"{arm}: {method}": len(seeds) for (arm, method), seeds in found.items()}
    for name, figures in told.items():
        count = num_seeds[name.partition(" - ")[0]]
        yield f"\n{name}, {count} seeds, 95 % interval over groups\n"
        for key, interval in figures.items():
            label, unit = SHOWN[key]
            ends = [unit * end for bound in ("value", "low", "high") if (end := interval.get(bound)) is not None]
            if len(ends) == 3:
                value, low, high = ends
                line = f"{label} {value:+.3f} [{low:.3f}, {high:.3f}]"
                is_claim = count >= SEEDS_FOR_A_CLAIM and (low > 0 or high < 0)
                yield f"- **{line}**" if is_claim else f"- {line}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path, help="manifest with train, validation and test rows")
    parser.add_argument("out", type=Path, help="directory to write or to continue")
    parser.add_argument("--recipe", default="table-small")
    parser.add_argument("--methods", default="clip,gapless", help="the first one is the baseline")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument(
        "--arms", default=",".join(ARMS), help="names, separated by commas; joint:1 is that arm with one seed"
    )
    parser.add_argument("--aligner_options", default="", help="further options of gapless compare and train")
    parser.add_argument("--caption_options", default="", help="further options of gapless caption train")
    parser.add_argument("--generate_options", default="--method greedy", help="further options of caption generate")
    parser.add_argument("--judge", default=None, help="run that embeds images and texts; default: one is trained")
    parser.add_argument("--num_bootstrap", type=int, default=1000)
    options = parser.parse_args()
    named = [arm.partition(":") for arm in options.arms.split(",")]
    arms = {name: min(int(seeds or options.seeds), options.seeds) for name, _, seeds in named}
    if unknown := [arm for arm in arms if arm not in ARMS]:
        parser.error(f"unknown arm {unknown[0]!r}; known: {', '.join(ARMS)}")
    study = Study(
        data=options.data,
        out=options.out,
        recipe=options.recipe,
        methods=options.methods.split(","),
        seeds=options.seeds,
        arms=arms,
        aligner_options=shlex.split(options.aligner_options),
        caption_options=shlex.split(options.caption_options),
        generate_options=shlex.split(options.generate_options),
        given_judge=options.judge,
    )
    with claimed_for(study.plan(), study.out / "captioners"):
        run_commands(study)
    manifest = Manifest.read(study.data)
    rows = manifest.select("test")
    ids, groups, references = (rows.table[name].to_pylist() for name in ("id", "group", "captions"))
    with CaptionScorer(references, groups, ids) as scorer:
        found = score(study, manifest, rows, scorer)
        told = differences(study, found, scorer.groups.num_groups, options.num_bootstrap)
        about = (
            f"{len(rows)} test rows, {scorer.groups.num_groups} groups, {study.seeds} seeds, {scorer.tokenizer} tokens"
        )
    values = [
        {"arm": arm, "method": method, "figures": [{key: one[key].value for key in one} for one in seeds]}
        for (arm, method), seeds in found.items()
    ]
    write_json(study.out / "study.json", {"notice": NOTICE, "plan": study.plan(), "rows": values, "differences": told})
    text = "\n".join([*tables(found, told), "", f"{about}. {NOTICE}", ""])
    write_text(study.out / "study.md", text)
    print(text)
    shown_runs = [study.captioner(arm, method, 0) for arm in study.arms for method in study.methods]
    command("report", *shown_runs, "--out", study.out / "captions.html")


if __name__ == "__main__":
    main()
