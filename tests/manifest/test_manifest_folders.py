"""Tables in several folders: the image paths of each start at its own folder, and its rows keep names of their own."""

import json

import pytest
from data_samples import noise_image, write_jsonl

from gapless.core.errors import DataRefused
from gapless.images.pixels import load_image
from gapless.manifest.readers.table import read_table


def save_pictures(folder, names, seed):
    for number, name in enumerate(names):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        noise_image(seed + number).save(folder / name)


def save_table(path, names, word):
    path.parent.mkdir(parents=True, exist_ok=True)
    return write_jsonl(path, [{"image": name, "caption": f"{word} {n}"} for n, name in enumerate(names)])


@pytest.fixture
def two_sites(tmp_path):
    """`north/list.jsonl` and `south/list.jsonl` with images of the same names and other pixels."""
    names = ["scan 0.png", "scan 1.png", "deep/0.png"]
    tables = []
    for seed, site in ((10, "north"), (50, "south")):
        save_pictures(tmp_path / site, names, seed)
        tables.append(save_table(tmp_path / site / "list.jsonl", names, site))
    return tables


def seeds(manifest):
    pictures = {noise_image(seed).tobytes(): seed for seed in range(100)}
    return [pictures[load_image(manifest.image_path(row)).tobytes()] for row in range(len(manifest))]


@pytest.mark.parametrize("store", [False, True])
def test_equal_names_in_two_folders_are_two_images(two_sites, tmp_path, store):
    manifest = read_table(
        [f"train={two_sites[0]}", f"test={two_sites[1]}"], tmp_path / "m", store_images=store, workers=1
    )
    assert seeds(manifest) == [10, 11, 12, 50, 51, 52]
    assert manifest.table["split"].to_pylist() == ["train"] * 3 + ["test"] * 3
    assert manifest.table["id"].to_pylist() == [
        *("north/scan 0.png", "north/scan 1.png", "north/deep/0.png"),
        *("south/scan 0.png", "south/scan 1.png", "south/deep/0.png"),
    ]
    assert len(set(manifest.table["group"].to_pylist())) == 6
    assert manifest.info["source"] == "north/list.jsonl, south/list.jsonl"


def test_one_root_for_all_the_control_takes_every_image_from_one_folder(two_sites, tmp_path):
    manifest = read_table(two_sites, tmp_path / "m", image_root=tmp_path / "north")
    assert seeds(manifest) == [10, 11, 12, 10, 11, 12]


def test_a_root_that_is_given_holds_for_all_tables(tmp_path):
    save_pictures(tmp_path / "pictures", ["a.png", "b.png"], 0)
    tables = [save_table(tmp_path / part / "t.jsonl", [name], part) for part, name in (("x", "a.png"), ("y", "b.png"))]
    manifest = read_table(tables, tmp_path / "m", image_root=tmp_path / "pictures")
    assert manifest.table["id"].to_pylist() == ["a.png", "b.png"]
    assert seeds(manifest) == [0, 1]
    with pytest.raises(DataRefused, match=r"start at the folder of their own table: --image-root gives another"):
        read_table(tables, tmp_path / "n")


def test_tables_of_one_folder_keep_the_names_that_they_write(tmp_path, monkeypatch):
    save_pictures(tmp_path / "data", ["a.png", "b.png"], 0)
    for name in ("a", "b"):
        save_table(tmp_path / f"data/{name}.jsonl", [f"{name}.png"], name)
    manifest = read_table([tmp_path / "data/a.jsonl", tmp_path / "data/../data/b.jsonl"], tmp_path / "m")
    assert manifest.table["id"].to_pylist() == ["a.png", "b.png"]
    monkeypatch.chdir(tmp_path / "data")
    assert read_table(["a.jsonl", "./b.jsonl"], tmp_path / "n").table["id"].to_pylist() == ["a.png", "b.png"]


def test_a_table_above_the_other(tmp_path):
    save_pictures(tmp_path / "data", ["0.png", "more/0.png"], 0)
    tables = [save_table(tmp_path / "data" / name, ["0.png"], name) for name in ("t.jsonl", "more/t.jsonl")]
    manifest = read_table(tables, tmp_path / "m")
    assert manifest.table["id"].to_pylist() == ["0.png", "more/0.png"]
    assert seeds(manifest) == [0, 1]


def test_a_folder_that_is_a_link_to_another_disk(tmp_path):
    save_pictures(tmp_path / "disk", ["0.png"], 7)
    save_table(tmp_path / "disk/t.jsonl", ["0.png"], "far")
    save_pictures(tmp_path / "data/near", ["0.png"], 3)
    save_table(tmp_path / "data/near/t.jsonl", ["0.png"], "near")
    (tmp_path / "data/far").symlink_to(tmp_path / "disk")
    manifest = read_table([tmp_path / "data/near/t.jsonl", tmp_path / "data/far/t.jsonl"], tmp_path / "m")
    assert seeds(manifest) == [3, 7]


def test_a_table_does_not_reach_into_the_folder_of_another(two_sites, tmp_path):
    save_table(two_sites[1], ["scan 0.png", "../north/scan 0.png"], "south")
    manifest = read_table(two_sites, tmp_path / "m", max_bad=0.5)
    line = json.loads((manifest.path / "skipped.jsonl").read_text())
    assert (line["row"], line["reason"]) == ("south/list.jsonl:2", "path outside the image root")
