"""Embeddings on disk: written by shard, resumed, checked, joined; plain arrays taken or refused."""

import json
import pickle
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from safetensors.numpy import save_file

from gapless.core.errors import DataRefused, UsageError
from gapless.embeddings.array_sets import read_arrays
from gapless.embeddings.store import EmbeddingsWriter, read_embeddings

INFO = {"model": "abc", "data": "def"}


def matrices(n=10, dim=4, seed=0, dtype=np.float32):
    generator = np.random.default_rng(seed)
    return {name: generator.normal(size=(n, dim)).astype(dtype) for name in ("image", "text")}


def columns(start, stop):
    rows = range(start, stop)
    return {
        "id": [f"r{row}" for row in rows],
        "group": [f"g{row // 2}" for row in rows],
        "split": ["train" if row < 6 else "test" for row in rows],
        "captions": [[f"caption {row}", "another"] for row in rows],
        "finding": [None if row == 3 else f"f{row % 3}" for row in rows],
    }


def write(path, values, shards=None, info=INFO, **options):
    writer = EmbeddingsWriter(path, num_rows=len(values["image"]), info=info, shard_size=4, **options)
    for shard in writer.pending()[:shards]:
        part = {name: matrix[shard.start : shard.stop] for name, matrix in values.items()}
        writer.write(shard, part, columns(shard.start, shard.stop))
    return writer.finish()


@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_what_is_written_is_read(tmp_path, dtype):
    values = matrices()
    assert write(tmp_path / "emb", values, dtype=dtype)
    found = read_embeddings(tmp_path / "emb")
    for name, matrix in values.items():
        assert found.embeddings[name].dtype == dtype
        assert np.array_equal(found.embeddings[name], matrix.astype(dtype))
    assert found.ids == [f"r{row}" for row in range(10)]
    assert found.groups[:3] == ["g0", "g0", "g1"]
    assert found.captions[1] == "caption 1"
    assert found.labels == {"finding": columns(0, 10)["finding"]}
    assert found.info == INFO
    assert found.select("test").ids == ["r6", "r7", "r8", "r9"]
    with pytest.raises(UsageError, match="no split 'dev'; known: test, train"):
        found.select("dev")


def test_an_interrupted_run_resumes_at_the_first_missing_shard(tmp_path):
    values = matrices()
    assert not write(tmp_path / "emb", values, shards=2)
    with pytest.raises(UsageError, match="unfinished \\(2 of 3 shards\\)"):
        read_embeddings(tmp_path / "emb")
    before = (tmp_path / "emb" / "shard-00000.safetensors").stat().st_mtime_ns
    # a shard without its checksums was being written when the run died: it is written again
    (tmp_path / "emb" / "shard-00001.json").unlink()
    (tmp_path / "emb" / "shard-00001.safetensors").write_bytes(b"half")
    writer = EmbeddingsWriter(tmp_path / "emb", num_rows=10, info=INFO, shard_size=4)
    assert [shard.index for shard in writer.pending()] == [1, 2]
    assert write(tmp_path / "emb", values)
    assert (tmp_path / "emb" / "shard-00000.safetensors").stat().st_mtime_ns == before
    assert np.array_equal(read_embeddings(tmp_path / "emb").embeddings["text"], values["text"])


def test_several_processes_share_the_shards(tmp_path):
    writers = [EmbeddingsWriter(tmp_path / "emb", num_rows=100, info=INFO, shard_size=7) for _ in range(3)]
    parts = [[shard.index for shard in writer.pending(part, 3)] for part, writer in enumerate(writers)]
    assert sorted(index for part in parts for index in part) == list(range(15))
    assert not writers[0].finish()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"info": {"model": "other", "data": "def"}},
            "differing: info.model \\('abc', now 'other'\\); choose another --out",
        ),
        ({"dtype": "float16"}, "differing: dtype \\('float32', now 'float16'\\)"),
    ],
)
def test_other_embeddings_are_not_continued(tmp_path, change, message):
    write(tmp_path / "emb", matrices(), shards=1)
    with pytest.raises(UsageError, match=message):
        write(tmp_path / "emb", matrices(), **change)


def test_a_directory_in_use_is_not_written_into(tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(UsageError, match="is in use"):
        write(tmp_path, matrices())
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]


def test_the_writer_refuses_what_could_not_be_used(tmp_path):
    broken = matrices()
    broken["text"][5, 1] = np.nan
    with pytest.raises(DataRefused, match=r"text: 1 of 4 rows hold NaN.*\(r5\)"):
        write(tmp_path / "nan", broken)
    huge = matrices()
    huge["image"][0] = 1e6
    with pytest.raises(DataRefused, match="too large for the precision"):
        write(tmp_path / "huge", huge, dtype="float16")
    with pytest.raises(UsageError, match="float16 or float32, not int8"):
        write(tmp_path / "int", matrices(), dtype="int8")
    writer = EmbeddingsWriter(tmp_path / "short", num_rows=4, info={}, shard_size=4)
    with pytest.raises(ValueError, match="takes 4 rows"):
        writer.write(writer.pending()[0], matrices(3), columns(0, 4))


def test_a_flipped_bit_is_found(tmp_path):
    write(tmp_path / "emb", matrices())
    shard = tmp_path / "emb" / "shard-00001.safetensors"
    content = bytearray(shard.read_bytes())
    content[-1] ^= 1
    shard.write_bytes(content)
    with pytest.raises(DataRefused, match=r"shard-00001\.safetensors is damaged"):
        read_embeddings(tmp_path / "emb")
    shard.unlink()
    with pytest.raises(DataRefused, match=r"shard-00001\.safetensors is missing"):
        read_embeddings(tmp_path / "emb")


def test_sets_of_the_same_modalities_are_put_end_to_end(tmp_path):
    write(tmp_path / "a", matrices())
    other = matrices(3, seed=1)
    np.savez(tmp_path / "b.npz", ids=["x", "y", "z"], group=["g0", "u", "u"], split=["test"] * 3, **other)
    found = read_embeddings(tmp_path / "a", tmp_path / "b.npz")
    assert found.ids[-4:] == ["r9", "x", "y", "z"]
    assert np.array_equal(found.embeddings["image"][10:], other["image"])
    assert found.groups[-1] == "u"
    assert found.labels["finding"][9:] == [columns(9, 10)["finding"][0], None, None, None]  # only one has the column
    assert "b.npz has no label 'finding'" in found.notes[0]
    with pytest.raises(DataRefused, match="10 ids occur more than once"):
        read_embeddings(tmp_path / "a", tmp_path / "a")


def test_rows_without_ids_are_numbered_through(tmp_path):
    for name in "ab":
        np.savez(tmp_path / f"{name}.npz", **matrices(3))
    assert read_embeddings(tmp_path / "a.npz", tmp_path / "b.npz").ids == list("012345")
    np.savez(tmp_path / "image.npz", image=matrices(3)["image"])
    np.savez(tmp_path / "text.npz", text=matrices(3)["text"])
    assert read_embeddings(tmp_path / "image.npz", tmp_path / "text.npz").modalities == ("image", "text")


def test_sets_of_other_modalities_are_joined_by_id(tmp_path):
    values = matrices()
    ids = np.array([f"r{row}" for row in range(10)])
    order = np.random.default_rng(0).permutation(10)
    np.savez(tmp_path / "image.npz", image=values["image"], ids=ids)
    np.savez(tmp_path / "text.npz", text=values["text"][order], ids=ids[order])
    found = read_embeddings(tmp_path / "image.npz", tmp_path / "text.npz")
    assert np.array_equal(found.embeddings["text"], values["text"])
    np.savez(tmp_path / "text.npz", text=values["text"], ids=np.array([f"q{row}" for row in range(10)]))
    with pytest.raises(DataRefused, match=r"ids do not match: 10 only in the first \(r0, r1"):
        read_embeddings(tmp_path / "image.npz", tmp_path / "text.npz")
    np.savez(tmp_path / "more.npz", ids=ids, **values)
    with pytest.raises(UsageError, match="they share image"):
        read_embeddings(tmp_path / "image.npz", tmp_path / "more.npz")


def store(path, matrix, name="rows"):
    """One matrix in any of the formats."""
    if path.suffix == ".npy":
        np.save(path, matrix)
    elif path.suffix == ".npz":
        np.savez(path, **{name: matrix})
    elif path.suffix == ".safetensors":
        save_file({name: matrix}, path)
    else:
        pq.write_table(pa.table({name: [row.tolist() for row in matrix]}), path)
    return path


@pytest.mark.parametrize("suffix", [".npy", ".npz", ".safetensors", ".parquet"])
def test_plain_arrays_of_every_format(tmp_path, suffix):
    values = matrices()
    paths = {name: store(tmp_path / f"{name}{suffix}", matrix) for name, matrix in values.items()}
    (tmp_path / "labels.txt").write_text("\n".join("ab" * 5) + "\n")
    (tmp_path / "groups.txt").write_text("\n".join("vwxyz" * 2))
    found = read_arrays(paths, labels=tmp_path / "labels.txt", groups=tmp_path / "groups.txt")
    for name, matrix in values.items():
        assert np.allclose(found.embeddings[name], matrix)
    assert found.labels == {"label": list("ab" * 5)}
    assert found.groups == list("vwxyz" * 2)
    assert len(found.ids) == 10


def test_a_parquet_file_holds_modalities_and_their_columns(tmp_path):
    values = matrices()
    fixed = pa.FixedSizeListArray.from_arrays(pa.array(values["text"].ravel()), 4)
    table = pa.table({"image": [row.tolist() for row in values["image"]], "text": fixed, **columns(0, 10)})
    pq.write_table(table, tmp_path / "all.parquet", row_group_size=3)
    found = read_embeddings(tmp_path / "all.parquet")
    assert np.allclose(found.embeddings["image"], values["image"])
    assert np.array_equal(found.embeddings["text"], values["text"])
    assert found.captions[2] == "caption 2"
    assert found.labels["finding"][3] is None


def test_the_embeddings_of_a_run_are_taken_with_their_ids(tmp_path):
    ids = [f"r{row}" for row in range(10)]
    save_file(matrices(), tmp_path / "embeddings.safetensors", metadata={"ids": json.dumps(ids)})
    assert read_embeddings(tmp_path / "embeddings.safetensors").ids == ids


def test_big_plain_arrays_stay_on_the_disk(tmp_path):
    paths = {name: store(tmp_path / f"{name}.npy", matrix) for name, matrix in matrices().items()}
    found = read_arrays(paths)
    assert all(isinstance(matrix, np.memmap) for matrix in found.embeddings.values())


class Trap:
    """Unpickling this leaves a file behind."""

    def __init__(self, mark):
        self.mark = mark

    def __reduce__(self):
        return (Path.touch, (self.mark,))


@pytest.mark.parametrize("suffix", [".npy", ".npz"])
def test_objects_are_refused_unread(tmp_path, suffix):
    trap = np.empty((3, 2), dtype=object)
    trap[:] = Trap(tmp_path / "sprung")
    good = store(tmp_path / "good.npy", matrices(3, 2)["image"])
    bad = store(tmp_path / f"bad{suffix}", trap)
    with pytest.raises(DataRefused, match="Python objects, which are refused unread"):
        read_arrays({"image": good, "text": bad})
    assert not (tmp_path / "sprung").exists()
    trusting = np.load(bad, allow_pickle=True)  # the control: a trusting reader springs it
    if suffix == ".npz":
        assert len(trusting["rows"]) == 3
        trusting.close()
    assert (tmp_path / "sprung").exists()
    (tmp_path / "text.npy").write_bytes(pickle.dumps([1.0]))
    with pytest.raises(DataRefused, match=r"cannot be read as \.npy"):
        read_arrays({"image": good, "text": tmp_path / "text.npy"})


def nan_row(values):
    values["text"][[1, 4]] = np.nan


def zero_row(values):
    values["image"][7] = 0


def fewer_rows(values):
    values["text"] = values["text"][:9]


def integers(values):
    values["text"] = values["text"].astype(np.int32)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (nan_row, r"text: 2 of 10 rows hold NaN or infinite values \(1, 4\)"),
        (zero_row, r"image: 1 of 10 rows are all zeros and have no direction \(7\)"),
        (fewer_rows, r"row counts differ: image 10 \(.*\), text 9 \("),
        (integers, "holds int32 numbers; embeddings are floating point"),
    ],
)
def test_arrays_that_must_not_be_measured_are_refused(tmp_path, damage, message):
    values = matrices()
    damage(values)
    paths = {name: store(tmp_path / f"{name}.npy", matrix) for name, matrix in values.items()}
    with pytest.raises(DataRefused, match=message):
        read_arrays(paths)


def test_files_that_are_no_arrays_are_refused_in_one_sentence(tmp_path):
    good = store(tmp_path / "good.npy", matrices()["image"])
    with pytest.raises(UsageError, match=r"missing\.npy does not exist"):
        read_arrays({"image": good, "text": tmp_path / "missing.npy"})
    for name, content in (("text.csv", b"1,2"), ("text.npy", b"nothing"), ("text.npz", b"PK"), ("text.parquet", b"")):
        (tmp_path / name).write_bytes(content)
        with pytest.raises((UsageError, DataRefused), match=r"is of no known format|cannot be read as"):
            read_arrays({"image": good, "text": tmp_path / name})
    (tmp_path / "text.safetensors").write_bytes(b"\xff" * 20)
    with pytest.raises(DataRefused, match=r"cannot be read as \.safetensors"):
        read_arrays({"image": good, "text": tmp_path / "text.safetensors"})
    np.savez(tmp_path / "two.npz", a=matrices()["image"], b=matrices()["text"])
    with pytest.raises(DataRefused, match="or one named 'text', found a, b"):
        read_arrays({"image": good, "text": tmp_path / "two.npz"})
    pq.write_table(pa.table({"text": [[1.0, 2.0], [1.0]]}), tmp_path / "uneven.parquet")
    with pytest.raises(DataRefused, match=r"rows of different lengths \(row 1: 1, not 2\)"):
        read_arrays({"text": tmp_path / "uneven.parquet"})
    with pytest.raises(UsageError, match="is no embeddings directory"):
        read_embeddings(tmp_path)
    with pytest.raises(UsageError, match="does not exist"):
        read_embeddings(tmp_path / "nowhere")


def test_labels_and_groups_have_one_line_per_row(tmp_path):
    paths = {name: store(tmp_path / f"{name}.npy", matrix) for name, matrix in matrices().items()}
    (tmp_path / "labels.txt").write_text("a\nb\n")
    with pytest.raises(DataRefused, match=r"has 2 labels, the embeddings have 10 rows"):
        read_arrays(paths, labels=tmp_path / "labels.txt")
    (tmp_path / "labels.txt").write_text("a\n\n" * 5)
    assert read_arrays(paths, labels=tmp_path / "labels.txt").labels["label"] == ["a", ""] * 5
    with pytest.raises(DataRefused, match=r"5 of 10 rows have no group \(row 1, "):
        read_arrays(paths, groups=tmp_path / "labels.txt")
    np.save(tmp_path / "labels.npy", np.arange(10))
    assert read_arrays(paths, labels=tmp_path / "labels.npy").labels["label"][9] == "9"
