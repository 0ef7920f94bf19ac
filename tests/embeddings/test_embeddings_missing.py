"""Rows that lack a modality: rows of NaN, nulls, ids that one file lacks, masks; kept, dropped or refused."""

import json
import re

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from gapless.core.errors import DataRefused, UsageError
from gapless.embeddings import EmbeddingSet, EmbeddingsWriter, read_embeddings, read_rows

NUM_ROWS = 8
ABSENT = {"image": [1, 5], "text": [5, 6], "ecg": [0, 1, 5]}  # row 1 has a text alone, row 5 nothing
OPTION = r"--missing keep takes them as absent, --missing drop leaves out their rows"


def matrices(seed=0):
    random = np.random.default_rng(seed)
    return {name: random.standard_normal((NUM_ROWS, 4)).astype(np.float32) for name in ABSENT}


def with_nan(arrays):
    holed = {name: matrix.copy() for name, matrix in arrays.items()}
    for name, rows in ABSENT.items():
        holed[name][rows] = np.nan
    return holed


def stored(folder, arrays):
    for name, matrix in arrays.items():
        np.save(folder / f"{name}.npy", matrix)
    return {name: folder / f"{name}.npy" for name in arrays}


def check_kept(rows):
    """What every way of reading the same absent rows must give with `keep`."""
    assert rows.ids == [str(row) for row in (0, 2, 3, 4, 6, 7)]
    expected = {"image": [1] * 6, "text": [1, 1, 1, 1, 0, 1], "ecg": [0, 1, 1, 1, 1, 1]}
    assert {name: mask.astype(int).tolist() for name, mask in rows.presence.items()} == expected
    for name, mask in rows.presence.items():
        own = np.array([0, 2, 3, 4, 6, 7])[mask]
        np.testing.assert_array_equal(rows.embeddings[name][mask], matrices()[name][own])
    assert any("2 of 8 rows have fewer than 2 modalities" in note and "(1, 5)" in note for note in rows.notes)
    lacking = ("(text 1, ecg 1)", "(ecg 1, text 1)")  # a directory lists its modalities by name
    assert any("2 of 6 rows lack a modality" in note and any(one in note for one in lacking) for note in rows.notes)


def test_rows_of_nan_are_refused_kept_or_dropped(tmp_path):
    files = stored(tmp_path, with_nan(matrices()))
    with pytest.raises(DataRefused, match=rf"image: 2 of 8 rows hold NaN or infinite values \(1, 5\); {OPTION}"):
        read_rows(files)
    check_kept(read_rows(files, missing="keep"))
    dropped = read_rows(files, missing="drop")
    assert dropped.ids == ["2", "3", "4", "7"]
    assert dropped.present is None
    assert "4 of 8 rows lack a modality (image 2, text 2, ecg 3) and are left out" in dropped.notes
    with pytest.raises(UsageError, match="unknown way with missing rows 'omit'"):
        read_rows(files, missing="omit")


def test_nothing_missing_is_as_without_the_option(tmp_path):
    files = stored(tmp_path, matrices())
    for missing in (None, "keep", "drop"):
        rows = read_rows(files, missing=missing)
        assert (rows.present, rows.notes, len(rows)) == (None, (), NUM_ROWS)


@pytest.mark.parametrize(
    ("value", "message"),
    [([np.nan, 1, 1, 1], "some NaN or infinite"), ([np.inf] * 4, "some NaN or inf"), ([0] * 4, "all zeros")],
)
def test_broken_rows_stay_refused(tmp_path, value, message):
    arrays = with_nan(matrices())
    arrays["text"][3] = value
    files = stored(tmp_path, arrays)
    for missing in ("keep", "drop"):
        with pytest.raises(DataRefused, match=rf"text: 1 of 8 rows .*{message}.*\(3\)"):
            read_rows(files, missing=missing)


def test_an_infinite_row_is_not_advised_to_be_kept(tmp_path):
    arrays = matrices()
    arrays["text"][3] = np.inf
    with pytest.raises(DataRefused) as refusal:
        read_rows(stored(tmp_path, arrays))
    assert "--missing" not in str(refusal.value)


@pytest.mark.parametrize("fixed", [True, False])
@pytest.mark.parametrize("chunk", [None, 3])
def test_nulls_of_parquet_are_absent(tmp_path, fixed, chunk):
    columns = {"id": [str(row) for row in range(NUM_ROWS)]}
    for name, matrix in matrices().items():
        cells = [None if row in ABSENT[name] else values for row, values in enumerate(matrix.tolist())]
        columns[name] = pa.array(cells, pa.list_(pa.float32(), 4) if fixed else pa.list_(pa.float32()))
    pq.write_table(pa.table(columns), tmp_path / "all.parquet", row_group_size=chunk)
    with pytest.raises(DataRefused, match=rf"image: 2 of 8 rows are without a value \(1, 5\); {OPTION}"):
        read_rows(tmp_path / "all.parquet")
    check_kept(read_rows(tmp_path / "all.parquet", missing="keep"))
    assert read_rows(tmp_path / "all.parquet", missing="drop").ids == ["2", "3", "4", "7"]


def test_rows_of_other_lengths_are_named_by_their_place_among_nulls(tmp_path):
    cells = pa.array([None, [1.0, 2.0], None, [1.0]], pa.list_(pa.float32()))
    pq.write_table(pa.table({"image": cells}), tmp_path / "a.parquet")
    with pytest.raises(DataRefused, match=re.escape("rows of different lengths (row 3: 1, not 2)")):
        read_rows(tmp_path / "a.parquet", missing="keep")


@pytest.mark.parametrize("as_arrays", [True, False])
def test_ids_that_one_file_lacks_are_absent_there(tmp_path, as_arrays):
    """Files in another order; groups stand in one of them, and are known for every row."""
    files = {}
    for number, (name, matrix) in enumerate(matrices().items()):
        order = np.random.default_rng(number).permutation([r for r in range(NUM_ROWS) if r not in ABSENT[name]])
        order = order if number else np.sort(order)
        files[name] = tmp_path / f"{name}.npz"
        np.savez(files[name], **{name: matrix[order]}, id=order.astype(str), kind=np.array(["a", "b"])[order % 2])
    source = files if as_arrays else list(files.values())
    with pytest.raises(DataRefused, match=r"row counts differ|ids do not match: .*--missing keep\|drop"):
        read_rows(source)
    rows = read_rows(source, missing="keep")
    order = np.argsort([int(name) for name in rows.ids])
    ordered = rows.take(order)
    assert ordered.ids == ["0", "2", "3", "4", "6", "7"]
    for name, mask in ordered.presence.items():
        own = np.array([0, 2, 3, 4, 6, 7])
        assert (~mask).nonzero()[0].tolist() == [i for i, row in enumerate(own) if row in ABSENT[name]]
        np.testing.assert_array_equal(ordered.embeddings[name][mask], matrices()[name][own[mask]])
    assert ordered.labels["kind"] == ["a", "a", "b", "a", "a", "b"]
    assert sorted(read_rows(source, missing="drop").ids) == ["2", "3", "4", "7"]


def test_a_group_that_no_file_knows_is_refused(tmp_path):
    np.savez(tmp_path / "i.npz", image=matrices()["image"], id=np.arange(8).astype(str))
    np.savez(tmp_path / "t.npz", text=matrices()["text"][:6], id=np.arange(6).astype(str), group=np.arange(6))
    with pytest.raises(DataRefused, match="group"):
        read_rows([tmp_path / "i.npz", tmp_path / "t.npz"], missing="keep")


def written(path, present, fill=np.nan, shard_size=3, **options):
    writer = EmbeddingsWriter(path, num_rows=NUM_ROWS, info={}, shard_size=shard_size, has_masks=True, **options)
    for shard in writer.pending():
        own = slice(shard.start, shard.stop)
        arrays = {name: matrix.copy() for name, matrix in matrices().items()}
        for name, mask in present.items():
            arrays[name][~mask] = fill
        writer.write(
            shard,
            {name: matrix[own] for name, matrix in arrays.items()},
            {"id": [str(row) for row in range(NUM_ROWS)][own]},
            {name: mask[own] for name, mask in present.items()},
        )
    assert writer.finish()
    return path


def masks():
    present = {name: np.ones(NUM_ROWS, dtype=bool) for name in ABSENT}
    for name, rows in ABSENT.items():
        present[name][rows] = False
    return present


def test_a_directory_keeps_its_masks(tmp_path):
    path = written(tmp_path / "emb", masks())
    with pytest.raises(DataRefused, match=rf"ecg: 3 of 8 rows are without a value \(0, 1, 5\); {OPTION}"):
        read_embeddings(path)
    check_kept(read_embeddings(path, missing="keep"))
    assert read_embeddings(path, missing="drop").ids == ["2", "3", "4", "7"]
    index = json.loads((path / "embeddings.json").read_text())
    assert index["version"] == 2  # a gapless that knows no masks refuses it
    garbage = written(tmp_path / "garbage", masks(), fill=1e30)
    for shard in sorted(path.glob("shard-*.safetensors")):
        assert shard.read_bytes() == (garbage / shard.name).read_bytes()


def test_a_mask_that_is_not_what_the_index_says_is_damage(tmp_path):
    path = written(tmp_path / "emb", masks())
    index = json.loads((path / "embeddings.json").read_text())
    index["shards"][0]["present"]["image"] = 3
    (path / "embeddings.json").write_text(json.dumps(index))
    with pytest.raises(DataRefused, match="damaged: image has other rows than its index says"):
        read_embeddings(path, missing="keep")


def test_a_writer_without_masks_writes_what_it_wrote(tmp_path):
    """Old directories open, and complete rows give a directory of the old form."""
    writer = EmbeddingsWriter(tmp_path / "emb", num_rows=NUM_ROWS, info={})
    (shard,) = writer.pending()
    columns = {"id": [str(row) for row in range(NUM_ROWS)]}
    with pytest.raises(ValueError, match="has_masks"):
        writer.write(shard, matrices(), columns, masks())
    writer.write(shard, matrices(), columns)
    writer.finish()
    index = json.loads((tmp_path / "emb" / "embeddings.json").read_text())
    assert (index["version"], "present" in index["shards"][0]) == (1, False)
    assert read_embeddings(tmp_path / "emb", missing="keep").present is None


def test_embeddings_end_to_end_keep_their_masks(tmp_path):
    first = written(tmp_path / "a", masks())
    arrays = matrices(1)
    np.savez(tmp_path / "b.npz", **arrays, id=[f"b{row}" for row in range(NUM_ROWS)])
    rows = read_embeddings(first, tmp_path / "b.npz", missing="keep")
    assert len(rows) == 6 + NUM_ROWS
    assert all(mask[6:].all() for mask in rows.presence.values())
    assert not rows.presence["ecg"][0]


def test_a_modality_that_no_row_has_is_refused_by_name(tmp_path):
    arrays = matrices()
    arrays["ecg"][:] = np.nan
    files = stored(tmp_path, arrays)
    for missing in ("keep", "drop"):
        with pytest.raises(DataRefused, match=r"no row of .* has ecg; leave ecg out"):
            read_rows(files, missing=missing)


def test_rows_in_memory_keep_their_masks_and_are_checked():
    rows = EmbeddingSet(
        [str(row) for row in range(NUM_ROWS)],
        matrices(),
        present={name: mask for name, mask in masks().items() if name != "text"},
    )
    kept = read_rows(rows)
    assert kept.ids == ["0", "2", "3", "4", "6", "7"]
    assert kept.presence["text"].all()
    with pytest.raises(ValueError, match="present is one bool a row"):
        read_rows(EmbeddingSet(["a", "b"], {"image": np.eye(2)}, present={"image": np.array([1, 0])}))
