"""ROCO and ROCOv2: equal names, files without a line, lines inside lines, and side files that disagree."""

import csv
import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from data_samples import noise_image
from shard_samples import image_bytes

from gapless.core.errors import DataRefused, UsageError
from gapless.manifest.readers.roco import read_roco, roco_coverage
from gapless.manifest.readers.rocov2 import read_rocov2


def skipped(manifest):
    return [json.loads(line) for line in (manifest.path / "skipped.jsonl").read_text().splitlines()]


# ---- ROCO -----------------------------------------------------------------------------------------------------------


def roco_folder(root, numbers, split="train"):
    folder = root / "data" / split / "radiology"
    (folder / "images").mkdir(parents=True)
    for number in numbers:
        noise_image(number).save(folder / f"images/ROCO_{number:05d}.jpg")
    (folder / "captions.txt").write_text("".join(f"ROCO_{n:05d}\tcaption {n}\n" for n in numbers))
    (folder / "licences.txt").write_text("".join(f"ROCO_{n:05d},PMC{n}_x.jpg,CC BY\n" for n in numbers))
    return folder


def test_two_files_of_one_id_are_a_bad_row_and_other_suffixes_are_read(tmp_path):
    folder = roco_folder(tmp_path, range(4))
    (folder / "images/ROCO_00001.png").write_bytes(image_bytes(77))
    (folder / "images/ROCO_00002.jpg").rename(folder / "images/ROCO_00002.JPG")
    (folder / "images/ROCO_00003.jpg").unlink()
    (folder / "images/ROCO_00003.png").write_bytes(image_bytes(3))
    manifest = read_roco(tmp_path, tmp_path / "m", max_bad=0.5)
    assert manifest.table["id"].to_pylist() == ["ROCO_00000", "ROCO_00002", "ROCO_00003"]
    assert skipped(manifest)[0]["detail"] == "ROCO_00001.jpg and ROCO_00001.png in images: remove one"
    assert manifest.image_path(2).read_bytes() == image_bytes(3)
    assert roco_coverage(tmp_path) == {"train/radiology": {"named": 4, "present": 4}}


def test_images_that_no_line_names_are_counted(tmp_path, caplog):
    folder = roco_folder(tmp_path, range(4))
    for name in ("captions.txt", "licences.txt"):  # both files were cut
        lines = (folder / name).read_text().splitlines(keepends=True)
        (folder / name).write_text("".join(lines[:3]))
    for name in ("._ROCO_00001.jpg", ".DS_Store", "Thumbs.db"):
        (folder / "images" / name).write_bytes(b"x")
    manifest = read_roco(tmp_path, tmp_path / "m")
    assert manifest.info["passed_over"] == {
        "an image that no line of the text files names": 1,
        "left by macOS, Windows or tar": 3,
    }
    assert "images/ROCO_00003.jpg" in caplog.text
    assert "nothing of the split validation and test" in caplog.text
    assert manifest.info["counts"] == {"read": 3, "kept": 3, "skipped": 0}


def test_a_line_that_swallowed_others_is_a_bad_row(tmp_path):
    folder = roco_folder(tmp_path, range(6))
    content = (folder / "captions.txt").read_text().replace("caption 2\n", "caption 2\r").replace("n 4\n", "n 4 \u2028")
    (folder / "captions.txt").write_text(content, newline="")
    manifest = read_roco(tmp_path, tmp_path / "m", max_bad=0.9)
    assert manifest.table["captions"].to_pylist() == [["caption 0"], ["caption 1"]]
    assert manifest.info["skipped"] == {"malformed line": 2, "no caption": 4}


def test_other_encodings_are_not_replaced_in_silence(tmp_path):
    folder = roco_folder(tmp_path, range(3))
    text = (folder / "captions.txt").read_text().replace("caption 1", "na\u00efve caption")
    (folder / "captions.txt").write_bytes(text.encode("cp1252"))
    manifest = read_roco(tmp_path, tmp_path / "m", max_bad=0.5)
    assert manifest.info["skipped"] == {"not UTF-8": 1}
    (folder / "captions.txt").write_bytes(text.encode("utf-8-sig"))
    assert len(read_roco(tmp_path, tmp_path / "n")) == 3
    (folder / "captions.txt").write_bytes(text.encode("utf-16"))
    with pytest.raises(DataRefused, match="is UTF-16: save it as UTF-8"):
        read_roco(tmp_path, tmp_path / "k")


# ---- ROCOv2 ---------------------------------------------------------------------------------------------------------


def write_csv(path, header, rows):
    with path.open("w", newline="") as stream:
        csv.writer(stream).writerows([header, *rows])


def csv_tree(root, numbers, split="train"):
    (root / f"{split}_images").mkdir(parents=True)
    for number in numbers:
        (root / f"{split}_images/R_{number}.png").write_bytes(image_bytes(number))
    write_csv(root / f"{split}_captions.csv", ("ID", "Caption"), [(f"R_{n}", f"report {n}") for n in numbers])
    return root


def test_equal_names_inside_parquet_are_different_images(tmp_path):
    """Files called alike in folders, images called alike inside, and no ids: still each its own."""
    for folder, first in (("train", 0), ("validation", 10), ("train/more", 20)):
        (tmp_path / "v2" / folder).mkdir(parents=True)
        rows = [
            {"image": {"bytes": image_bytes(n), "path": "image.png"}, "caption": f"report {n}"}
            for n in range(first, first + 3)
        ]
        name = "train-0.parquet" if "/" in folder else "0000.parquet"
        pq.write_table(pa.Table.from_pylist(rows), tmp_path / "v2" / folder / name)
    manifest = read_rocov2(tmp_path / "v2", tmp_path / "m")
    rows = manifest.table.to_pylist()
    assert len(rows) == len({row["id"] for row in rows}) == len({row["group"] for row in rows}) == 9
    for number, row in enumerate(rows):
        seed = int(row["captions"][0].split()[1])
        assert manifest.image_path(number).read_bytes() == image_bytes(seed)
        assert row["split"] == ("validation" if 10 <= seed < 20 else "train")


def test_parquet_files_that_are_not_read_or_not_here_are_said(tmp_path, caplog):
    (tmp_path / "v2").mkdir()
    rows = [{"image": {"bytes": image_bytes(0), "path": None}, "caption": "report 0", "image_id": "a"}]
    for name in ("train-00000-of-00003.parquet", "0000.parquet"):
        pq.write_table(pa.Table.from_pylist(rows), tmp_path / "v2" / name)
    manifest = read_rocov2(tmp_path / "v2", tmp_path / "m")
    assert manifest.info["passed_over"] == {"a Parquet file without a split in its name": 1}
    assert "has 1 of the 3 files train-*-of-00003.parquet" in caplog.text
    csv_tree(tmp_path / "v2", range(2))
    assert read_rocov2(tmp_path / "v2", tmp_path / "n").info["passed_over"] == {
        "a Parquet file beside the CSV files, which are read": 2
    }


def test_images_and_lines_of_the_csv_form_are_accounted_for(tmp_path):
    root = csv_tree(tmp_path / "v2", range(5))
    (root / "train_images/R_1.jpg").write_bytes(image_bytes(90, "JPEG"))
    (root / "train_images/R_2.png").rename(root / "train_images/R_2.PNG")
    (root / "train_images/R_9.png").write_bytes(image_bytes(9))
    licences = [*((f"R_{n}", f"PMC{n}", "CC BY") for n in range(5)), ("R_3", "PMC77", "CC BY"), ("torn",)]
    write_csv(root / "license_information.csv", ("ID", "PMCID", "Attribution"), licences)
    manifest = read_rocov2(root, tmp_path / "m", max_bad=0.9)
    assert manifest.table["id"].to_pylist() == ["R_0", "R_2", "R_3", "R_4"]
    assert manifest.info["skipped"] == {"malformed row": 1, "two articles": 1, "two images": 1}
    assert manifest.info["passed_over"] == {"an image that no line of the text files names": 1}


@pytest.mark.parametrize(
    ("header", "words"),
    [
        (("ID", "Text"), "no column 'caption'"),
        (("Name", "Caption"), "no column 'id'"),
        (("ID", "id "), "more than one"),
    ],
)
def test_columns_are_checked_before_the_work(tmp_path, header, words):
    root = csv_tree(tmp_path / "v2", range(1))
    write_csv(root / "train_captions.csv", header, [("R_0", "x")])
    with pytest.raises(UsageError, match=words):
        read_rocov2(root, tmp_path / "m")


def test_two_tables_of_one_split_and_unknown_splits_are_refused(tmp_path):
    root = csv_tree(tmp_path / "v2", range(1), "valid")
    write_csv(root / "val_captions.csv", ("ID", "Caption"), [("R_0", "x")])
    with pytest.raises(UsageError, match="are both of the split validation"):
        read_rocov2(root, tmp_path / "m")
    with pytest.raises(UsageError, match="unknown split 'dev'"):
        read_rocov2(root, tmp_path / "m", splits=["dev"])
