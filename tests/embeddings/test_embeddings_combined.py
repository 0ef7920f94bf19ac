"""Columns of several files: what only one of them holds is used, what disagrees is refused, what is lost is said."""

import numpy as np
import pytest

from gapless.core.errors import DataRefused, UsageError
from gapless.embeddings.array_sets import read_arrays
from gapless.embeddings.store import read_embeddings

ROWS = 6
GROUP = np.array([f"g{row // 2}" for row in range(ROWS)])
OTHER = np.array([f"h{row // 2}" for row in range(ROWS)])
KIND = np.array(["CT", "MR"] * 3)
IDS = np.array([f"r{row}" for row in range(ROWS)])


def matrix(seed=0, rows=ROWS):
    return np.random.default_rng(seed).normal(size=(rows, 3)).astype("f4")


def stored(folder, name, **arrays):
    np.savez(folder / f"{name}.npz", **arrays)
    return folder / f"{name}.npz"


@pytest.mark.parametrize("ids", [(False, False), (True, False), (False, True), (True, True)])
@pytest.mark.parametrize("side", [0, 1])
def test_what_one_of_two_arrays_holds_is_used(tmp_path, ids, side):
    known = [{}, {}]
    known[side] = {"group": GROUP, "kind": KIND, "split": ["test"] * ROWS, "caption": IDS, "positives": GROUP}
    for one, has_ids in zip(known, ids, strict=True):
        one |= {"id": IDS} if has_ids else {}
    found = read_arrays(
        {
            "image": stored(tmp_path, "i", image=matrix(0), **known[0]),
            "text": stored(tmp_path, "t", text=matrix(1), **known[1]),
        }
    )
    assert found.groups == GROUP.tolist()
    assert found.labels == {"kind": KIND.tolist()}
    assert (found.splits, found.captions) == (["test"] * ROWS, IDS.tolist())
    assert found.positives == GROUP.tolist()
    assert found.has_ids == any(ids)
    assert found.ids == (IDS.tolist() if any(ids) else [str(row) for row in range(ROWS)])


@pytest.mark.parametrize("column", ["group", "split", "kind", "positives", "caption"])
@pytest.mark.parametrize("by_id", [False, True])
def test_columns_that_disagree_are_refused(tmp_path, column, by_id):
    ids = {"id": IDS} if by_id else {}
    image = stored(tmp_path, "i", image=matrix(0), **{column: GROUP}, **ids)
    text = stored(tmp_path, "t", text=matrix(1), **{column: OTHER}, **ids)
    for read in (lambda: read_embeddings(image, text), lambda: read_arrays({"image": image, "text": text})):
        with pytest.raises(DataRefused, match=rf"the .*{column}.* disagree in 6 of 6 rows \(row 0: 'g0' and 'h0'\)"):
            read()
    stored(tmp_path, "t", text=matrix(1), **{column: GROUP}, **ids)
    assert len(read_embeddings(image, text)) == ROWS  # the control: the same in both


def test_one_file_fills_what_the_other_lacks(tmp_path):
    first, second = np.array([1.0, 1, 2, np.nan, np.nan, np.nan]), np.array([np.nan, 1, 2, 2, 3, 3])
    image = stored(tmp_path, "i", image=matrix(0), group=first)
    text = stored(tmp_path, "t", text=matrix(1), group=second)
    assert read_embeddings(image, text).groups == ["1", "1", "2", "2", "3", "3"]
    with pytest.raises(DataRefused, match="3 of 6 rows have no group"):
        read_arrays({"image": image, "text": stored(tmp_path, "u", text=matrix(1))})


def test_sets_are_matched_by_id_or_not_at_all(tmp_path):
    order = np.array([3, 0, 5, 1, 4, 2])
    image = stored(tmp_path, "i", image=matrix(0), id=IDS, group=GROUP)
    text = stored(tmp_path, "t", text=matrix(1)[order], id=IDS[order], kind=KIND[order])
    found = read_embeddings(image, text)
    assert np.array_equal(found.embeddings["text"], matrix(1))
    assert (found.groups, found.labels["kind"]) == (GROUP.tolist(), KIND.tolist())
    with pytest.raises(DataRefused, match=r"i\.npz has ids and .*u\.npz has none"):
        read_embeddings(image, stored(tmp_path, "u", text=matrix(1)))


@pytest.mark.parametrize("column", ["group", "split", "positives"])
@pytest.mark.parametrize("swapped", [False, True])
def test_a_part_without_a_name_per_row_is_refused(tmp_path, column, swapped):
    whole = stored(tmp_path, "a", image=matrix(0), text=matrix(1), **{column: GROUP})
    bare = stored(tmp_path, "b", image=matrix(2), text=matrix(3))
    with pytest.raises(DataRefused, match=rf"a\.npz has {column.removesuffix('s')}s, and .*b\.npz has none"):
        read_embeddings(*((bare, whole) if swapped else (whole, bare)))
    stored(tmp_path, "b", image=matrix(2), text=matrix(3), **{column: OTHER})
    assert len(read_embeddings(whole, bare)) == 2 * ROWS


def test_a_part_without_labels_captions_or_ids_is_said(tmp_path):
    whole = stored(tmp_path, "a", image=matrix(0), text=matrix(1), kind=KIND, caption=IDS, id=IDS)
    bare = stored(tmp_path, "b", image=matrix(2), text=matrix(3))
    found = read_embeddings(whole, bare)
    assert found.labels == {"kind": KIND.tolist() + [None] * ROWS}
    assert found.captions == IDS.tolist() + [""] * ROWS
    assert not found.has_ids
    assert sum("b.npz has no" in note for note in found.notes) == 3
    assert read_embeddings(whole).notes == ()


def test_files_beside_the_embeddings_go_before_their_columns(tmp_path):
    both = stored(tmp_path, "a", image=matrix(0), text=matrix(1), group=[np.nan] * ROWS, study=[1, 1, 2, 2, 3, 3])
    (tmp_path / "groups.txt").write_text("\n".join(OTHER))
    found = read_embeddings(both, groups=tmp_path / "groups.txt", positives="study")
    assert found.groups == OTHER.tolist()
    assert "other ones in" in found.notes[0]
    assert found.positives == ["1", "1", "2", "2", "3", "3"]
    with pytest.raises(UsageError, match=r"a column \(id, group, study\), got 'stduy'"):
        read_embeddings(both, groups=tmp_path / "groups.txt", positives="stduy")


def test_two_columns_of_one_meaning_and_missing_ids_are_refused(tmp_path):
    with pytest.raises(DataRefused, match="holds both 'group' and 'groups'"):
        read_embeddings(stored(tmp_path, "a", image=matrix(0), group=GROUP, groups=OTHER))
    with pytest.raises(DataRefused, match="1 of 6 rows have no id"):
        read_embeddings(stored(tmp_path, "a", image=matrix(0), id=["a", "b", "", "d", "e", "f"]))
