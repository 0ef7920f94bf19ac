"""The limit of values is lowered for a stranger's file, in its own thread alone, and holds for every format."""

import threading

import numpy as np
import pytest
from signal_samples import ecg, edf_bytes, npy_bytes, wav_bytes

from gapless.signals import limits
from gapless.signals.limits import FileRefused, max_values, reading_at_most
from gapless.signals.read import read_waveform
from gapless.volumes.read import read_volume


@pytest.mark.parametrize("make", [npy_bytes, lambda values: edf_bytes(values * 100), wav_bytes, np.asarray])
def test_a_file_of_more_values_is_refused_where_the_limit_is_lowered(make):
    pytest.importorskip("edfio")
    pytest.importorskip("soundfile")
    source = make(ecg(2, 400))
    assert read_waveform(source).values.shape == (2, 400)
    with reading_at_most(800):
        assert read_waveform(source).values.shape == (2, 400)
    with reading_at_most(799), pytest.raises(FileRefused, match="above 799"):
        read_waveform(source)


def test_a_volume_of_more_voxels_is_refused_too():
    with reading_at_most(23), pytest.raises(FileRefused, match="24 voxels are above 23"):
        read_volume(np.ones((2, 3, 4)))


def test_the_limit_is_that_of_the_block_and_never_higher():
    with reading_at_most(10):
        with reading_at_most(limits.MAX_VALUES * 2):
            assert max_values() == limits.MAX_VALUES
        assert max_values() == 10
        seen = []
        other = threading.Thread(target=lambda: seen.append(max_values()))
        other.start()
        other.join()
    assert [max_values(), *seen] == [limits.MAX_VALUES] * 2
