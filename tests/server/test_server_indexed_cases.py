"""From files to the page's answers by the commands of a user: data table, index, and a service of what they wrote."""

import csv
import io
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from small_cases import NUM_CASES, SOURCES, ecg_of, history_of, labs_of, model_of_cases, report_of, volume_of
from small_service import pixels_of

from gapless.cli.main import main

pytest.importorskip("fastapi", reason="needs the extra 'web'")
from starlette.testclient import TestClient

from gapless.search.searcher import Searcher
from gapless.server.app import create_app

KINDS = ["image=image:file", "text=text:caption", "history=text:history", "labs=table:age,hb,ward"]
KINDS += ["ecg=waveform:ecg,rate=100", "ct=volume:ct"]


def write_rows(home: Path) -> None:
    """A CSV of the cases, with an empty cell for all that one lacks, and the files that it names."""
    home.mkdir(exist_ok=True)
    with (home / "table.csv").open("w", newline="") as stream:
        writer = csv.DictWriter(stream, ["file", "caption", "history", "age", "hb", "ward", "ecg", "ct", "patient"])
        writer.writeheader()
        for case in range(NUM_CASES):
            raws = {name: make(case) for name, (make, has) in SOURCES.items() if has(case)}
            row = {"caption": raws.get("text"), "history": raws.get("history"), "patient": f"patient {case // 2}"}
            row |= raws.get("labs", {})
            if "image" in raws:
                Image.fromarray(raws["image"]).save(home / f"{case}.png")
                row["file"] = f"{case}.png"
            for name in {"ecg", "ct"} & set(raws):
                np.save(home / f"{name}{case}.npy", raws[name])
                row[name] = f"{name}{case}.npy"
            writer.writerow(row)


@pytest.fixture(scope="module")
def searcher(tmp_path_factory: pytest.TempPathFactory) -> Searcher:
    home = tmp_path_factory.mktemp("indexed")
    write_rows(home)
    model_of_cases().save_pretrained(home / "model")
    modalities = [word for kind in KINDS for word in ("--modality", kind)]
    options = ["--group-key", "patient", "--image-root", str(home), "--out", str(home / "manifest")]
    assert main(["data", "table", str(home / "table.csv"), *modalities, *options]) == 0
    words = ["index", str(home / "model"), "--data", str(home / "manifest"), "--out", str(home / "collection")]
    assert main(words) == 0
    return Searcher.open(home / "collection")


@pytest.fixture(scope="module")
def client(searcher: Searcher) -> Iterator[TestClient]:
    with TestClient(create_app(searcher), base_url="http://127.0.0.1") as client:
        yield client


def npy(values: np.ndarray) -> bytes:
    stream = io.BytesIO()
    np.save(stream, values)
    return stream.getvalue()


def test_a_case_shows_what_its_row_of_the_table_had(client: TestClient) -> None:
    hits = client.post("/api/search", json={"parts": {"labs": labs_of(4)}, "modality": "labs", "k": 1}).json()["hits"]
    assert hits[0]["similarity"] == pytest.approx(1, abs=1e-5)
    assert hits[0]["preview"] == "age: 28\nhb: 9.2\nward: medicine"
    found = client.get("/api/case", params={"id": hits[0]["id"]}).json()
    has = {name for name, (_, is_there) in SOURCES.items() if is_there(4)}
    assert {row["modality"] for row in found["rows"]} == has
    assert set(found["absent"]) == set(SOURCES) - has
    for row in found["rows"]:
        assert row["has_thumbnail"] == (row["modality"] in ("image", "ecg", "ct"))
        assert (row["preview"] is not None) == (row["modality"] in ("labs", "history"))


@pytest.mark.parametrize(
    ("modality", "case", "content"),
    [("ecg", 5, npy(ecg_of(5))), ("ct", 12, npy(volume_of(12))), ("history", 8, history_of(8).encode())],
)
def test_a_file_finds_the_case_that_it_is_of(client: TestClient, modality: str, case: int, content: bytes) -> None:
    form = {modality: ("x", content), "query": (None, f'{{"k": 1, "modality": "{modality}"}}')}
    first = client.post("/api/search/upload", files=form).json()["hits"][0]
    assert first["similarity"] == pytest.approx(1, abs=1e-5)
    rows = client.get("/api/case", params={"id": first["id"]}).json()["rows"]
    assert {row["caption"] or None for row in rows} == {report_of(case) if SOURCES["text"][1](case) else None}


def test_pictures_of_every_kind_are_those_of_the_files(client: TestClient, searcher: Searcher) -> None:
    case = client.post("/api/search", json={"text": "left pleural effusion, case 0", "k": 1, "modality": "text"})
    ident = case.json()["hits"][0]["id"]
    raws = {"image": pixels_of(0, 96), "ecg": ecg_of(0), "ct": volume_of(0)}
    for name, raw in raws.items():
        picture = client.get("/api/thumbnail", params={"row": f"{ident}/{name}"})
        expected = searcher.model.preprocessor(name).preview(raw)
        shown, wanted = (np.asarray(Image.open(io.BytesIO(one)).convert("L")) for one in (picture.content, expected))
        assert shown.shape == wanted.shape
        assert np.abs(shown.astype(int) - wanted).mean() < 2
