"""The words that people use for the three splits, and cells that hold none."""

import io
import json
import tarfile

import numpy as np
import pytest
from data_samples import noise_image, write_jsonl
from dicom_samples import dicom_bytes

from gapless.core.errors import UsageError
from gapless.manifest.manifest import split_named
from gapless.manifest.readers.dicom_folder import read_dicom
from gapless.manifest.readers.shards import read_shards
from gapless.manifest.readers.table import read_table

WORDS = {
    "train": ("train", "TRAIN", " Training ", "trn", "training set", "train_split"),
    "validation": (
        *("validate", "Validate", "valid", "VAL", "validation", "val\u00a0", "dev", "Dev set", "development"),
        *("eval", "Evaluation", "validation-set"),
    ),
    "test": ("test", "Testing", "TST", "test set"),
}


@pytest.mark.parametrize(("split", "word"), [(split, word) for split, words in WORDS.items() for word in words])
def test_a_word_means_one_split(split, word):
    assert split_named(word) == split


@pytest.mark.parametrize("word", ["", " ", "set", "holdout", "train val", "trains", "0", "fold1", "unlabeled"])
def test_other_words_mean_none(word):
    assert split_named(word) is None


def save_table(folder, cells):
    for number in range(len(cells)):
        noise_image(number).save(folder / f"{number}.png")
    rows = [{"image": f"{n}.png", "caption": f"c {n}", "part": cell} for n, cell in enumerate(cells)]
    return write_jsonl(folder / "rows.jsonl", rows)


def test_every_spelling_is_read_from_a_column(tmp_path):
    words = [word for words in WORDS.values() for word in words]
    manifest = read_table(save_table(tmp_path, words), tmp_path / "m", split_key="part")
    assert manifest.rows_per_split() == {split: len(words) for split, words in WORDS.items()}


@pytest.mark.parametrize("prefix", ["", "train=", "test="])
@pytest.mark.parametrize("cell", ["", "  ", None, "nan", "NA", "-", "\u200b"])
def test_a_cell_without_a_split_is_a_bad_row_also_when_the_file_has_one(tmp_path, prefix, cell):
    table = save_table(tmp_path, ["train", cell, "test"])
    manifest = read_table(f"{prefix}{table}", tmp_path / "m", split_key="part", max_bad=0.5)
    assert manifest.rows_per_split() == {"train": 1, "test": 1}
    assert manifest.info["skipped"] == {"empty split": 1}


def test_without_a_column_all_rows_are_of_the_files_split_or_train(tmp_path):
    """The control: who names no column of splits has no empty cells."""
    table = save_table(tmp_path, ["", None, "x"])
    for number, (prefix, split) in enumerate(
        {"": "train", "Validate=": "validation", "eval=": "validation", " TEST =": "test", "dev=": "validation"}.items()
    ):
        assert read_table(f"{prefix}{table}", tmp_path / str(number)).rows_per_split() == {split: 3}
    for prefix in ("=", "fold1="):
        with pytest.raises(UsageError, match="is no split; write train="):
            read_table(f"{prefix}{table}", tmp_path / "m")


def test_a_sample_or_report_without_a_split_is_a_bad_row_as_a_line_of_a_table_is(tmp_path):
    members = []
    for number, split in enumerate(("test", "", "dev")):
        stream = io.BytesIO()
        noise_image(number).save(stream, "PNG")
        described = json.dumps({"caption": f"c {number}", "part": split}).encode()
        members += [(f"{number}.png", stream.getvalue()), (f"{number}.json", described)]
    with tarfile.open(tmp_path / "a.tar", "w") as tar:
        for name, content in members:
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    for prefix in ("", "train="):
        out = tmp_path / f"m{prefix}"
        shards = read_shards(f"{prefix}{tmp_path / 'a.tar'}", out, split_key="part", max_bad=0.5)
        assert shards.rows_per_split() == {"validation": 1, "test": 1}
        assert shards.info["skipped"] == {"empty split": 1}
    lines = ["image,report,part", *(f"{n}.dcm,r {n},{split}" for n, split in enumerate(("test", "nan", "dev")))]
    (tmp_path / "r.csv").write_text("\n".join(lines))
    (tmp_path / "d").mkdir()
    for number in range(3):
        (tmp_path / f"d/{number}.dcm").write_bytes(dicom_bytes(np.asarray(noise_image(number)), PatientID=f"P{number}"))
    files = read_dicom(tmp_path / "d", tmp_path / "n", f"train={tmp_path / 'r.csv'}", split_key="part", max_bad=0.5)
    assert files.rows_per_split() == {"validation": 1, "test": 1}
