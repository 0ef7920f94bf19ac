"""What the gap does to a search over images and texts together: one collection under `clip` and one under `gapless`.

    python examples/mixed_search.py [--seeds 3]              draws the demo's set and trains both (minutes)
    python examples/mixed_search.py --study DIR --data MANIFEST      takes a finished `gapless compare`
    python examples/mixed_search.py --num_pairs 700 --epochs 12 --batch_size 64      small and quick

Every test caption is asked as words, in a collection that holds all test images and texts; its own row is left out.
Retrieval from text to image alone cannot see a gap. A mixed search can: whatever the words are, texts come first.
"""

import argparse
import contextlib
import sys
import tempfile
from pathlib import Path

import numpy as np

from gapless import measure
from gapless.cli.main import main as gapless
from gapless.search.collection import Hit, Pairs
from gapless.search.searcher import Searcher

METHODS = ("clip", "gapless")
K = 10
SHOWN = ("mixed/R@1", "mixed/R@10", "mixed/modality_bias", "mixed/modality_bias/text", "gap/mixing@10")


def run(*words: object) -> None:
    """A command as on the command line; what it prints goes to stderr."""
    with contextlib.redirect_stdout(sys.stderr):
        code = gapless([str(word) for word in words])
    if code:
        sys.exit(code)


def trained(out: Path, options: argparse.Namespace) -> tuple[Path, Path]:
    """A manifest and a comparison on it: equal encoders, data, steps and batches; only the loss differs."""
    data, study = out / "data", out / "study"
    run("data", "phantom", "--out", data, "--num_pairs", options.num_pairs)
    words = ["--data", data, "--recipe", "phantom-small", "--methods", ",".join(METHODS), "--seeds", options.seeds]
    words += ["--training.num_train_epochs", options.epochs]
    words += ["--training.per_device_train_batch_size", options.batch_size, "--num_bootstrap", 0]
    words += ["--training.eval_strategy", "no", "--training.save_strategy", "no"]
    run("compare", *words, "--out", study)
    return data, study


def first_hits(searcher: Searcher, words: str, own: str) -> list[Hit]:
    """The first 10 of a mixed search, without the text that was asked."""
    return [hit for hit in searcher.search(text=words, k=K + 1) if hit.row != own][:K]


def texts_before_own_image(pairs: Pairs, label: str) -> np.ndarray:
    """[pair] texts with another value of the label that score above the image of the query itself."""
    texts, values = pairs.vectors["text"], np.array(pairs.labels[label])
    own = np.einsum("pd,pd->p", texts, pairs.vectors["image"])
    return np.asarray(((texts @ texts.T > own[:, None]) & (values[:, None] != values)).sum(axis=1))


def figures_of(searcher: Searcher, label: str) -> dict[str, float]:
    """What text queries find, and the figures of the collection's pairs."""
    pairs = searcher.collection.pairs(max_pairs=sys.maxsize)
    are_texts, are_alike = [], []
    for sample, words, value in zip(pairs.ids, pairs.captions, pairs.labels[label], strict=True):
        for hit in first_hits(searcher, str(words), f"{sample}/text"):
            are_texts.append(hit.modality == "text")
            are_alike.append(hit.labels[label] == value)
    before = float(np.median(texts_before_own_image(pairs, label)))
    figures = measure(pairs.vectors, groups=pairs.groups, include=("gap", "mixed"))
    return {
        f"texts in the first {K}": float(np.mean(are_texts)),
        f"same {label} in the first {K}": float(np.mean(are_alike)),
        f"texts of another {label} before the own image, median": before,
        **{key: float(figures[key]) for key in SHOWN},
    }


def told(name: str, found: list[dict[str, float]]) -> str:
    """The figures of one method, as mean and standard deviation where there are several seeds."""
    parts = []
    for key in found[0]:
        values = [figures[key] for figures in found]
        spread = f" ±{np.std(values, ddof=1):.3f}" if len(values) > 1 else ""
        parts.append(f"{key} {np.mean(values):.3f}{spread}")
    return f"{name:<8} " + " | ".join(parts)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--study", type=Path, default=None, help="a directory that gapless compare wrote")
    parser.add_argument("--data", type=Path, default=None, help="the manifest of --study")
    parser.add_argument("--num_pairs", type=int, default=5000)
    parser.add_argument("--epochs", type=int, default=8)
    parser.add_argument("--batch_size", type=int, default=256)
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--label", default="examination", help="what a good hit has in common with the query")
    options = parser.parse_args()
    if (options.study is None) != (options.data is None):
        parser.error("--study and --data belong together")
    with tempfile.TemporaryDirectory() as folder:
        data, study = options.data, options.study
        if study is None:
            data, study = trained(Path(folder), options)
        shown: dict[str, Searcher] = {}
        for method in METHODS:
            found = []
            for model in sorted((study / "runs").glob(f"{method}-seed*")):
                collection = Path(folder) / f"collection-{model.name}"
                run("index", model, "--data", data, "--split", "test", "--out", collection)
                searcher = Searcher.open(collection)
                found.append(figures_of(searcher, options.label))
                shown.setdefault(method, searcher)
            print(told(method, found), flush=True)
        for method, searcher in shown.items():
            pairs = searcher.collection.pairs(max_pairs=sys.maxsize)
            print(f"\n{method}: {pairs.captions[0]!r}")
            for hit in first_hits(searcher, str(pairs.captions[0]), f"{pairs.ids[0]}/text")[:5]:
                print(f"  {hit.score:6.3f}  {hit.modality:<5}  {(hit.caption or '')[:90]}")


if __name__ == "__main__":
    main()
