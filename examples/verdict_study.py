"""How well the verdict of `gapless measure` foretells what closing then brings, on some fifty sets of embeddings.

    gapless data phantom --out PHANTOM --num_pairs 3000
    python examples/verdict_study.py --medpix MEDPIX --phantom PHANTOM --out verdict.json --plot verdict.png
    python examples/verdict_study.py --out verdict.json          # the drawn gaps alone: no data is needed

The groups (cases, articles) of each set are cut in three. On the first part, "met" encoders are brought together by a
CCA and then pushed apart, as a trained CLIP is; encoders that "never met" do not use it. The second part is what a user
has: it is measured, its verdict and its prediction (`predict`) are noted, and methods are fitted on it. The third part
is measured before and after each method: what was obtained. Nothing of the third part is used before.

MEDPIX holds features_train.npz and features_dev.npz (image, text), train_multimodal.jsonl and dev_multimodal.jsonl, and
images/.
"""

import argparse
import json
import logging
import tempfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers

from gapless.closing.cca import fit_cca
from gapless.closing.close import close_gap
from gapless.embeddings.dataset import VectorPairs
from gapless.embeddings.embedding_set import EmbeddingSet
from gapless.inference.embed import embed_dataset
from gapless.metrics.measure import measure
from gapless.metrics.verdict import verdict_of
from gapless.study.prediction import predict

DIM = 64
ROWS = 1200  # of a drawn set
QUANTITIES = {
    "gap/centroid_distance_unbiased": "gap, unbiased",
    "gap/margin": "margin",
    "gap/mixing@10": "mixing",
    "retrieval/mean/R@10": "R@10",
}
PARTS = ("gap", "retrieval", "mixed", "probe", "further")
BESIDE = ("gap/margin_centred", "gap/d_prime", "gap/d_prime_centred", "gap/mutual_knn@10", "gap/pair_residual_ratio")
MORE = ("gap/centroid_share", "gap/spread_difference", "gap/true_pair_cosine", "gap/hubness", "gap/separability_auc")

Rows = np.ndarray


@dataclass(frozen=True)
class Case:
    """One set of embeddings: two modalities in one space, with groups."""

    name: str
    kind: str
    image: Rows
    text: Rows
    groups: np.ndarray
    part: np.ndarray  # 0 brings met encoders together, 1 is measured and fitted on, 2 is held out


def thirds(groups: np.ndarray, seed: int) -> np.ndarray:
    """[row] 0, 1 or 2: 30 %, 40 % and 30 % of the groups."""
    present, code = np.unique(groups, return_inverse=True)
    order = np.random.default_rng(seed).permutation(len(present)) / len(present)
    return np.digitize(order, (0.3, 0.7))[code]


def unit(rows: Rows) -> Rows:
    length = np.linalg.norm(rows, axis=1, keepdims=True)
    return np.asarray(rows / np.where(length == 0, 1, length), dtype=np.float64)


# Encoders that need no download


def pictures(paths: Sequence[Path], side: int = 64) -> Rows:
    """Grey [image, side, side] in [0, 1]."""
    from PIL import Image

    shown = []
    for path in paths:
        with Image.open(path) as image:
            shown.append(np.asarray(image.convert("L").resize((side, side)), dtype=np.float64) / 255)
    return np.stack(shown)


def handmade(grey: Rows) -> Rows:
    """Intensities in 32 bins, and gradients by 8 orientations in 4 x 4 cells."""
    count, side = len(grey), grey.shape[1]
    level = np.minimum((grey * 32).astype(int), 31)
    histogram = np.stack([(level == bin_).mean(axis=(1, 2)) for bin_ in range(32)], axis=1)
    down, across = np.gradient(grey, axis=(1, 2))
    turn = ((np.arctan2(down, across) + np.pi) / (2 * np.pi) * 8).astype(int) % 8
    strength = np.hypot(down, across)
    cells = [
        (strength * (turn == way)).reshape(count, 4, side // 4, 4, side // 4).sum(axis=(2, 4)).reshape(count, -1)
        for way in range(8)
    ]
    return np.concatenate([unit(np.sqrt(histogram)), unit(np.sqrt(np.concatenate(cells, axis=1)))], axis=1)


def small_pixels(grey: Rows) -> Rows:
    """16 x 16 pixels, each image less its mean."""
    count, side = len(grey), grey.shape[1]
    small = grey.reshape(count, 16, side // 16, 16, side // 16).mean(axis=(2, 4)).reshape(count, -1)
    return np.asarray(small - small.mean(axis=1, keepdims=True))


def lsa(texts: Sequence[str], fit: np.ndarray) -> Rows:
    """TF-IDF of words, reduced by an SVD fitted on some rows."""
    from sklearn.decomposition import TruncatedSVD
    from sklearn.feature_extraction.text import TfidfVectorizer

    words = TfidfVectorizer(sublinear_tf=True, min_df=2, stop_words="english").fit([texts[i] for i in fit])
    table = words.transform(texts)
    size = min(200, table.shape[1] - 1)
    return np.asarray(TruncatedSVD(size, random_state=0).fit(table[fit]).transform(table))


def hashed(texts: Sequence[str], fit: np.ndarray) -> Rows:
    """Character 3- to 5-grams in 2,048 hashed columns."""
    from sklearn.feature_extraction.text import HashingVectorizer

    table = HashingVectorizer(n_features=2048, analyzer="char_wb", ngram_range=(3, 5), alternate_sign=True)
    return np.asarray(table.transform(texts).toarray())


TEXT_ENCODERS: dict[str, Callable[[Sequence[str], np.ndarray], Rows]] = {"lsa": lsa, "ngrams": hashed}


def in_one_width(rows: Rows, fit: np.ndarray) -> Rows:
    """The first DIM directions of an SVD without centring, fitted on some rows: the mean of the encoder stays."""
    rows = unit(rows)
    axes = np.linalg.svd(rows[fit], full_matrices=False)[2][:DIM]
    flat = rows @ axes.T
    return np.pad(flat, ((0, 0), (0, DIM - flat.shape[1])))


def met(case: Case, shift: float, seed: int) -> Case:
    """Brought together by a CCA on part 0, then each modality pushed to a mean of its own, as a trained CLIP is."""
    first = case.part == 0
    found = fit_cca(torch.from_numpy(case.image[first]), torch.from_numpy(case.text[first]), 1.0)
    weight = found.correlations.numpy()
    random = np.random.default_rng(seed)
    sides = []
    for rows, axes in ((case.image, found.first), (case.text, found.second)):
        joined = unit((rows - rows[first].mean(axis=0)) @ axes.numpy() * weight)
        push = random.standard_normal(joined.shape[1])
        sides.append(unit(joined + shift * push / np.linalg.norm(push)))
    return replace(case, name=f"{case.name}, met", kind=f"{case.kind}, met", image=sides[0], text=sides[1])


# Sets


def medpix_sets(folder: Path, seed: int) -> Iterable[Case]:
    features = [np.load(folder / f"features_{part}.npz") for part in ("train", "dev")]
    lines = [line for part in ("train", "dev") for line in (folder / f"{part}_multimodal.jsonl").open(encoding="utf-8")]
    samples = [json.loads(line) for line in lines]
    grey = pictures([folder / sample["image"] for sample in samples])
    stacked = {name: np.concatenate([one[name] for one in features]).astype(np.float64) for name in ("image", "text")}
    images = {"efficientnet": stacked["image"], "handmade": handmade(grey), "pixels": small_pixels(grey)}
    groups = np.array([sample["case"] for sample in samples])
    for column in ("caption", "history", "exam"):
        rows = np.array([i for i, sample in enumerate(samples) if sample[column]])
        texts = [samples[i][column] for i in rows]
        yield from sets_of(
            "MedPix",
            {name: matrix[rows] for name, matrix in images.items()},
            texts,
            groups[rows],
            column,
            {"minilm": stacked["text"][rows]} if column == "caption" else {},
            seed,
        )


def phantom_sets(folder: Path, seed: int) -> Iterable[Case]:
    from gapless.manifest.manifest import Manifest

    manifest = Manifest.of(folder)
    table = manifest.table
    paths = [
        manifest.path / str(cell["path"] if isinstance(cell, dict) else cell) for cell in table["image"].to_pylist()
    ]
    grey = pictures(paths)
    images = {"handmade": handmade(grey), "pixels": small_pixels(grey)}
    yield from sets_of(
        "phantom", images, manifest.first_captions, np.array(table["group"].to_pylist()), "caption", {}, seed
    )


def sets_of(
    kind: str,
    images: Mapping[str, Rows],
    texts: Sequence[str],
    groups: np.ndarray,
    column: str,
    encoded: Mapping[str, Rows],
    seed: int,
) -> Iterable[Case]:
    """Every image encoder with every text encoder: as encoders that never met, and for captions also met."""
    part = thirds(groups, seed)
    fit = np.flatnonzero(part != 2)
    all_texts = {**encoded, **{name: encode(texts, fit) for name, encode in TEXT_ENCODERS.items()}}
    for number, (image_name, image) in enumerate(images.items()):
        for text_name, text in all_texts.items():
            name = f"{kind} {image_name} x {column} {text_name}"
            sides = [in_one_width(rows, fit) for rows in (image, text)]
            known = np.all(
                [np.linalg.norm(side, axis=1) > 1e-6 for side in sides], axis=0
            )  # a text of unknown words is 0
            case = Case(name, kind, sides[0][known], sides[1][known], groups[known], part[known])
            yield case
            if column != "exam":
                yield met(case, (0.5, 1.0, 2.0)[number % 3], seed=number + 100 * seed)


def drawn_sets(seed: int) -> Iterable[Case]:
    """Gaps of known kind: a shift, a difference of spread, a rotation, a residual, and mixtures of them."""
    for number, (shift, spread, turned, noise) in enumerate(
        [
            *((shift, 0.0, False, 0.5) for shift in (0.0, 0.3, 1.0, 2.0)),
            *((0.0, spread, False, 0.5) for spread in (0.6, 0.9)),
            *((shift, 0.0, True, 0.5) for shift in (0.0, 1.0)),
            *((0.0, 0.0, False, noise) for noise in (1.5, 3.0, 6.0)),
            (1.0, 0.0, False, 1.5),
            (1.0, 0.9, True, 1.5),
            (0.5, 0.6, False, 3.0),
        ]
    ):
        random = np.random.default_rng(number + 100 * seed)
        groups = np.arange(ROWS) // 2
        scale = np.linspace(1.5, 0.5, DIM)
        z = random.standard_normal((ROWS, DIM)) * scale
        w = z + noise * random.standard_normal((ROWS, DIM)) * scale
        w = w * np.linspace(1 + spread, 1 - spread, DIM)
        if turned:
            w = w @ np.linalg.qr(random.standard_normal((DIM, DIM)))[0]
        push = random.standard_normal(DIM)
        push *= shift * np.sqrt(DIM) / np.linalg.norm(push)
        words = f"shift {shift:g}, spread {spread:g}, {'turned, ' if turned else ''}noise {noise:g}"
        yield Case(f"drawn: {words}", "drawn", unit(z + push), unit(w - push), groups, thirds(groups, seed))


# Foretold and obtained


def studied(case: Case, methods: Sequence[str], seed: int) -> dict[str, Any]:
    """What the measured part foretells and what the held-out part then gives, by method."""
    have, held = np.flatnonzero(case.part == 1), np.flatnonzero(case.part == 2)
    sides = {"image": case.image.astype(np.float32), "text": case.text.astype(np.float32)}
    groups = [str(name) for name in case.groups]
    rows = EmbeddingSet([f"row {i}" for i in range(len(groups))], sides, groups).take(have)
    figures = measure(rows.embeddings, groups=rows.groups, include=PARTS, num_bootstrap=200, seed=seed)
    verdict = verdict_of(figures, len(have), num_groups=len(set(rows.groups or [])))
    before = measure({name: side[held] for name, side in sides.items()}, include=("gap", "retrieval", "mixed"))
    obtained = {}
    for method in methods:
        with tempfile.TemporaryDirectory() as folder:
            closed = close_gap(rows.embeddings, rows.groups, method=method, seed=seed, out=Path(folder) / "closed")
        ids = [f"row {i}" for i in range(len(groups))]
        after = measure(
            embed_dataset(closed.model, VectorPairs(sides, ids, held), batch_size=4096),
            include=("gap", "retrieval", "mixed"),
        )
        obtained[method] = {key: after[key] - before[key] for key in QUANTITIES}
    foretold = predict(rows, methods, seed=seed)
    return {
        "name": case.name,
        "kind": case.kind,
        "pairs": {"measured": len(have), "held out": len(held)},
        "verdict": verdict.as_json(),
        "figures": {key: figures[key]["value"] for key in (*QUANTITIES, *BESIDE, *MORE)},
        "before": {key: before[key] for key in QUANTITIES},
        "foretold": {
            method: {key: one["after"] - one["before"] for key, one in foretold[method].items() if key in QUANTITIES}
            for method in methods
        },
        "obtained": obtained,
    }


def by_figures(one: Mapping[str, Any]) -> dict[str, float]:
    """The change that the figures of the measured part alone let expect: the rest of the way to a closed gap, and for
    recall how little better than chance it is, times the pairs' residual: what pairs show already, a map cannot add."""
    figures, chance = one["figures"], 10 / one["pairs"]["measured"]
    return {
        "gap/centroid_distance_unbiased": -figures["gap/centroid_distance_unbiased"],
        "gap/margin": figures["gap/margin_centred"] - figures["gap/margin"],
        "gap/mixing@10": 0.5 - figures["gap/mixing@10"],
        "retrieval/mean/R@10": figures["gap/pair_residual_ratio"] * chance / max(figures["retrieval/mean/R@10"], 1e-3),
    }


def rank_correlation(foretold: Sequence[float], obtained: Sequence[float], sets: Sequence[int]) -> dict[str, float]:
    """Spearman's, with a 95 % interval from a bootstrap over the sets."""
    from scipy.stats import spearmanr

    x, y, of = np.array(foretold), np.array(obtained), np.array(sets)
    random = np.random.default_rng(0)
    members = [np.flatnonzero(of == one) for one in np.unique(of)]
    replicates = []
    for _ in range(1000):
        drawn = np.concatenate([members[i] for i in random.integers(len(members), size=len(members))])
        replicates.append(spearmanr(x[drawn], y[drawn]).statistic)
    low, high = np.nanquantile(replicates, (0.025, 0.975))
    return {"value": float(spearmanr(x, y).statistic), "low": float(low), "high": float(high), "n": len(x)}


def summary_of(results: Sequence[Mapping[str, Any]], methods: Sequence[str]) -> dict[str, Any]:
    """Per quantity the rank correlations, and what was obtained where the verdict said yes and where not."""
    correlations: dict[str, Any] = {}
    for key in QUANTITIES:
        points = [
            (one["foretold"][method][key], one["obtained"][method][key], number, method)
            for number, one in enumerate(results)
            for method in methods
            if key in one["foretold"].get(method, {})
        ]
        correlations[key] = {"predict": rank_correlation(*zip(*[point[:3] for point in points], strict=True))}
        for method in methods:
            own = [point[:3] for point in points if point[3] == method]
            correlations[key][f"predict, {method}"] = rank_correlation(*zip(*own, strict=True))
            expected = [by_figures(one)[key] for one in results]
            gained = [one["obtained"][method][key] for one in results]
            correlations[key][f"figures, {method}"] = rank_correlation(expected, gained, range(len(results)))
    helped: dict[str, Any] = {}
    for purpose, key in (
        ("retrieval", "retrieval/mean/R@10"),
        ("mixed search", "gap/mixing@10"),
        ("thresholds", "gap/margin"),
    ):
        by_answer: dict[str, list[float]] = {}
        for one in results:
            answer = one["verdict"]["helps"].get(purpose, "too few")
            by_answer.setdefault(answer, []).append(max(one["obtained"][method][key] for method in methods))
        helped[purpose] = {
            answer: {"sets": len(gains), "median": float(np.median(gains)), "least": min(gains), "most": max(gains)}
            for answer, gains in sorted(by_answer.items())
        }
    return {"sets": len(results), "rank correlation": correlations, "helps": helped}


def plot(results: Sequence[Mapping[str, Any]], summary: Mapping[str, Any], methods: Sequence[str], path: Path) -> None:
    """Foretold against obtained change, a panel for each quantity."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 2.9), layout="constrained", dpi=90)
    panels = figure.subplots(1, len(QUANTITIES))
    colours = dict(zip(methods, ("#1f6f8b", "#c8553d", "#6a8d3a", "#7b4fa3", "#444444"), strict=False))
    for axes, (key, label) in zip(panels, QUANTITIES.items(), strict=True):
        for method in methods:
            points = [
                (one["foretold"][method][key], one["obtained"][method][key])
                for one in results
                if key in one["foretold"].get(method, {})
            ]
            axes.plot(*zip(*points, strict=True), ".", color=colours[method], label=method, markersize=4, alpha=0.7)
        low, high = min(axes.get_xlim()[0], axes.get_ylim()[0]), max(axes.get_xlim()[1], axes.get_ylim()[1])
        axes.plot([low, high], [low, high], color="#bbbbbb", linewidth=0.8, zorder=0)
        if key == "retrieval/mean/R@10":  # most changes are small, and a rotation that is undone is a change of 1
            ticks = [-0.5, -0.05, 0, 0.05, 0.5]
            for axis, scale in ((axes.xaxis, axes.set_xscale), (axes.yaxis, axes.set_yscale)):
                scale("symlog", linthresh=0.05)
                axis.set_ticks(ticks, labels=[f"{tick:g}" for tick in ticks])
                axis.set_ticks([], minor=True)
        rank = summary["rank correlation"][key]["predict"]
        axes.set_title(f"{label}\nrank {rank['value']:.2f} [{rank['low']:.2f}, {rank['high']:.2f}]", fontsize=9)
        axes.set_xlabel("foretold change", fontsize=8)
        axes.tick_params(labelsize=7)
    panels[0].set_ylabel("obtained change", fontsize=8)
    panels[0].legend(fontsize=7, frameon=False)
    figure.savefig(path)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--medpix", type=Path, default=None)
    parser.add_argument("--phantom", type=Path, default=None, help="a manifest of gapless data phantom")
    parser.add_argument("--methods", nargs="+", default=["center", "cca", "procrustes"], help="closing methods")
    parser.add_argument("--seed", type=int, default=0, help="of the cut into parts and of the drawn sets")
    parser.add_argument("--limit", type=int, default=None, help="only so many sets of each source, for a trial")
    parser.add_argument("--out", type=Path, required=True, help="JSON of every set and of the summary")
    parser.add_argument("--plot", type=Path, default=None, help="PNG of foretold against obtained changes")
    options = parser.parse_args()
    logging.disable(logging.WARNING)
    transformers.logging.disable_progress_bar()
    results = []
    sources = [medpix_sets(options.medpix, options.seed)] if options.medpix else []
    sources += [phantom_sets(options.phantom, options.seed)] if options.phantom else []
    for cases in (*sources, drawn_sets(options.seed)):
        for case in islice(cases, options.limit):
            results.append(studied(case, options.methods, options.seed))
            one = results[-1]
            gains = ", ".join(f"{m} {one['obtained'][m]['retrieval/mean/R@10']:+.3f}" for m in options.methods)
            print(f"{case.name}: {one['verdict']['kind']}; {one['verdict']['helps']}; R@10 {gains}", flush=True)
    summary = summary_of(results, options.methods)
    options.out.write_text(json.dumps({"summary": summary, "sets": results}, indent=1) + "\n", encoding="utf-8")
    if options.plot:
        plot(results, summary, options.methods, options.plot)
    for key, rows in summary["rank correlation"].items():
        for name, one in rows.items():
            print(f"{key} {name}: {one['value']:.2f} [{one['low']:.2f}, {one['high']:.2f}], {one['n']} points")
    print(json.dumps(summary["helps"], indent=1))


if __name__ == "__main__":
    main()
