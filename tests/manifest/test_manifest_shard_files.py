"""Which files are shards: told apart by their place, patterns, and what is no tar."""

import bz2
import gzip
import io
import lzma
import os
import tarfile
import zipfile
from pathlib import Path

import pytest
from shard_samples import pair, seeds_by_caption, write_shard

from gapless.core.errors import DataRefused, UsageError
from gapless.manifest.readers.shard_files import distinct_names, find_shards
from gapless.manifest.readers.shards import read_shards

# ---- the place tells shards apart -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("paths", "names"),
    [
        (["/d/a.tar", "/d/b.tar"], ["a", "b"]),
        (["/d/train/0.tar", "/d/val/0.tar"], ["train/0", "val/0"]),
        (["/x/train/0.tar", "/y/train/0.tar", "/y/train/1.tar"], ["x/train/0", "y/train/0", "y/train/1"]),
        (["/d/0.tar", "/d/0.wds"], ["0.tar", "0.wds"]),
        (["/0.tar", "/d/0.tar"], ["0", "d/0"]),
        (["/d/s.v1.tar", "/d/s.v2.tar"], ["s.v1", "s.v2"]),
    ],
)
def test_the_shortest_ends_that_differ(paths, names):
    found = distinct_names([Path(path) for path in paths])
    assert found == names
    assert len(set(found)) == len(paths)


def test_equal_names_in_folders_keep_their_own_images_and_splits(tmp_path):
    """The same keys in every shard, too: a row is its shard's."""
    splits = {"train": 10, "val": 20, "test": 30}
    for split, first in splits.items():
        write_shard(tmp_path / split / "00000.tar", [m for n in range(3) for m in pair(f"{n:05d}", first + n)])
    manifest = read_shards([f"{split}={tmp_path / split / '00000.tar'}" for split in splits], tmp_path / "m")
    assert seeds_by_caption(manifest) == {f"report {first + n}": True for first in splits.values() for n in range(3)}
    rows = manifest.table.to_pylist()
    assert len({row["id"] for row in rows}) == len({row["group"] for row in rows}) == 9
    assert rows[0]["id"] == "train/00000/00000"
    assert all(row["split"].startswith(row["id"].partition("/")[0]) for row in rows)


def test_one_shard_named_twice_is_refused(tmp_path):
    shard = write_shard(tmp_path / "a.tar", pair("0", 0))
    (tmp_path / "link.tar").symlink_to(shard)
    with pytest.raises(UsageError, match="is named twice"):
        read_shards([f"train={shard}", f"test={shard}"], tmp_path / "m")
    with pytest.raises(UsageError, match="are one file"):
        read_shards([shard, tmp_path / "link.tar"], tmp_path / "m")


# ---- patterns -------------------------------------------------------------------------------------------------------


def test_braces_and_stars_are_expanded(tmp_path):
    for number in (8, 9, 10):
        write_shard(tmp_path / f"s-{number:03d}.tar", pair("0", number))
    write_shard(tmp_path / "odd {name}.tar", pair("0", 1))
    names = [shard.name for shard in find_shards([f"val={tmp_path}/s-{{008..010}}.tar"])]
    assert names == ["s-008", "s-009", "s-010"]
    shards = find_shards([f"test={tmp_path}/s-*.tar", f"train={tmp_path}/odd {{name}}.tar"])
    assert [(shard.name, shard.split) for shard in shards] == [
        ("s-008", "test"), ("s-009", "test"), ("s-010", "test"), ("odd {name}", "train"),
    ]  # fmt: skip
    with pytest.raises(UsageError, match=r"s-011.tar does not exist"):
        find_shards([f"{tmp_path}/s-{{008..011}}.tar"])
    with pytest.raises(UsageError, match="no file has a name like"):
        find_shards([f"{tmp_path}/t-*.tar"])
    with pytest.raises(UsageError, match="braces that do not match"):
        find_shards([f"{tmp_path}/s-{{008..010.tar"])


# ---- what is no tar -------------------------------------------------------------------------------------------------


def zipped(content):
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        archive.writestr("0.png", content)
    return stream.getvalue()


@pytest.mark.parametrize(
    ("disguise", "words"),
    [
        (zipped, "is a zip archive, not a plain tar"),
        (gzip.compress, "is compressed with gzip"),
        (bz2.compress, "is compressed with bzip2"),
        (lzma.compress, "is compressed with xz"),
        (lambda content: b"\x28\xb5\x2f\xfd" + content, "is compressed with zstd"),
        (lambda content: b"PAR1" + content, "is a Parquet file"),
        (lambda content: b"<!DOCTYPE html>" + content, "is a page of the web"),
        (lambda content: b"version https://git-lfs.github.com/spec/v1", "is a pointer of Git LFS"),
        (lambda content: b"", "is empty"),
    ],
)
def test_another_format_is_named_with_the_remedy(tmp_path, disguise, words):
    shard = write_shard(tmp_path / "a.tar", pair("0", 0))
    shard.write_bytes(disguise(shard.read_bytes()))
    with pytest.raises(UsageError, match=words):
        read_shards(shard, tmp_path / "m")


def test_folders_devices_and_noise_are_refused_in_a_sentence(tmp_path):
    with pytest.raises(UsageError, match="is a folder: name the tar files in it"):
        read_shards(tmp_path, tmp_path / "m")
    os.mkfifo(tmp_path / "pipe.tar")
    with pytest.raises(UsageError, match="is not a plain file"):
        read_shards(tmp_path / "pipe.tar", tmp_path / "m")
    (tmp_path / "noise.tar").write_bytes(b"words " * 1000)
    with pytest.raises(DataRefused, match="or is no tar file"):
        read_shards(tmp_path / "noise.tar", tmp_path / "m")


def test_two_tars_in_one_file_are_refused(tmp_path):
    """Python's tarfile ends after the first: the control."""
    shard = write_shard(tmp_path / "a.tar", pair("0", 0))
    shard.write_bytes(shard.read_bytes() * 2)
    with tarfile.open(shard) as tar:
        assert len(tar.getmembers()) == 2
    with pytest.raises(DataRefused, match="damaged after 1 samples"):
        read_shards(shard, tmp_path / "m")
