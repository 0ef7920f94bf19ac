"""A preview that cannot be made is a reason, whatever its kind raises; it ends neither an index run nor a report."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from modality_run_samples import samples_manifest, untrained_model

from gapless.core.errors import DataRefused
from gapless.manifest.manifest import Manifest
from gapless.manifest.previews import Preview, preview_of
from gapless.modalities.base import MODALITIES
from gapless.modalities.image import ImageModality
from gapless.modalities.table import TableModality
from gapless.search.collection import Collection
from gapless.search.indexing import index
from gapless.search.samples import LazyPreviews
from gapless.study.cases import UNREADABLE, cases_of

FAULTS = [
    ValueError("header of Jane Doe"),
    MemoryError(),
    OSError("Jane Doe.png"),
    IndexError("Jane Doe"),
    RecursionError("Jane Doe"),
]


class Faulty:
    """A kind whose preview raises, or gives something."""

    def __init__(self, outcome: Any) -> None:
        self.outcome = outcome

    def preview(self, raw: Any) -> Any:
        if isinstance(self.outcome, Exception):
            raise self.outcome
        return self.outcome


@pytest.fixture(scope="module")
def manifest(tmp_path_factory: pytest.TempPathFactory) -> Manifest:
    return samples_manifest(tmp_path_factory.mktemp("previews"))


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: type(fault).__name__)
def test_an_error_of_any_kind_is_a_reason_without_its_message(manifest: Manifest, fault: Exception) -> None:
    preview = preview_of(manifest, "scan", 0, Faulty(fault))
    assert preview == Preview(refusal=f"the preview failed ({type(fault).__name__})")


def test_a_refusal_of_ours_is_kept_word_for_word(manifest: Manifest) -> None:
    assert preview_of(manifest, "scan", 0, Faulty(DataRefused("truncated"))).refusal == "truncated"


def test_what_is_no_jpeg_is_no_preview(manifest: Manifest) -> None:
    assert preview_of(manifest, "scan", 0, Faulty(b"\x89PNG\r\n")).refusal == "the preview is no JPEG"
    assert preview_of(manifest, "scan", 0, Faulty(b"\xff\xd8\xff")) == Preview(b"\xff\xd8\xff")


def test_an_absent_cell_is_no_fault(manifest: Manifest) -> None:
    absent = int(np.flatnonzero(~manifest.presence(["scan"])["scan"])[0])
    assert preview_of(manifest, "scan", absent, Faulty(ValueError())) == Preview()


def test_a_kind_that_is_not_installed_shows_no_path(manifest: Manifest) -> None:
    assert preview_of(manifest, "scan", 0, None, whole_text=True) == Preview(refusal="its kind is not installed")
    text = preview_of(manifest, "report", 0, None, whole_text=True).shown
    assert text == manifest.views("report", 0)[0]


def test_previews_of_a_range_go_on_after_a_bad_one(manifest: Manifest) -> None:
    whole = LazyPreviews(manifest, "scan", Faulty(MemoryError()), np.arange(len(manifest)))
    part = whole.take([3, 1], ["a", None])
    assert part[0:2] == [None, None]
    assert whole.refusals == {3: "the preview failed (MemoryError)"}


def test_an_index_run_counts_and_names_them(
    manifest: Manifest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    untrained_model(manifest).save_pretrained(tmp_path / "model")
    working, seen = TableModality.preview, []

    def preview(self: Any, raw: Any) -> Any:
        seen.append(raw)
        if raw["age"] in (40, 43):
            raise ValueError("Jane Doe")
        return working(self, raw)

    monkeypatch.setattr(TableModality, "preview", preview)
    indexed = index(tmp_path / "model", data=manifest, out=tmp_path / "c")
    ids = manifest.table["id"].to_pylist()
    (note,) = [note for note in indexed.notes if "preview" in note]
    assert note == (
        "2 rows are indexed without a preview, which could not be made "
        f"({ids[0]}/labs: the preview failed (ValueError), {ids[3]}/labs: the preview failed (ValueError))"
    )
    rows = {row["row"]: row["preview"] for row in Collection.open(tmp_path / "c").table.to_arrow().to_pylist()}
    assert rows[f"{ids[0]}/labs"] is None
    assert rows[f"{ids[1]}/labs"].startswith("age: 41")


def test_a_report_says_that_it_cannot_be_read(manifest: Manifest, monkeypatch: pytest.MonkeyPatch) -> None:
    def preview(self: Any, raw: Any) -> Any:
        raise MemoryError

    monkeypatch.setattr(ImageModality, "preview", preview)
    assert MODALITIES["image"] is ImageModality
    texts = {item.text for case in cases_of(manifest) for item in case.items if item.modality == "scan"}
    assert texts == {UNREADABLE, None}
