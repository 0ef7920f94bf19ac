"""A PACS by DICOMweb: its rows are those of the same files in a folder, and no name is written anywhere."""

import io
import logging
import shutil
from pathlib import Path

import numpy as np
import orthanc
import pyarrow.parquet as pq
import pytest
from dicom_samples import dicom_bytes, slice_bytes

from gapless.core.errors import UsageError
from gapless.images.pixels import load_image
from gapless.manifest.readers.base import READERS
from gapless.manifest.readers.dicom_folder import read_dicom

pydicom = pytest.importorskip("pydicom")
pytest.importorskip("dicomweb_client")
pytest.importorskip("nibabel")

SECRET = "ZZSECRET"
FILES = Path(pydicom.__file__).parent / "data" / "test_files"


def identified(study: str, series: int, number: int, patient: int, make=dicom_bytes, place=None, **elements) -> bytes:
    random = np.random.default_rng(100 * series + number)
    pixels = random.integers(0, 4096, (24, 20)).astype(np.uint16)
    nested = pydicom.Dataset()
    nested.PatientName = f"{SECRET}^Nested"
    given = {
        "PatientName": f"{SECRET}^Name",
        "PatientID": f"{SECRET}{patient}",
        "StudyInstanceUID": study,
        "SeriesInstanceUID": f"{study}.{series}",
        "AccessionNumber": f"A{SECRET}{patient}",
        "StudyDate": f"2024010{patient}",
        "InstitutionName": SECRET,
        "BodyPartExamined": "CHEST",
        "Modality": "CT",
        "RequestAttributesSequence": [nested],
        "RescaleSlope": "2",
        "RescaleIntercept": "-1000",
        "RescaleType": SECRET,
        "WindowCenter": "1000",
        "WindowWidth": "3000",
    }
    more = () if place is None else (place,)
    dataset = pydicom.dcmread(io.BytesIO(make(pixels, *more, **{**given, **elements})))
    dataset.SOPInstanceUID = dataset.file_meta.MediaStorageSOPInstanceUID = f"{study}.{series}.{number}"
    block = dataset.private_block(0x0011, SECRET, create=True)
    block.add_new(1, "LO", SECRET)
    return saved(dataset)


def saved(dataset) -> bytes:
    stream = io.BytesIO()
    pydicom.dcmwrite(stream, dataset, enforce_file_format=True)
    return stream.getvalue()


def report_document(study: str, text: str, patient: int) -> bytes:
    """A basic text report whose observer is named."""
    observer, finding = pydicom.Dataset(), pydicom.Dataset()
    observer.ValueType, observer.PersonName, observer.RelationshipType = "PNAME", f"{SECRET}^Doctor", "HAS OBS CONTEXT"
    finding.ValueType, finding.TextValue, finding.RelationshipType = "TEXT", text, "CONTAINS"
    dataset = pydicom.Dataset()
    dataset.PatientName, dataset.PatientID = f"{SECRET}^Name", f"{SECRET}{patient}"
    dataset.StudyInstanceUID, dataset.SeriesInstanceUID = study, f"{study}.99"
    dataset.SOPInstanceUID, dataset.SOPClassUID = f"{study}.99.1", pydicom.uid.BasicTextSRStorage
    dataset.SpecificCharacterSet, dataset.Modality, dataset.StudyDate = "ISO_IR 192", "SR", f"2024010{patient}"
    dataset.ContentSequence = [observer, finding]
    dataset.file_meta = pydicom.dataset.FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = pydicom.uid.ExplicitVRLittleEndian
    return saved(dataset)


def real(path: Path, study: str, series: int, number: int) -> bytes:
    """A real file of pydicom as one of the study."""
    dataset = pydicom.dcmread(path)
    dataset.PatientName, dataset.PatientID, dataset.StudyInstanceUID = f"{SECRET}^Real", f"{SECRET}3", study
    dataset.SeriesInstanceUID = f"{study}.{series}"
    dataset.SOPInstanceUID = dataset.file_meta.MediaStorageSOPInstanceUID = f"{study}.{series}.{number}"
    return saved(dataset)


@pytest.fixture(scope="module")
def contents() -> dict[str, bytes]:
    """Three patients: two studies of the first, one of the second, and a study with a series, an ECG and a picture."""
    files = {}
    for study, patient in (("1.2.1", 1), ("1.2.2", 1), ("1.2.3", 2)):
        for number in (1, 2):
            files[f"{study}/{study}.1/{number}.dcm"] = identified(study, 1, number, patient)
    for number in (1, 2, 3):
        files[f"1.2.4/1.2.4.1/{number}.dcm"] = identified("1.2.4", 1, number, 3, slice_bytes, place=number)
    files["1.2.4/1.2.4.2/1.dcm"] = real(FILES / "waveform_ecg.dcm", "1.2.4", 2, 1)
    files["1.2.4/1.2.4.3/1.dcm"] = real(FILES / "JPEG2000.dcm", "1.2.4", 3, 1)
    return files


@pytest.fixture(scope="module")
def folder(contents, tmp_path_factory):
    """The same files in a folder, named so that they come in the order of their UIDs, with a table of reports."""
    folder = tmp_path_factory.mktemp("folder")
    for name, content in contents.items():
        (folder / "files" / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / "files" / name).write_bytes(content)
    lines = [f"1.2.{number},report {number},{40 + number}" for number in (1, 2, 3, 4)]
    (folder / "reports.csv").write_text("\n".join(["study,report,age", *lines]) + "\n")
    return folder


@pytest.fixture(scope="module")
def server(contents, tmp_path_factory):
    with orthanc.running_orthanc(tmp_path_factory.mktemp("orthanc")) as server:
        for content in contents.values():
            server.store(content)
        server.store(report_document("1.2.1", "Kein Erguß links.", 1))
        server.store(report_document("1.2.3", "Nodule of the right lung.", 2))
        yield server


@pytest.fixture(autouse=True)
def credentials(monkeypatch):
    monkeypatch.setenv("GAPLESS_DICOMWEB_USER", orthanc.USER)
    monkeypatch.setenv("GAPLESS_DICOMWEB_PASSWORD", orthanc.PASSWORD)


def fetch(server, out, **options):
    return READERS["dicomweb"].build(server.url, out, workers=1, **options)


def everything_written(path: Path) -> bytes:
    parts = [str(sorted(path.rglob("*"))).encode()]
    for file in path.rglob("*"):
        if file.is_file():
            parts.append(file.read_bytes())
        if file.suffix == ".parquet":
            parts.append(str(pq.read_table(file).to_pylist()).encode())
    return b"".join(parts)


def test_the_manifest_is_that_of_the_files(server, folder, tmp_path):
    ours = fetch(server, tmp_path / "web", reports=folder / "reports.csv", modality_type="CT")
    ct = tmp_path / "ct"
    shutil.copytree(folder / "files", ct)
    shutil.rmtree(ct / "1.2.4" / "1.2.4.2")
    shutil.rmtree(ct / "1.2.4" / "1.2.4.3")
    theirs = read_dicom(
        ct, tmp_path / "m", folder / "reports.csv", image_key="study", match="StudyInstanceUID", workers=1
    )
    assert ours.table.equals(theirs.table)
    assert len(ours.table) == 9
    assert len(set(ours.table["group"].to_pylist())) == 3
    for row in range(9):
        assert np.array_equal(load_image(ours.image_path(row)), load_image(theirs.image_path(row)))


def test_a_row_of_a_study_with_a_series_and_an_ecg_is_that_of_the_files(server, folder, tmp_path):
    words = ["ecg=waveform", "ct=volume", "report=text:report", "labs=table:age"]
    options = {"modality": words, "min_present": 1, "reports": folder / "reports.csv"}
    ours = fetch(server, tmp_path / "web", study=["1.2.4"], max_bad=0.9, **options)
    alone = {"image_key": "study", "match": "StudyInstanceUID", "max_bad": 0.9, "workers": 1}
    theirs = read_dicom(folder / "files" / "1.2.4", tmp_path / "m", **alone, **options)
    assert ours.table.equals(theirs.table)
    present = {name: mask.tolist() for name, mask in ours.presence().items()}
    assert present == {name: [True] for name in ("image", "ecg", "ct", "report", "labs")}


def test_nothing_that_names_a_patient_is_written_or_said(server, folder, tmp_path, capfd, caplog, monkeypatch):
    caplog.set_level(logging.DEBUG)
    from gapless.manifest import build

    kept = []

    def keep(directory, *args):
        kept.append(everything_written(tmp_path / ".m.resume"))
        return original(directory, *args)

    original = build.check_copies
    monkeypatch.setattr(build, "check_copies", keep)
    manifest = fetch(server, tmp_path / "m", reports=folder / "reports.csv", patient=f"{SECRET}1", max_bad=0.9)
    assert manifest.info["counts"] == {"read": 6, "kept": 4, "skipped": 2}
    said = "".join(capfd.readouterr()) + caplog.text
    written = everything_written(tmp_path) + kept[0]
    assert b"1.2.840.10008.1.2.1" in kept[0]  # the control: copies of the files were in the folder
    for secret in (SECRET, orthanc.PASSWORD, "Nested"):
        assert secret.encode() not in written
        assert secret not in said
    assert not (tmp_path / ".m.resume").exists()


def test_reports_come_from_structured_documents(server, tmp_path):
    manifest = fetch(server, tmp_path / "m", study=["1.2.1", "1.2.3"])
    assert manifest.table["captions"].to_pylist() == [["Kein Erguß links."]] * 2 + [["Nodule of the right lung."]] * 2
    assert SECRET.encode() not in everything_written(tmp_path)


def test_queries_by_date_and_modality(server, tmp_path):
    manifest = fetch(server, tmp_path / "m", date="20240102", max_bad=0.9)
    assert manifest.table["captions"].to_pylist() == [["Nodule of the right lung."]] * 2
    with pytest.raises(UsageError, match="name the studies to fetch"):
        fetch(server, tmp_path / "n")


def test_wrong_credentials_are_refused_without_being_quoted(server, tmp_path, monkeypatch):
    monkeypatch.setenv("GAPLESS_DICOMWEB_PASSWORD", "wrong-word")
    with pytest.raises(UsageError, match="refuses the credentials") as caught:
        fetch(server, tmp_path / "m", study=["1.2.1"])
    assert "wrong-word" not in str(caught.value)
    monkeypatch.delenv("GAPLESS_DICOMWEB_USER")
    with pytest.raises(UsageError, match="belong together"):
        fetch(server, tmp_path / "m", study=["1.2.1"])
    monkeypatch.delenv("GAPLESS_DICOMWEB_PASSWORD")
    netrc = tmp_path / "netrc"
    netrc.write_text(f"machine 127.0.0.1 login {orthanc.USER} password {orthanc.PASSWORD}\n")
    netrc.chmod(0o600)
    monkeypatch.setenv("NETRC", str(netrc))
    assert len(fetch(server, tmp_path / "m", study=["1.2.1"]).table) == 2
