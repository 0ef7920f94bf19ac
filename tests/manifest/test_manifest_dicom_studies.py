"""Waveforms and volumes of a folder of DICOM files: a row is a study, and nothing of a header is written."""

import shutil
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from gapless.core.errors import UsageError
from gapless.manifest.raw_rows import FileSource
from gapless.manifest.readers.dicom_folder import READER, DicomOptions, read_dicom
from gapless.modalities.volume import VolumeInput, VolumeModality
from gapless.modalities.waveform import WaveformInput, WaveformModality

pydicom = pytest.importorskip("pydicom")
pytest.importorskip("nibabel")
FILES = Path(pydicom.__file__).parent / "data" / "test_files"  # real files that come with pydicom
SERIES = FILES / "dicomdirtests" / "98892001" / "CT5N"  # five slices of a CT
WORDS = ["ecg=waveform", "ct=volume", "report=text:report", "labs=table:age,sex"]


def identified(path: Path, target: Path, study: str) -> None:
    """A copy of a real file in the study, with a name that may be written nowhere."""
    dataset = pydicom.dcmread(path)
    dataset.PatientName, dataset.PatientID, dataset.StudyInstanceUID = "Mustermann^Erika", f"id-{study}", study
    dataset.SeriesInstanceUID += f".{study}"  # the copies are files of other patients
    if "WaveformSequence" in dataset:
        dataset.WaveformSequence[0].ChannelDefinitionSequence[0].ChannelLabel = "Mustermann"
    target.parent.mkdir(parents=True, exist_ok=True)
    dataset.save_as(target)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Study 1.1: a CT of five slices, an ECG and a single slice; 1.2: an ECG; 1.3: a single slice without a report."""
    folder = tmp_path_factory.mktemp("dicom") / "files"
    for number, slice_file in enumerate(sorted(SERIES.iterdir())):
        identified(slice_file, folder / "a" / f"{9 - number}.dcm", "1.1")
    identified(FILES / "waveform_ecg.dcm", folder / "a" / "ecg.dcm", "1.1")
    identified(FILES / "CT_small.dcm", folder / "a" / "one.dcm", "1.1")
    identified(FILES / "waveform_ecg.dcm", folder / "b" / "ecg.dcm", "1.2")
    identified(FILES / "CT_small.dcm", folder / "c" / "one.dcm", "1.3")
    (folder.parent / "reports.csv").write_text("study,report,age,sex\n1.1,a nodule,61,f\n1.2,normal rhythm,,\n")
    return folder


@pytest.fixture(scope="module")
def manifest(folder, tmp_path_factory):
    return read_dicom(
        folder,
        tmp_path_factory.mktemp("out") / "M",
        folder.parent / "reports.csv",
        image_key="study",
        match="StudyInstanceUID",
        modality=WORDS,
        min_present=1,
        workers=1,
    )


def test_a_row_is_a_study_with_what_its_files_are(manifest):
    present = {name: mask.tolist() for name, mask in manifest.presence().items()}
    assert present == {
        "image": [True, False, True],
        "ecg": [True, True, False],
        "ct": [True, False, False],
        "report": [True, True, False],
        "labs": [True, False, False],
    }
    assert manifest.first_captions == ["a nodule", "normal rhythm", ""]
    assert len(set(manifest.table["group"].to_pylist())) == 3  # patients


def test_waveforms_and_volumes_are_those_of_the_real_files(manifest):
    kind = WaveformModality(WaveformInput())
    ours, real = kind.read(manifest.views("ecg", 0)[0]), kind.read(FILES / "waveform_ecg.dcm")
    np.testing.assert_array_equal(ours.values, real.values)
    assert (ours.rate, ours.names[1:]) == (real.rate, real.names[1:])
    assert ours.values.shape[0] == 12
    assert len(set(ours.names)) == 12
    volumes = VolumeModality(VolumeInput())
    ours, real = volumes.read(manifest.views("ct", 0)[0]), volumes.read(SERIES)
    np.testing.assert_array_equal(ours.voxels, real.voxels)
    assert ours.spacing == pytest.approx(real.spacing, rel=1e-5)


def test_nothing_of_a_header_is_written(manifest, folder):
    written = [path.read_bytes() for path in manifest.path.rglob("*") if path.is_file()]
    written = [content for content in written if content]
    assert len(written) >= 5 + 2
    secrets = [b"Mustermann", b"Erika", b"id-1.1"]
    ecg = pydicom.dcmread(folder / "a" / "ecg.dcm")
    secrets += [str(ecg.get(name)).encode() for name in ("SOPInstanceUID", "SeriesInstanceUID", "ContentDate")]
    for secret in secrets:
        assert not any(secret in content for content in written), secret
    assert b"Mustermann" in (folder / "a" / "ecg.dcm").read_bytes()  # the control


OPTIONS = {"image_key": "study", "match": "StudyInstanceUID", "modality": WORDS, "workers": 1, "min_present": 1}


def test_a_series_with_a_gap_is_left_out_and_its_study_stays(folder, tmp_path, caplog):
    gap = tmp_path / "gap"
    shutil.copytree(folder, gap)
    (gap / "a" / "7.dcm").unlink()
    manifest = read_dicom(gap, tmp_path / "M", folder.parent / "reports.csv", **OPTIONS)
    present = {name: mask.tolist() for name, mask in manifest.presence().items()}
    assert present["ct"] == [False, False, False]
    assert present["ecg"] == [True, True, False]
    assert present["report"] == [True, True, False]
    assert present["image"] == [True, False, True], "the slices of the series are no images"
    assert len(manifest.views("image", 0)) == 1
    reason = "missing slice (DICOM: the distance after slice N of N is not the usual one)"
    assert manifest.info["series_left_out"] == {reason: 1}
    assert manifest.info["counts"]["kept"] == 3
    assert f"1 series of slices that are no volume: {reason}; the first: a/" in caplog.text


def test_a_localizer_is_left_out_and_the_other_series_of_its_study_is_the_volume(folder, tmp_path):
    mixed = tmp_path / "mixed"
    shutil.copytree(folder, mixed)
    for number, cosines in enumerate(([1, 0, 0, 0, 1, 0], [1, 0, 0, 0, 0, -1])):
        dataset = pydicom.dcmread(folder / "a" / "9.dcm")
        dataset.SeriesInstanceUID = "9.9"
        dataset.ImageOrientationPatient = cosines
        dataset.save_as(mixed / "a" / f"localizer {number}.dcm")
    manifest = read_dicom(mixed, tmp_path / "M", folder.parent / "reports.csv", **OPTIONS)
    assert manifest.presence(["ct"])["ct"].tolist() == [True, False, False]
    (view,) = manifest.views("ct", 0)
    expected = VolumeModality(VolumeInput()).read(SERIES)
    np.testing.assert_array_equal(VolumeModality(VolumeInput()).read(view).voxels, expected.voxels)
    (reason,) = manifest.info["series_left_out"]
    assert reason == "unreadable file (DICOM: slice N differs from the first in size or direction)"


def test_a_whole_folder_counts_no_series_and_one_of_images_alone_has_no_such_count(manifest, folder, tmp_path):
    assert manifest.info["series_left_out"] == {}
    options = {**OPTIONS, "modality": ["report=text:report"], "max_bad": 0.5}  # its ECGs are no images
    assert "series_left_out" not in read_dicom(folder, tmp_path / "M", folder.parent / "reports.csv", **options).info


def test_every_file_is_read_once_before_the_items_are_checked(folder, tmp_path, monkeypatch):
    read: Counter[str] = Counter()
    whole = FileSource.read

    def counted(self):
        read[self.name] += 1
        return whole(self)

    monkeypatch.setattr(FileSource, "read", counted)
    rows = list(READER.read([folder], DicomOptions(reports=folder.parent / "reports.csv", **OPTIONS)).rows)
    assert len(rows) == 3
    assert set(read.values()) == {1}
    assert len(read) == sum(path.is_file() for path in folder.rglob("*"))


def test_files_of_another_kind_and_two_of_one_kind_are_refused(folder, tmp_path):
    for word, message in (
        (["ecg=waveform:age"], "names other files of the kind waveform"),
        (["heart=audio:file"], "names other files of the kind audio"),
        (["ecg=waveform", "eeg=waveform"], "one modality of waveforms and one of volumes"),
    ):
        with pytest.raises(UsageError, match=message):
            read_dicom(folder, tmp_path / "M", folder.parent / "reports.csv", image_key="study", modality=word)
