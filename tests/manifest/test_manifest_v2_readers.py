"""Modalities from tar shards and from a DICOM folder with its table."""

import csv
import io
import json

import numpy as np
import pytest
from dicom_samples import dicom_bytes
from modality_samples import kinds, skipped_of
from shard_samples import image_bytes, write_shard

from gapless.core.errors import DataRefused, UsageError
from gapless.manifest.readers.dicom_folder import read_dicom
from gapless.manifest.readers.shards import read_shards

__all__ = ["kinds"]
pytestmark = pytest.mark.usefixtures("kinds")
WORDS = [
    "image=image:png",
    "report=text:report",
    "history=text:history",
    "labs=table:age,sex",
    "ecg=signal:ecg.npy,rate=500",
    "v=vector:v",
]


def npy(values, **options) -> bytes:
    stream = io.BytesIO()
    np.save(stream, values, **options)
    return stream.getvalue()


def members(number, *, ecg=None, image=True, report=True, **cells):
    name = f"case{number}"
    found = [(f"{name}.json", json.dumps({"patient": f"p{number}", **cells}))]
    found += [(f"{name}.png", image_bytes(number))] if image else []
    found += [(f"{name}.report.txt", f"report {number}")] if report else []
    found += [(f"{name}.ecg.npy", ecg)] if ecg is not None else []
    return [*found, (f"{name}.notes.bin", b"-")]


ECG = npy(np.array([500, 1, 2, 3], np.float32))


# ---- shards ---------------------------------------------------------------------------------------------------------


def test_members_and_keys_are_modalities(tmp_path):
    shard = write_shard(
        tmp_path / "a.tar",
        [
            *members(0, ecg=ECG, history="cough", age=40, sex="m", v=[1, 2]),
            *members(1, image=False, age=51, sex="f"),
            *members(2, report=False, history=["a", "b"], v=None),
            *members(3, image=False, report=False),
        ],
    )
    manifest = read_shards(shard, tmp_path / "m", modality=WORDS, group_key="patient", max_bad=0.0)
    present = {name: has.tolist() for name, has in manifest.presence().items()}
    assert present == {
        "image": [True, False, True],
        "report": [True, True, False],
        "history": [True, False, True],
        "labs": [True, True, False],
        "ecg": [True, False, False],
        "v": [True, False, False],
    }
    assert manifest.cells("ecg")[0][0].read_bytes() == ECG
    assert manifest.cells("image")[2][0].read_bytes() == image_bytes(2)
    assert manifest.cells("report")[:2] == [["report 0"], ["report 1"]]
    assert manifest.cells("history")[2] == ["a", "b"]
    assert manifest.cells("labs")[1] == [{"age": 51.0, "sex": "f"}]
    assert manifest.info["counts"] == {"read": 4, "kept": 3, "skipped": 1}
    assert manifest.info["passed_over"] == {"not used, .notes.bin": 4}


def test_a_bad_member_makes_a_bad_row_and_a_pickle_is_never_read(tmp_path):
    pickled = npy(np.array([{"a": 1}], dtype=object), allow_pickle=True)
    contents = [(0, ECG), (1, pickled), (2, npy(np.array([250, 1.0], np.float32))), (3, b"torn")]
    shard = write_shard(tmp_path / "a.tar", [member for n, ecg in contents for member in members(n, ecg=ecg)])
    words = ["report=text:report", "ecg=signal:ecg.npy,rate=500"]
    manifest = read_shards(shard, tmp_path / "m", modality=words, max_bad=0.9)
    assert len(manifest) == 1
    reasons = {line["row"].rpartition("(")[2]: line["reason"] for line in skipped_of(tmp_path / "m")}
    assert reasons == {"case1)": "ecg: unreadable", "case2)": "ecg: no signal", "case3)": "ecg: unreadable"}
    copies = [path for path in (tmp_path / "m").rglob("*") if path.suffix == ".npy"]
    assert len(copies) == 1
    with pytest.raises(DataRefused, match="may hold code"):  # the control: a member that no modality names
        read_shards(shard, tmp_path / "old", image_keys="png", caption_key="report")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["ecg=signal:egc.npy", "report=text:report"], "no sample has the member 'egc.npy'.*did you mean 'ecg.npy'"),
        (["labs=table:age,sexx", "report=text:report"], "no sample has the key in its JSON 'sexx'"),
        (["report=text:reprt"], "no sample has the member or key 'reprt'"),
        (["ecg=signal:ecg.pkl"], "may hold code"),
    ],
)
def test_what_no_sample_has_is_named(tmp_path, words, said):
    ecg = ECG if "ecg" in words[0] else None  # a `.npy` that no modality names makes its sample a bad row
    shard = write_shard(tmp_path / "a.tar", members(0, ecg=ecg, age=1, sex="m"))
    with pytest.raises(UsageError, match=said):
        read_shards(shard, tmp_path / "m", modality=words)


# ---- DICOM ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def folder(tmp_path):
    source = tmp_path / "dicom"
    source.mkdir()
    for number in range(4):
        pixels = np.random.default_rng(number).integers(0, 255, (20, 24), dtype=np.uint8)
        (source / f"{number}.dcm").write_bytes(dicom_bytes(pixels, PatientID=f"ZQSECRET{number // 2}"))
    rows = [
        {"image": "0.dcm", "report": "clear", "age": "61", "sex": "m"},
        {"image": "1.dcm", "report": "", "age": "44", "sex": ""},
        {"image": "2.dcm", "report": "effusion", "age": "", "sex": ""},
    ]
    with (tmp_path / "reports.csv").open("w", newline="") as stream:
        writer = csv.DictWriter(stream, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return source


def test_a_table_joins_modalities_to_the_images_of_a_folder(folder, tmp_path):
    words = ["report=text:report", "labs=table:age,sex"]
    options = {"reports": tmp_path / "reports.csv", "modality": words, "max_bad": 0.0}
    manifest = read_dicom(folder, tmp_path / "m", **options, min_present=1)
    assert {name: has.tolist() for name, has in manifest.presence().items()} == {
        "image": [True] * 4,
        "report": [True, False, True, False],
        "labs": [True, True, False, False],
    }
    assert all(cell[0].suffix == ".png" for cell in manifest.cells("image"))
    assert manifest.cells("labs")[1] == [{"age": 44.0, "sex": None}]
    groups = manifest.table["group"].to_pylist()
    assert groups[0] == groups[1] != groups[2] == groups[3]
    assert len(read_dicom(folder, tmp_path / "two", **options)) == 3
    for path in (tmp_path / "m").rglob("*"):
        assert path.is_dir() or b"ZQSECRET" not in path.read_bytes()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["ecg=signal:age"], "whose files may hold names and dates"),
        (["image=text:report"], "the modality 'image' already"),
        (["burned_in_text=text:report"], "a modality and a label"),
        (["a=text:reprt"], "did you mean 'report'"),
    ],
)
def test_what_a_folder_cannot_give_is_named(folder, tmp_path, words, said):
    with pytest.raises(UsageError, match=said):
        read_dicom(folder, tmp_path / "m", reports=tmp_path / "reports.csv", modality=words)
