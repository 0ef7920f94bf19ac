"""The cache of a captioner against transformers' own: the same keys and values after the same calls."""

import pytest
import torch
from transformers.cache_utils import DynamicLayer

from gapless.captioning.prefix_cache import WordLayer


def words(rows, count, seed):
    random = torch.Generator().manual_seed(seed)
    return tuple(torch.randn(rows, 2, count, size, generator=random) for size in (3, 5))


def same(ours, theirs):
    assert ours.get_seq_length() == theirs.get_seq_length()
    assert torch.equal(ours.keys, theirs.keys)
    assert torch.equal(ours.values, theirs.values)


@pytest.mark.parametrize("room", [1, 3, 64])
def test_words_beams_and_rows_are_those_of_transformers(room):
    """A long first part, one word at a time past the room, beams that change places, rows that go and multiply."""
    ours, theirs = WordLayer(room), DynamicLayer()
    assert ours.get_seq_length() == 0
    for layer in (ours, theirs):  # nothing to move yet
        layer.reorder_cache(torch.tensor([0]))
    rows = 4
    for step in range(9):
        keys, values = words(rows, 2 if step == 0 else 1, step)
        shown = ours.update(keys, values)
        for found, expected in zip(shown, theirs.update(keys, values), strict=True):
            assert torch.equal(found, expected)
        beams = torch.randint(rows, (rows,), generator=torch.Generator().manual_seed(step))
        for layer in (ours, theirs):
            layer.reorder_cache(beams)
            if step == 3:
                layer.batch_select_indices(torch.tensor([3, 1]))
            if step == 5:
                layer.batch_repeat_interleave(3)
            if step == 7:
                layer.crop(-2)
        rows = {3: 2, 5: 6}.get(step, rows)
        same(ours, theirs)


def test_a_layer_that_is_reset_starts_again():
    ours, theirs = WordLayer(2), DynamicLayer()
    for seed in (0, 1):
        keys, values = words(3 + seed, 4, seed)
        for layer in (ours, theirs):
            layer.update(keys, values)
        same(ours, theirs)
        for layer in (ours, theirs):
            layer.reset()
            assert layer.get_seq_length() == 0


def test_a_word_costs_no_copy_of_the_others():
    """The control: transformers' own layer lies elsewhere after every word."""

    def places(layer):
        found = set()
        for seed in range(5):
            layer.update(*words(2, 1, seed))
            found.add(layer.keys.data_ptr())
        return len(found)

    kept = [DynamicLayer(), WordLayer(8)]  # alive together: memory that is given back may be taken again
    theirs, ours = map(places, kept)
    assert ours == 1 < theirs
