"""NIfTI files: orientation, real files, and files that lie or pack too much."""

import gzip
import itertools
import zlib
from pathlib import Path

import numpy as np
import pytest

from gapless.core.errors import DataRefused
from gapless.modalities.volume import VolumeInput, VolumeModality
from gapless.signals.limits import FileRefused
from gapless.volumes import nifti
from gapless.volumes.read import read_volume

nibabel = pytest.importorskip("nibabel")
DATA = Path(nibabel.__file__).parent / "tests" / "data"
SECRET = "Mustermann"


def marked():
    """[slice, row, column] as `Volume` is oriented, with no symmetry at all, and its spacing."""
    return np.arange(3 * 4 * 5, dtype=np.float32).reshape(3, 4, 5), (6.0, 2.0, 1.5)


def stored_as(codes, kind=None):
    """The volume of `marked` as a NIfTI file whose axes go towards `codes`, such as ("R", "A", "S")."""
    voxels, (step, row, column) = marked()
    lps = voxels.transpose(2, 1, 0)
    affine = np.diag([-column, -row, step, 1.0])  # towards left, back and head, in NIfTI's right, front and head
    orientations = nibabel.orientations
    turn = orientations.ornt_transform(orientations.axcodes2ornt(("L", "P", "S")), orientations.axcodes2ornt(codes))
    turned = orientations.apply_orientation(lps, turn)
    affine = affine @ orientations.inv_ornt_aff(turn, lps.shape)
    image = (kind or nibabel.Nifti1Image)(turned, affine)
    image.header["descrip"] = SECRET.encode()
    return image.to_bytes()


ALL_CODES = [codes for axes in itertools.permutations(("LR", "PA", "SI")) for codes in itertools.product(*axes)]


@pytest.mark.parametrize("codes", ALL_CODES, ids="".join)
def test_every_orientation_gives_one_volume(codes):
    volume = read_volume(stored_as(codes))
    np.testing.assert_array_equal(volume.voxels, marked()[0])
    assert volume.spacing == pytest.approx(marked()[1])


def test_nifti_2_and_packed_files_give_the_same():
    for content in (stored_as("LPS", nibabel.Nifti2Image), gzip.compress(stored_as("RAS"))):
        np.testing.assert_array_equal(read_volume(content).voxels, marked()[0])


def test_scaled_integers_are_read_in_their_units():
    image = nibabel.Nifti1Image(np.arange(24, dtype=np.int16).reshape(2, 3, 4), np.eye(4))
    image.header.set_slope_inter(2.0, -1024.0)
    content = image.to_bytes()
    stored = nibabel.Nifti1Image.from_bytes(content).get_fdata()
    assert sorted(read_volume(content).voxels.ravel()) == sorted(stored.ravel())


@pytest.mark.parametrize("name", ["anatomical.nii", "standard.nii.gz", "reoriented_anat_moved.nii", "example4d.nii.gz"])
def test_real_files_agree_with_nibabel(name):
    if not (DATA / name).is_file():
        pytest.skip("nibabel's files are not installed")
    volume = read_volume(DATA / name, frame=0)
    image = nibabel.as_closest_canonical(nibabel.load(DATA / name))  # towards right, front and head
    expected = np.asarray(image.dataobj, dtype=np.float32)
    expected = expected[..., 0] if expected.ndim == 4 else expected
    np.testing.assert_allclose(volume.voxels, expected[::-1, ::-1].transpose(2, 1, 0))
    assert volume.spacing == pytest.approx([float(size) for size in image.header.get_zooms()[2::-1]], rel=1e-4)


def test_one_of_several_volumes_must_be_chosen():
    image = nibabel.Nifti1Image(np.arange(48, dtype=np.float32).reshape(2, 3, 4, 2), np.eye(4))
    with pytest.raises(FileRefused, match="holds 2; choose one with frame"):
        read_volume(image.to_bytes())
    assert read_volume(image.to_bytes(), frame=1).voxels.max() == 47
    with pytest.raises(FileRefused, match="frame 2 of 2"):
        read_volume(image.to_bytes(), frame=2)


# ---- attacks --------------------------------------------------------------------------------------------------------


def with_shape(content, *shape):
    """The file with another shape in its header."""
    return content[:40] + np.array([len(shape), *shape, *[1] * (7 - len(shape))], "<i2").tobytes() + content[56:]


@pytest.mark.parametrize(
    "shape", [(32767, 32767, 32767), (5, 4, 4), (0, 4, 3), (-5, 4, 3), (5, 4), (5,), (5, 4, 3, 32767), (5, 4, 3, 1, 2)]
)
def test_shapes_that_lie_are_refused(shape):
    content = stored_as("LPS")
    with pytest.raises(FileRefused):
        read_volume(with_shape(content, *shape))
    assert read_volume(with_shape(content, 5, 4, 3)).voxels.shape == (3, 4, 5)  # the control


def test_a_gzip_bomb_is_inflated_no_further_than_its_header_declares(monkeypatch):
    content = stored_as("LPS")
    bomb = gzip.compress(content + bytes(200 << 20), compresslevel=1)
    assert len(bomb) < 2 << 20
    sizes = []
    original = nifti._inflated

    def noted(packed, limit):
        inflated = original(packed, limit)
        sizes.append(len(inflated))
        return inflated

    monkeypatch.setattr(nifti, "_inflated", noted)
    with pytest.raises(FileRefused, match="inflates to more"):
        read_volume(bomb)
    assert max(sizes) < 2 << 20
    assert len(zlib.decompress(bomb, 31)) > 200 << 20  # the control: it is one
    huge = gzip.compress(with_shape(content, 32767, 32767, 32767) + bytes(1 << 20))
    with pytest.raises(FileRefused, match="voxels are above"):
        read_volume(huge)


def test_truncated_and_damaged_files_are_refused():
    content = stored_as("LPS")
    packed = gzip.compress(content)
    cases = [content[:length] for length in (0, 10, 347, 352, len(content) - 1)]
    cases += [packed[:length] for length in (3, 12, len(packed) // 2, len(packed) - 9)]
    cases += [b"\x1f\x8b" + bytes(200), content[:344] + b"ni1\0" + content[348:], gzip.compress(b"text")]
    for case in cases:
        with pytest.raises(FileRefused):
            read_volume(case)


def test_colours_and_implausible_headers_are_refused():
    colours = np.zeros((2, 3, 4), dtype=[("R", "u1"), ("G", "u1"), ("B", "u1")])
    with pytest.raises(FileRefused):
        read_volume(nibabel.Nifti1Image(colours, np.eye(4)).to_bytes())
    content = stored_as("LPS")
    nothing = np.float32(np.nan).tobytes()
    for start, value in ((108, np.float32(1e9).tobytes()), (108, nothing), (70, np.int16(4096).tobytes())):
        with pytest.raises(FileRefused):
            read_volume(content[:start] + value + content[start + len(value) :])
    empty = nibabel.Nifti1Image(np.full((2, 3, 4), np.nan, dtype=np.float32), np.eye(4)).to_bytes()
    with pytest.raises(FileRefused, match="no voxel of it is a number"):
        read_volume(empty)


def test_nothing_of_the_description_reaches_facts_errors_or_the_preview(capfd, caplog):
    content = stored_as("RAS")
    assert SECRET.encode() in content
    facts = VolumeModality.check(content, {"window": "40/400"})
    assert facts == {"depth": 3, "height": 4, "width": 5, "depth_mm": 6.0, "height_mm": 2.0, "width_mm": 1.5}
    assert SECRET.encode() not in VolumeModality(VolumeInput()).preview(content)
    for bad in (content[:-1], with_shape(content, 9, 9, 9), content[:70] + b"\xff\xff" + content[72:]):
        with pytest.raises(DataRefused) as refusal:
            VolumeModality.check(bad, {})
        assert SECRET not in str(refusal.value)
    assert SECRET not in "".join([*capfd.readouterr(), caplog.text])
