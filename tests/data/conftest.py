"""Small image-caption data on disk."""

from collections.abc import Callable
from pathlib import Path

import pytest
from data_samples import noise_image, write_jsonl


@pytest.fixture
def pairs(tmp_path: Path) -> Callable[..., Path]:
    """`pairs(n)` writes n images and `rows.jsonl` beside them, and gives the table."""

    def make(count: int) -> Path:
        folder = tmp_path / "source"
        (folder / "images").mkdir(parents=True, exist_ok=True)
        rows = []
        for number in range(count):
            noise_image(number).save(folder / f"images/{number}.png")
            row = {"image": f"images/{number}.png", "caption": f"finding {number}", "case": f"case {number // 2}"}
            rows.append({**row, "region": ("chest", "head")[number % 2]})
        return write_jsonl(folder / "rows.jsonl", rows)

    return make
