"""A collection of cases whose modalities are absent in many rows, made and asked by the real command."""

import csv
import io
import json
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from dicom_samples import dicom_bytes
from PIL import Image
from signal_samples import SECRET, wfdb_record
from small_cases import NUM_CASES, RATE, SOURCES, ecg_of, labs_of, model_of_cases, volume_of
from small_service import pixels_of

from gapless.cli.main import main
from gapless.core.errors import DataRefused
from gapless.manifest.manifest import Manifest
from gapless.modalities.image import ImageModality
from gapless.modalities.waveform import WaveformModality
from gapless.models.load import load_model
from gapless.search.collection import Collection
from gapless.search.overview import Overview
from gapless.search.searcher import Searcher

MODALITIES = (
    "image=image:image",
    "text=text:text",
    "history=text:history",
    "labs=table:age,hb,ward,categories=ward",
    f"ecg=waveform:ecg,rate={RATE:g}",
    "ct=volume:ct",
)


def cells_of(home: Path, case: int) -> dict[str, Any]:
    """A row of the table with its files; case 0 has an ECG and a DICOM image whose headers name a patient."""
    cells: dict[str, Any] = {"name": f"case {case}", "patient": f"patient {case // 2}", "region": ("a", "b")[case % 2]}
    has = {name: bool(test(case)) for name, (_, test) in SOURCES.items()}
    for name in ("text", "history"):
        cells[name] = SOURCES[name][0](case) if has[name] else None
    cells |= labs_of(case) if has["labs"] else dict.fromkeys(("age", "hb", "ward"))
    files = {name: home / f"{name} {case}.{suffix}" for name, suffix in (("ecg", "npy"), ("ct", "npy"))}
    image = home / f"image {case}.{'png' if case else 'dcm'}"
    if case == 0:
        files["ecg"] = home / "wfdb" / "rec0.hea"
    files["image"] = image
    if not image.exists():
        write_files(files, case)
    return cells | {name: str(path.relative_to(home)) if has[name] else None for name, path in files.items()}


def write_files(files: Mapping[str, Path], case: int) -> None:
    np.save(files["ct"], volume_of(case))
    image = files["image"]
    if case == 0:
        wfdb_record(files["ecg"].parent, ecg_of(0), rate=int(RATE), name="rec0")
        image.write_bytes(dicom_bytes(pixels_of(0, 96).astype(np.uint16), PatientName=SECRET, PatientID=SECRET))
    else:
        np.save(files["ecg"], ecg_of(case))
        Image.fromarray(pixels_of(case, 96)).save(image)


def write_manifest(
    home: Path, out: Path, changes: Mapping[int, Mapping[str, Any]] | None = None, only: Sequence[str] = tuple(SOURCES)
) -> Path:
    """`gapless data table` of the cases; `changes` are other cells of cases, `only` the modalities that it names."""
    rows = [{**cells_of(home, case), **(changes or {}).get(case, {})} for case in range(NUM_CASES)]
    table = home / f"{out.name}.csv"
    with table.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.DictWriter(stream, list(rows[0]))
        writer.writeheader()
        writer.writerows([{name: "" if cell is None else cell for name, cell in row.items()} for row in rows])
    words = ["data", "table", str(table), "--out", str(out), "--image-root", str(home), "--id-key", "name"]
    words += ["--group-key", "patient", "--label-key", "region", "--min-present", "1"]
    specs = [spec for spec in MODALITIES if spec.partition("=")[0] in only]
    assert main([*words, *(word for spec in specs for word in ("--modality", spec))]) == 0
    return out


def answer(capsys: pytest.CaptureFixture[str], *words: object) -> dict[str, Any]:
    capsys.readouterr()
    assert main([*map(str, words), "--json"]) == 0, capsys.readouterr().err
    return json.loads(capsys.readouterr().out)


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    home = tmp_path_factory.mktemp("cases")
    (home / "files").mkdir()
    model_of_cases().save_pretrained(home / "model")
    write_manifest(home / "files", home / "manifest")
    assert main(["index", str(home / "model"), "--data", str(home / "manifest"), "--out", str(home / "c")]) == 0
    return home


@pytest.fixture(scope="module")
def searcher(home: Path) -> Searcher:
    return Searcher.open(home / "c")


def has_row(name: str, case: int) -> bool:
    return bool(SOURCES[name][1](case))


def test_there_is_a_row_for_each_present_modality_and_none_for_an_absent_one(home, searcher):
    collection = searcher.collection
    table = collection.table.to_arrow()
    expected = {f"case {case}/{name}" for name in SOURCES for case in range(NUM_CASES) if has_row(name, case)}
    assert set(table["row"].to_pylist()) == expected
    assert collection.count() == len(expected) < NUM_CASES * len(SOURCES)
    assert collection.rows_per_modality() == {
        name: sum(has_row(name, case) for case in range(NUM_CASES)) for name in searcher.model.modalities
    }


def test_every_row_is_the_vector_of_its_own_cell(home, searcher):
    manifest = Manifest.read(home / "manifest")
    model = load_model([str(home / "model")])
    for name in SOURCES:
        cells = manifest.cells(name)
        rows = [row for row, views in enumerate(cells) if views is not None]
        vectors = model.encode(name, [cells[row][0] for row in rows]).numpy()
        for row, vector in zip(rows, vectors, strict=True):
            key = f"{manifest.table['id'][row].as_py()}/{name}"
            np.testing.assert_allclose(searcher.collection.vector_of(key), vector, atol=1e-5)


def test_each_row_shows_what_it_is(searcher):
    shown = {hit.modality: hit for hit in searcher.collection.rows_of("case 0")}
    assert {name: hit.has_thumbnail for name, hit in shown.items()} == {
        "image": True, "text": False, "history": False, "labs": False, "ecg": True, "ct": True,
    }  # fmt: skip
    assert shown["history"].preview.startswith("20-year-old")
    assert shown["labs"].preview == "age: 20\nhb: –\nward: surgery"
    assert [shown[name].preview for name in ("image", "text", "ecg", "ct")] == [None] * 4
    assert len({hit.caption for hit in shown.values()}) == 1
    for name in ("image", "ecg", "ct"):
        picture = searcher.collection.thumbnail_of(shown[name].row)
        assert picture.startswith(b"\xff\xd8")
        assert not Image.open(io.BytesIO(picture)).getexif()
    assert {hit.caption for hit in searcher.collection.rows_of("case 5")} == {None}, "it has no text"


def test_nothing_of_a_header_reaches_the_collection(home):
    assert SECRET.encode() in (home / "files" / "wfdb" / "rec0.hea").read_bytes()
    assert SECRET.encode() in (home / "files" / "image 0.dcm").read_bytes()
    files = [path for path in (home / "c").rglob("*") if path.is_file()]
    assert len(files) > 3
    assert not [path for path in files if SECRET.encode() in path.read_bytes()]
    table = Collection.open(home / "c").table.to_arrow()
    assert SECRET not in str(table.drop_columns(["vector", "thumbnail"]).to_pylist())
    assert not any(SECRET.encode() in picture for picture in table["thumbnail"].to_pylist() if picture)


def test_the_command_asks_with_parts_of_any_kinds(home, capsys):
    files = home / "files"
    found = answer(capsys, "search", home / "c", "--query", f"ecg={files / 'ecg 5.npy'}", "--to", "ecg", "--k", 3)
    assert found["hits"][0]["row"] == "case 5/ecg"
    assert found["hits"][0]["score"] == pytest.approx(1, abs=1e-5)
    assert {hit["modality"] for hit in found["hits"]} == {"ecg"}
    labs = "labs=age=28,hb=9.2,ward=medicine"
    found = answer(capsys, "search", home / "c", "--query", labs, "--modality", "labs", "--k", 1)
    assert found["hits"][0]["row"] == "case 4/labs"
    assert found["hits"][0]["preview"] == "age: 28\nhb: 9.2\nward: medicine"
    both = ["search", home / "c", "--query", labs, "--query", f"ecg={files / 'ecg 5.npy'}", "--k", 1, "--raw"]
    assert answer(capsys, *both, "--weight", "ecg=0")["hits"][0]["row"] == "case 4/labs"
    assert answer(capsys, *both, "--weight", "ecg=9", "--to", "ecg")["hits"][0]["row"] == "case 5/ecg"
    assert main([*map(str, both), "--weight", "ecg=0", "--to", "labs"]) == 0
    assert "labs  case 4  [a] age: 28 hb: 9.2 ward: medicine" in capsys.readouterr().out


def test_a_joint_query_is_the_weighted_mean_of_its_parts(searcher):
    labs, history = labs_of(2), "20-year-old with cough and fever"
    found = searcher.search(
        text="cyst", query={"labs": labs, "history": history}, weights={"labs": 2, "history": 0.5}, raw=True, k=100
    )
    rows = searcher.collection.table.to_arrow()
    vectors = np.stack(rows["vector"].to_pylist())
    parts = [(1.0, "text", "cyst"), (2.0, "labs", labs), (0.5, "history", history)]
    mean = sum(weight * searcher.model.encode(name, [raw]).numpy()[0].astype(float) for weight, name, raw in parts)
    cosines = vectors @ (mean / np.linalg.norm(mean))
    expected = dict(zip(rows["row"].to_pylist(), cosines, strict=True))
    assert len(found) == len(rows)
    np.testing.assert_allclose([hit.score for hit in found], sorted(cosines, reverse=True), atol=1e-5)
    np.testing.assert_allclose([hit.score for hit in found], [expected[hit.row] for hit in found], atol=1e-5)


def test_modalities_are_balanced_by_their_own_rows_and_a_rare_one_is_found(searcher):
    balance = searcher.collection.balance()
    counts = searcher.collection.rows_per_modality()
    assert set(balance.held) == {name for name, count in counts.items() if count >= 8}
    assert counts["ct"] == 4
    assert "ct" not in balance.held
    hits = searcher.search(query={"labs": labs_of(2)}, k=1000)
    assert len(hits) == searcher.collection.count()
    assert all(np.isfinite(hit.balanced) for hit in hits)
    assert [hit.balanced for hit in hits] == sorted((hit.balanced for hit in hits), reverse=True)
    own = [hit.row for hit in hits if hit.modality == "ct"]
    alone = [hit.row for hit in searcher.search(query={"labs": labs_of(2)}, k=1000, modality="ct")]
    assert own == alone, "the order inside a modality is that of the cosine"
    asked = searcher.search(query={"ct": volume_of(0)}, k=1)
    assert asked[0].row == "case 0/ct", "a copy of the query comes first, also of a modality without a bank"


def test_filters_and_hybrid_search_pass_over_what_is_absent(searcher):
    where = "caption IS NULL"
    assert {hit.id for hit in searcher.search(text="knee", where=where, k=100)} == {"case 5"}
    found = searcher.search(query={"text": "torn meniscus"}, hybrid=True, modality="ecg", k=3)
    assert {hit.modality for hit in found} == {"ecg"}
    assert "meniscus" in found[0].caption


def test_the_map_shows_samples_of_two_modalities_or_more(searcher, monkeypatch):
    monkeypatch.setattr("gapless.search.overview.FIGURES", ("gap",))
    drawn = Overview(searcher.collection).map()
    several = [n for n in range(NUM_CASES) if sum(has_row(name, n) for name in SOURCES) > 1]
    assert drawn["num_pairs"] == len(several)
    for one in drawn["modalities"]:
        has = [has_row(one["name"], int(pair["id"].split()[1])) for pair in drawn["pairs"]]
        assert [x is not None for x in one["x"]] == [y is not None for y in one["y"]] == has
    assert all(searcher.collection.get(pair["row"]) for pair in drawn["pairs"])
    assert any(key.startswith("gap/centroid_distance") for key in drawn["figures"])


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["--query", "ekg=x.npy"], "did you mean 'ecg'"),
        (["--query", "ecg=nowhere.npy"], "nowhere.npy"),
        (["--query", "ecg={files}/image 1.png"], "image 1.png"),
        (["--query", "labs="], "a table is queried by"),
        (["--query", "labs=age=old"], "'age'"),
        (["--query", "labs=age=3", "--weight", "ecg=2"], "ecg"),
        (["--query", "labs=age=3", "--weight", "labs=0"], "a weight above 0"),
        (["--query", "labs=age=3", "--weight", "labs=much"], "the weight of labs is a number"),
        (["--query", "labs=age=3", "--query", "labs=age=4"], "names 'labs' twice"),
        (["--query", "labs"], "--query labs"),
        (["knee", "--query", "text=hip"], "asked for twice"),
        (["--query", "labs=age=3", "--to", "lab"], "labs"),
        ([], "a query needs"),
    ],
)
def test_what_is_no_query_is_one_sentence(home, capsys, words, sentence):
    code = main(["search", str(home / "c"), *(word.format(files=home / "files") for word in words)])
    said = capsys.readouterr()
    assert code in (2, 3)
    assert sentence in said.err
    assert len([line for line in said.err.splitlines() if line.startswith("gapless:")]) == 1
    assert "Traceback" not in said.err
    assert not said.out


def test_labs_that_arrive_later_are_read_alone(home, tmp_path, capsys, monkeypatch):
    shutil.copytree(home / "c", tmp_path / "c")
    labs = {"age": 44, "hb": 7.5, "ward": "surgery"}
    later = write_manifest(home / "files", tmp_path / "later", {1: labs, 5: labs})
    capsys.readouterr()

    def refuse(*_: object) -> None:
        raise AssertionError("an image or an ECG was read again")

    monkeypatch.setattr(ImageModality, "prepare", refuse)
    monkeypatch.setattr(WaveformModality, "prepare", refuse)
    index = ["index", home / "model", "--data", later, "--out", tmp_path / "c"]
    done = answer(capsys, *index)
    assert (done["extended"], done["added"], done["updated"], done["unchanged"]) == (2, 0, 0, NUM_CASES - 2)
    collection = Collection.open(tmp_path / "c")
    assert (
        collection.count()
        == Collection.open(home / "c").count() + 2
        == done["rows"]
        == sum(done["modalities"].values())
    )
    hits = collection.rows_of("case 5")
    assert [hit.preview for hit in hits if hit.modality == "labs"] == ["age: 44\nhb: 7.5\nward: surgery"]
    assert answer(capsys, *index)["unchanged"] == NUM_CASES


def test_a_report_that_arrives_is_an_addition_that_all_rows_of_its_sample_show(home, tmp_path, capsys):
    """The collection is one whose digests count the caption in, as those of every version do."""
    shutil.copytree(home / "c", tmp_path / "c")
    before = {row["row"]: row for row in Collection.open(home / "c").table.to_arrow().to_pylist()}
    later = write_manifest(home / "files", tmp_path / "later", {5: {"text": "a late report"}})
    index = ["index", home / "model", "--data", later, "--out", tmp_path / "c"]
    done = answer(capsys, *index)
    assert (done["extended"], done["updated"], done["unchanged"]) == (1, 0, NUM_CASES - 1)
    assert done["rows"] == len(before) + 1
    collection = Collection.open(tmp_path / "c")
    assert {hit.caption for hit in collection.rows_of("case 5")} == {"a late report"}
    assert "case 5/image" in [hit.row for hit in collection.search(collection.vector_of("case 5/image"), words="late")]
    after = {row["row"]: row for row in collection.table.to_arrow().to_pylist()}
    assert {key for key in before if after[key] != before[key]} == {key for key in before if key.startswith("case 5/")}
    for key, row in before.items():
        np.testing.assert_allclose(after[key]["vector"], row["vector"], atol=1e-5)
    again = answer(capsys, *index)
    assert (again["unchanged"], again["extended"]) == (NUM_CASES, 0)
    changed = write_manifest(home / "files", tmp_path / "changed", {5: {"text": "a late report, mended"}})
    assert main([*map(str, index[:3]), str(changed), *map(str, index[4:])]) == 3
    assert "1 samples differ" in capsys.readouterr().err


def test_a_change_and_a_row_that_goes_need_update(home, tmp_path, capsys):
    shutil.copytree(home / "c", tmp_path / "c")
    cells = {4: {"text": "another report"}, 2: {"ecg": None}}
    later = write_manifest(home / "files", tmp_path / "later", cells)
    index = ["index", str(home / "model"), "--data", str(later), "--out", str(tmp_path / "c")]
    capsys.readouterr()
    assert main(index) == 3
    said = capsys.readouterr().err
    assert "2 samples differ" in said
    assert "case 2/ecg" in said
    assert "--update" in said
    done = answer(capsys, *index, "--update")
    assert (done["updated"], done["withdrawn"], done["unchanged"]) == (2, 1, NUM_CASES - 2)
    collection = Collection.open(tmp_path / "c")
    assert {hit.caption for hit in collection.rows_of("case 4")} == {"another report"}
    assert "ecg" not in {hit.modality for hit in collection.rows_of("case 2")}


def test_a_modality_without_any_row_is_said_and_the_rest_is_indexed(home, tmp_path, capsys):
    none = write_manifest(home / "files", tmp_path / "none", {case: {"ct": None} for case in range(NUM_CASES)})
    capsys.readouterr()
    index = ["index", home / "model", "--out"]
    assert main([*map(str, index), str(tmp_path / "c"), "--data", str(none)]) == 0
    said = capsys.readouterr().err
    assert "has ct, which the model takes" in said
    collection = Collection.open(tmp_path / "c")
    assert collection.rows_per_modality()["ct"] == 0
    assert collection.search(collection.vector_of("case 0/ecg"), k=1, balanced={"ecg": 1.0})[0].row == "case 0/ecg"
    assert collection.search(collection.vector_of("case 0/ecg"), modality="ct") == []
    done = answer(capsys, *index, tmp_path / "c", "--data", home / "manifest")
    assert (done["extended"], done["modalities"]["ct"]) == (4, 4)
    two = write_manifest(home / "files", tmp_path / "two", only=("text", "labs"))
    done = answer(capsys, *index, tmp_path / "d", "--data", two)
    assert {name for name, count in done["modalities"].items() if count} == {"text", "labs"}


def test_embeddings_with_absent_rows_give_the_same_collection(home, tmp_path, capsys):
    embed = ["embed", home / "model", "--data", home / "manifest", "--out", tmp_path / "e"]
    assert main([*map(str, embed)]) == 0
    assert main([*map(str, ["index", home / "model", "--data", tmp_path / "e", "--out", tmp_path / "c"])]) == 0
    rows, others = (
        {row["row"]: row for row in Collection.open(path).table.to_arrow().to_pylist()}
        for path in (home / "c", tmp_path / "c")
    )
    assert set(rows) == set(others)
    for key, row in rows.items():
        np.testing.assert_allclose(others[key]["vector"], row["vector"], atol=1e-5)
        assert (others[key]["caption"], others[key]["region"]) == (row["caption"], row["region"])


def test_an_interrupted_run_goes_on_with_the_same_rows(home, tmp_path, monkeypatch):
    """The second run finds the staged shards: it reads nothing again."""
    words = ["index", str(home / "model"), "--data", str(home / "manifest"), "--out", str(tmp_path / "c")]
    with monkeypatch.context() as broken:
        broken.setattr("gapless.search.build.commit", lambda *_: (_ for _ in ()).throw(DataRefused("no space")))
        assert main(words) == 3
    assert not (tmp_path / "c" / "rows.lance").exists()
    with monkeypatch.context() as watched:
        watched.setattr(ImageModality, "prepare", lambda *_: pytest.fail("an image was read again"))
        assert main(words) == 0
    first, second = (Collection.open(path).table.to_arrow().to_pylist() for path in (home / "c", tmp_path / "c"))
    assert first == second
