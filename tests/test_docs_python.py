"""The Python of the pages on losses and figures is run as it stands, with the names that a page assumes."""

from pathlib import Path

import numpy as np
import pytest
import torch
from doc_blocks import ROOT, blocks_of, run_block

NUM_PAIRS, DIM = 60, 12


def rows(seed: int) -> torch.Tensor:
    """Unit-norm rows [pair, dim] that share a part with those of any other seed."""
    shared = torch.randn(NUM_PAIRS, DIM, generator=torch.Generator().manual_seed(0))
    own = torch.randn(NUM_PAIRS, DIM, generator=torch.Generator().manual_seed(seed))
    return torch.nn.functional.normalize(shared + own, dim=1)


def encoded(batch):
    return {name: torch.nn.functional.normalize(part * 1.0, dim=1) for name, part in batch.items()}


def names_of(page: str, place: Path) -> dict[str, object]:
    """What a page takes as given: rows of two modalities, patients, classes, texts."""
    z, w = rows(1).requires_grad_(page == "losses.md"), rows(2)
    patients = np.repeat(np.arange(NUM_PAIRS // 3), 3)
    names: dict[str, object] = {"z": z, "w": w, "groups": patients, "patients": patients, "Path": Path, "torch": torch}
    if page == "losses.md":
        return names | {
            "optimizer": torch.optim.SGD([z], 0.1),
            "batch": {"image": z, "text": w},
            "encode": encoded,
        }
    if page == "measure.md":
        ids = np.array([f"row {number}" for number in range(NUM_PAIRS)])
        texts = [f"finding {number % 7}" for number in range(NUM_PAIRS)]
        names |= {
            "classes": [number % 3 for number in range(NUM_PAIRS)],
            "texts": texts,
            "ids": ids,
            "out": place / "embeddings",
        }
        return names | {"groups": patients.astype(str), "splits": np.array(["train", "test"] * (NUM_PAIRS // 2))}
    if page == "figures.md":
        runs = [{"image": rows(seed), "text": rows(seed + 10)} for seed in range(1, 7)]
        return names | dict(zip(("run_a0", "run_a1", "run_a2", "run_b0", "run_b1", "run_b2"), runs, strict=True))
    return names | {"z_new": rows(3)}


@pytest.mark.parametrize("page", ["losses.md", "figures.md", "measure.md"])
def test_the_python_of_a_page_runs(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    names = names_of(page, tmp_path)
    blocks = [block for block in blocks_of(ROOT / "docs" / page) if block.language == "python"]
    assert blocks
    for block in blocks:
        run_block(block, names)
