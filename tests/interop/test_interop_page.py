"""The Python of the page on other tools runs as it stands, with the names that the page assumes."""

import pytest

pytest.importorskip("sentence_transformers", reason="sentence-transformers is not installed")
pytest.importorskip("torchmetrics", reason="torchmetrics is not installed")

import torch
from doc_blocks import ROOT, blocks_of, run_block
from fakes import tiny_sentence_model


def test_the_python_of_the_page_runs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    findings = [f"{side} {organ} opacity" for side in ("left", "right") for organ in ("lung", "liver", "kidney")]
    impressions = [text.replace("opacity", "mass") for text in findings]
    random = torch.Generator().manual_seed(0)
    z, w = (torch.nn.functional.normalize(torch.randn(60, 8, generator=random), dim=1) for _ in range(2))
    (tmp_path / "model").mkdir()
    names = {
        "findings": findings,
        "impressions": impressions,
        "model": tiny_sentence_model(tmp_path / "model", findings + impressions),
        "z": z,
        "w": w,
    }
    blocks = [block for block in blocks_of(ROOT / "docs" / "field-tools.md") if block.language == "python"]
    assert blocks
    for block in blocks:
        run_block(block, names)
    assert names["every"].compute()["n"] == 60
