"""The directory of `caption evaluate`, with figures given."""

import base64
import json
from pathlib import Path
from typing import Any

BASELINES = {"constant caption": 0.10, "random train caption": 0.05, "nearest train caption": 0.17}
PIXEL = base64.b64encode(b"\xff\xd8\xff\xd9").decode()


def interval(value: float, half: float = 0.02) -> dict[str, float]:
    return {"value": value, "low": value - half, "high": value + half}


def figures(cider: float, bleu: float = 0.2) -> dict[str, Any]:
    return {
        **{f"caption/BLEU-{n}": interval(bleu / n) for n in (1, 2, 3, 4)},
        "caption/METEOR": interval(0.081),
        "caption/ROUGE-L": interval(0.2),
        "caption/CIDEr": interval(cider),
        **{f"caption/retrieval/R@{k}": interval(k / 20) for k in (1, 5, 10)},
        "caption/distinct-1": 0.125,
        "caption/distinct-2": 0.25,
        "caption/unique": 0.5,
        "caption/length": interval(11.0),
        "caption/empty": interval(0.0, 0.0),
    }


def results(cider: float = 0.3, **changes: Any) -> dict[str, Any]:
    found: dict[str, Any] = {
        "kind": "captions",
        "n": 40,
        "gallery_size": 40,
        "split": "test",
        "figures": figures(cider),
        "baselines": {name: figures(value) for name, value in BASELINES.items()},
        "tokenizer": "ptb",
        "missing": {},
        "notice": "Research use, not for diagnosis.",
        "versions": {"gapless": "0.0"},
        "data": {"source": "fake", "groups": 13, "rows": {"test": 40}, "leakage": {"test_rows_in_train_share": 0.0}},
        "mode": "text",
        "aligner": "runs/clip",
        "seed": 0,
        "judge": "runs/judge",
    }
    return {**found, **changes}


def sample(id: str, caption: str, **changes: Any) -> dict[str, Any]:
    return {"id": id, "references": [f"true {id}"], "caption": caption, "score": -1.25, "image": PIXEL, **changes}


def write_captions(directory: Path, samples: list[dict[str, Any]] | None = None, **changes: Any) -> Path:
    directory.mkdir(parents=True)
    (directory / "results.json").write_text(json.dumps(results(**changes)))
    if samples is not None:
        (directory / "samples.json").write_text(json.dumps({"samples": samples}))
    return directory
