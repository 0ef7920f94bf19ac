"""Which members of a tar are one sample, and that none is chosen, dropped or mixed without a word."""

import json
import tarfile

import pytest
from shard_samples import image_bytes, pair, seeds_by_caption, write_shard

from gapless.core.errors import DataRefused, UsageError
from gapless.manifest.readers.shards import read_shards


def skipped(manifest):
    return [json.loads(line) for line in (manifest.path / "skipped.jsonl").read_text().splitlines()]


@pytest.fixture
def build(tmp_path):
    """`build(members)` packs them and builds the manifest, with every bad row allowed."""

    def make(members, **options):
        shard = write_shard(tmp_path / "a.tar", members)
        return read_shards(shard, tmp_path / "m", **{"max_bad": 1.0, **options})

    return make


# ---- two pictures, a member twice -----------------------------------------------------------------------------------

MASK = [("1.jpeg", image_bytes(90, "JPEG"))]


@pytest.mark.parametrize(
    ("extra", "reason", "words"),
    [
        (MASK, "two images", "--image-key"),
        ([("1.TIF", image_bytes(91, "TIFF"))], "two images", ".png and .tif"),
        ([("1.png", image_bytes(92))], "repeated member", "1.png is there twice"),
        ([("1.PNG", image_bytes(92))], "repeated member", "1.PNG is there twice"),
        ([("./1.png", image_bytes(92))], "repeated member", "there twice"),
        ([("1.txt", "another report")], "repeated member", "1.txt is there twice"),
        ([("1.json", "{}"), ("1.json", '{"split": "test"}')], "repeated member", "1.json is there twice"),
        ([("1.json", '{"split": "train", "split": "test"}')], "malformed row", "the key 'split' is there twice"),
    ],
)
def test_a_sample_of_two_meanings_is_a_bad_row(build, extra, reason, words):
    manifest = build([*pair("0", 0), *pair("1", 1), *extra, *pair("2", 2)])
    assert seeds_by_caption(manifest) == {"report 0": True, "report 2": True}
    assert manifest.info["counts"] == {"read": 3, "kept": 2, "skipped": 1}
    (line,) = skipped(manifest)
    assert line["reason"] == reason
    assert words in line["detail"]


def test_the_control_one_picture_with_other_members_is_kept(build, caplog):
    manifest = build([*pair("1", 1), ("1.mask.png", image_bytes(90)), ("1.cls", "3"), ("1.json", "{}")])
    assert seeds_by_caption(manifest) == {"report 1": True}
    # What was not used is named, once with its number.
    assert manifest.info["passed_over"] == {"not used, .mask.png": 1, "not used, .cls": 1}
    assert "1.mask.png" in caplog.text


def test_an_option_chooses_the_picture(build, tmp_path):
    members = [*pair("0", 0), *MASK, *pair("1", 1)]
    assert seeds_by_caption(build(members, image_keys="png")) == {"report 0": True, "report 1": True}
    chosen = read_shards(tmp_path / "a.tar", tmp_path / "n", image_keys=[".JPEG"], max_bad=0.5)
    assert chosen.image_path(0).read_bytes() == MASK[0][1]
    assert skipped(chosen)[0]["detail"] == "no member .jpeg among .png, .txt"
    with pytest.raises(UsageError, match=r"--image-key is the suffix of an image .* got 'npy'"):
        read_shards(tmp_path / "a.tar", tmp_path / "k", image_keys="npy")


# ---- members apart, in folders, over the boundary -------------------------------------------------------------------


def test_members_of_one_sample_may_stand_apart(build):
    members = [member for seed in range(4) for member in pair(f"{seed:03d}", seed)]
    manifest = build([*members[::2], *members[1::2]])
    assert seeds_by_caption(manifest) == {f"report {seed}": True for seed in range(4)}


def test_equal_names_in_two_folders_of_a_tar_are_two_samples(build):
    members = [*pair("./train/case.v1/0", 5), ("train", directory()), *pair("test\\0", 6), *pair("caf\u00e9", 7)]
    members += [("cafe\u0301.json", '{"caption": "unused"}')]  # as macOS writes the same name
    manifest = build(members)
    assert seeds_by_caption(manifest) == {"report 5": True, "report 6": True, "report 7": True}
    assert manifest.table["id"].to_pylist() == ["a/train/case.v1/0", "a/test/0", "a/caf\u00e9"]
    assert manifest.info["counts"]["skipped"] == 0


def directory():
    info = tarfile.TarInfo()
    info.type = tarfile.DIRTYPE
    return info


def test_a_sample_over_the_boundary_of_two_shards_is_said(tmp_path):
    first = write_shard(tmp_path / "0.tar", [*pair("a", 1), ("b.png", image_bytes(2))])
    second = write_shard(tmp_path / "1.tar", [("b.txt", "report 2"), *pair("c", 3)])
    manifest = read_shards([first, second], tmp_path / "m", max_bad=0.5)
    assert seeds_by_caption(manifest) == {"report 1": True, "report 3": True}
    empty, missing = skipped(manifest)
    assert (empty["reason"], missing["reason"]) == ("empty caption", "missing image")
    assert "the shard before ends with the same name" in missing["detail"]


# ---- leftovers ------------------------------------------------------------------------------------------------------

RESOURCE = b"\0\5\x16\7\0\2\0\0Mac OS X" + bytes(60)


@pytest.mark.parametrize(
    "name",
    [
        "._0.png", "x/._0.txt", "__MACOSX/0.png", "__MACOSX/._0.png", ".DS_Store", "x/.DS_Store", "Thumbs.db",
        "README",
        "PaxHeader/0.png", "./PaxHeaders.4711/0.png", "@eaDir/0.png", ".ipynb_checkpoints/0.png", ".hidden.png",
    ],
)  # fmt: skip
def test_what_systems_leave_is_passed_over_and_counted(build, name):
    manifest = build([(name, RESOURCE), *pair("0", 0), (f"z/{name}", RESOURCE), *pair("1", 1)], max_bad=0.0)
    assert seeds_by_caption(manifest) == {"report 0": True, "report 1": True}
    assert sum(manifest.info["passed_over"].values()) == 2


def test_a_member_that_belongs_to_no_image_is_a_bad_row(build):
    """The control: only what is known to be no data is passed over."""
    manifest = build([*pair("0", 0), ("1.heic", b"x"), ("LICENSE.txt", "words"), ("index.json", "{}")])
    assert manifest.info["counts"] == {"read": 4, "kept": 1, "skipped": 3}
    assert [line["detail"] for line in skipped(manifest)] == [
        "no image among .heic", "no image among .txt", "no image among .json",
    ]  # fmt: skip


NOT_PLAIN = (
    ("2.png", tarfile.LNKTYPE),
    ("3.png", tarfile.SYMTYPE),
    ("4.png", tarfile.FIFOTYPE),
    ("5.png", tarfile.GNUTYPE_SPARSE),
)


def test_links_and_sparse_files_are_bad_rows(build):
    members = [*pair("0", 0), *pair("1", 1)]
    for name, kind in NOT_PLAIN:
        info = tarfile.TarInfo()
        info.type, info.linkname = kind, "0.png"
        members += [(name, info), (f"{name[0]}.txt", "report 0")]
    manifest = build(members)
    assert seeds_by_caption(manifest) == {"report 0": True, "report 1": True}
    assert manifest.info["skipped"] == {"unsafe tar member": 4}
    assert "--hard-dereference" in skipped(manifest)[0]["detail"]
    assert "sparse" in skipped(manifest)[3]["detail"]


# ---- captions -------------------------------------------------------------------------------------------------------


def described(seed, **cells):
    return [(f"{seed}.png", image_bytes(seed)), (f"{seed}.json", json.dumps(cells))]


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, [["words"], ["text"]]),
        ({"caption_key": "report"}, [["r0"], ["r1"]]),
        ({"caption_key": ["report", "many"]}, [["r0", "m0", "n0"], ["r1", "m1"]]),
        ({"caption_key": ["txt", "caption"]}, [["words", "c0"], ["text"]]),
        ({"caption_key": ".findings"}, [["f0"], ["f1"]]),
    ],
)
def test_captions_are_under_the_key_that_is_named(build, options, expected):
    first = [*described(0, caption="c0", report="r0", many=["m0", None, "n0"]), ("0.txt", "words")]
    second = [*described(1, report="r1", many="m1"), ("1.txt", b"\xef\xbb\xbftext")]
    manifest = build([*first, ("0.findings.txt", "f0"), *second, ("1.findings.txt", "f1")], **options)
    assert manifest.table["captions"].to_pylist() == expected


def test_a_key_that_no_sample_has_is_refused_before_the_work(build, tmp_path):
    members = [*described(0, report="r", who=1), *described(1, report="r", who=2.0, view="AP")]
    for option in ("caption_key", "group_key", "split_key", "licence_key"):
        with pytest.raises(UsageError, match=r"no sample has the key 'absent' .* 'report', 'who', 'view'"):
            build(members, **{option: "absent"})
    with pytest.raises(UsageError, match="'absent'"):
        build(members, label_keys=["view", "absent"])
    assert not (tmp_path / "m").exists()
    # The control: a key that only a later sample has is fine, and is empty where it is missing.
    manifest = build(members, caption_key="report", label_keys=["view"], group_key="who")
    assert manifest.table["view"].to_pylist() == [None, "AP"]
    assert manifest.table["group"].to_pylist() == ["1", "2"]


@pytest.mark.parametrize("content", [b"[1]", b'"text"', b"{", b"\xff", b"[" * 100_000])
def test_a_json_member_that_is_no_object_costs_its_sample(build, content):
    manifest = build([*pair("0", 0), *pair("1", 1), ("1.json", content)])
    assert seeds_by_caption(manifest) == {"report 0": True}
    assert manifest.info["skipped"] == {"malformed row": 1}


def test_a_value_that_is_no_text_costs_its_sample(build):
    members = [*described(0, caption="c", who={"name": 1}), *described(1, caption="c", who="1001.0")]
    manifest = build(members, group_key="who")
    assert manifest.table["group"].to_pylist() == ["1001"]
    assert manifest.info["skipped"] == {"malformed row": 1}


# ---- nothing left ---------------------------------------------------------------------------------------------------


def test_a_tar_without_samples_is_refused_and_beside_others_counted(tmp_path):
    empty = write_shard(tmp_path / "0.tar", [])
    with pytest.raises(DataRefused, match="not a single row"):
        read_shards(empty, tmp_path / "m")
    manifest = read_shards([empty, write_shard(tmp_path / "1.tar", pair("a", 1))], tmp_path / "n")
    assert manifest.info["passed_over"] == {"empty, a shard without a sample": 1}


def test_names_that_are_not_unicode_cost_their_sample(tmp_path):
    shard = write_shard(tmp_path / "x.tar", [*pair("0", 0), *pair("\udcff1", 1)])
    manifest = read_shards(shard, tmp_path / "n", max_bad=0.5)
    assert manifest.info["skipped"] == {"not UTF-8": 1}
