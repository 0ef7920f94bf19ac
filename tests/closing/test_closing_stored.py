"""Many rows stay in their files: the fits are those of rows in memory, and nothing reads more than a block at once."""

from pathlib import Path

import numpy as np
import pytest
import torch

from gapless.closing import base, close, fitting, judging, moments
from gapless.closing.close import close_gap, pairs_of, positives_of
from gapless.closing.procrustes import ProcrustesSettings
from gapless.closing.stack import StackSettings
from gapless.closing.trained_heads import AdapterSettings
from gapless.core.errors import DataRefused
from gapless.core.memory_maps import release_pages
from gapless.embeddings.stored_rows import StoredRows
from gapless.metrics.inputs import UnitRows

NUM_ROWS, DIM, BLOCK = 600, 8, 37
QUICK = ("center", "standardise", "procrustes", "shift", "subspace", "cca")
HEADS = AdapterSettings(max_steps=4, num_epochs=4, batch_size=64, hidden=8, dropout=0.0, num_evaluations=1)


@pytest.fixture
def files(tmp_path: Path) -> dict[str, np.ndarray]:
    """Pairs with a gap, two rows of text the same, in files that are mapped to be read."""
    random = np.random.default_rng(0)
    hidden = random.standard_normal((NUM_ROWS, 4))
    mapped = {}
    for name in ("image", "text"):
        rows = hidden @ random.standard_normal((4, DIM)) + 2 * random.standard_normal(DIM)
        rows += 0.3 * random.standard_normal((NUM_ROWS, DIM))
        if name == "text":
            rows[400] = rows[5]
        np.save(tmp_path / f"{name}.npy", rows.astype(np.float32))
        mapped[name] = np.load(tmp_path / f"{name}.npy", mmap_mode="r")
    return mapped


def store(patch: pytest.MonkeyPatch) -> None:
    """Leave every row where it is stored, and make all blocks small."""
    patch.setattr(close, "IN_MEMORY_BYTES", 0)
    patch.setattr(close, "PROJECTED_AT_ONCE", BLOCK)
    for module in (base, fitting, moments):
        patch.setattr(module, "ROWS_AT_ONCE", BLOCK)


def weights(arrays, out, monkeypatch, stored, **options):
    with monkeypatch.context() as patch:
        if stored:
            store(patch)
        return close_gap(arrays, out=out, **options).model.state_dict()


@pytest.mark.parametrize("method", QUICK)
def test_a_closed_form_of_stored_rows_is_that_of_rows_in_memory(method, files, tmp_path, monkeypatch):
    """Sums of float64 in another order, rounded to fp32: the last digit of fp32 may differ."""
    whole, stored = (
        weights(files, tmp_path / str(is_stored), monkeypatch, is_stored, method=method) for is_stored in (False, True)
    )
    assert whole.keys() == stored.keys()
    for key, tensor in whole.items():
        torch.testing.assert_close(stored[key], tensor, rtol=2e-5, atol=2e-6)


def test_trained_heads_take_the_same_batches_from_the_files(files, tmp_path, monkeypatch):
    whole, stored = (
        weights(files, tmp_path / str(is_stored), monkeypatch, is_stored, settings=HEADS) for is_stored in (False, True)
    )
    assert all(torch.equal(stored[key], tensor) for key, tensor in whole.items())


@pytest.mark.parametrize("how", ["concatenate", "chain"])
def test_a_stack_of_stored_rows(how, files, tmp_path, monkeypatch):
    settings = StackSettings(methods="center,procrustes", how=how)
    whole, stored = (
        weights(files, tmp_path / str(is_stored), monkeypatch, is_stored, settings=settings)
        for is_stored in (False, True)
    )
    for key, tensor in whole.items():
        torch.testing.assert_close(stored[key], tensor, rtol=2e-5, atol=2e-6)
    left = [path.name for path in (tmp_path / "True").rglob("*") if path.suffix == ".npy" or path.is_dir()]
    assert left == []  # what stood between the parts of a chain is gone


def test_less_its_means(files, tmp_path, monkeypatch):
    settings = ProcrustesSettings(remove_mean=True)
    whole, stored = (
        weights(files, tmp_path / str(is_stored), monkeypatch, is_stored, settings=settings)
        for is_stored in (False, True)
    )
    for key, tensor in whole.items():
        torch.testing.assert_close(stored[key], tensor, rtol=2e-5, atol=2e-6)


class Sizes:
    """The largest number of rows that was read at once, and that was raised to float64 at once."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.read = self.doubled = 0
        read, double = UnitRows.__getitem__, torch.Tensor.double

        def noted_read(rows, part):
            found = read(rows, part)
            self.read = max(self.read, len(found))
            return found

        def noted_double(tensor):
            self.doubled = max(self.doubled, len(tensor) if tensor.ndim == 2 else 0)
            return double(tensor)

        patch.setattr(UnitRows, "__getitem__", noted_read)
        patch.setattr(torch.Tensor, "double", noted_double)


@pytest.mark.parametrize("method", ["center", "standardise", "procrustes", "chain"])
def test_no_more_than_the_validation_rows_are_read_or_doubled_at_once(method, files, tmp_path, monkeypatch):
    store(monkeypatch)
    sizes = Sizes(monkeypatch)
    options = {"settings": StackSettings(methods="center,procrustes", how="chain")} if method == "chain" else {}
    close_gap(files, method=None if options else method, out=tmp_path / "m", **options)
    held = NUM_ROWS // 10 + 1  # the figures stand on these
    assert BLOCK <= sizes.read <= held
    assert sizes.doubled <= held


def test_the_sizes_would_show_a_whole_copy(files, monkeypatch):
    """The control of the test above."""
    store(monkeypatch)
    pairs, _ = pairs_of(files, None, ProcrustesSettings(), 0, None, None, None, None)
    sizes = Sizes(monkeypatch)
    pairs.training["text"].double()
    assert sizes.read == sizes.doubled == len(pairs.train)


def test_stored_rows_are_those_in_memory_to_the_bit(files, monkeypatch):
    whole = close.unit_rows(files)["image"]
    monkeypatch.setattr(close, "IN_MEMORY_BYTES", 0)
    stored = close.unit_rows(files)["image"]
    assert isinstance(stored, StoredRows)
    some = np.array([3, 1, 599])
    assert torch.equal(stored[some], whole[some])
    assert torch.equal(stored[5:77], whole[5:77])
    assert torch.equal(stored.take(some)[1:], whole[some][1:])
    assert stored.take(some).take(np.array([2])).shape == (1, DIM)
    assert stored[some].dtype == torch.float32


def test_absent_rows_of_a_file_are_zeros_and_nothing_else_of_them_counts(files, monkeypatch):
    arrays = {name: np.array(matrix) for name, matrix in files.items()}
    masks = {name: np.ones(NUM_ROWS, dtype=bool) for name in arrays}
    masks["image"][::3] = False
    arrays["image"][::3] = np.nan
    whole = close.unit_rows(arrays, masks)["image"]
    monkeypatch.setattr(close, "IN_MEMORY_BYTES", 0)
    stored = close.unit_rows(arrays, masks)["image"]
    assert torch.equal(stored[:], whole)
    assert not stored[0:1].any()
    assert stored[1:2].any()


@pytest.mark.parametrize(("value", "reason"), [(np.nan, "NaN or infinite"), (0.0, "all zeros")])
def test_broken_rows_of_a_file_are_refused_by_their_number(value, reason, files, monkeypatch):
    arrays = {name: np.array(matrix) for name, matrix in files.items()}
    arrays["text"][17] = value
    monkeypatch.setattr(close, "IN_MEMORY_BYTES", 0)
    with pytest.raises(DataRefused, match=f"text: 1 of {NUM_ROWS} rows .*{reason}.*row 17"):
        close.unit_rows(arrays)


def test_equal_rows_are_one_item_in_order_of_appearance(files, monkeypatch):
    codes = positives_of(close.unit_rows(files)["text"])
    expected = np.arange(NUM_ROWS)
    expected[400] = 5
    expected[401:] -= 1
    np.testing.assert_array_equal(codes, expected)
    store(monkeypatch)
    np.testing.assert_array_equal(positives_of(close.unit_rows(files)["text"]), expected)


def test_folds_of_many_rows_draw_whole_groups_to_fit_on(files, monkeypatch):
    monkeypatch.setattr(judging, "MAX_FITTED_ROWS", 100)
    groups = np.arange(NUM_ROWS) // 3
    pairs, _ = pairs_of(files, groups, ProcrustesSettings(), 0, None, None, None, None)
    folds = judging.folds_of(pairs, 5, 1, 0.1, 20, 0)
    everyone = {group: int((groups[pairs.train] == group).sum()) for group in np.unique(groups)}
    for fold in folds:
        fitted = np.concatenate([fold.pairs.train, fold.pairs.validation])
        assert 90 < len(fitted) <= 100
        present, sizes = np.unique(groups[fitted], return_counts=True)
        assert [everyone[group] for group in present] == sizes.tolist()
        assert not set(present) & set(groups[fold.judged])


def test_pages_that_were_given_back_are_read_again_and_changes_stay(tmp_path):
    np.save(tmp_path / "a.npy", np.arange(10_000.0))
    mapped = np.load(tmp_path / "a.npy", mmap_mode="r")
    before = mapped.sum()
    release_pages(mapped[100:])
    assert mapped.sum() == before
    changed = np.load(tmp_path / "a.npy", mmap_mode="c")
    changed[0] = 7.0  # in memory alone, where giving back would lose it
    release_pages(changed)
    assert changed[0] == 7.0
    release_pages(np.ones(3))
