"""ROCO, ROCOv2, tar shards and DICOM folders: every line counted, nothing trusted."""

import csv
import gzip
import io
import json
import tarfile

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from data_samples import noise_image, shared
from dicom_samples import dicom_bytes

from gapless.core.errors import DataRefused, UsageError
from gapless.images.pixels import load_image
from gapless.manifest.readers.dicom_folder import read_dicom
from gapless.manifest.readers.roco import read_licences, read_roco, roco_coverage, roco_folders, roco_rows
from gapless.manifest.readers.rocov2 import read_rocov2
from gapless.manifest.readers.shards import read_shards


def png(seed):
    stream = io.BytesIO()
    noise_image(seed).save(stream, "PNG")
    return stream.getvalue()


def reasons(manifest):
    return manifest.info["skipped"]


# ---- ROCO -----------------------------------------------------------------------------------------------------------


def roco_tree(root, split, count, first=0, kind="radiology"):
    folder = root / "data" / split / kind
    (folder / "images").mkdir(parents=True)
    ids = [f"ROCO_{number:05d}" for number in range(first, first + count)]
    for number, id in enumerate(ids, start=first):
        noise_image(number).save(folder / f"images/{id}.jpg")
    licences = [f"{id},PMC{100 + n // 2}_a,b_{n}.jpg,{('CC BY', 'CC BY-NC')[n % 2]}" for n, id in enumerate(ids, first)]
    (folder / "captions.txt").write_text("".join(f"{id}\t A caption of {id}.\n" for id in ids))
    (folder / "licences.txt").write_text("ROCO_ID,PMC_ID,CC\n" + "".join(f"{line}\n" for line in licences))
    (folder / "semtypes.txt").write_text("".join(f"{id}\t\tT046\tPathologic Function\tT061\tX\n" for id in ids))
    (folder / "dlinks.txt").write_text("".join(f"{id}\twget x/PMC9{id[-4:]}.tar.gz\ty.jpg\n" for id in ids))
    return folder


def test_roco_is_read_with_article_licence_and_labels(tmp_path):
    roco_tree(tmp_path, "train", 6)
    roco_tree(tmp_path, "test", 4, first=50)
    manifest = read_roco(tmp_path, tmp_path / "m")
    assert manifest.rows_per_split() == {"train": 6, "test": 4}
    row = manifest.table.to_pylist()[3]
    assert row["id"] == "ROCO_00003"
    assert row["group"] == "PMC101"
    assert row["captions"] == ["A caption of ROCO_00003."]
    assert row["licence"] == "CC BY-NC"
    assert (row["kind"], row["semantic_type"]) == ("radiology", "Pathologic Function")
    assert load_image(manifest.image_path(3)).shape == (20, 24)


def test_roco_by_licence_and_kind(tmp_path):
    roco_tree(tmp_path, "train", 6)
    roco_tree(tmp_path, "train", 2, first=80, kind="non-radiology")
    manifest = read_roco(tmp_path, tmp_path / "m", kinds=("radiology", "non-radiology"), licences=["cc by", "CC0"])
    assert manifest.table["id"].to_pylist() == [f"ROCO_{n:05d}" for n in (0, 2, 4, 80)]
    assert reasons(manifest) == {"licence not selected": 4}


def test_lost_images_are_counted_and_above_the_ceiling_refused(tmp_path):
    folder = roco_tree(tmp_path, "train", 10)
    for number in (1, 4, 5):
        (folder / f"images/ROCO_0000{number}.jpg").unlink()
    assert roco_coverage(tmp_path) == {"train/radiology": {"named": 10, "present": 7}}
    with pytest.raises(DataRefused, match=r"3 of 10 rows \(30.0%\) are bad.* 3 missing image"):
        read_roco(tmp_path, tmp_path / "m")
    manifest = read_roco(tmp_path, tmp_path / "m", max_bad=0.3)
    assert manifest.info["counts"] == {"read": 10, "kept": 7, "skipped": 3}


def test_no_odd_line_of_roco_is_lost_without_a_reason(tmp_path):
    folder = roco_tree(tmp_path, "train", 8)
    captions = (folder / "captions.txt").read_text().splitlines()
    captions[1] = captions[0]
    captions[2] = "no id at all"
    captions[3] = "ROCO_00003\t  "
    captions[4] += "\twith a tab, a \u2028 separator and a \x85"
    (folder / "captions.txt").write_text("\n".join(captions))
    licences = (folder / "licences.txt").read_text().splitlines()
    licences[6] = "ROCO_00005,nothing"
    (folder / "licences.txt").write_text("\r\n".join(licences))
    (folder / "dlinks.txt").unlink()
    manifest = read_roco(tmp_path, tmp_path / "m", max_bad=1.0)
    assert manifest.table["id"].to_pylist() == ["ROCO_00000", "ROCO_00004", "ROCO_00006", "ROCO_00007"]
    expected = {"duplicate id": 1, "malformed line": 2, "no caption": 2, "empty caption": 1, "no article": 1}
    assert reasons(manifest) == dict(sorted(expected.items()))
    assert manifest.info["counts"]["read"] == 4 + sum(expected.values())


def test_the_article_is_found_in_the_links_when_the_licences_have_none(tmp_path):
    folder = roco_tree(tmp_path, "train", 2)
    (folder / "licences.txt").unlink()
    manifest = read_roco(tmp_path, tmp_path / "m")
    assert manifest.table["group"].to_pylist() == ["PMC90000", "PMC90001"]
    assert manifest.table["licence"].to_pylist() == [None, None]


def test_a_linked_folder_of_images_is_fine(tmp_path):
    folder = roco_tree(tmp_path / "roco", "train", 3)
    (folder / "images").rename(tmp_path / "disk")
    (folder / "images").symlink_to(tmp_path / "disk")
    assert len(read_roco(tmp_path / "roco", tmp_path / "m")) == 3


def test_other_folders_and_names_are_usage_errors(tmp_path):
    with pytest.raises(UsageError, match="is no ROCO tree"):
        read_roco(tmp_path, tmp_path / "m")
    roco_tree(tmp_path, "train", 1)
    with pytest.raises(UsageError, match="unknown split 'dev'"):
        read_roco(tmp_path, tmp_path / "m", splits=("dev",))
    with pytest.raises(UsageError, match="has none of test/radiology"):
        read_roco(tmp_path, tmp_path / "m", splits=("test",))


def test_every_line_of_the_real_files_is_parsed():
    root = shared("roco")
    folders = roco_folders(root, ("validation",), ("radiology",))
    rows = list(roco_rows(folders))
    assert len(rows) == 8180
    assert not [row for row in rows if row.fault]
    lines = (root / "data/train/radiology/licences.txt").read_text().count("\n") - 1
    licences, odd = read_licences(root / "data/train/radiology/licences.txt", "train")
    assert len(licences) == lines == 65_448
    assert not odd


def test_the_real_tree_without_images_is_refused_with_its_coverage(tmp_path):
    with pytest.raises(DataRefused, match=r"8180 of 8180 rows \(100.0%\) are bad.* 8180 missing image"):
        read_roco(shared("roco"), tmp_path / "m", splits=("validation",))


# ---- ROCOv2 ---------------------------------------------------------------------------------------------------------


def rocov2_tree(root):
    root.mkdir()
    licences, mapping = [], [("C0040405", "Computed Tomography"), ("C1306645", "Plain x-ray")]
    for split, folder, count in (("train", "train_images/train", 4), ("valid", "valid", 2), ("test", "test_images", 2)):
        (root / folder).mkdir(parents=True)
        ids = [f"ROCOv2_2023_{split}_{n:06d}" for n in range(count)]
        for n, id in enumerate(ids):
            noise_image(n + 10 * count).save(root / folder / f"{id}.{'png' if n else 'jpg'}")
            licences.append((id, f"PMC{n // 2}{split}", f"CC BY{'-NC' * (n % 2)} [Someone et al. (2020)]", "link"))
        write_csv(root / f"{split}_captions.csv", ("ID", "Caption"), [(id, f"Caption, of {id}") for id in ids])
        write_csv(root / f"{split}_concepts_manual.csv", ("ID", "CUIs"), [(id, "C0040405;C1306645") for id in ids])
    write_csv(root / "license_information.csv", ("ID ", "PMCID", "Attribution", "Link"), licences)
    write_csv(root / "cui_mapping.csv", ("CUI", "Canonical name"), mapping)


def write_csv(path, header, rows):
    with path.open("w", newline="") as stream:
        csv.writer(stream).writerows([header, *rows])


def test_rocov2_from_tables_and_folders(tmp_path):
    rocov2_tree(tmp_path / "v2")
    manifest = read_rocov2(tmp_path / "v2", tmp_path / "m")
    assert manifest.rows_per_split() == {"train": 4, "validation": 2, "test": 2}
    row = manifest.table.to_pylist()[3]
    assert row["group"] == "PMC1train"
    assert row["licence"] == "CC BY-NC"
    assert row["concept"] == "Computed Tomography"
    assert row["captions"] == ["Caption, of ROCOv2_2023_train_000003"]
    assert manifest.info["groups"] == "article"
    selected = read_rocov2(tmp_path / "v2", tmp_path / "by", licences=["CC BY"])
    assert set(selected.table["licence"].to_pylist()) == {"CC BY"}


def rocov2_parquet(root, split, count):
    (root / "data").mkdir(parents=True, exist_ok=True)
    rows = [
        {
            "image": {"bytes": png(n), "path": f"{n}.png"},
            "image_id": f"ROCOv2_2023_{split}_{n:06d}",
            "caption": f"caption {n}",
            "cui": ["C0040405"],
        }
        for n in range(count)
    ]
    pq.write_table(pa.Table.from_pylist(rows), root / f"data/{split}-00000-of-00001.parquet")


def test_rocov2_from_parquet_says_that_articles_are_unknown(tmp_path):
    rocov2_parquet(tmp_path / "v2", "train", 3)
    rocov2_parquet(tmp_path / "v2", "validation", 2)
    manifest = read_rocov2(tmp_path / "v2", tmp_path / "m")
    assert manifest.rows_per_split() == {"train": 3, "validation": 2}
    assert manifest.info["groups"] == "image"
    assert manifest.image_path(1).read_bytes() == png(1)
    licences = [(f"ROCOv2_2023_train_{n:06d}", f"PMC{n // 2}", "CC BY [x]", "") for n in range(3)]
    write_csv(tmp_path / "v2/license_information.csv", ("ID", "PMCID", "Attribution", "Link"), licences)
    joined = read_rocov2(tmp_path / "v2", tmp_path / "joined", splits=("train",))
    assert joined.table["group"].to_pylist() == ["PMC0", "PMC0", "PMC1"]
    with pytest.raises(DataRefused, match="2 no article"):
        read_rocov2(tmp_path / "v2", tmp_path / "refused")


def test_an_id_that_is_a_path_is_refused(tmp_path):
    rocov2_tree(tmp_path / "v2")
    write_csv(
        tmp_path / "v2/train_captions.csv", ("ID", "Caption"), [("../../x", "c"), ("ROCOv2_2023_train_000000", "c")]
    )
    manifest = read_rocov2(tmp_path / "v2", tmp_path / "m", splits=("train",), max_bad=0.5)
    assert reasons(manifest) == {"malformed row": 1}
    with pytest.raises(UsageError, match="is no ROCOv2 folder"):
        read_rocov2(tmp_path / "m", tmp_path / "n")


# ---- tar shards -----------------------------------------------------------------------------------------------------


def write_tar(path, members):
    with tarfile.open(path, "w") as tar:
        for name, content in members:
            info = tarfile.TarInfo(name)
            if isinstance(content, str):
                info.type, info.linkname = tarfile.SYMTYPE, content
                tar.addfile(info)
            else:
                info.size = len(content)
                tar.addfile(info, io.BytesIO(content))
    return path


def sample(number, **cells):
    caption = [(f"{number:04d}.txt", f"caption {number}".encode())]
    described = [(f"{number:04d}.json", json.dumps(cells).encode())] if cells else []
    return [(f"{number:04d}.png", png(number)), *caption, *described]


def test_shards_are_read_in_order_with_their_json(tmp_path):
    first = write_tar(tmp_path / "a.tar", [m for n in range(3) for m in sample(n, case=f"c{n}", region="chest")])
    second = write_tar(tmp_path / "b.tar", [*sample(7, case="c7", region="head"), ("0008.seg.npz.txt", b"x")][:3])
    manifest = read_shards(
        [f"train={first}", f"val={second}"], tmp_path / "m", group_key="case", label_keys=("region",)
    )
    assert manifest.rows_per_split() == {"train": 3, "validation": 1}
    assert manifest.table["id"].to_pylist() == ["a/0000", "a/0001", "a/0002", "b/0007"]
    assert manifest.table["group"].to_pylist() == ["c0", "c1", "c2", "c7"]
    assert [manifest.image_path(row).read_bytes() for row in range(4)] == [png(n) for n in (0, 1, 2, 7)]
    assert manifest.image_path(0).is_relative_to(manifest.path)


@pytest.mark.parametrize(
    ("member", "detail"),
    [
        (("../0001.png", b"x"), "leads out"),
        (("/etc/0001.png", b"x"), "leads out"),
        (("a/../../0001.png", b"x"), "leads out"),
        (("0001.png", "/etc/passwd"), "not a plain file"),
        (("0001.pyd", b"cos\nsystem\n(S'touch /tmp/pwned'\ntR."), "may hold code"),
        (("0001.feature.npy", b"x"), "may hold code"),
    ],
)
def test_unsafe_members_cost_their_sample(tmp_path, member, detail):
    shard = write_tar(tmp_path / "a.tar", [*sample(0), member, *sample(2)])
    manifest = read_shards(shard, tmp_path / "m", max_bad=0.5)
    assert manifest.info["counts"] == {"read": 3, "kept": 2, "skipped": 1}
    listed = json.loads((manifest.path / "skipped.jsonl").read_text())
    assert listed["reason"] == "unsafe tar member"
    assert detail in listed["detail"]


@pytest.mark.parametrize("name", ["pipe:cat a.tar", "http://example.org/a.tar", "s3://bucket/a.tar", "nothing.tar"])
def test_only_local_files_are_opened(tmp_path, name, monkeypatch):
    monkeypatch.setattr("subprocess.Popen", lambda *args, **kwargs: pytest.fail("a program was started"))
    with pytest.raises(UsageError):
        read_shards(name, tmp_path / "m")


def test_a_shard_that_ends_or_breaks_in_the_middle_is_refused(tmp_path):
    """Python's tarfile takes most of these for a shorter archive: the control shows it."""
    shard = write_tar(tmp_path / "a.tar", [m for n in range(6) for m in sample(n)])
    whole = shard.read_bytes()
    with tarfile.open(shard) as tar:
        header = tar.getmembers()[6].offset
        last = tar.getmembers()[-1]
        end = last.offset_data + 512
    broken = {
        "header": whole[:header] + b"z" * 40 + whole[header + 40 :],
        "zeroed": whole[:header] + bytes(512) + whole[header + 512 :],
        "cut in a header": whole[: header + 100],
        "cut in data": whole[: header - 700],
        "cut before the end mark": whole[:end],
    }
    silent = 0
    for content in broken.values():
        shard.write_bytes(content)
        try:
            with tarfile.open(shard, "r:") as tar:
                silent += len(tar.getmembers()) > 0
        except tarfile.TarError:
            pass
        with pytest.raises(DataRefused, match="is damaged after"):
            read_shards(shard, tmp_path / "m")
        assert not (tmp_path / "m").exists()
    assert silent >= 3


def test_a_compressed_shard_is_named(tmp_path):
    shard = write_tar(tmp_path / "a.tar", sample(0))
    (tmp_path / "a.tar.gz").write_bytes(gzip.compress(shard.read_bytes()))
    with pytest.raises(UsageError, match="unpack it first"):
        read_shards(tmp_path / "a.tar.gz", tmp_path / "m")


def test_a_broken_sample_is_one_row(tmp_path):
    members = [*sample(0), ("0001.png", b"not a png"), ("0001.txt", b"c"), ("0002.txt", b"no image"), *sample(3)]
    members += [("0004.png", png(4)), ("0004.json", b"[1]"), ("0005.png", png(5)), ("0005.txt", b"\xff")]
    manifest = read_shards(write_tar(tmp_path / "a.tar", members), tmp_path / "m", max_bad=0.9)
    assert reasons(manifest) == {"malformed row": 2, "missing image": 1, "unreadable image": 1}
    assert manifest.info["counts"]["read"] == 6


# ---- DICOM folders --------------------------------------------------------------------------------------------------

SECRET = "ZZSECRET"


def dicom_folder(root, count=6):
    """Files of three patients under names, descriptions and a body part that must not get out."""
    rng = np.random.default_rng(0)
    root.mkdir()
    for number in range(count):
        content = dicom_bytes(
            rng.integers(0, 4096, (24, 20)).astype(np.uint16),
            PatientName=f"{SECRET}^Name",
            PatientID=f"{SECRET}{number // 2}",
            StudyInstanceUID=f"1.2.3.{number // 2}",
            AccessionNumber=f"ACC{SECRET}"[:16],
            InstitutionName=SECRET,
            StudyDescription=SECRET,
            BodyPartExamined="CHEST" if number else SECRET,
            Modality=("CT", "US")[number % 2],
        )
        (root / f"scan_{number}.dcm").write_bytes(content)
    write_csv(root / "reports.csv", ("file", "text"), [(f"scan_{n}.dcm", f"report {n}") for n in range(count)])
    return root


def everything_written(path):
    parts = [str(path)]
    for file in path.rglob("*"):
        parts.append(str(file))
        if file.suffix == ".parquet":
            parts.append(str(pq.read_table(file).to_pylist()))
        if file.is_file():
            parts.append(file.read_bytes().decode("latin-1"))
    return "\n".join(parts)


def test_a_folder_with_its_reports(tmp_path):
    folder = dicom_folder(tmp_path / "hospital")
    manifest = read_dicom(folder, tmp_path / "m", folder / "reports.csv", image_key="file", caption_key="text")
    assert manifest.info["counts"] == {"read": 6, "kept": 6, "skipped": 0}
    rows = manifest.table.to_pylist()
    assert [row["captions"] for row in rows] == [[f"report {n}"] for n in range(6)]
    assert len({row["group"] for row in rows}) == 3
    assert rows[0]["group"] == rows[1]["group"] != rows[2]["group"]
    assert [row["body_part"] for row in rows] == [None, *["CHEST"] * 5]
    assert [row["burned_in_text"] for row in rows] == ["unknown", "suspected"] * 3
    assert np.array_equal(load_image(manifest.image_path(2)), load_image(folder / "scan_2.dcm"))
    assert manifest.image_path(2).suffix == ".png"


def test_what_is_grouped_by_gets_a_name_that_tells_nothing(tmp_path):
    folder = dicom_folder(tmp_path / "hospital")
    rows = [(f"scan_{number}.dcm", f"report {number}", f"{SECRET}-{number % 2}") for number in range(6)]
    write_csv(folder / "reports.csv", ("file", "text", "case"), rows)
    options = {"image_key": "file", "caption_key": "text", "group_key": "case"}
    first, again = (read_dicom(folder, tmp_path / name, folder / "reports.csv", **options) for name in "ab")
    groups = first.table["group"].to_pylist()
    assert groups == again.table["group"].to_pylist()
    assert groups[0] == groups[2] == groups[4] != groups[1] == groups[3]
    assert SECRET not in everything_written(first.path)


def test_no_header_value_is_in_any_output(tmp_path, capfd, caplog):
    folder = dicom_folder(tmp_path / "hospital")
    (folder / "scan_3.dcm").write_bytes((folder / "scan_3.dcm").read_bytes()[:-300])
    manifest = read_dicom(
        folder, tmp_path / "m", folder / "reports.csv", image_key="file", caption_key="text", max_bad=0.5, workers=2
    )
    assert reasons(manifest) == {"unreadable image": 1}
    printed = capfd.readouterr()
    assert SECRET not in everything_written(manifest.path) + printed.out + printed.err + caplog.text
    assert SECRET.encode() in (folder / "scan_1.dcm").read_bytes()  # the control: it was there to be leaked
    with pytest.raises(DataRefused) as refusal:
        read_dicom(folder, tmp_path / "n", folder / "reports.csv", image_key="file", caption_key="text")
    assert SECRET not in str(refusal.value) + (tmp_path / "n.skipped.jsonl").read_text()


def test_reports_can_be_joined_by_an_identifier_that_stays_inside(tmp_path):
    folder = dicom_folder(tmp_path / "hospital")
    write_csv(tmp_path / "studies.csv", ("study", "text"), [(f"1.2.3.{n}", f"study report {n}") for n in range(4)])
    manifest = read_dicom(
        folder,
        tmp_path / "m",
        tmp_path / "studies.csv",
        image_key="study",
        caption_key="text",
        match="StudyInstanceUID",
        max_bad=0.5,
    )
    # reports.csv lies in the folder and is no DICOM file; the report of study 3 has no image.
    assert reasons(manifest) == {"missing image": 1, "not a DICOM file": 1}
    assert manifest.table["captions"].to_pylist() == [[f"study report {n // 2}"] for n in range(6)]
    assert "1.2.3." not in everything_written(manifest.path)
    with pytest.raises(UsageError, match="unknown match 'PatientName'"):
        read_dicom(
            folder, tmp_path / "n", tmp_path / "studies.csv", image_key="study", caption_key="text", match="PatientName"
        )


def test_burned_in_text_can_be_left_out(tmp_path):
    folder = dicom_folder(tmp_path / "hospital")
    manifest = read_dicom(
        folder,
        tmp_path / "m",
        folder / "reports.csv",
        image_key="file",
        caption_key="text",
        allow_burned_in_text=False,
        max_bad=0.0,
    )
    assert reasons(manifest) == {"burned-in text": 3}
    assert set(manifest.table["burned_in_text"].to_pylist()) == {"unknown"}


def test_files_without_report_and_links_are_counted(tmp_path):
    folder = dicom_folder(tmp_path / "hospital")
    write_csv(folder / "reports.csv", ("file", "text"), [(f"scan_{n}.dcm", "r") for n in (0, 1, 1, 2)] + [("", "r")])
    (folder / "link.dcm").symlink_to(tmp_path / "hospital/../outside.dcm")
    (tmp_path / "outside.dcm").write_bytes((folder / "scan_0.dcm").read_bytes())
    (folder / "DICOMDIR").write_bytes(b"index")
    manifest = read_dicom(
        folder, tmp_path / "m", folder / "reports.csv", image_key="file", caption_key="text", max_bad=0.9
    )
    expected = {"duplicate report": 1, "malformed row": 1, "no report": 3, "path outside the image root": 1}
    assert reasons(manifest) == expected
    assert manifest.info["counts"] == {"read": 9, "kept": 3, "skipped": 6}
