"""Embeddings to datasets, LanceDB, faiss and the projector and back: the same rows, ids, columns and absences."""

import csv

import numpy as np
import pytest

from gapless.core.errors import DataRefused, UsageError
from gapless.embeddings import EmbeddingSet
from gapless.interop import (
    from_dataset,
    from_faiss,
    from_lance,
    read_projector,
    to_dataset,
    to_faiss,
    to_lance,
    write_projector,
)


def unit(rows):
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


@pytest.fixture
def embeddings():
    random = np.random.default_rng(0)
    return EmbeddingSet(
        ids=[f"s{row}" for row in range(9)],
        embeddings={name: unit(random.normal(size=(9, 5))) for name in ("image", "text")},
        groups=[f"case {row // 3}" for row in range(9)],
        splits=["train", "test", "test"] * 3,
        captions=["two\twords"] + [f"caption {row}" for row in range(1, 9)],
        labels={"organ": ["lung", "liver", ""] * 3},
        present={"text": np.arange(9) != 4},
    )


def check_same(back, embeddings, spaces=False):
    assert back.ids == embeddings.ids
    assert back.modalities == embeddings.modalities
    for name, mask in embeddings.presence.items():
        assert np.array_equal(back.presence[name], mask)
        assert np.array_equal(back.embeddings[name][mask], embeddings.embeddings[name][mask])
        assert back.embeddings[name].dtype == np.float32
    assert (back.groups, back.splits) == (embeddings.groups, embeddings.splits)
    assert back.captions == [text.replace("\t", " ") if spaces else text for text in embeddings.captions]
    assert [value or "" for value in back.labels["organ"]] == embeddings.labels["organ"]


def test_datasets_and_back(embeddings, tmp_path):
    datasets = pytest.importorskip("datasets", reason="datasets is not installed")
    dataset = to_dataset(embeddings)
    assert dataset[4]["text"] is None
    assert np.array_equal(np.float32(dataset[2]["image"]), embeddings.embeddings["image"][2])
    dataset.save_to_disk(tmp_path / "d")
    check_same(from_dataset(datasets.load_from_disk(tmp_path / "d").with_format("torch")), embeddings)
    chosen = from_dataset(dataset.filter(lambda row: row["organ"] == "liver"))  # a selection, not the whole table
    assert chosen.ids == ["s1", "s4", "s7"]


def test_two_columns_of_one_name_are_refused():
    pytest.importorskip("datasets", reason="datasets is not installed")
    with pytest.raises(UsageError, match="'id'"):
        to_dataset(EmbeddingSet(["a", "b"], {"image": np.eye(2), "text": np.eye(2)}, labels={"id": ["x", "y"]}))


def test_lance_and_back(embeddings, tmp_path):
    pytest.importorskip("lancedb", reason="lancedb is not installed")
    table = to_lance(embeddings, tmp_path / "db", "rows")
    nearest = table.search(embeddings.embeddings["image"][3], vector_column_name="image").limit(1).to_list()
    assert nearest[0]["id"] == "s3"
    check_same(from_lance(tmp_path / "db", "rows"), embeddings)


def test_faiss_finds_by_cosine_and_gives_the_rows_back(embeddings):
    pytest.importorskip("faiss", reason="faiss is not installed")
    index = to_faiss(embeddings, "text")
    queries = embeddings.embeddings["image"]
    scores, numbers = index.search(queries, 8)
    cosines = queries @ embeddings.embeddings["text"].T
    cosines[:, 4] = -np.inf  # absent
    order = np.argsort(-cosines, axis=1)[:, :8]
    assert np.array_equal(numbers, order)
    assert np.allclose(scores, np.take_along_axis(cosines, order, axis=1), atol=1e-6)
    assert np.allclose(from_faiss(index), np.delete(embeddings.embeddings["text"], 4, axis=0), atol=1e-6)
    with pytest.raises(UsageError, match="image, text"):
        to_faiss(embeddings, "report")


def test_the_projector_and_back(embeddings, tmp_path):
    write_projector(embeddings, tmp_path / "p")
    with (tmp_path / "p" / "metadata.tsv").open(encoding="utf-8") as stream:
        lines = list(csv.reader(stream, delimiter="\t"))
    assert lines[0] == ["id", "modality", "group", "split", "caption", "organ"]
    assert len(lines) == 1 + 17
    assert len((tmp_path / "p" / "tensors.tsv").read_text().splitlines()) == 17
    assert 'metadata_path: "metadata.tsv"' in (tmp_path / "p" / "projector_config.pbtxt").read_text()
    check_same(read_projector(tmp_path / "p"), embeddings, spaces=True)


def test_the_projector_refuses_what_it_cannot_show_or_read(embeddings, tmp_path):
    wide = EmbeddingSet(["a", "b"], {"image": np.eye(2), "text": np.eye(2, 3)})
    with pytest.raises(UsageError, match="different sizes"):
        write_projector(wide, tmp_path / "w")
    with pytest.raises(UsageError, match=r"tensors\.tsv does not exist"):
        read_projector(tmp_path / "nothing")
    write_projector(embeddings, tmp_path / "p")
    text = (tmp_path / "p" / "tensors.tsv").read_text()
    (tmp_path / "p" / "tensors.tsv").write_text(text.split("\n", 1)[1])
    with pytest.raises(DataRefused, match="has 16 lines"):
        read_projector(tmp_path / "p")
