"""Patients of a DICOM folder: rows of one study, and of one patient, are never parted."""

import csv

import numpy as np
import pytest
from dicom_samples import dicom_bytes

from gapless.core.errors import UsageError
from gapless.images.dicom_header import identifier
from gapless.manifest.readers.dicom_folder import read_dicom
from gapless.manifest.readers.dicom_groups import doubts, group_files

SECRET = "ZQSECRET"


def keys(patient="", study="", series="", **more):
    return {"PatientID": patient, "StudyInstanceUID": study, "SeriesInstanceUID": series, **more}


def partition(files, by="patient"):
    """The groups as sets of file numbers, smallest first."""
    labels = group_files(files, by)
    return sorted(sorted(n for n, own in enumerate(labels) if own == label) for label in set(labels))


# ---- the relation ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        # A study whose other image lost its PatientID, in either order.
        ([keys("A", "1"), keys("", "1"), keys("B", "2")], [[0, 1], [2]]),
        ([keys("", "1"), keys("A", "1"), keys("B", "2")], [[0, 1], [2]]),
        # Over three steps: study 1 - patient A - study 2 - series 9.
        ([keys("", "1"), keys("A", "1"), keys("A", "2"), keys("", "2", "9"), keys("", "", "9")], [[0, 1, 2, 3, 4]]),
        # The joining file may come last.
        ([keys("", "1"), keys("", "2"), keys("A", "1"), keys("A", "2")], [[0, 1, 2, 3]]),
        # The controls: different patients, different studies, and files that say nothing stay apart.
        ([keys("A", "1"), keys("B", "2")], [[0], [1]]),
        ([keys("", "1"), keys("", "2")], [[0], [1]]),
        ([keys(), keys(), keys("A")], [[0], [1], [2]]),
        # A number and a UID of one spelling are two things.
        ([keys("1.2", ""), keys("", "1.2")], [[0], [1]]),
        # What strangers may share joins nothing.
        ([keys("A", AccessionNumber="7"), keys("B", AccessionNumber="7")], [[0], [1]]),
    ],
)
def test_files_are_joined_by_patient_study_and_series(files, expected):
    assert partition(files) == expected


def test_by_study_the_patient_joins_nothing():
    files = [keys("ANON", "1"), keys("ANON", "1"), keys("ANON", "2"), keys("ANON", "", "5"), keys("ANON", "2", "5")]
    assert partition(files) == [[0, 1, 2, 3, 4]]
    assert partition(files, "study") == [[0, 1], [2, 3, 4]]


def test_against_a_slow_search_over_random_folders():
    """The oracle joins sets that share an identifier until nothing changes."""
    rng = np.random.default_rng(3)
    for _ in range(30):
        draws = rng.integers(0, 6, (12, 3))
        files = [
            keys(*(f"{kind}{value}" if value else "" for kind, value in zip("PSR", row, strict=True))) for row in draws
        ]
        sets = [({n}, {value for value in file.values() if value}) for n, file in enumerate(files)]
        joined = True
        while joined:
            joined = False
            for a in range(len(sets)):
                for b in range(a):
                    if sets[a][1] & sets[b][1]:
                        sets[b] = (sets[a][0] | sets[b][0], sets[a][1] | sets[b][1])
                        del sets[a]
                        joined = True
                        break
                if joined:
                    break
        assert partition(files) == sorted(sorted(numbers) for numbers, _ in sets)


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("PAT1 ", "PAT1", True), ("PAT1\0", "PAT1", True), (" pat1", "PAT1", True), ("A  B", "A B", True),
        ("1000.0", 1000, True), (1000.0, "1000", True), ("007", "7", False), ("PAT1", "PAT10", False),
        ("1.2.840.10", "1.2.840.1", False), ("nan", "", True), ("None", "", True),
    ],
)  # fmt: skip
def test_one_spelling_of_an_identifier(one, other, same):
    assert (identifier(one) == identifier(other)) is same


# ---- what is said ---------------------------------------------------------------------------------------------------


def sentences(files, by="patient"):
    return " | ".join(doubts(files, group_files(files, by), by))


def test_doubtful_identifiers_are_named_and_never_quoted():
    one = sentences([keys(SECRET, str(n)) for n in range(5)])
    assert "all 5 images have the same PatientID" in one
    assert "--group-by study" in one
    shared_study = sentences([keys(f"{SECRET}{n}", "1.2", str(n)) for n in range(5)] + [keys("x", "1.2")])
    assert "all 6 images are one group: a StudyInstanceUID or SeriesInstanceUID that several patients" in shared_study
    mixed = sentences([keys("A", "1"), keys("B", "1"), keys("C", "2")])
    assert "1 of 2 studies hold more than one PatientID" in mixed
    assert "all 2 images are of one study" in sentences([keys("A", "1"), keys("A", "1")])
    half = sentences([keys("anonymous" if n % 2 else f"{SECRET}{n}", str(n)) for n in range(8)])
    assert "looks like a placeholder joins 4 of 8 studies" in half
    large = sentences([keys(SECRET if n else "other", str(n)) for n in range(12)])
    assert "one PatientID joins 11 of 12 studies" in large
    bare = sentences([keys(), keys("A", "1")])
    assert "1 of 2 images have neither PatientID nor StudyInstanceUID nor SeriesInstanceUID" in bare
    assert SECRET not in one + shared_study + half + large + bare


def test_the_control_different_patients_bring_no_sentence():
    assert sentences([keys(f"P{n // 3}", str(n)) for n in range(30)]) == ""
    assert sentences([keys("anonymous", str(n)) for n in range(5)], "study") == ""


# ---- folders --------------------------------------------------------------------------------------------------------


def write_folder(root, files, rows, header=("study", "report")):
    """`files` maps a path to the elements of its header."""
    for seed, (name, elements) in enumerate(files.items()):
        pixels = np.random.default_rng(seed).integers(0, 4096, (20, 24)).astype(np.uint16)
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(dicom_bytes(pixels, Modality="CT", **elements))
    table = root.parent / "reports.csv"
    with table.open("w", newline="") as stream:
        csv.writer(stream).writerows([header, *rows])
    return table


def groups_by_report(manifest):
    groups = {}
    for row in manifest.table.to_pylist():
        groups.setdefault(row["captions"][0], set()).add(row["group"])
    return groups


@pytest.mark.parametrize("nameless", [0, 1, None])
def test_an_image_without_patient_stays_with_its_study(tmp_path, nameless):
    files = {
        f"s{study}/{image}.dcm": {
            "StudyInstanceUID": f"1.2.3.{study}",
            **({} if image == nameless else {"PatientID": f"{SECRET}{study}"}),
        }
        for study in range(4)
        for image in range(2)
    }
    table = write_folder(tmp_path / "d", files, [(f"1.2.3.{n}", f"report {n}") for n in range(4)])
    manifest = read_dicom(tmp_path / "d", tmp_path / "m", table, image_key="study", match="StudyInstanceUID")
    groups = groups_by_report(manifest)
    assert [len(own) for own in groups.values()] == [1] * 4
    assert len(set.union(*groups.values())) == 4
    assert SECRET not in str(manifest.table.to_pylist())


def test_a_file_without_report_may_be_what_joins(tmp_path):
    files = {
        "a.dcm": {"StudyInstanceUID": "1.1", "SeriesInstanceUID": "1.1.1"},
        "b.dcm": {"StudyInstanceUID": "1.2", "PatientID": "P"},
        "z.dcm": {"StudyInstanceUID": "1.1", "PatientID": "p "},
    }
    table = write_folder(tmp_path / "d", files, [("a.dcm", "one"), ("b.dcm", "two")], ("file", "report"))
    manifest = read_dicom(tmp_path / "d", tmp_path / "m", table, image_key="file", max_bad=0.5)
    first, second = manifest.table["group"].to_pylist()
    assert first == second


def test_one_patient_for_all_is_said_and_grouped_by_study_on_request(tmp_path, caplog, capfd):
    files = {f"{n}.dcm": {"StudyInstanceUID": f"1.2.3.{n}", "PatientID": SECRET} for n in range(4)}
    table = write_folder(tmp_path / "d", files, [(f"1.2.3.{n}", f"report {n}") for n in range(4)])
    manifest = read_dicom(tmp_path / "d", tmp_path / "m", table, image_key="study", match="StudyInstanceUID")
    assert len(set(manifest.table["group"].to_pylist())) == 1
    assert "have the same PatientID" in caplog.text
    caplog.clear()
    manifest = read_dicom(
        tmp_path / "d", tmp_path / "n", table, image_key="study", match="StudyInstanceUID", group_by="study"
    )
    assert len(set(manifest.table["group"].to_pylist())) == 4
    assert "PatientID" not in caplog.text
    printed = capfd.readouterr()
    assert SECRET not in printed.out + printed.err + caplog.text
    with pytest.raises(UsageError, match="unknown group_by 'person'"):
        read_dicom(tmp_path / "d", tmp_path / "k", table, image_key="study", group_by="person")


def test_one_value_of_the_group_column_is_said(tmp_path, caplog):
    files = {f"{n}.dcm": {"PatientID": f"P{n}"} for n in range(3)}
    table = write_folder(tmp_path / "d", files, [(f"{n}.dcm", "r", 7) for n in range(3)], ("file", "report", "case"))
    read_dicom(tmp_path / "d", tmp_path / "m", table, image_key="file", group_key="case")
    assert "the column 'case' names one group for all images" in caplog.text


# ---- joining reports, and what lies in a folder ---------------------------------------------------------------------


def test_reports_are_joined_whatever_the_spelling_of_the_key(tmp_path):
    files = {f"{n}.dcm": {"PatientID": f"{1000 + n} ", "StudyInstanceUID": f"1.{n}"} for n in range(3)}
    rows = [("1000.0", "report 0"), ("1001", "report 1"), (" 1002 ", "report 2")]
    table = write_folder(tmp_path / "d", files, rows, ("patient", "report"))
    manifest = read_dicom(tmp_path / "d", tmp_path / "m", table, image_key="patient", match="PatientID")
    assert manifest.table["captions"].to_pylist() == [[f"report {n}"] for n in range(3)]


def test_paths_of_other_systems_name_the_same_files(tmp_path):
    files = {f"{folder}/0.dcm": {"PatientID": folder} for folder in ("a", "b", "caf\u00e9", "d")}
    rows = [("a\\0.dcm", "in a"), ("./b/0.dcm", "in b"), ("cafe\u0301/0.dcm", "in c"), ("d//0.dcm", "in d")]
    table = write_folder(tmp_path / "d", files, rows, ("file", "report"))
    manifest = read_dicom(tmp_path / "d", tmp_path / "m", table, image_key="file")
    assert [row["captions"] for row in manifest.table.to_pylist()] == [["in a"], ["in b"], ["in c"], ["in d"]]


def test_a_file_without_the_key_says_which_element_is_missing(tmp_path):
    files = {"0.dcm": {"StudyInstanceUID": "1.0"}, "1.dcm": {}}
    table = write_folder(tmp_path / "d", files, [("1.0", "report")])
    manifest = read_dicom(
        tmp_path / "d", tmp_path / "m", table, image_key="study", match="StudyInstanceUID", max_bad=0.5
    )
    assert "the file has no StudyInstanceUID" in (manifest.path / "skipped.jsonl").read_text()


def test_what_is_not_read_is_counted(tmp_path, caplog):
    files = {"a/0.dcm": {"PatientID": "A"}, "b/0.dcm": {"PatientID": "B"}}
    table = write_folder(tmp_path / "d", files, [("a/0.dcm", "one"), ("b/0.dcm", "two")], ("file", "report"))
    (tmp_path / "d/.cache").mkdir()
    (tmp_path / "d/linked").symlink_to(tmp_path / "d/a")
    for name in ("a/._0.dcm", ".cache/1.dcm", "DICOMDIR", "b/Thumbs.db", "__MACOSX"):
        (tmp_path / "d" / name).write_bytes(b"x")
    (tmp_path / "d/__MACOSX").unlink()
    manifest = read_dicom(tmp_path / "d", tmp_path / "m", table, image_key="file", max_bad=0.0)
    assert manifest.info["passed_over"] == {
        "an index of DICOM files": 1,
        "hidden (its name, or its folder's, begins with a dot)": 1,
        "left by macOS, Windows or tar": 2,
        "a link to a folder, which is not followed": 1,
    }
    assert "a link to a folder" in caplog.text


def test_a_label_that_the_reader_has_itself_is_refused(tmp_path):
    table = write_folder(tmp_path / "d", {"0.dcm": {}}, [("0.dcm", "r", "x")], ("file", "report", "body_part"))
    with pytest.raises(UsageError, match="the column 'body_part' twice"):
        read_dicom(tmp_path / "d", tmp_path / "m", table, image_key="file", label_keys=["body_part"])
