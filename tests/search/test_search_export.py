"""`gapless index export`: the file holds what was indexed, read by other tools, and appears whole or not at all."""

import csv
import json

import numpy as np
import pytest

pytest.importorskip("lancedb", reason="needs the extra 'search'")

import pyarrow.parquet as pq
from search_samples import collection_of, embedding_set, keyed, unit_rows

from gapless.cli.main import main
from gapless.core.errors import UsageError
from gapless.search import export, export_collection
from gapless.search.collection import Collection

AWKWARD = 'said "no",\nthen = 1 ümlaut'


@pytest.fixture(scope="module")
def held(tmp_path_factory):
    """A collection of 40 samples, image and text, of which three lack the text; and the set that it was made of."""
    embeddings = embedding_set(
        {"image": unit_rows(40), "text": unit_rows(40, seed=1)},
        captions=[AWKWARD, "", *(f"caption {row}" for row in range(2, 40))],
        groups=[f"case {row // 2}" for row in range(40)],
        splits=["test" if row % 4 == 0 else "train" for row in range(40)],
        labels={"age": [str(row) for row in range(40)], "vector": ["left", None] * 20, "ID": ["x"] * 40},
        present={"text": np.arange(40) >= 3},
    )
    uri = tmp_path_factory.mktemp("export") / "c"
    collection_of(uri, embeddings)
    return uri, embeddings


def as_lines(path):
    with path.open(newline="", encoding="utf-8") as stream:
        return list(csv.DictReader(stream))


def test_parquet_holds_every_row_as_it_was_indexed(held, tmp_path):
    uri, embeddings = held
    exported = export_collection(uri, out=tmp_path / "rows.parquet")
    table = pq.read_table(exported.export)
    assert exported.rows == len(table) == 77
    assert exported.columns == table.column_names
    vectors = dict(zip(table["row"].to_pylist(), table["vector"].to_pylist(), strict=True))
    expected = keyed(embeddings)
    for absent in embeddings.ids[:3]:
        del expected[f"{absent}/text"]
    assert set(vectors) == set(expected)
    for key, vector in vectors.items():
        assert np.array_equal(np.float32(vector), expected[key])
    by_id = {row["id"]: row for row in table.to_pylist() if row["modality"] == "image"}
    for row, sample in enumerate(embeddings.ids):
        assert by_id[sample]["caption"] == (embeddings.captions[row] or None)
        assert by_id[sample]["group"] == embeddings.groups[row]
        assert by_id[sample]["split"] == embeddings.splits[row]
        assert by_id[sample]["age"] == str(row)
        assert by_id[sample]["label_vector"] == embeddings.labels["vector"][row]  # `vector` is the embedding
        assert by_id[sample]["label_ID"] == "x"
    about = json.loads(table.schema.metadata[b"gapless"])
    assert about["model"] == Collection.open(uri).info["model"]


def test_csv_says_the_same_as_parquet(held, tmp_path):
    uri, _ = held
    export_collection(uri, out=tmp_path / "rows.parquet")
    export_collection(uri, out=tmp_path / "rows.CSV")
    table, lines = pq.read_table(tmp_path / "rows.parquet"), as_lines(tmp_path / "rows.CSV")
    assert list(lines[0]) == table.column_names
    assert len(lines) == len(table)
    for line, row in zip(lines, table.to_pylist(), strict=True):
        assert np.array_equal(np.float32(json.loads(line.pop("vector"))), np.float32(row.pop("vector")))
        assert line.pop("has_thumbnail") == str(row.pop("has_thumbnail")).lower()
        assert line == {name: value or "" for name, value in row.items()}
    assert AWKWARD in {line["caption"] for line in lines}


def test_a_filter_and_no_vectors_by_the_command(held, tmp_path, capsys):
    uri, embeddings = held
    words = ["index", "export", str(uri), "--out", str(tmp_path / "old" / "r.csv"), "--no_vectors"]
    assert main([*words, "--where", "modality = 'image' AND age > 35", "--json"]) == 0
    printed = json.loads(capsys.readouterr().out)
    lines = as_lines(tmp_path / "old" / "r.csv")
    assert {line["id"] for line in lines} == set(embeddings.ids[36:])
    assert printed["rows"] == 4
    assert "vector" not in printed["columns"]
    called = export_collection(
        uri, out=tmp_path / "old" / "r.csv", where="modality = 'image' AND age > 35", vectors=False
    )
    assert called.as_json() == printed
    assert main([*words, "--where", "age > 1000"]) == 0
    assert "0 rows" in capsys.readouterr().out
    assert as_lines(tmp_path / "old" / "r.csv") == []


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--out", "rows.xlsx"], ".csv or .parquet"),
        (["--out", "rows.csv", "--where", "aeg > 3"], "did you mean"),
        (["--out", "folder.csv"], "is a directory"),
    ],
)
def test_what_cannot_be_is_refused_before_a_file_is_there(held, tmp_path, monkeypatch, capsys, words, said):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "folder.csv").mkdir()
    assert main(["index", "export", str(held[0]), *words]) == 2
    assert said in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["folder.csv"]
    with pytest.raises(UsageError, match="does not exist"):
        export_collection(tmp_path / "nothing", out=tmp_path / "x.csv")


@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
def test_a_failure_in_the_middle_leaves_the_old_file(held, tmp_path, monkeypatch, suffix):
    path = tmp_path / f"rows{suffix}"
    path.write_text("the old one")

    def breaks(*args):
        yield from list(export_rows(*args))[:1]
        raise OSError(28, "No space left on device")

    export_rows = export.read_rows
    monkeypatch.setattr(export, "read_rows", breaks)
    with pytest.raises(OSError, match="No space"):
        export_collection(held[0], out=path)
    assert path.read_text() == "the old one"
    assert list(tmp_path.iterdir()) == [path]
