"""Samples with modalities, any of them absent, and stand-ins for kinds, on which the tests then do not depend."""

import csv
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
from data_samples import noise_image

from gapless.core.errors import DataRefused
from gapless.modalities.base import MODALITIES, Modality


@dataclass(frozen=True)
class SignalInput:
    kind: ClassVar[str] = "signal"
    rate: float = 100.0
    leads: int = 1


class SignalModality(Modality[SignalInput]):
    """A kind of files: `.npy` of a row of numbers behind their rate."""

    Input = SignalInput

    @staticmethod
    def check(source: Any, params: Mapping[str, Any]) -> dict[str, Any]:
        if isinstance(source, bytes):
            import io

            values = np.load(io.BytesIO(source), allow_pickle=False)
        else:
            values = np.load(source, allow_pickle=False)
        if values[0] != params.get("rate", values[0]):
            raise DataRefused(f"the rate is {values[0]:g}, not {params['rate']:g}")
        return {"rate": float(values[0]), "length": len(values) - 1}

    def prepare(self, raw: Any) -> Any:
        return raw

    def collate(self, prepared: Any) -> Any:
        return {}

    @classmethod
    def default_encoder(cls, settings: SignalInput) -> dict[str, Any]:
        return {}

    def preview(self, raw: Any) -> str:
        return ""

    def sample(self, count: int, random: Any) -> list[Any]:
        return []


@dataclass(frozen=True)
class TableStandInInput:
    kind: ClassVar[str] = "table"
    columns: tuple[str, ...] = ()
    categories: tuple[str, ...] = ()


class TableStandIn(SignalModality):
    Input = TableStandInInput

    @staticmethod
    def check(source: Any, params: Mapping[str, Any]) -> dict[str, Any]:
        if set(source) != set(params["columns"]):
            raise DataRefused(f"the fields are {sorted(source)}")
        return {"fields": len(source)}


@pytest.fixture
def kinds(monkeypatch: pytest.MonkeyPatch) -> None:
    """The kind `signal`, and the kind `table` where gapless has none."""
    MODALITIES.names()
    monkeypatch.setitem(MODALITIES._things, "signal", SignalModality)
    if "table" not in MODALITIES._things:
        monkeypatch.setitem(MODALITIES._things, "table", TableStandIn)


WORDS = [
    "image=image:file",
    "report=text:caption",
    "history=text:history",
    "labs=table:age,sex",
    "ecg=signal:path,rate=500",
]
# Which of image, report, history, labs, ecg a row has; rows 0 and 4 are complete, row 5 has one, row 6 none.
HAS = ["11111", "11000", "01110", "10011", "11111", "00010", "00000", "11101"]
SPLITS = ["train"] * 5 + ["test"] * 3


def write_signal(path: Path, seed: int, rate: int = 500, length: int = 40) -> None:
    values = np.random.default_rng(seed).standard_normal(length).astype(np.float32)
    np.save(path, np.concatenate([[np.float32(rate)], values]))


def sample_rows(folder: Path) -> list[dict[str, Any]]:
    """The rows of `HAS` with their files written; an absent cell is None."""
    folder.mkdir(parents=True, exist_ok=True)
    rows = []
    for number, has in enumerate(HAS):
        noise_image(number).save(folder / f"{number}.png")
        write_signal(folder / f"{number}.npy", number)
        values = [f"{number}.png", f"report of {number}", f"history of {number // 2}", None, f"{number}.npy"]
        image, report, history, _, ecg = (v if h == "1" else None for v, h in zip(values, has, strict=True))
        row = {
            "file": image,
            "caption": report,
            "history": history,
            "path": ecg,
            "patient": f"p{number // 2}",
            "name": f"s{number}",
        }
        labs = {"age": 40 + number, "sex": "mf"[number % 2]} if has[3] == "1" else {"age": None, "sex": None}
        rows.append({**row, **labs, "region": ("chest", "head")[number % 2], "split": SPLITS[number]})
    return rows


def write_csv(path: Path, rows: list[dict[str, Any]]) -> Path:
    with path.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.DictWriter(stream, list(rows[0]))
        writer.writeheader()
        writer.writerows({key: "" if value is None else value for key, value in row.items()} for row in rows)
    return path


def skipped_of(out: Path) -> list[dict[str, str]]:
    """The skipped rows of a manifest, or of a build that was refused."""
    file = out / "skipped.jsonl" if out.is_dir() else out.with_name(f"{out.name}.skipped.jsonl")
    return [json.loads(line) for line in file.read_text().splitlines()]
