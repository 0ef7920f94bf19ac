"""What a row belongs to: its patient as the table writes it, or its image; and what is said when all are one."""

import csv

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from data_samples import noise_image

from gapless.manifest.readers.table import read_table
from gapless.manifest.split import split_manifest


def save_rows(folder, columns, images=None):
    """`rows.csv` with images of its own, or those named."""
    count = len(next(iter(columns.values())))
    images = images or [f"{n}.png" for n in range(count)]
    for number, name in enumerate(images):
        if not (folder / name).exists():
            noise_image(number).save(folder / name)
    with (folder / "rows.csv").open("w", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(["image", "caption", *columns])
        writer.writerows(zip(images, (f"caption {n}" for n in range(count)), *columns.values(), strict=True))
    return folder / "rows.csv"


def groups_of(table, out, **options):
    return read_table(table, out, **options).table["group"].to_pylist()


def encoded(seed):
    import io

    stream = io.BytesIO()
    noise_image(seed).save(stream, "PNG")
    return stream.getvalue()


def test_images_of_one_name_inside_parquet_are_not_one_group(tmp_path):
    cells = [{"bytes": encoded(seed), "path": "image.png"} for seed in (0, 1, 2, 1)]
    pq.write_table(pa.table({"image": cells, "caption": list("abcd")}), tmp_path / "rows.parquet")
    groups = groups_of(tmp_path / "rows.parquet", tmp_path / "m")
    assert len(set(groups)) == 3
    assert groups[1] == groups[3]  # the same image is one group, under whatever name


def test_a_file_named_twice_and_a_copy_of_it_are_one_group(tmp_path):
    table = save_rows(tmp_path, {"x": list("abcd")}, ["0.png", "1.png", "0.png", "./0.png"])
    (tmp_path / "copy.png").write_bytes((tmp_path / "0.png").read_bytes())
    table.write_text(table.read_text() + "copy.png,more,e\n")
    groups = groups_of(table, tmp_path / "m")
    assert groups[0] == groups[2] == groups[3] == groups[4] != groups[1]


def test_groups_of_two_manifests_are_equal_only_for_equal_images(tmp_path):
    for part, seed in (("a", 0), ("b", 1)):
        cells = [{"bytes": encoded(seed), "path": "image.png"}, {"bytes": encoded(9), "path": "image.png"}]
        pq.write_table(pa.table({"image": cells, "caption": ["x", "y"]}), tmp_path / f"{part}.parquet")
    first, second = (groups_of(tmp_path / f"{part}.parquet", tmp_path / part) for part in "ab")
    assert set(first) & set(second) == {first[1]} == {second[1]}


@pytest.mark.parametrize(
    ("cells", "same"),
    [
        (["1000.0", "1000"], True),
        (["7", "007"], False),
        (["case\u200b 7", "case\u00a07"], True),
        (["Mu\u0308ller", "M\u00fcller"], True),
        (["A", "a"], False),
        (["1.5", "1"], False),
    ],
)
def test_spellings_of_one_patient(tmp_path, cells, same):
    groups = groups_of(save_rows(tmp_path, {"who": cells}), tmp_path / "m", group_key="who")
    assert (len(set(groups)) == 1) == same


@pytest.mark.parametrize("cell", ["", "  ", "nan", "None", "NULL", "<NA>", "-", "\u200b"])
def test_a_row_that_does_not_name_its_group_is_left_out_and_counted(tmp_path, cell):
    table = save_rows(tmp_path, {"who": ["p1", cell, cell, "p2"]})
    manifest = read_table(table, tmp_path / "m", group_key="who", max_bad=0.5)
    assert manifest.table["group"].to_pylist() == ["p1", "p2"]
    assert manifest.info["skipped"] == {"empty group": 2}


def test_labels_and_ids_that_are_whole_numbers_have_no_decimals(tmp_path):
    table = save_rows(tmp_path, {"grade": ["3.0", "3", "nan", "03"], "key": ["1.0", "2", "03", "x"]})
    manifest = read_table(table, tmp_path / "m", label_keys=["grade"], id_key="key")
    assert manifest.table["grade"].to_pylist() == ["3", "3", None, "03"]
    assert manifest.table["id"].to_pylist() == ["1", "2", "03", "x"]


def test_one_group_for_all_is_said_without_its_name(tmp_path, caplog):
    table = save_rows(tmp_path, {"who": ["SECRET"] * 6})
    manifest = read_table(table, tmp_path / "m", group_key="who")
    assert "all 6 rows share one group" in caplog.text
    caplog.clear()
    split_manifest(manifest, tmp_path / "s")
    assert "all 6 rows share one group" in caplog.text
    assert "no rows in validation, test" in caplog.text
    assert "SECRET" not in caplog.text


def test_one_group_for_most_is_said_too(tmp_path, caplog):
    read_table(save_rows(tmp_path, {"who": ["SECRET"] * 14 + ["a", "b"]}), tmp_path / "m", group_key="who")
    assert "one group holds 14 of 16 rows" in caplog.text
    assert "SECRET" not in caplog.text


def test_nothing_is_said_of_patients_who_differ(tmp_path, caplog):
    """The control."""
    manifest = read_table(
        save_rows(tmp_path, {"who": [f"p{n // 2}" for n in range(40)]}), tmp_path / "m", group_key="who"
    )
    split_manifest(manifest, tmp_path / "s")
    split_manifest(read_table(tmp_path / "rows.csv", tmp_path / "n"), tmp_path / "t")
    assert not caplog.text


def test_a_split_that_gets_no_rows_is_said(tmp_path, caplog):
    manifest = read_table(save_rows(tmp_path, {"who": ["a", "b", "b"]}), tmp_path / "m", group_key="who")
    split_manifest(manifest, tmp_path / "s")
    assert "3 rows in 2 groups are too few for every split; no rows in" in caplog.text
