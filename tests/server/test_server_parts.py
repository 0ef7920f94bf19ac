"""Queries by parts of every kind with weights, by JSON and by files; whole cases; refusals, each a sentence."""

import asyncio
import gzip
import io
import json
import random
import re
import struct
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from small_cases import SOURCES, ecg_of, history_of, labs_of, open_cases, report_of, volume_of
from small_service import pixels_of, png_of
from test_server_hostile import Watch, fault_of, send

pytest.importorskip("fastapi", reason="needs the extra 'web'")
from fastapi import FastAPI
from starlette.testclient import TestClient

from gapless.search.searcher import Searcher
from gapless.server import app as service
from gapless.server.app import DECODED_AT_ONCE, create_app

LOCAL = "http://127.0.0.1:8765"


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cases")


@pytest.fixture(scope="module")
def searcher(home: Path) -> Searcher:
    return open_cases(home)


@pytest.fixture(scope="module")
def app(searcher: Searcher) -> FastAPI:
    return create_app(searcher)


@pytest.fixture(scope="module")
def client(app: FastAPI) -> Iterator[TestClient]:
    with TestClient(app, base_url=LOCAL) as client:
        yield client


def npy(values: np.ndarray) -> bytes:
    stream = io.BytesIO()
    np.save(stream, values)
    return stream.getvalue()


def ask(client: TestClient, code: int = 200, **query: Any) -> Any:
    answer = client.post("/api/search", json=query)
    assert answer.status_code == code, answer.text
    return answer.json()["hits" if code == 200 else "error"]


def upload(client: TestClient, files: dict[str, bytes], code: int = 200, **query: Any) -> Any:
    parts = [(name, ("../../x", content)) for name, content in files.items()]
    answer = client.post("/api/search/upload", files=[*parts, ("query", (None, json.dumps(query)))])
    assert answer.status_code == code, answer.text
    return answer.json()["hits" if code == 200 else "error"]


def rows(hits: Any) -> list[str]:
    return [hit["row"] for hit in hits]


# ---- each kind finds its own row ------------------------------------------------------------------------------------

OWN = {
    "labs as an object": (4, "labs", lambda: {"parts": {"labs": labs_of(4)}}),
    "labs as pairs": (4, "labs", lambda: {"parts": {"labs": "age=28, hb=9.2, ward=Medicine"}}),
    "labs as JSON in a text": (4, "labs", lambda: {"parts": {"labs": '{"age": 28, "hb": "9.2", "ward": "medicine"}'}}),
    "history": (6, "history", lambda: {"parts": {"history": history_of(6)}}),
    "the numbers of an ECG": (7, "ecg", lambda: {"parts": {"ecg": ecg_of(7).tolist()}}),
    "words": (3, "text", lambda: {"text": report_of(3)}),
    "words as a part": (3, "text", lambda: {"parts": {"text": report_of(3)}}),
}


@pytest.mark.parametrize("name", OWN)
def test_a_copy_of_a_row_finds_that_row(client: TestClient, name: str) -> None:
    case, modality, query = OWN[name]
    first = ask(client, k=1, modality=modality, **query())[0]
    assert (first["id"], first["similarity"]) == (f"case {case}", pytest.approx(1.0, abs=1e-5))


@pytest.mark.parametrize(
    ("modality", "case", "content"),
    [
        ("ecg", 5, npy(ecg_of(5))),
        ("ct", 6, npy(volume_of(6))),
        ("image", 9, png_of(pixels_of(9, 96))),
        ("labs", 2, json.dumps(labs_of(2)).encode()),
        ("history", 8, history_of(8).encode()),
    ],
)
def test_a_file_of_a_row_finds_that_row(client: TestClient, modality: str, case: int, content: bytes) -> None:
    first = upload(client, {modality: content}, k=1, modality=modality)[0]
    assert (first["id"], first["similarity"]) == (f"case {case}", pytest.approx(1.0, abs=1e-5))


def test_the_slices_of_a_series_are_one_volume(client: TestClient, searcher: Searcher) -> None:
    pytest.importorskip("pydicom")
    from dicom_samples import slice_bytes

    voxels = np.rint(volume_of(12)).astype(np.uint16)
    contents = [slice_bytes(pixels, place) for place, pixels in enumerate(voxels)]
    form = [("ct", (f"{number}.dcm", content)) for number, content in enumerate(contents[::-1])]
    found = client.post("/api/search/upload", files=[*form, ("query", (None, '{"modality": "ct", "k": 4}'))]).json()[
        "hits"
    ]
    vector = searcher.model.encode("ct", [voxels]).numpy()[0]
    expected = searcher.collection.search(vector, k=4, modality="ct")
    assert [(hit["row"], hit["similarity"]) for hit in found] == [
        (hit.row, pytest.approx(hit.similarity, abs=1e-5)) for hit in expected
    ]
    told = client.post("/api/search/upload", files=form[:1] + form[2:]).json()["error"]
    assert "the distance after slice" in told


# ---- several at once ------------------------------------------------------------------------------------------------


def test_parts_are_mixed_by_their_weights(client: TestClient, searcher: Searcher) -> None:
    weights = {"text": 0.2, "labs": 3.0, "ecg": 1.0, "image": 0.7}
    raws = {"text": "left effusion", "labs": labs_of(2), "ecg": ecg_of(10), "image": pixels_of(4, 96)}
    sides = {name: searcher.model.encode(name, [raw]).numpy()[0] * weights[name] for name, raw in raws.items()}
    mean = np.sum(list(sides.values()), axis=0)
    expected = [hit.row for hit in searcher.collection.search(mean / np.linalg.norm(mean), k=30)]
    files = {"ecg": npy(ecg_of(10)), "image": png_of(pixels_of(4, 96))}
    given = {"text": "left effusion", "parts": {"labs": labs_of(2)}, "k": 30}
    assert rows(upload(client, files, **given, weights=weights)) == expected
    larger = {name: 100 * weight for name, weight in weights.items()}
    assert rows(upload(client, files, **given, weights=larger)) == expected, "only their ratio counts"
    equal = rows(upload(client, files, **given))
    assert equal != expected
    assert equal == rows(upload(client, files, **given, weights=dict.fromkeys(weights, 2.0)))


def test_a_weight_of_zero_leaves_a_part_out(client: TestClient) -> None:
    alone = rows(ask(client, parts={"labs": labs_of(2)}))
    both = {"text": "cyst", "parts": {"labs": labs_of(2)}}
    assert rows(ask(client, **both, weights={"text": 0.0, "labs": 1.0})) == alone != rows(ask(client, **both))
    assert "a weight above 0" in ask(client, 400, **both, weights={"text": 0, "labs": 0})


def test_the_older_route_is_the_same(client: TestClient) -> None:
    files = {"image": png_of(pixels_of(4, 96))}
    answers = [
        client.post(path, files={**files, "query": (None, '{"text": "cyst", "image_weight": 0.3}')})
        for path in ("/api/search/image", "/api/search/upload")
    ]
    assert rows(answers[0].json()["hits"]) == rows(answers[1].json()["hits"])
    mixed = rows(upload(client, files, text="cyst", weights={"text": 0.7, "image": 0.3}))
    assert rows(answers[0].json()["hits"]) == mixed


# ---- whole cases ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("case", [0, 5, 7, 11])
def test_a_case_is_all_that_the_collection_has_of_it(client: TestClient, case: int) -> None:
    found = client.get("/api/case", params={"id": f"case {case}"}).json()
    has = {name for name, (_, is_there) in SOURCES.items() if is_there(case)}
    assert {row["modality"] for row in found["rows"]} == has
    assert set(found["absent"]) == set(SOURCES) - has
    assert {row["id"] for row in found["rows"]} == {f"case {case}"}
    for row in found["rows"]:
        assert row["has_thumbnail"] == (row["modality"] in ("image", "ecg", "ct"))
        picture = client.get("/api/thumbnail", params={"row": row["row"]})
        assert (picture.status_code == 200) == row["has_thumbnail"]
        if row["modality"] == "history":
            assert row["preview"] == history_of(case)
    labs = next((row["preview"] for row in found["rows"] if row["modality"] == "labs"), None)
    if labs is not None:
        values = {
            name: "–" if value is None else f"{value:.6g}" if name != "ward" else value
            for name, value in labs_of(case).items()
        }
        assert labs.split("\n") == [f"{name}: {value}" for name, value in values.items()]


@pytest.mark.parametrize("name", ["nowhere", "", "case 0/ecg", "../model", "\x00", "case 0' OR '1'='1"])
def test_no_such_case_is_a_sentence(client: TestClient, name: str) -> None:
    answer = client.get("/api/case", params={"id": name})
    assert (answer.status_code, answer.json()) == (404, {"error": "there is no such case in the collection"})


def test_a_case_without_an_id_is_a_sentence(client: TestClient) -> None:
    answer = client.get("/api/case")
    assert (answer.status_code, answer.json()) == (400, {"error": "query.id: Field required"})


def test_the_collection_says_what_can_be_asked(client: TestClient) -> None:
    told = client.get("/api/collection").json()
    kinds = {"image": "image", "text": "text", "history": "text", "labs": "table", "ecg": "waveform", "ct": "volume"}
    assert told["kinds"] == kinds
    assert (set(told["queries"]), told["words"], set(told["files"])) == (set(kinds), "text", {"image", "ecg", "ct"})
    assert told["table_fields"] == {
        "labs": [
            {"name": "age", "numeric": True, "values": []},
            {"name": "hb", "numeric": True, "values": []},
            {"name": "ward", "numeric": False, "values": ["medicine", "surgery"]},
        ]
    }


# ---- refusals -------------------------------------------------------------------------------------------------------

REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "an unknown modality": ({"parts": {"smell": "x"}}, "no smell query|unknown modality 'smell'"),
    "nothing of parts": ({"parts": {}}, "ask with words"),
    "parts beside like": ({"parts": {"labs": "age=3"}, "like": "x"}, "one of these"),
    "weights alone": ({"like": "case 0/ecg", "weights": {"ecg": 1}}, "'weights' are those of parts"),
    "a weight of nothing": ({"text": "x", "weights": {"labs": 1}}, "weight.*'?labs'?"),
    "a weight below 0": ({"text": "x", "weights": {"text": -1}}, "^weights.text: "),
    "a weight without end": ({"text": "x", "weights": {"text": 1e300}}, "^weights.text: "),
    "words twice": ({"text": "x", "parts": {"text": "y"}}, "twice"),
    "an unknown field": ({"parts": {"labs": "smell=3"}}, "no field smell; its fields are age, hb, ward"),
    "a text for a number": ({"parts": {"labs": {"age": "old"}}}, "'age' is one of numbers"),
    "no field": ({"parts": {"labs": {}}}, "no field of the table is present"),
    "a list for a table": ({"parts": {"labs": [1.0]}}, "a table is queried by"),
    "a number for a part": ({"parts": {"labs": 3}}, "^parts.labs: a part is a text"),
    "a null for a part": ({"parts": {"labs": None}}, "^parts.labs: a part is a text"),
    "numbers for a text": ({"parts": {"history": [1.0]}}, "the words of a query are text"),
    "no words in a text": ({"parts": {"history": "  "}}, "the query is empty"),
    "a text without end": ({"parts": {"history": "x" * 10_001}}, "^parts.history: "),
    "rows of several lengths": ({"parts": {"ecg": [[1.0], [1.0, 2.0]]}}, "a list that is no array of numbers"),
    "another number of channels": ({"parts": {"ecg": [[1.0] * 300] * 3}}, "it has 3, and the training rows have 2"),
    "texts in a list": ({"parts": {"ecg": ["1"]}}, "^parts.ecg: a part is a text"),
    "a mapping for a signal": ({"parts": {"ecg": {"path": "/etc/passwd"}}}, "ecg is a file: send it as the part"),
    "too many parts": ({"parts": {f"m{number}": "x" for number in range(17)}}, "^parts: "),
}


@pytest.mark.parametrize("case", REFUSED)
def test_parts_that_cannot_be_used_are_refused_in_one_sentence(case: str, client: TestClient) -> None:
    query, sentence = REFUSED[case]
    told = ask(client, 400, **query)
    assert re.search(sentence, told), told
    assert "\n" not in told
    assert len(told) < 400


def test_numbers_that_are_none_are_refused(client: TestClient) -> None:
    for body in ('{"parts": {"ecg": [1, NaN]}}', '{"parts": {"ecg": [1e999]}}', '{"parts": {"labs": {"age": NaN}}}'):
        answer = client.post("/api/search", content=body, headers={"content-type": "application/json"})
        assert answer.status_code == 400, body
        assert "parts." in answer.json()["error"]


def gzip_bomb(side: int = 4, inflated: int = 6_000_000) -> bytes:
    """A packed NIfTI file that declares a cube of bytes, and inflates to so many."""
    header = bytearray(352)
    struct.pack_into("<i", header, 0, 348)
    struct.pack_into("<8h", header, 40, 3, side, side, side, 1, 1, 1, 1)
    struct.pack_into("<2h", header, 70, 2, 8)
    struct.pack_into("<8f", header, 76, 1, 1, 1, 1, 1, 1, 1, 1)
    struct.pack_into("<f", header, 108, 352)
    header[344:348] = b"n+1\0"
    return gzip.compress(bytes(header) + bytes(inflated))


FILES: dict[str, tuple[dict[str, Any], str]] = {
    "a bomb": ({"ct": gzip_bomb()}, "inflates to more than its header declares"),
    "a bomb that its header declares": ({"ct": gzip_bomb(400, 64_000_000)}, "64000000 voxels are above 33554432"),
    "a shape that is not held": ({"ct": npy(np.zeros(4)).replace(b"(4,)", b"(9,)")}, "truncated file"),
    "Python objects": ({"ecg": npy(np.zeros(4)).replace(b"<f8", b"|O ")}, "Python objects|unreadable"),
    "a header of a record": ({"ecg": b"rec 2 100 300\nrec.dat 16 200\nrec.dat 16 200\n"}, "WFDB: a record is several"),
    "a volume for a signal": ({"ecg": npy(volume_of(6))}, "one row of them a channel"),
    "another format": ({"ecg": b"%PDF-1.4"}, "it is no WFDB header"),
    "an empty file": ({"ecg": b""}, "the file is empty"),
    "one of several": ({"ecg": b"%PDF", "image": png_of(pixels_of(1))}, "^ecg: unreadable file"),
    "no text": ({"history": b"\xff\xfe"}, "history is a text, and the file is none in UTF-8"),
    "a long text": ({"history": b"x" * 10_001}, "history has 10001 characters; 10000 are the most"),
    "a modality that is none": ({"smell": b"x"}, "no smell query|unknown modality 'smell'"),
    "a strip": ({"image": png_of(np.zeros((1, 500), np.uint8))}, "one side is more than 20 times the other"),
}


@pytest.mark.parametrize("case", FILES)
def test_files_that_cannot_be_used_are_refused_in_one_sentence(case: str, client: TestClient) -> None:
    files, sentence = FILES[case]
    told = upload(client, files, 400)
    assert re.search(sentence, told), told
    assert "\n" not in told


def test_forms_of_other_parts_are_refused(client: TestClient) -> None:
    png = png_of(pixels_of(1))
    forms: list[tuple[list[tuple[str, Any]], str]] = [
        ([("ecg", ("a.hea", b"x")), ("ecg", ("a.dat", b"x"))], "ecg takes one file, and 2 came"),
        ([("ct", ("a", b"x")), ("ct", ("b", b""))], "the file is empty"),
        ([("history", ("a", b"x")), ("history", ("b", b"y"))], "history takes one file, and 2 came"),
        ([(f"m{number}", ("a", b"x")) for number in range(17)], "files of at most 16 modalities, not 17"),
        ([("ct", ("a", b"x"))] * 4097, "Too many files"),
        ([("query", (None, "{}"))], "at least one file"),
        ([("image", ("a", png)), ("ecg", (None, "/etc/passwd"))], "at least one file, named"),
        ([("image", ("a", png)), ("query", (None, '{"parts": {"image": "x.png"}}'))], "given twice|image is a file"),
    ]
    for form, sentence in forms:
        answer = client.post("/api/search/upload", files=form)
        assert answer.status_code == 400, form
        assert re.search(sentence, answer.json()["error"]), answer.text


@pytest.mark.parametrize("modality", ["image", "ecg", "ct"])
def test_no_request_names_a_file_of_this_computer(client: TestClient, home: Path, modality: str) -> None:
    secrets = {"image": home / "secret.png", "ecg": home / "secret.npy", "ct": home / "secret.npy"}
    (home / "secret.png").write_bytes(png_of(pixels_of(1)))
    np.save(home / "secret.npy", ecg_of(1))
    path = str(secrets[modality])
    with Watch() as watch:
        for value in (path, f"file://{path}", {"path": path}, [path]):
            told = ask(client, 400, parts={modality: value})
            assert f"{modality} is a file: send it as the part" in told or f"parts.{modality}: " in told
        upload(client, {modality: path.encode()}, 400)
    assert watch.outside() == []
    assert searches_by_path(home, modality, path), "the control: Python may name it"


def searches_by_path(home: Path, modality: str, path: str) -> bool:
    searcher = Searcher.open(home / "collection")
    if modality == "ct":
        return bool(searcher.parts({modality: path})[0].raw)
    return len(searcher.model.encode(modality, [searcher.parts({modality: path})[0].raw])) == 1


# ---- limits ---------------------------------------------------------------------------------------------------------


def test_only_so_many_files_are_decoded_at_once(app: FastAPI, client: TestClient, monkeypatch: Any) -> None:
    lock, now, most = threading.Lock(), 0, 0
    prepared_input = service.prepared_input
    both = threading.Event()

    def counted(kind: Any, source: Any) -> Any:
        nonlocal now, most
        with lock:
            now += 1
            most = max(most, now)
            if now == DECODED_AT_ONCE:
                both.set()
        both.wait(5)
        try:
            return prepared_input(kind, source)
        finally:
            with lock:
                now -= 1

    monkeypatch.setattr(service, "prepared_input", counted)
    calls = [threading.Thread(target=upload, args=(client, {"ecg": npy(ecg_of(case))})) for case in range(6)]
    for call in calls:
        call.start()
    for call in calls:
        call.join()
    assert most == DECODED_AT_ONCE


def test_the_queue_of_the_model_holds_small_inputs(searcher: Searcher, monkeypatch: Any) -> None:
    sizes: list[tuple[int, ...]] = []
    encode = searcher.encode_prepared

    def seen(modality: str, prepared: Any) -> Any:
        sizes.extend(one.shape for one in prepared)
        return encode(modality, prepared)

    monkeypatch.setattr(searcher, "encode_prepared", seen)
    with TestClient(create_app(searcher), base_url=LOCAL) as client:
        upload(client, {"ecg": npy(np.tile(ecg_of(0), (1, 1000))), "ct": npy(np.tile(volume_of(0), (4, 4, 4)))})
    assert sorted(sizes) == [(2, 300), (4, 32, 32)]


# ---- odd requests ---------------------------------------------------------------------------------------------------

NAMES = ["image", "text", "history", "labs", "ecg", "ct", "smell", "query", "", "../x", "\x00"]
VALUES: list[Any] = [
    *(None, True, "", "age=3", "/etc/passwd", 3, -1e308, [], [1], [[1, 2], [3]], [[]], {}, {"age": 40}, {"age": []}),
    *({"hb": "x", "": 1}, [0.5] * 600, [[0.1] * 300] * 2, "\u202e", {"ward": "ß" * 900}, [None], [[["x"]]]),
]
CONTENTS = {
    "ecg": npy(ecg_of(2)),
    "ct": npy(volume_of(6)),
    "image": png_of(pixels_of(3)),
    "labs": b"age=30",
    "history": b"a fall",
    "smell": gzip_bomb()[:9000],
}


def odd_request(draw: random.Random) -> dict[str, Any]:
    """A query by parts, or a form of files, in which anything may be wrong."""
    if draw.random() < 0.5:
        chosen = draw.sample(NAMES, draw.randrange(1, 4))
        query: dict[str, Any] = {"parts": {name: draw.choice(VALUES) for name in chosen}}
        if draw.random() < 0.4:
            query["weights"] = {name: draw.choice([0, 1, 0.5, -1, 1e308, "1", None, [1]]) for name in chosen}
        if draw.random() < 0.2:
            query["text"] = draw.choice(["knee", "", 3])
        return {"path": "/api/search", "method": "POST", "body": json.dumps(query).encode(), "type": "application/json"}
    name, whole = draw.choice(list(CONTENTS.items()))
    damaged = bytearray(whole)
    for _ in range(draw.choice([0, 0, 1, 3])):
        damaged[draw.randrange(len(damaged))] = draw.randrange(256)
    content = bytes(damaged[: draw.randrange(1, len(damaged) + 1)]) if draw.random() < 0.3 else bytes(damaged)
    name = draw.choice(NAMES) if draw.random() < 0.4 else name
    head = b'Content-Disposition: form-data; name="' + name.encode() + b'"; filename="../../secret"\r\n\r\n'
    body = b"".join(b"--b\r\n" + head + content + b"\r\n" for _ in range(draw.choice([1, 1, 1, 2]))) + b"--b--\r\n"
    return {
        "path": draw.choice(["/api/search/upload", "/api/search/image"]),
        "method": "POST",
        "body": body,
        "type": "multipart/form-data; boundary=b",
    }


def test_odd_requests_get_answers_or_sentences(app: FastAPI, home: Path) -> None:
    draw = random.Random(0)
    before = sorted(str(path) for path in home.rglob("*"))

    async def attack() -> tuple[list[str], int]:
        faults, answered = [], 0
        for call in [odd_request(draw) for _ in range(800)]:
            status, headers, body = await send(app, call)
            answered += status == 200
            if (fault := fault_of(call, status, headers, body)) is not None:
                faults.append(f"{fault}: {str(call)[:300]} -> {body[:200]!r}")
        return faults, answered

    with Watch() as watch:
        faults, answered = asyncio.run(attack())
    assert faults == []
    assert watch.outside() == []
    assert answered > 80, "some must reach the model"
    assert sorted(str(path) for path in home.rglob("*")) == before
