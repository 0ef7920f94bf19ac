"""60 identifiers, planted wherever a hospital's files hold them, and the whole journey: none of them comes out.

A canary is a word that stands nowhere else. The control is a reader that keeps what it finds, searched in the same way.
"""

import base64
import io
import json
import logging
import re
from collections.abc import Iterator
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from dicom_samples import dicom_bytes
from fakes import CAPTIONS
from PIL import Image
from pydicom.dataset import Dataset
from torture.ledger import record

from gapless.cli.main import main
from gapless.search.collection import Collection

pytest.importorskip("fastapi", reason="needs the extra 'web'")
from starlette.testclient import TestClient

from gapless.search.searcher import Searcher
from gapless.server.app import create_app

NUM_FILES = 24
NAMES = (
    *(
        "PatientName",
        "PatientID",
        "IssuerOfPatientID",
        "OtherPatientNames",
        "PatientBirthName",
        "PatientMotherBirthName",
    ),
    *("PatientAddress", "PatientTelephoneNumbers", "Occupation", "PatientComments", "AdditionalPatientHistory"),
    *("InstitutionName", "InstitutionAddress", "InstitutionalDepartmentName", "StationName", "ReferringPhysicianName"),
    *("PerformingPhysicianName", "NameOfPhysiciansReadingStudy", "OperatorsName", "RequestingPhysician"),
    *("AccessionNumber", "StudyID", "StudyDescription", "SeriesDescription", "ProtocolName", "ImageComments"),
    *("RequestedProcedureDescription", "PerformedProcedureStepDescription", "DeviceSerialNumber", "AdmissionID"),
    *("MilitaryRank", "RegionOfResidence", "ManufacturerModelName", "BodyPartExamined", "ViewPosition"),
)
UIDS = ("StudyInstanceUID", "SeriesInstanceUID", "FrameOfReferenceUID", "IrradiationEventUID")
DATES = ("PatientBirthDate", "StudyDate", "SeriesDate", "AcquisitionDate", "ContentDate", "AdmittingDate")
OTHERS = (
    *("private text", "private bytes", "overlay", "overlay description", "overlay label", "nested name", "nested id"),
    *("preamble", "padding", "folder", "file", "column", "key column", "group column", "unread column"),
)
PLACES = (*NAMES, *UIDS, *DATES, *OTHERS)
TINY = ["--training.num_train_epochs=1", "--training.per_device_train_batch_size=8", "--training.use_cpu=true"]
TINY += ["--embedding_dim=16", "--vocab_size=400", "--modalities.image.input.size=32"]


def canary(place: str) -> str:
    """A word for a place, in the form that the place takes."""
    number = PLACES.index(place)
    if place in UIDS:
        return f"1.2.826.0.1.3680043.8.498.77312{number:02d}"
    if place in DATES:
        return f"19{number:02d}0927"
    return f"QXZ{number:02d}KANARI"


def identified(number: int) -> bytes:
    """A DICOM file that names its patient in every way; the picture is its own."""
    picture = np.random.default_rng(number).integers(0, 4096, (32, 32), dtype=np.uint16)
    nested, item = Dataset(), Dataset()
    nested.RequestedProcedureID, nested.ScheduledProcedureStepDescription = canary("nested id"), canary("nested name")
    item.PatientName = canary("nested name")
    elements: dict[str, Any] = {name: canary(name) for name in (*NAMES, *UIDS, *DATES)}
    elements["PatientID"] += f"-{number // 2}"
    content = dicom_bytes(
        picture,
        Modality=("CT", "MR")[number // 3 % 2],
        RequestAttributesSequence=[nested],
        ReferencedPatientSequence=[item],
        **elements,
    )
    import pydicom

    dataset = pydicom.dcmread(io.BytesIO(content))
    block = dataset.private_block(0x0011, "SOME MAKER", create=True)
    block.add_new(0x01, "LO", canary("private text"))
    block.add_new(0x02, "OB", canary("private bytes").encode() + b"\0" * (len(canary("private bytes")) % 2))
    dataset.add_new(0x60000010, "US", 32)
    dataset.add_new(0x60000011, "US", 32)
    dataset.add_new(0x60000022, "LO", canary("overlay description"))
    dataset.add_new(0x60001500, "LO", canary("overlay label"))
    dataset.add_new(0x60003000, "OW", canary("overlay").encode().ljust(128, b"\0"))
    dataset.add_new(0xFFFCFFFC, "OB", canary("padding").encode().ljust(32, b"\0"))
    dataset.preamble = canary("preamble").encode().ljust(128, b"\0")
    stream = io.BytesIO()
    pydicom.dcmwrite(stream, dataset, enforce_file_format=True)
    return stream.getvalue()


@pytest.fixture(scope="module")
def hospital(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of DICOM files, two of them broken, and a table of reports."""
    home = tmp_path_factory.mktemp("hospital")
    folder = home / "files" / canary("folder")
    folder.mkdir(parents=True)
    table = home / "reports.jsonl"
    with table.open("w") as stream:
        for number in range(NUM_FILES):
            name = f"{canary('file')}_{number:03d}.dcm"
            (folder / name).write_bytes(identified(number))
            line = {
                "path": f"{canary('folder')}/{name}",
                "report": f"{CAPTIONS[number % 6]}, study {number}",
                "case": f"{canary('group column')}-{number // 2}",
                "split": "test" if number % 3 == 0 else "train",
                "surname": canary("unread column"),
                canary("column"): "x",
                "key": canary("key column"),
            }
            stream.write(json.dumps(line) + "\n")
    return home


def journey(hospital: Path, place: Path, group_key: list[str]) -> None:
    """Everything that a user does with the files; what is said on the way goes to `place/log`."""
    images = ["--reports", hospital / "reports.jsonl", "--image_key", "path", "--caption_key", "report", *group_key]
    data = ["--data", place / "m"]
    commands: list[list[Any]] = [
        ["data", "dicom", hospital / "files", *images, "--split_key", "split", "--workers", 1, "--out", place / "m"],
        ["data", "audit", place / "m"],
        ["train", "phantom-small", *data, "--out", place / "run", *TINY],
        ["evaluate", place / "run", *data, "--num_bootstrap", 5],
        ["embed", place / "run", *data, "--out", place / "e"],
        ["measure", place / "e", "--num_bootstrap", 0, "--html", place / "map.html"],
        ["index", place / "run", *data, "--out", place / "c"],
        ["search", place / "c", "left effusion", "--hybrid"],
        ["report", place / "run", "--out", place / "report.html"],
    ]
    log = (place / "log").open("a")
    handler = logging.StreamHandler(log)
    root = logging.getLogger()
    level = root.level
    root.addHandler(handler)
    root.setLevel(logging.DEBUG)
    try:
        with redirect_stdout(log), redirect_stderr(log):
            for words in commands:
                assert main([*map(str, words), "--debug"]) == 0, (place / "log").read_text()[-2000:]
    finally:
        root.removeHandler(handler)
        root.setLevel(level)
        log.close()


def answers(place: Path) -> None:
    """What the service says to a browser."""
    with TestClient(create_app(Searcher.open(place / "c")), base_url="http://127.0.0.1:8765") as client:
        asked = [client.get(path) for path in ("/", "/api/collection", "/api/map", "/healthz", "/openapi.json")]
        asked.append(client.post("/api/search", json={"text": "effusion", "k": 100}))
        asked.append(client.post("/api/search", json={"text": "effusion", "where": "nothing = 1"}))
        asked += [client.get("/api/thumbnail", params={"row": hit["row"]}) for hit in asked[5].json()["hits"][:6]]
        (place / "answers").write_bytes(b"\n".join(answer.content for answer in asked))


def texts_of(path: Path) -> Iterator[bytes]:
    """What a file says, also behind its compression."""
    content = path.read_bytes()
    yield content
    yield str(path).encode()
    for packed in re.findall(rb"base64,([A-Za-z0-9+/=]{20,})", content):
        yield base64.b64decode(packed)
    if path.suffix == ".parquet":
        yield json.dumps(pq.read_table(path).to_pylist(), default=str).encode()
        yield str(pq.read_schema(path)).encode()
    if path.suffix in (".png", ".jpg"):
        with Image.open(io.BytesIO(content)) as image:
            yield image.tobytes()
            yield str(image.info).encode()


def found_in(place: Path) -> dict[str, list[str]]:
    """Which canaries come out below a place, and where."""
    found: dict[str, list[str]] = {}

    def look(name: str, text: bytes) -> None:
        for planted in PLACES:
            if canary(planted).encode() in text or canary(planted).encode("utf-16-le") in text:
                found.setdefault(planted, []).append(name)

    for file in sorted(place.rglob("*")):
        if file.is_file():
            for text in texts_of(file):
                look(str(file.relative_to(place)), text)
    if (place / "c").is_dir():
        rows = Collection.open(place / "c").table.to_arrow()
        look("rows of the collection", json.dumps(rows.drop_columns(["thumbnail"]).to_pylist(), default=str).encode())
        for thumbnail in rows["thumbnail"].to_pylist():
            look("thumbnails of the collection", thumbnail or b"")
    return found


def test_no_identifier_comes_out_of_the_journey(hospital: Path, tmp_path: Path) -> None:
    assert len({canary(place) for place in PLACES}) == len(PLACES), "two places share a canary"
    place = tmp_path / "out"
    place.mkdir()
    journey(hospital, place, ["--group_key", "case"])
    answers(place)
    found = found_in(place)
    num_files = sum(file.is_file() for file in place.rglob("*"))
    record("identifiers", planted=len(PLACES), files_searched=num_files, found=len(found))
    assert num_files > 50
    assert found == {}


def test_what_is_said_of_bad_files_quotes_no_header(hospital: Path, tmp_path: Path, capsys: Any) -> None:
    """A path is named, because somebody must find the file; nothing from inside it is."""
    folder = tmp_path / "files"
    folder.mkdir()
    whole = identified(0)
    for number, content in enumerate(
        (whole[: len(whole) // 2], whole[:400], whole.replace(b"MONOCHROME2", b"QXZ07KANARI"))
    ):
        (folder / f"{number}.dcm").write_bytes(content)
    rows = [json.dumps({"path": f"{number}.dcm", "report": "knee"}) + "\n" for number in range(3)]
    (tmp_path / "reports.jsonl").write_text("".join(rows))
    words = ["data", "dicom", folder, "--reports", tmp_path / "reports.jsonl", "--image_key", "path", "--workers", 1]
    assert main([*map(str, words), "--out", str(tmp_path / "out" / "m")]) == 3
    said = capsys.readouterr()
    (tmp_path / "out" / "log").write_text(said.out + said.err)
    assert "3 of 3 rows" in said.err
    assert found_in(tmp_path / "out") == {}


def test_the_control_a_reader_that_keeps_what_it_finds(hospital: Path, tmp_path: Path) -> None:
    import pydicom

    with (tmp_path / "manifest.jsonl").open("w") as stream:
        for line in (hospital / "reports.jsonl").read_text().splitlines():
            cells = json.loads(line)
            dataset = pydicom.dcmread(hospital / "files" / cells["path"])
            kept = {str(element.tag): repr(element.value) for element in dataset.iterall()}
            stream.write(json.dumps({**cells, **kept, "preamble": repr(dataset.preamble)}) + "\n")
    found = found_in(tmp_path)
    record("identifiers (control)", planted=len(PLACES), found=len(found))
    assert len(found) == len(PLACES)
