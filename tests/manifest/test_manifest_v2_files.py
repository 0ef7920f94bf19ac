"""Items of several files: a folder of slices, and a header with its signal; copies, links that lead out, changes."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from data_samples import write_jsonl
from modality_samples import SignalModality, skipped_of

from gapless.core.errors import DataRefused
from gapless.manifest.manifest import Manifest
from gapless.manifest.readers.table import read_table
from gapless.modalities.base import MODALITIES


class Slices(SignalModality):
    """A kind of folders."""

    takes_folders = True

    @staticmethod
    def check(source: Any, params: Mapping[str, Any]) -> dict[str, Any]:
        if not source.is_dir():
            raise DataRefused("it is no folder")
        return {"slices": len(list(source.iterdir()))}


class Record(SignalModality):
    """A kind of headers, which name a file beside them; a record is named without its suffix."""

    optional_suffix = ".hea"

    @staticmethod
    def check(source: Any, params: Mapping[str, Any]) -> dict[str, Any]:
        return {"bytes": sum(file.stat().st_size for file in Record.files(source))}

    @staticmethod
    def files(source: Path) -> list[Path]:
        return [source, source.parent / json.loads(source.read_text())["file"]]


@pytest.fixture(autouse=True)
def kinds(monkeypatch: pytest.MonkeyPatch) -> None:
    MODALITIES.names()
    monkeypatch.setitem(MODALITIES._things, "slices", Slices)
    monkeypatch.setitem(MODALITIES._things, "waveform", Record)


@pytest.fixture
def table(tmp_path: Path) -> Path:
    """Three cases below `data`: a folder of two slices and a record each; a file beside `data` that none may have."""
    root = tmp_path / "data"
    rows = []
    for n in range(3):
        (root / f"ct{n}").mkdir(parents=True)
        for k in range(2):
            (root / f"ct{n}/{k}.slice").write_text(f"slice {k} of {n}")
        (root / f"r{n}.hea").write_text(json.dumps({"file": f"r{n}.dat"}))
        (root / f"r{n}.dat").write_text(f"signal of {n}")
        rows.append({"ct": f"ct{n}", "ecg": f"r{n}", "name": f"s{n}"})
    (tmp_path / "secret.dat").write_text("outside")
    return write_jsonl(root / "t.jsonl", rows)


def build(table: Path, out: str = "m", **more: Any) -> Manifest:
    words = ["ct=slices:ct", "ecg=waveform:ecg"]
    return read_table(table, table.parent.parent / out, modality=words, id_key="name", **{"max_bad": 0.5, **more})


def test_items_of_several_files_are_read_in_place_and_as_copies(table):
    here, copied = build(table), build(table, "copied", store_images=True)
    assert here.fingerprint == copied.fingerprint
    assert here.cells("ecg")[1] == [table.parent / "r1.hea"]
    assert here.cells("ct")[1] == [table.parent / "ct1"]
    header = copied.cells("ecg")[1][0]
    assert (header.parent / "r1.dat").read_text() == "signal of 1"
    assert (copied.cells("ct")[1][0] / "1.slice").read_text() == "slice 1 of 1"
    files = [path for path in (copied.path / "images").rglob("*") if path.is_file()]
    assert len(files) == 3 * 4


def test_the_content_is_that_of_all_files(table):
    before = build(table).contents()
    (table.parent / "r1.dat").write_text("another signal")
    (table.parent / "ct2/1.slice").write_text("another slice")
    after = build(table, "after").contents()
    assert [before["ecg"][n] == after["ecg"][n] for n in range(3)] == [True, False, True]
    assert [before["ct"][n] == after["ct"][n] for n in range(3)] == [True, True, False]


@pytest.mark.parametrize("store_images", [False, True])
def test_a_file_that_leads_out_makes_a_bad_row(table, tmp_path, store_images):
    (table.parent / "r0.hea").write_text(json.dumps({"file": "../secret.dat"}))
    (table.parent / "ct1/2.slice").symlink_to(tmp_path / "secret.dat")
    manifest = build(table, store_images=store_images, max_bad=0.7)
    reasons = {line["row"]: line["reason"] for line in skipped_of(tmp_path / "m")}
    assert reasons == {
        "t.jsonl:1": "ecg: path outside the image root",
        "t.jsonl:2": "ct: path outside the image root",
    }
    assert len(manifest) == 1
    assert not [path for path in manifest.path.rglob("*") if path.is_file() and path.read_bytes() == b"outside"]


def test_a_missing_signal_makes_a_bad_row(table, tmp_path):
    (table.parent / "r2.dat").unlink()
    build(table)
    (bad,) = skipped_of(tmp_path / "m")
    assert (bad["row"], bad["reason"]) == ("t.jsonl:3", "ecg: unreadable")


def test_a_signal_that_changes_behind_its_header_refuses_the_manifest(table, monkeypatch):
    from gapless.manifest.writer import ManifestWriter

    finish = ManifestWriter.finish

    def change(*args: Any, **more: Any) -> None:
        finish(*args, **more)
        (table.parent / "r1.dat").write_text("changed meanwhile")

    monkeypatch.setattr(ManifestWriter, "finish", change)
    with pytest.raises(DataRefused, match=r"'s1' \(r1\.hea has changed\)"):
        build(table)
