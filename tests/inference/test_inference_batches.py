"""What training sees of a manifest: captions, orders and pixels that seed, epoch and row fix, and nothing else."""

import numpy as np
import pyarrow as pa
import pytest

from gapless.inference.pairs import EpochSampler, PairDataset, caption_of
from gapless.manifest.manifest import Manifest
from gapless.manifest.readers.phantom import write_phantom
from gapless.modalities.text import TextInput, TextModality

CAPTIONS = ["one", "two", "three"]


@pytest.fixture(scope="module")
def several(tmp_path_factory) -> Manifest:
    """Twenty rows of three captions each."""
    written = write_phantom(
        tmp_path_factory.mktemp("batches") / "phantom", num_pairs=20, num_validation=0, num_test=0, image_size=16
    )
    place = written.table.column_names.index("captions")
    captions = pa.array([CAPTIONS] * len(written), pa.list_(pa.string()))
    return Manifest(written.path, written.info, written.table.set_column(place, "captions", captions))


def test_an_evaluation_reads_the_first_caption_of_every_row(several):
    rows = PairDataset(several, {"text": TextModality(TextInput())})
    assert [rows[row]["caption"] for row in range(20)] == ["one"] * 20
    assert [rows[epoch, 3]["caption"] for epoch in range(9)] == ["one"] * 9
    assert rows[3]["text"] == "one"


def test_a_training_draws_a_caption_from_seed_epoch_and_row_alone(several):
    rows = PairDataset(several, {"text": TextModality(TextInput())}, training_seed=7)
    drawn = [[rows[epoch, row]["caption"] for row in range(20)] for epoch in range(30)]
    again = PairDataset(several, {"text": TextModality(TextInput())}, training_seed=7)
    assert [[again[epoch, row]["caption"] for row in reversed(range(20))][::-1] for epoch in range(30)] == drawn
    other = PairDataset(several, {"text": TextModality(TextInput())}, training_seed=8)
    assert [other[0, row]["caption"] for row in range(20)] != drawn[0]
    counts = np.array([sum(caption in row for row in drawn for caption in [name]) for name in CAPTIONS])
    assert (counts > 0).all()
    flat = [caption for epoch in drawn for caption in epoch]
    for name in CAPTIONS:
        assert flat.count(name) == pytest.approx(200, abs=50)
    assert caption_of(CAPTIONS, 7, 4, rows.ids[2]) == drawn[4][2]


def test_every_epoch_has_every_row_once_in_an_order_of_its_own():
    sampler = EpochSampler(50, seed=3)
    orders = []
    for epoch in range(3):
        sampler.set_epoch(epoch)
        keys = list(sampler)
        assert [key[0] for key in keys] == [epoch] * 50
        assert sorted(row for _, row in keys) == list(range(50))
        assert list(sampler) == keys
        orders.append([row for _, row in keys])
    assert orders[0] != orders[1] != orders[2] != orders[0]
    assert [row for _, row in EpochSampler(50, seed=4)] != orders[0]
