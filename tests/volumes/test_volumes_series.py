"""Folders of DICOM slices: their order, their orientation, real slices, and series that are none."""

from pathlib import Path

import numpy as np
import pytest

from gapless.modalities.volume import VolumeInput, VolumeModality
from gapless.signals.limits import FileRefused
from gapless.volumes.read import read_volume, volume_files

pydicom = pytest.importorskip("pydicom")
SECRET = "Mustermann"
AXIAL, CORONAL, SAGITTAL = (1, 0, 0, 0, 1, 0), (1, 0, 0, 0, 0, -1), (0, 1, 0, 0, 0, -1)


def write_slice(
    path, pixels, position, cosines=AXIAL, *, spacing=(2.0, 1.5), series="1.2.3", slope=1, intercept=-1024, frames=None
):
    from pydicom.dataset import Dataset, FileMetaDataset
    from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian

    dataset = Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset.file_meta.MediaStorageSOPClassUID = CTImageStorage
    dataset.file_meta.MediaStorageSOPInstanceUID = "1.2.3.4"
    dataset.SOPClassUID, dataset.SOPInstanceUID = CTImageStorage, "1.2.3.4"
    dataset.PatientName, dataset.SeriesDescription, dataset.SeriesInstanceUID = SECRET, SECRET, series
    dataset.Rows, dataset.Columns = pixels.shape
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, "MONOCHROME2"
    dataset.BitsAllocated = dataset.BitsStored = 16
    dataset.HighBit, dataset.PixelRepresentation = 15, 0
    dataset.RescaleSlope, dataset.RescaleIntercept = slope, intercept
    dataset.PixelSpacing, dataset.ImageOrientationPatient = list(spacing), list(cosines)
    if position is not None:
        dataset.ImagePositionPatient = [float(value) for value in position]
    if frames:
        dataset.NumberOfFrames = frames
    dataset.PixelData = pixels.astype("<u2").tobytes()
    path.parent.mkdir(parents=True, exist_ok=True)
    dataset.save_as(path, enforce_file_format=True)


def volume_of(seed=0):
    """[slice, row, column] towards head, back and left, in Hounsfield."""
    return np.random.default_rng(seed).integers(-1000, 1000, (6, 5, 4)).astype(np.float32)


def write_axial(folder, voxels, order=None, **options):
    """Slices 3 mm apart, whose names are not in the order of their positions."""
    names = np.random.default_rng(1).permutation(len(voxels)) if order is None else order
    for place, pixels in enumerate(voxels):
        write_slice(folder / f"{names[place]:03}.dcm", pixels + 1024, (10, -7, 3.0 * place - 50), **options)
    return folder


def test_slices_are_ordered_by_position_and_never_by_name(tmp_path):
    voxels = volume_of()
    volume = read_volume(write_axial(tmp_path, voxels))
    np.testing.assert_array_equal(volume.voxels, voxels)
    assert volume.spacing == pytest.approx((3.0, 2.0, 1.5))
    assert [file.name for file in volume_files(tmp_path)] == [f"{number:03}.dcm" for number in range(6)]


@pytest.mark.parametrize(("cosines", "axis"), [(CORONAL, 1), (SAGITTAL, 2)])
def test_other_planes_give_the_same_orientation(tmp_path, cosines, axis):
    voxels = volume_of()
    for place in range(voxels.shape[axis]):
        # Rows of both planes go from head to feet; columns to the patient's left (coronal) or back (sagittal).
        pixels = np.take(voxels, place, axis=axis)[::-1]
        position = (0, 3.0 * place, 20) if axis == 1 else (3.0 * place, 0, 20)
        write_slice(tmp_path / f"{place}.dcm", pixels + 1024, position, cosines)
    volume = read_volume(tmp_path)
    np.testing.assert_array_equal(volume.voxels, voxels)
    assert volume.spacing == pytest.approx((2.0, 3.0, 1.5) if axis == 1 else (2.0, 1.5, 3.0))


def test_a_patient_on_the_belly_is_turned(tmp_path):
    voxels = volume_of()
    for place, pixels in enumerate(voxels):
        write_slice(tmp_path / f"{place}.dcm", pixels[::-1, ::-1] + 1024, (0, 0, 3.0 * place), (-1, 0, 0, 0, -1, 0))
    np.testing.assert_array_equal(read_volume(tmp_path).voxels, voxels)


def test_real_slices_are_a_volume_in_hounsfield(tmp_path):
    path = Path(pydicom.__file__).parent / "data" / "test_files" / "CT_small.dcm"
    if not path.is_file():
        pytest.skip("pydicom's files are not installed")
    dataset = pydicom.dcmread(path)
    x, y, z = (float(value) for value in dataset.ImagePositionPatient)
    for place in range(3):
        dataset.ImagePositionPatient = [x, y, z + 5.0 * place]
        dataset.save_as(tmp_path / f"{3 - place}.dcm")
    volume = read_volume(tmp_path)
    expected = dataset.pixel_array * float(dataset.RescaleSlope) + float(dataset.RescaleIntercept)
    np.testing.assert_allclose(volume.voxels[1][np.isfinite(volume.voxels[1])], expected[np.isfinite(volume.voxels[1])])
    assert volume.spacing == pytest.approx((5.0, *map(float, dataset.PixelSpacing)))


# ---- what is no series ----------------------------------------------------------------------------------------------


def refusal_of(folder):
    with pytest.raises(FileRefused) as refusal:
        read_volume(folder)
    assert SECRET not in str(refusal.value)
    assert "1.2.3" not in str(refusal.value)
    return str(refusal.value)


def test_a_missing_slice_is_refused(tmp_path):
    write_axial(tmp_path, volume_of(), order=range(6))
    (tmp_path / "002.dcm").unlink()
    assert "distance after slice 2 of 5" in refusal_of(tmp_path)


def test_several_series_and_slices_at_one_place_are_refused(tmp_path):
    write_axial(tmp_path / "a", volume_of())
    write_slice(tmp_path / "a" / "x.dcm", volume_of()[0] + 1024, (10, -7, 100), series="1.2.9")
    assert "2 series" in refusal_of(tmp_path / "a")
    write_axial(tmp_path / "b", volume_of())
    write_slice(tmp_path / "b" / "x.dcm", volume_of()[0] + 1024, (10, -7, -50))
    assert "at one place" in refusal_of(tmp_path / "b")


def test_slices_of_other_sizes_directions_and_kinds_are_refused(tmp_path):
    pixels = volume_of()[0] + 1024
    others = {
        "size": {"pixels": np.zeros((3, 3))},
        "direction": {"cosines": CORONAL},
        "spacing": {"spacing": (1.0, 1.0)},
        "place": {"position": None},
        "frames": {"frames": 2},
        "cosines": {"cosines": (1, 0, 0, 1, 0, 0)},
    }
    for name, other in others.items():
        folder = write_axial(tmp_path / name, volume_of())
        write_slice(folder / "x.dcm", **{"pixels": pixels, "position": (10, -7, -32), **other})
        refusal_of(folder)
    control = write_axial(tmp_path / "control", volume_of())
    write_slice(control / "x.dcm", pixels, (10, -7, -32))
    assert read_volume(control).voxels.shape == (7, 5, 4)


def test_foreign_files_truncated_slices_and_empty_folders_are_refused(tmp_path):
    (tmp_path / "empty").mkdir()
    write_axial(tmp_path / "text", volume_of())
    (tmp_path / "text" / SECRET).write_text("notes")
    cut = write_axial(tmp_path / "cut", volume_of())
    content = (cut / "000.dcm").read_bytes()
    (cut / "000.dcm").write_bytes(content[:-10])
    one = tmp_path / "one" / "x.dcm"
    write_slice(one, volume_of()[0] + 1024, (0, 0, 0))
    for name in ("empty", "text", "cut", "one"):
        refusal_of(tmp_path / name)


def test_facts_and_the_preview_hold_nothing_of_the_header(tmp_path, capfd):
    write_axial(tmp_path, volume_of())
    facts = VolumeModality.check(tmp_path, {})
    assert facts == {"depth": 6, "height": 5, "width": 4, "depth_mm": 3.0, "height_mm": 2.0, "width_mm": 1.5}
    assert SECRET.encode() not in VolumeModality(VolumeInput()).preview(tmp_path)
    assert SECRET not in "".join(capfd.readouterr())
