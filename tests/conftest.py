"""Shapes are checked at every call of the numeric rooms while the tests run."""

import os
import signal
from collections.abc import Callable
from pathlib import Path

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("OMP_NUM_THREADS", "1")  # the tests run side by side: threads of their own only get in the way
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

import pytest
from data_samples import noise_image, write_jsonl
from shape_checks import check_shapes_of

pytest_plugins = ["command_server", "outside_package", "page_visits"]  # commands, and fixtures
check_shapes_of(["gapless.core.geometry", "gapless.losses", "gapless.metrics"])
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background job ignores Ctrl-C, its children too


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
