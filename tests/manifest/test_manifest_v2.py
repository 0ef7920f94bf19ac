"""Manifests of version 2: any modalities, any of them absent; what a bad row gets."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from data_samples import noise_image, write_jsonl
from modality_samples import HAS, WORDS, kinds, sample_rows, skipped_of, write_csv, write_signal

from gapless.core.errors import DataRefused, UsageError
from gapless.manifest.manifest import Manifest
from gapless.manifest.readers.table import read_table
from gapless.manifest.split import split_manifest

__all__ = ["kinds"]
pytestmark = pytest.mark.usefixtures("kinds")
NAMES = ("image", "report", "history", "labs", "ecg")
KEYS: dict[str, Any] = {"group_key": "patient", "label_keys": "region", "split_key": "split", "workers": 1}


def build(folder: Path, rows: list[dict[str, Any]], words: list[str] = WORDS, out: str = "m", **more: Any) -> Manifest:
    table = write_jsonl(folder / f"{out}.jsonl", rows)
    return read_table(table, folder / out, **{"modality": words, "max_bad": 0.5, **KEYS, **more})


@pytest.fixture
def rows(tmp_path: Path) -> list[dict[str, Any]]:
    return sample_rows(tmp_path)


# ---- what is kept ---------------------------------------------------------------------------------------------------


def test_presence_is_what_the_cells_hold(tmp_path, rows):
    manifest = build(tmp_path, rows, min_present=1)
    kept = [has for has in HAS if "1" in has]
    assert manifest.modalities == NAMES
    presence = manifest.presence()
    for place, name in enumerate(NAMES):
        assert presence[name].tolist() == [has[place] == "1" for has in kept]
        assert [cell is not None for cell in manifest.cells(name)] == presence[name].tolist()
        assert manifest.rows_with(name).tolist() == np.flatnonzero(presence[name]).tolist()
        assert manifest.info["modalities"][name]["present"] == sum(presence[name])
    info = manifest.info
    assert info["counts"] == {"read": 8, "kept": 7, "skipped": 1}
    assert info["skipped"] == {"fewer than 1 modalities": 1}
    assert sum(info["presence"]["patterns"].values()) == 7
    everything = "image + report + history + labs + ecg"
    assert info["presence"]["patterns"][everything] == 2
    assert info["presence"]["splits"]["test"]["patterns"] == {"labs": 1, "image + report + history + ecg": 1}
    assert info["presence"]["splits"]["train"]["present"]["ecg"] == 3


def test_cells_are_views(tmp_path, rows):
    manifest = build(tmp_path, rows)
    first = {name: manifest.cells(name)[0] for name in NAMES}
    assert first["image"] == [tmp_path / "0.png"]
    assert first["ecg"] == [tmp_path / "0.npy"]
    assert first["report"] == ["report of 0"]
    assert first["labs"] == [{"age": 40.0, "sex": "m"}]
    assert manifest.image_path(0) == tmp_path / "0.png"
    assert manifest.first_captions[0] == "report of 0"
    with pytest.raises(DataRefused, match="has no image"):
        manifest.image_path(2)
    with pytest.raises(UsageError, match="unknown modality 'ekg'"):
        manifest.cells("ekg")
    test = manifest.select("test")
    assert len(test) == 1
    assert test.cells("labs") == [None]


def test_a_field_may_be_missing_alone(tmp_path, rows):
    rows[0]["age"] = None
    assert build(tmp_path, rows).cells("labs")[0] == [{"age": None, "sex": "m"}]


@pytest.mark.parametrize(("min_present", "kept"), [(1, 7), (2, 6), (3, 5), (4, 3), (5, 2)])
def test_rows_with_too_little_are_skipped_and_counted(tmp_path, rows, min_present, kept):
    info = build(tmp_path, rows, min_present=min_present, max_bad=0.0).info
    assert info["counts"] == {"read": 8, "kept": kept, "skipped": 8 - kept}


def test_missing_drop_keeps_complete_rows_alone(tmp_path, rows):
    manifest = build(tmp_path, rows, missing="drop", max_bad=0.0)
    assert len(manifest) == 2
    assert manifest.info["skipped"] == {"fewer than 2 modalities": 2, "incomplete row": 4}
    assert all(has.all() for has in manifest.presence().values())
    assert next(line for line in skipped_of(tmp_path / "m") if line["reason"] == "incomplete row")["detail"] == (
        "it lacks history, labs, ecg"
    )


def test_every_format_gives_the_same_rows(tmp_path, rows):
    """CSV, JSON with a mapping for the table, and Parquet with a struct: one fingerprint."""
    made = [build(tmp_path, rows, out="lines", id_key="name").fingerprint]
    table = write_csv(tmp_path / "t.csv", rows)
    made.append(read_table(table, tmp_path / "csv", modality=WORDS, **KEYS, id_key="name").fingerprint)
    nested = [
        {**row, "values": {"age": row["age"], "sex": row["sex"]} if row["sex"] else None, "caption": [row["caption"]]}
        for row in rows
    ]
    words = [word.replace("labs=table:age,sex", "labs=table:values") for word in WORDS]
    made.append(build(tmp_path, nested, words, out="nested", id_key="name").fingerprint)
    pq.write_table(pa.Table.from_pylist(nested), tmp_path / "t.parquet")
    made.append(
        read_table(tmp_path / "t.parquet", tmp_path / "parquet", modality=words, **KEYS, id_key="name").fingerprint
    )
    assert len(set(made)) == 1
    rows[0]["age"] = 41  # the control: another value is another fingerprint
    assert build(tmp_path, rows, out="other", id_key="name").fingerprint not in made


def test_several_views_stand_in_a_list_or_in_several_columns(tmp_path, rows):
    rows[0]["file"] = ["0.png", "1.png"]
    rows[0]["caption"] = ["report of 0", None, "second reading"]
    views = build(tmp_path, rows)
    assert views.cells("image")[0] == [tmp_path / "0.png", tmp_path / "1.png"]
    assert views.cells("report")[0] == ["report of 0", "second reading"]
    assert [len(digests or ()) for digests in views.contents()["image"]][:2] == [2, 1]
    several = [{**row, "file": f"{n}.png", "other": None if n else "5.png"} for n, row in enumerate(rows)]
    words = ["image=image:file,other", "report=text:caption,history"]
    columns = build(tmp_path, several, words, out="columns", min_present=1)
    assert columns.cells("image")[:2] == [[tmp_path / "0.png", tmp_path / "5.png"], [tmp_path / "1.png"]]
    assert columns.cells("report")[0] == ["report of 0", "second reading", "history of 0"]


def test_vectors_of_a_list_of_columns_and_of_words(tmp_path):
    rows = [{"v": [1, 2.5], "w": "1 2;3", "a": 1, "b": 2}, {"v": None, "w": "[1,2,3]", "a": "3", "b": 4}, {"v": [0, 1]}]
    words = ["v=vector:v", "w=vector:w", "c=vector:a,b"]
    manifest = read_table(write_jsonl(tmp_path / "t.jsonl", rows), tmp_path / "m", modality=words, min_present=1)
    assert manifest.cells("v") == [[[1, 2.5]], None, [[0, 1]]]
    assert manifest.cells("w") == [[[1, 2, 3]], [[1, 2, 3]], None]
    assert manifest.cells("c") == [[[1, 2]], [[3, 4]], None]
    assert [manifest.spec(name).params["size"] for name in ("v", "w", "c")] == [2, 3, 2]


def test_copies_into_the_manifest(tmp_path, rows):
    manifest = build(tmp_path, rows, store_images=True)
    assert manifest.info["image_root"] == "."
    for name in ("image", "ecg"):
        for cell in manifest.cells(name):
            assert cell is None or cell[0].resolve().is_relative_to(manifest.path.resolve())
    assert manifest.cells("ecg")[0][0].read_bytes() == (tmp_path / "0.npy").read_bytes()
    in_place = build(tmp_path, rows, out="in-place")
    assert in_place.contents() == manifest.contents()


# ---- what a bad row gets --------------------------------------------------------------------------------------------


def spoil(rows: list[dict[str, Any]], folder: Path, what: str) -> tuple[str, str]:
    """Spoil row 0; the reason and a part of the detail that it must get."""
    if what == "lost file":
        rows[0]["path"] = "gone.npy"
        return "ecg: missing file", "gone.npy"
    if what == "folder as image":
        (folder / "folder.png").mkdir()
        rows[0]["file"] = "folder.png"
        return "image: not a file", "folder.png is a folder"
    if what == "folder as file":
        (folder / "folder.npy").mkdir()
        rows[0]["path"] = "folder.npy"
        return "ecg: not a file", "folder.npy is a folder"
    if what == "damaged file":
        (folder / "0.npy").write_bytes(b"\x93NUMPY nothing")
        return "ecg: unreadable", "0.npy: "
    if what == "pickle":
        np.save(folder / "0.npy", np.array([{"a": 1}], dtype=object), allow_pickle=True)
        return "ecg: unreadable", "0.npy: ValueError"
    if what == "wrong rate":
        write_signal(folder / "0.npy", 0, rate=250)
        return "ecg: no signal", "the rate is 250, not 500"
    if what == "path that climbs":
        rows[0]["path"] = "../0.npy"
        return "ecg: path outside the image root", "../0.npy"
    if what == "NaN in a table":
        rows[0]["age"] = float("nan")
        return "labs: not a finite number", "'age' is nan"
    if what == "infinity in a table":
        rows[0]["age"] = float("inf")
        return "labs: not a finite number", "'age' is inf"
    if what == "list in a field":
        rows[0]["age"] = [1, 2]
        return "labs: no single value", "field 'age' holds a list"
    if what == "mapping in a field":
        rows[0]["age"] = {"years": 3}
        return "labs: no single value", "field 'age' holds a mapping"
    if what == "NaN as text":
        rows[0]["caption"] = float("nan")
        return "report: not a finite number", "'caption' is nan"
    if what == "NaN among texts":
        rows[0]["caption"] = ["fine", float("nan")]
        return "report: not a finite number", "'caption' is nan"
    if what == "mapping as text":
        rows[0]["history"] = {"a": 1}
        return "history: no text", "'history'"
    if what == "numbers as file":
        rows[0]["path"] = [[1.0, 2.0]]
        return "ecg: no file name", "kind vector"
    if what == "number as file":
        rows[0]["file"] = 7
        return "image: no file name", "a number"
    raise AssertionError(what)


SPOILT = [
    *("lost file", "folder as image", "folder as file", "damaged file", "pickle", "wrong rate", "path that climbs"),
    *("NaN in a table", "infinity in a table", "list in a field", "mapping in a field", "NaN as text"),
    *("NaN among texts", "mapping as text", "numbers as file", "number as file"),
]


@pytest.mark.parametrize("what", SPOILT)
def test_a_bad_row_is_named_with_its_modality_and_reason(tmp_path, rows, what):
    reason, detail = spoil(rows, tmp_path, what)
    manifest = build(tmp_path, rows)
    assert manifest.info["counts"] == {"read": 8, "kept": 5, "skipped": 3}
    bad = [line for line in skipped_of(tmp_path / "m") if line["reason"] == reason]
    assert [line["row"] for line in bad] == ["m.jsonl:1"]
    assert detail in bad[0]["detail"]
    with pytest.raises(DataRefused, match=f"1 of 6 rows .* are bad.*{reason}"):
        build(tmp_path, rows, out="strict", max_bad=0.01)


def test_without_a_spoilt_row_nothing_is_refused(tmp_path, rows):
    """The control of the test above."""
    assert build(tmp_path, rows, max_bad=0.0).info["counts"] == {"read": 8, "kept": 6, "skipped": 2}


@pytest.mark.parametrize(
    ("cell", "detail"),
    [
        ([1.0, float("nan"), 3.0], "number 2 is nan"),
        ([1.0, None, 3.0], "number 2 is null"),
        ([1.0, True, 3.0], "number 2 is True"),
        ("1 2 x", "number 3 is x"),
        ("[1, 2", "begins with ["),
        ({"a": 1}, "holds dict"),
        ([1.0, 2.0], "3 finite numbers"),
        ([[1.0, 2.0, 3.0], [1.0]], "3 finite numbers"),
        (float("nan"), "'v' is nan"),
    ],
)
def test_a_bad_vector_is_named(tmp_path, cell, detail):
    rows = [{"v": [1.0, 2.0, 3.0], "t": "a"}, {"v": cell, "t": "b"}, {"v": None, "t": "c"}, {"v": [4, 5, 6], "t": "d"}]
    table = write_jsonl(tmp_path / "t.jsonl", rows)
    words = ["v=vector:v", "t=text:t"]
    manifest = read_table(table, tmp_path / "m", modality=words, min_present=1, max_bad=0.5)
    assert manifest.cells("v") == [[[1, 2, 3]], None, [[4, 5, 6]]]
    (bad,) = skipped_of(tmp_path / "m")
    assert bad["row"] == "t.jsonl:2"
    assert bad["reason"].startswith("v: ")
    assert detail in bad["detail"]


def test_words_for_nothing_are_absent_and_a_missing_word_in_numbers_is_a_bad_row(tmp_path, rows):
    """The text "n/a" in a CSV is an empty cell; "12 years" among ages is a bad row, and does not make ages words."""
    many = [{"t": f"text {n}", "age": n, "site": "AB"[n % 2]} for n in range(30)]
    many[3]["age"], many[4]["age"], many[5]["site"] = "n/a", "12 years", "nan"
    table = write_csv(tmp_path / "ages.csv", many)
    manifest = read_table(table, tmp_path / "ages", modality=["t=text:t", "labs=table:age,site"], max_bad=0.1)
    assert manifest.spec("labs").params == {"columns": ["age", "site"], "categories": ["site"]}
    (bad,) = skipped_of(tmp_path / "ages")
    assert (bad["row"], bad["reason"]) == ("ages.csv:6", "labs: not a number")
    assert "categories=age" in bad["detail"]
    assert manifest.cells("labs")[3:5] == [[{"age": None, "site": "B"}], [{"age": 5.0, "site": None}]]
    words = ["t=text:t", "labs=table:age,site,categories=age"]
    named = read_table(table, tmp_path / "named", modality=words, max_bad=0.0)
    assert named.cells("labs")[4] == [{"age": "12 years", "site": "A"}]


# ---- the same class for version 1 -----------------------------------------------------------------------------------


def test_version_1_gives_the_same_answers(pairs, tmp_path):
    """The same table once as pairs and once as modalities: presence, cells and contents are equal."""
    table = pairs(4)
    old = read_table(table, tmp_path / "old", group_key="case", label_keys="region")
    words = ["image=image:image", "text=text:caption"]
    new = read_table(table, tmp_path / "new", modality=words, group_key="case", label_keys="region")
    assert (old.version, new.version) == (1, 2)
    assert old.modalities == new.modalities == ("image", "text")
    assert old.contents() == new.contents()
    for name in old.modalities:
        assert old.cells(name) == new.cells(name)
        assert old.presence()[name].tolist() == new.presence()[name].tolist() == [True] * 4
        assert old.spec(name).kind == new.spec(name).kind
    assert old.first_captions == new.first_captions
    assert [old.image_path(row) for row in range(4)] == [new.image_path(row) for row in range(4)]
    kept = read_table(table, tmp_path / "kept", missing="keep", group_key="case", label_keys="region")
    assert kept.fingerprint == new.fingerprint
    keys = {"image_key": "image", "caption_key": "caption", "modality": ["more=text:region"]}
    assert read_table(table, tmp_path / "more", **keys).modalities == ("image", "text", "more")


def test_without_modalities_version_1_is_written_as_ever(pairs, tmp_path):
    info = read_table(pairs(3), tmp_path / "m").info
    assert info["version"] == 1
    assert info["modalities"] == ["image", "text"]
    assert "presence" not in info


# ---- split, damage, resume ------------------------------------------------------------------------------------------


def test_a_split_keeps_cells_and_presence(tmp_path, rows):
    source = build(tmp_path, rows)
    made = split_manifest(source, tmp_path / "split", fractions=(0.5, 0.0, 0.5))
    assert made.info["presence"]["patterns"] == source.info["presence"]["patterns"]
    order = [made.table["id"].to_pylist().index(id) for id in source.table["id"].to_pylist()]
    for name in NAMES:
        assert [made.cells(name)[row] for row in order] == source.cells(name)


def test_a_copy_of_any_file_joins_groups(tmp_path, rows):
    """Patients p0 and p2 share an ECG: one split holds both, whatever the seed; without it, the control, not."""
    rows = [row for row in rows if row["path"] and row["file"]]
    (tmp_path / "4.npy").write_bytes((tmp_path / "0.npy").read_bytes())

    def parted(manifest: Manifest) -> bool:
        made = [
            split_manifest(manifest, tmp_path / f"{manifest.path.name}-{seed}", (0.5, 0.0, 0.5), seed=seed)
            for seed in range(6)
        ]
        splits = [dict(zip(m.table["id"].to_pylist(), m.table["split"].to_pylist(), strict=True)) for m in made]
        return any(split["0.png"] != split["4.png"] for split in splits)

    assert not parted(build(tmp_path, rows, out="copied"))
    write_signal(tmp_path / "4.npy", 4)
    assert parted(build(tmp_path, rows, out="apart"))


def test_without_a_group_rows_of_the_same_first_file_share_one(tmp_path):
    noise_image(1).save(tmp_path / "a.png")
    (tmp_path / "b.png").write_bytes((tmp_path / "a.png").read_bytes())
    rows = [{"i": "a.png", "t": "x"}, {"i": "b.png", "t": "y"}, {"i": None, "t": "z"}, {"i": None, "t": "z"}]
    words = ["image=image:i", "t=text:t"]
    manifest = read_table(write_jsonl(tmp_path / "t.jsonl", rows), tmp_path / "m", modality=words, min_present=1)
    groups = manifest.table["group"].to_pylist()
    assert groups[0] == groups[1]
    assert len(set(groups)) == 3


def test_a_file_that_changes_while_it_is_built_refuses_the_manifest(tmp_path, rows, monkeypatch):
    from gapless.manifest.writer import ManifestWriter

    finish = ManifestWriter.finish

    def change(*args: Any, **more: Any) -> None:
        finish(*args, **more)
        write_signal(tmp_path / "3.npy", 99)

    monkeypatch.setattr(ManifestWriter, "finish", change)
    with pytest.raises(DataRefused, match=r"3\.npy has changed"):
        build(tmp_path, rows)
    monkeypatch.undo()


@pytest.mark.parametrize("store_images", [False, True])
def test_an_interrupted_build_continues_by_content(tmp_path, rows, monkeypatch, store_images):
    """After an interruption only what has changed since is checked again; without one, the control, everything is."""
    from gapless.manifest import verify_views
    from gapless.manifest.build import _Books

    monkeypatch.setattr("gapless.manifest.build.ROWS_PER_CHUNK", 2)
    checked: list[str] = []
    original = verify_views._check_file

    def check(spec: Any, view: Any, *more: Any) -> dict[str, Any]:
        checked.append(view.name)
        return original(spec, view, *more)

    monkeypatch.setattr(verify_views, "_check_file", check)
    enter = _Books.enter

    def interrupt(books: _Books, row: Any, result: Any) -> None:
        if row.id == "s7":
            raise KeyboardInterrupt
        enter(books, row, result)

    monkeypatch.setattr(_Books, "enter", interrupt)
    with pytest.raises(KeyboardInterrupt):
        build(tmp_path, rows, store_images=store_images, id_key="name")
    monkeypatch.setattr(_Books, "enter", enter)
    assert checked == ["0.npy", "3.npy", "4.npy", "7.npy"]
    checked.clear()
    write_signal(tmp_path / "3.npy", 77)
    continued = build(tmp_path, rows, store_images=store_images, id_key="name")
    assert checked == ["3.npy"]
    checked.clear()
    fresh = build(tmp_path, rows, out="fresh", store_images=store_images, id_key="name")
    assert checked == ["0.npy", "3.npy", "4.npy", "7.npy"]
    assert continued.fingerprint == fresh.fingerprint


def test_other_params_begin_anew(tmp_path, rows):
    from gapless.manifest.manifest import Manifest as Read

    plain = build(tmp_path, rows)
    other = build(tmp_path, rows, [*WORDS[:4], "ecg=signal:path"], out="other")
    assert plain.spec("ecg").params == {"rate": 500}
    assert other.spec("ecg").params == {}
    info = json.loads((plain.path / "manifest.json").read_text())
    del info["modalities"]["ecg"]["kind"]
    (plain.path / "manifest.json").write_text(json.dumps(info))
    with pytest.raises(DataRefused, match="does not describe its modality 'ecg'"):
        Read.read(plain.path)


def test_worker_processes_give_the_same_manifest(tmp_path):
    """Kinds that are in gapless itself, since stand-ins are not known in other processes."""
    rows = [{"i": f"{n}.png", "t": f"text {n}", "v": [n, 1.5]} for n in range(70)]
    for n in range(70):
        noise_image(n).save(tmp_path / f"{n}.png")
    rows[5]["i"], rows[6]["v"], rows[7]["i"] = "gone.png", None, None
    table = write_jsonl(tmp_path / "t.jsonl", rows)
    words = ["image=image:i", "t=text:t", "v=vector:v"]
    one, two = (read_table(table, tmp_path / f"w{n}", modality=words, workers=n, max_bad=0.1) for n in (1, 2))
    assert one.fingerprint == two.fingerprint
    assert one.info["counts"] == {"read": 70, "kept": 69, "skipped": 1}
