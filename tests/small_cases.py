"""A small collection of cases with images, reports, histories, laboratory values, ECGs and volumes, many absent.

The rows are embedded by an untrained model, whose nearest row to a copy of a row is that row.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from fakes import CAPTIONS, tiny_bert, tiny_modalities
from search_samples import FORMAT, VERSION
from small_service import pixels_of

from gapless.modalities.base import Modality
from gapless.models.aligner import GaplessConfig, GaplessModel, assemble
from gapless.models.fingerprint import fingerprint_of
from gapless.models.load import load_model
from gapless.models.spec import with_encoder, with_fitted_input
from gapless.models.tokenizers import train_tokenizer
from gapless.search.build import connect
from gapless.search.collection import METADATA_KEY, TABLE
from gapless.search.indices import update_indices
from gapless.search.searcher import Searcher

NUM_CASES = 24
WARDS = ("surgery", "medicine", "children")
RATE = 100.0


def labs_of(case: int) -> dict[str, Any]:
    """Values that no two cases share; every third has no hb, and wards repeat."""
    hb = None if case % 3 == 0 else 8.0 + 0.3 * case
    return {"age": float(20 + 2 * case), "hb": hb, "ward": WARDS[case % 3]}


def ecg_of(case: int) -> np.ndarray:
    """[2, 300] of a rhythm that is the case's own."""
    times = np.arange(300) / RATE
    beat = np.exp(-((np.mod(times, 0.5 + 0.04 * case) - 0.2) ** 2) / 0.0008)
    second = (0.2 * case - 2.4) * beat + 0.1 * (case % 7)
    return np.stack([beat + 0.1 * np.sin(2 * np.pi * times), second]).astype(np.float32)


def volume_of(case: int) -> np.ndarray:
    """[6, 24, 24] with a ball whose place is the case's own."""
    grid = np.indices((6, 24, 24)).astype(np.float32)
    centre = (3.0, 6.0 + case % 12, 18.0 - case % 9)
    distance = np.sqrt(sum(((axis - at) * step) ** 2 for axis, at, step in zip(grid, centre, (2, 1, 1), strict=True)))
    return np.asarray(200 * np.exp(-distance / 4) + 3 * grid[2], dtype=np.float32)


def history_of(case: int) -> str:
    """One that is longer than a card for odd cases; that of case 9 is hostile."""
    reason = ["cough and fever", "pain in the flank", "a fall from a horse"][case % 3]
    further = ". No earlier disease is known, and nothing is taken regularly; lives alone, and walks with a stick"
    hostile = "<img src=x onerror=alert(1)> </script>" if case == 9 else ""
    return f"{20 + 2 * case}-year-old with {reason}{further if case % 2 else ''}.{hostile}"


def report_of(case: int) -> str:
    return f"{CAPTIONS[case % len(CAPTIONS)]}, case {case}"


# modality -> its raw input of a case, and which cases have it
SOURCES: dict[str, tuple[Any, Any]] = {
    "image": (lambda case: pixels_of(case, 96), lambda case: case % 4 != 3),
    "text": (report_of, lambda case: case != 5),
    "history": (history_of, lambda case: case % 3 != 1),
    "labs": (labs_of, lambda case: case % 2 == 0 or case in (3, 7, 9)),
    "ecg": (ecg_of, lambda case: case % 5 in (0, 2)),
    "ct": (volume_of, lambda case: case % 6 == 0),
}
INPUTS: dict[str, dict[str, Any]] = {
    "labs": {"kind": "table", "columns": ["age", "hb", "ward"]},
    "ecg": {"kind": "waveform", "rate": RATE, "seconds": 3.0},
    "ct": {"kind": "volume", "depth": 4, "size": 32},
}


def raws_of(name: str) -> dict[int, Any]:
    """Case -> raw input, of the cases that have it."""
    make, has = SOURCES[name]
    return {case: make(case) for case in range(NUM_CASES) if has(case)}


def model_of_cases() -> GaplessModel:
    torch.manual_seed(0)
    modalities = tiny_modalities()
    modalities["history"] = {
        "input": {"kind": "text", "max_length": 48},
        "encoder": {"kind": "transformers", "config": tiny_bert(), "pooling": "mean"},
    }
    for name, given in INPUTS.items():
        rows = list(raws_of(name).values())
        modalities[name] = with_encoder(name, with_fitted_input(name, {"input": given}, rows))
    tokenizer = train_tokenizer([*CAPTIONS, *raws_of("history").values()], 400, 32)
    config = GaplessConfig(modalities=modalities, embedding_dim=24)
    return assemble(config, {"text": tokenizer, "history": tokenizer}).train(False)


def faces_of(name: str, kind: Modality[Any], raw: Any) -> Mapping[str, Any]:
    """What a row shows: a thumbnail or a preview, and the caption of its case."""
    shown = None if name == "text" else kind.preview(raw)
    picture = shown if isinstance(shown, bytes) else None
    return {"has_thumbnail": picture is not None, "thumbnail": picture, "preview": shown if picture is None else None}


def write_cases(home: Path) -> Path:
    """A model and a collection of its rows, one for each present modality of a case."""
    import pyarrow as pa

    model_of_cases().save_pretrained(home / "model")
    model = load_model([str(home / "model")])
    rows = []
    for name in model.modalities:
        kind, raws = model.preprocessor(name), raws_of(name)
        vectors = model.encode(name, list(raws.values())).numpy()
        for (case, raw), vector in zip(raws.items(), vectors, strict=True):
            row = {
                "row": f"case {case}/{name}",
                "id": f"case {case}",
                "modality": name,
                "group": f"patient {case // 2}",
            }
            caption = report_of(case) if SOURCES["text"][1](case) else None
            row |= {
                "caption": caption,
                "split": "test" if case % 3 else "train",
                "source": "drawn",
                "content": str(case),
            }
            rows.append({**row, "region": ("chest", "head")[case % 2], "vector": vector, **faces_of(name, kind, raw)})
    info = {
        "format": FORMAT,
        "version": VERSION,
        "model": {"source": [str(home / "model")], "fingerprint": fingerprint_of(model)},
        "embedding_dim": 24,
        "modalities": list(model.modalities),
        "labels": {"region": "region"},
    }
    texts = ("row", "id", "modality", "caption", "group", "split", "source", "content", "region", "preview")
    schema = pa.schema(
        [
            *((name, pa.string()) for name in texts),
            ("has_thumbnail", pa.bool_()),
            ("thumbnail", pa.binary()),
            ("vector", pa.list_(pa.float32(), 24)),
        ],
        metadata={METADATA_KEY: json.dumps(info).encode()},
    )
    table = pa.Table.from_pylist(rows, schema=schema)
    connect(str(home / "collection")).create_table(TABLE, data=table, schema=schema)
    update_indices(Searcher.open(home / "collection").collection, None)
    return home / "collection"


def open_cases(home: Path) -> Searcher:
    return Searcher.open(write_cases(home))
