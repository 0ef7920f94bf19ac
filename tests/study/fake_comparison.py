"""A small comparison directory in the agreed layout, made of random embeddings with a known gap."""

import json
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save_file

METHODS = {"clip": (1.1, 0.55), "gapless": (0.1, 0.45)}  # offset of the modalities, noise of a pair
UNTRAINED = (3.0, 4.0)


def unit(rows: np.ndarray) -> np.ndarray:
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


def embeddings(offset: float, noise: float, num_pairs: int = 160, dim: int = 16, seed: int = 0) -> dict[str, Any]:
    """Pairs around 5 topics; the modalities stand `offset` apart along the first axis."""
    random = np.random.default_rng(seed)
    topics = random.normal(size=(5, dim))
    shared = topics[np.arange(num_pairs) % 5] / 2 + random.normal(size=(num_pairs, dim)) / 2
    shift = np.eye(dim)[0] * offset * 2
    noisy = {name: shared + noise * random.normal(size=(num_pairs, dim)) for name in ("image", "text")}
    return {"image": unit(noisy["image"] + shift), "text": unit(noisy["text"] - shift)}


def figures_of(pairs: dict[str, Any]) -> dict[str, float]:
    """Straight from the formulas, for the fake's own files."""
    image, text = pairs["image"].astype(float), pairs["text"].astype(float)
    true = (image * text).sum(1)
    scores = image @ text.T
    figures = {
        "gap/centroid_distance": float(np.linalg.norm(image.mean(0) - text.mean(0))),
        "gap/centroid_distance_unbiased": float(np.linalg.norm(image.mean(0) - text.mean(0))) * 0.97,
        "gap/true_pair_cosine": float(true.mean()),
        "gap/true_pair_angle_deg": float(np.degrees(np.arccos(true.clip(-1, 1))).mean()),
        "gap/margin": float(true.mean() - scores.mean()),
        "grouping/v_measure": 0.42 + 0.2 * float(true.mean()),
        "grouping/ami": 0.38 + 0.2 * float(true.mean()),
    }
    for name, matrix in {"image_to_text": scores, "text_to_image": scores.T}.items():
        rank = (matrix > np.diag(matrix)[:, None]).sum(1)
        figures |= {f"retrieval/{name}/R@{k}": float((rank < k).mean()) for k in (1, 5, 10)}
    for k in (1, 5, 10):
        sides = ("image_to_text", "text_to_image")
        figures[f"retrieval/mean/R@{k}"] = float(np.mean([figures[f"retrieval/{side}/R@{k}"] for side in sides]))
    return figures


def write_latent(path: Path, pairs: dict[str, Any]) -> None:
    ids = [f"row-{row}" for row in range(len(pairs["image"]))]
    save_file(pairs, path, metadata={"ids": json.dumps(ids)})


def history(method: str, seed: int, figures: dict[str, float]) -> list[dict[str, float]]:
    random = np.random.default_rng(seed)
    records: list[dict[str, float]] = []
    for step in range(0, 201, 10):
        left = float(np.exp(-step / 60))
        noise = 0.02 * float(random.normal())
        loss = {"contrastive": 1.2 + 3 * left + noise, "alignment": 0.9 + left, "uniformity": -1.5 + left + noise}
        records.append(
            {"step": step, "epoch": step / 50, "logit_scale": 14.3 + 20 * (1 - left)}
            | {f"loss/{name}": value for name, value in loss.items()}
            | {"loss/total": sum(loss.values()) if method != "clip" else loss["contrastive"]}
        )
        if step % 50 == 0:
            shown = ("gap/centroid_distance", "gap/true_pair_cosine", "retrieval/mean/R@10")
            records.append({"step": step} | {f"eval/{key}": figures[key] * (1 - 0.8 * left) for key in shown})
    return records


def write_run(path: Path, method: str, seed: int) -> dict[str, float]:
    path.mkdir(parents=True)
    pairs = embeddings(*METHODS[method], seed=seed)
    figures = figures_of(pairs)
    results = {"figures": figures, "n": 160, "gallery_size": 160, "split": "test", "seed": seed, "method": method}
    (path / "results.json").write_text(json.dumps(results | {"recipe": "fake", "versions": {"torch": "2.15.0"}}))
    lines = [json.dumps(record) for record in history(method, seed, figures)]
    (path / "metrics.jsonl").write_text("\n".join(lines) + "\n")
    write_latent(path / "latent.safetensors", pairs)
    if seed == 0:
        write_latent(path / "latent_untrained.safetensors", embeddings(*UNTRAINED, seed=7))
    return figures


def write_comparison(path: Path, seeds: int = 3, **changes: Any) -> dict[str, Any]:
    """Writes the directory and returns compare.json's content; `changes` replace top-level keys."""
    scored = {
        method: [write_run(path / f"runs/{method}-seed{seed}", method, seed) for seed in range(seeds)]
        for method in METHODS
    }
    table = {
        method: {
            key: {"mean": float(np.mean([run[key] for run in runs])), "sd": float(np.std([run[key] for run in runs]))}
            for key in runs[0]
        }
        for method, runs in scored.items()
    }
    differences = {
        key: {"value": value["mean"] - table["clip"][key]["mean"]} for key, value in table["gapless"].items()
    }
    for key, entry in differences.items():
        half = 0.02 if "R@1" not in key else 0.2
        entry |= {"low": entry["value"] - half, "high": entry["value"] + half}
    comparison = {
        "methods": list(METHODS),
        "baseline": "clip",
        "seeds": list(range(seeds)),
        "n": 160,
        "gallery_size": 160,
        "split": "test",
        "recipe": "fake",
        "versions": {"gapless": "0.1.0", "torch": "2.15.0"},
        "data": {
            "source": "random embeddings",
            "fingerprint": "0123456789abcdef",
            "rows": {"train": 800, "validation": 100, "test": 160},
            "groups": 120,
            "leakage": {"test_rows_in_train_share": 0.0},
        },
        "table": table,
        "random": {"grouping/v_measure": 0.013, "grouping/ami": 0.0},
        "differences": {"gapless": differences},
        "runs": {method: [f"runs/{method}-seed{seed}" for seed in range(seeds)] for method in METHODS},
    } | changes
    (path / "compare.json").write_text(json.dumps(comparison))
    return comparison
