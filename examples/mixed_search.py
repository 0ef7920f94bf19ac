"""What the gap does to a search over images and texts together: one collection under `clip` and one under `gapless`.

    python examples/mixed_search.py [--seeds 3]              draws the demo's set and trains both (minutes)
    python examples/mixed_search.py --modalities.image.input.size 32      other options are those of gapless compare
    python examples/mixed_search.py --study DIR --data MANIFEST      takes a finished `gapless compare`
    python examples/mixed_search.py --num_pairs 700 --epochs 12 --batch_size 64      small and quick
    python examples/mixed_search.py --collections DIR DIR --split test      what balances a mixed search, on collections
                                                  of yours (a seed each) whose split was not trained on

Every test caption is asked as words, in a collection that holds all test images and texts; its own row is left out.
Retrieval from text to image alone cannot see a gap. A mixed search can: whatever the words are, texts come first.
"""

import argparse
import contextlib
import statistics
import sys
import tempfile
from pathlib import Path

import numpy as np

from gapless import measure
from gapless.cli.main import main as gapless
from gapless.search.balance_store import BalanceSettings
from gapless.search.collection import Collection, Hit, Pairs
from gapless.search.rebalance import update_balance
from gapless.search.searcher import Searcher

METHODS = ("clip", "gapless")
PAGE = 24  # hits on the first page
BANK, HUB_NEIGHBOURS, HUB_WEIGHT = 512, 128, 0.75  # nearest-neighbour normalisation as its authors set it
Rows = dict[str, np.ndarray]
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
    words += ["--training.eval_strategy", "no", "--training.save_strategy", "no", *options.more]
    run("compare", *words, "--out", study)
    return data, study


def first_hits(searcher: Searcher, words: str, own: str) -> list[Hit]:
    """The first 10 of a mixed search, without the text that was asked."""
    return [hit for hit in searcher.search(text=words, k=K + 1, raw=True) if hit.row != own][:K]


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


def rows_of(collection: Collection, split: str, query_ids: set[str]) -> tuple[Rows, np.ndarray]:
    """Modality -> [sample, dim] of samples with both, and the numbers of the samples to ask with."""
    pairs = collection.pairs(max_pairs=sys.maxsize)
    table = collection.table.search().select(["id", "split"]).to_arrow()
    splits = dict(zip(table["id"].to_pylist(), table["split"].to_pylist(), strict=True))
    is_asked = [name in query_ids if query_ids else splits[name] == split for name in pairs.ids]
    return pairs.vectors, np.flatnonzero(is_asked)


def unit(rows: np.ndarray) -> np.ndarray:
    return np.asarray(rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12))


def scores_of(rows: Rows, asked: str, queries: np.ndarray, means: bool, hubs: bool) -> Rows:
    """Modality -> [query, sample] scores, by published means: GR-CLIP's and nearest-neighbour normalisation.

    Means and bank are of the samples that are not asked.
    """
    known = np.setdiff1d(np.arange(len(rows[asked])), queries)
    if means:
        rows = {name: unit(matrix - matrix[known].mean(axis=0)) for name, matrix in rows.items()}
    bank = np.unique(np.random.default_rng(0).permutation(rows[asked][known])[:BANK], axis=0)
    scores = {}
    for name, matrix in rows.items():
        scores[name] = rows[asked][queries] @ matrix.T
        if hubs:
            by_bank = matrix @ bank.T
            by_bank = np.sort(np.where(by_bank > 1 - 1e-5, -1, by_bank), axis=1)[:, -HUB_NEIGHBOURS:]
            scores[name] = scores[name] - HUB_WEIGHT * by_bank.mean(axis=1)
    return scores


def judged(scores: Rows, asked: str, queries: np.ndarray) -> dict[str, float]:
    """Share of the other modality on the first page, mixed R@24, and R@10 among the other modality alone."""
    (other,) = scores.keys() - {asked}
    own = scores[asked].copy()
    own[np.arange(len(queries)), queries] = -np.inf  # the query itself
    both = np.concatenate([own, scores[other]], axis=1)
    page = np.argpartition(-both, PAGE, axis=1)[:, :PAGE]
    true = scores[other][np.arange(len(queries)), queries][:, None]
    return {
        f"share in {PAGE}": float((page >= own.shape[1]).mean()),
        f"mixed R@{PAGE}": float(((both > true).sum(axis=1) < PAGE).mean()),
        "R@10 alone": float(((scores[other] > true).sum(axis=1) < 10).mean()),
    }


def balanced_scores(collection: Collection, rows: Rows, asked: str, queries: np.ndarray) -> Rows:
    """What the collection itself makes of the cosines."""
    balance = collection.balance()
    assert balance is not None, f"{collection.uri} has no balance"
    scores = {name: rows[asked][queries] @ matrix.T for name, matrix in rows.items()}
    slopes = [balance.slopes(query, {asked: 1.0}) for query in rows[asked][queries]]
    for number, name in enumerate(balance.modalities):
        factors, summands = (np.array([slope[part][number] for slope in slopes])[:, None] for part in (0, 1))
        taken = balance.hubs_of(rows[name], asked) if balance.hub_correction else 0.0
        scores[name] = factors * (scores[name] - taken) + summands
    return scores


def compare_balances(options: argparse.Namespace) -> None:
    """A line an arm and a direction: mean and standard deviation over the collections."""
    query_ids = set(options.query_ids.read_text().split()) if options.query_ids else set()
    found: dict[tuple[str, str], list[dict[str, float]]] = {}
    for folder in options.collections:
        collection = Collection.open(folder)
        stored = collection.balance()
        rows, queries = rows_of(collection, options.split, query_ids)
        if len(queries) == 0:
            sys.exit(f"{folder} has no sample with that split or those ids")
        for asked in rows:
            direction = f"asked with {asked}"
            for name, means, hubs in (("raw", 0, 0), ("means", 1, 0), ("hubs", 0, 1), ("means+hubs", 1, 1)):
                scores = scores_of(rows, asked, queries, bool(means), bool(hubs))
                found.setdefault((direction, name), []).append(judged(scores, asked, queries))
        for weight in (0.0, 0.5):
            update_balance(collection, BalanceSettings(weight))
            for asked in rows:
                name = f"balanced, hubs {weight}" if weight else "balanced"
                scores = balanced_scores(collection, rows, asked, queries)
                found.setdefault((f"asked with {asked}", name), []).append(judged(scores, asked, queries))
        update_balance(collection, BalanceSettings(stored.hub_correction if stored else 0.0))
    for (direction, name), seeds in sorted(found.items(), key=lambda item: item[0][0]):
        parts = []
        for key in seeds[0]:
            values = [figures[key] for figures in seeds]
            spread = f" ±{statistics.stdev(values):.3f}" if len(values) > 1 else ""
            parts.append(f"{key} {statistics.fmean(values):.3f}{spread}")
        print(f"{direction}, {name:<18} " + " | ".join(parts), flush=True)


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
    parser.add_argument("--collections", type=Path, nargs="+", default=None, help="what gapless index wrote")
    parser.add_argument("--split", default="test", help="with --collections: whose samples are asked")
    parser.add_argument("--query_ids", type=Path, default=None, help="or a file of their ids, one a line")
    options, more = parser.parse_known_args()
    options.more = more  # the rest goes to gapless compare
    if options.collections:
        compare_balances(options)
        return
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
