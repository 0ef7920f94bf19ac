"""A series of slices as the bytes of its files, in any order: the volume of their folder, and its refusals."""

import numpy as np
import pytest

from gapless.core.errors import UsageError
from gapless.modalities.volume import VolumeInput, VolumeModality
from gapless.signals.limits import FileRefused
from gapless.volumes.read import is_several_files, read_volume, volume_files

pytest.importorskip("pydicom")
from dicom_samples import slice_bytes


def slices(count=5):
    voxels = np.random.default_rng(0).integers(0, 2000, (count, 6, 7))
    return voxels, [slice_bytes(pixels, place) for place, pixels in enumerate(voxels)]


def test_slices_in_any_order_are_the_volume_of_their_folder(tmp_path):
    voxels, contents = slices()
    for number, content in enumerate(contents):
        (tmp_path / f"{number}.dcm").write_bytes(content)
    folder = read_volume(tmp_path)
    for order in ([0, 1, 2, 3, 4], [3, 0, 4, 1, 2]):
        volume = read_volume([contents[place] for place in order])
        np.testing.assert_array_equal(volume.voxels, folder.voxels)
        assert volume.spacing == folder.spacing
    np.testing.assert_array_equal(folder.voxels, voxels)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda contents: contents[:1], "at least two slices, and there is one"),
        (lambda contents: contents[:2] + contents[3:], "the distance after slice 2 of 4"),
        (lambda contents: [*contents, contents[0]], "two slices lie at one place"),
        (lambda contents: [*contents, b"x"], "file 6 of the series is no DICOM file"),
        (lambda contents: contents * 1000, "1 to 4096 files, it has 5000"),
    ],
)
def test_files_that_are_no_series_are_refused(change, sentence):
    _, contents = slices()
    with pytest.raises(FileRefused, match=sentence):
        read_volume(change(contents))


def test_several_files_are_a_query_of_a_volume_alone():
    _, contents = slices()
    kind = VolumeModality(VolumeInput(depth=2, size=16))
    assert kind.prepare(kind.parse_query(contents)).shape == (2, 16, 16)
    assert volume_files(contents) == []
    assert not any(map(is_several_files, ([], [b"x", 1], [1.0], b"x")))
    with pytest.raises(UsageError, match="a volume is a path"):
        kind.parse_query([b"x", 1])
