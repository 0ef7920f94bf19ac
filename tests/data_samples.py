"""Small image-caption data on disk, and where the real data of the workplace is, when it is there."""

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image


def noise_image(seed: int, size: tuple[int, int] = (24, 20)) -> Image.Image:
    """A smooth grey image that no other seed gives."""
    coarse = np.random.default_rng(seed).integers(0, 256, (5, 5), dtype=np.uint8)
    return Image.fromarray(coarse).resize(size, Image.Resampling.BICUBIC)


def write_jsonl(path: Path, rows: list[Any]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def shared(*parts: str) -> Path:
    """A path of the real data that is not part of the project; the test is skipped when it is absent."""
    root = Path(os.environ.get("GAPLESS_SHARED") or Path(__file__).resolve().parents[1].parent / "shared")
    path = root.joinpath(*parts)
    if not path.exists():
        pytest.skip(f"{'/'.join(parts)} is not here (set GAPLESS_SHARED to the folder that has it)")
    return path
