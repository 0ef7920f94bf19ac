"""Image paths as other systems write them: one file fits, or a sentence says what is wrong; none leads out."""

import json
import posixpath
import unicodedata

import pytest
from data_samples import noise_image, write_jsonl

from gapless.core.errors import DataRefused
from gapless.manifest.image_paths import SeveralFiles, name_below
from gapless.manifest.readers.table import read_table

NFC, NFD = "Röntgen/Übersicht é.png", unicodedata.normalize("NFD", "Röntgen/Übersicht é.png")


def save_pictures(folder, *names):
    for number, name in enumerate(names):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        noise_image(number).save(folder / name)


@pytest.mark.parametrize(
    ("there", "written"),
    [
        ("img/a.png", "img\\a.png"),
        ("img/a.png", ".\\img\\a.png"),
        ("img/a.png", "./img/a.png"),
        ("img/a.png", "img//./a.png"),
        ("img/a b.png", "file:img/a%20b.png"),
        (NFC, NFD),
        (NFD, NFC),
        (NFD, NFC.replace("/", "\\")),
        (f"{NFD.split('/')[0]}/{NFC.split('/')[1]}", NFC),
        ("back\\slash.png", "back\\slash.png"),
    ],
)
def test_the_file_that_a_name_means_is_found(tmp_path, there, written):
    save_pictures(tmp_path, there, "other.png")
    assert name_below(tmp_path, written) == there
    manifest = read_table(write_jsonl(tmp_path / "t.jsonl", [{"image": written, "caption": "c"}]), tmp_path / "m")
    assert manifest.table["image"].to_pylist() == manifest.table["id"].to_pylist() == [there]
    assert manifest.image_path(0).is_file()


def test_a_plain_name_stays_whether_it_has_a_file_or_not(tmp_path):
    for name in ("a.png", "img/a.b.png", "a..b/c..", "-/_", "1/2/3", "C"):
        assert name_below(tmp_path, name) == name
    for name in ("./a", "a//b", "a/./b", "a/b/", "a/b/."):
        assert name_below(tmp_path, name) == posixpath.normpath(name)


def test_whole_paths_inside_the_root_become_names(tmp_path):
    save_pictures(tmp_path / "data", "img/a.png")
    (tmp_path / "link").symlink_to(tmp_path / "data")
    for root in ("data", "link"):
        for start in ("", "file://", "file://localhost"):
            assert name_below(tmp_path / root, f"{start}{tmp_path / 'data/img/a.png'}") == "img/a.png"


def test_an_exact_name_wins_and_two_that_fit_are_named(tmp_path):
    save_pictures(tmp_path, "a/b.png", "a\\b.png", NFC, NFD)
    for name in ("a/b.png", "a\\b.png", NFC, NFD):
        assert name_below(tmp_path, name) == name
    mixed = NFC.split("/")[0] + "\\" + NFD.split("/")[1]
    with pytest.raises(SeveralFiles, match="2 files fit"):
        name_below(tmp_path, mixed)
    table = write_jsonl(tmp_path / "t.jsonl", [{"image": mixed, "caption": "c"}, {"image": "a/b.png", "caption": "c"}])
    assert read_table(table, tmp_path / "m", max_bad=0.5).info["skipped"] == {"ambiguous image name": 1}


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("IMG/a.PNG", "there is 'img/a.png': upper and lower case differ"),
        ("IMG\\a.png", "there is 'img/a.png': upper and lower case differ"),
        ("C:\\scans\\a.png", "a Windows path with a drive"),
        ("https://example.org/a.png", "an address, and nothing is downloaded"),
        ("s3://bucket/a.png", "an address, and nothing is downloaded"),
        ("img/b.png", "missing image: img/b.png)"),
        ("a.png", "missing image: a.png: it is in the folder 'img'; name that folder with --image-root"),
    ],
)
def test_a_name_without_a_file_says_why(tmp_path, name, said):
    save_pictures(tmp_path, "img/a.png")
    table = write_jsonl(tmp_path / "t.jsonl", [{"image": name, "caption": "c"}])
    with pytest.raises(DataRefused) as refusal:
        read_table(table, tmp_path / "m")
    assert said in str(refusal.value)


def test_no_way_of_writing_leads_out_of_the_root(tmp_path):
    save_pictures(tmp_path, "outside.png", "root/a.png")
    (tmp_path / "root/out").symlink_to(tmp_path)
    outside = str(tmp_path / "outside.png")
    names = [
        *(
            "../outside.png",
            "..\\outside.png",
            "a/..\\../outside.png",
            "file:../outside.png",
            "file:%2e%2e/outside.png",
        ),
        *(outside, f"file://{outside}", f"file://{outside.replace('/', '%2f')}", "out/outside.png", "out\\outside.png"),
        *(f"{tmp_path}/root/../outside.png", "./../outside.png", "OUT/outside.png"),
    ]
    rows = [{"image": name, "caption": "c"} for name in names]
    table = write_jsonl(tmp_path / "root/t.jsonl", [*rows, {"image": "a.png", "caption": "inside"}])
    manifest = read_table(table, tmp_path / "m", max_bad=0.99)
    assert manifest.first_captions == ["inside"]
    reasons = [json.loads(line)["reason"] for line in (manifest.path / "skipped.jsonl").read_text().splitlines()]
    assert len(reasons) == len(names)
    assert set(reasons) <= {"path outside the image root", "missing image"}
