"""`gapless data ...` as people call it: options that take names, wrong values, and what stdout holds."""

import json
import re
import subprocess
from dataclasses import fields
from pathlib import Path
from typing import Any

import command_server
import pyarrow.parquet as pq
import pytest
from data_samples import noise_image, write_jsonl
from shard_samples import image_bytes, write_shard

from gapless.cli.main import main
from gapless.manifest.readers.base import READERS


def run(folder: Path, *words: object) -> subprocess.CompletedProcess[str]:
    return command_server.gapless("data", *words, cwd=folder)


def rows_of(folder: Path, out: str) -> list[dict[str, Any]]:
    return pq.read_table(folder / out / "manifest.parquet").to_pylist()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A table, a shard, a ROCO tree and a ROCOv2 tree of four images."""
    root = tmp_path_factory.mktemp("data")
    rows, members = [], []
    images = root / "data/train/radiology/images"
    images.mkdir(parents=True)
    (root / "train_images").mkdir()
    for number in range(4):
        cells = {"caption": f"c {number}", "report": f"r {number}", "view": "AP", "side": "left", "who": number // 2}
        noise_image(number).save(images / f"ROCO_{number:05d}.jpg")
        (root / f"train_images/R_{number}.png").write_bytes(image_bytes(number))
        rows.append({"image": f"train_images/R_{number}.png", **cells})
        members += [(f"{number}.png", image_bytes(number)), (f"{number}.json", json.dumps(cells))]
    write_jsonl(root / "rows.jsonl", rows)
    write_shard(root / "a.tar", members)
    (images.parent / "captions.txt").write_text("".join(f"ROCO_{n:05d}\tc {n}\n" for n in range(4)))
    licences = "".join(f"ROCO_{n:05d},PMC{n}_x.jpg,{('CC BY', 'CC0')[n % 2]}\n" for n in range(4))
    (images.parent / "licences.txt").write_text(licences)
    (root / "train_captions.csv").write_text("ID,Caption\n" + "".join(f"R_{n},c {n}\n" for n in range(4)))
    return root


def test_every_field_of_several_names_takes_a_name_or_a_list():
    """The command gives a list for each of these options; in Python one name may stand alone."""
    checked = 0
    for reader in READERS.values():
        needed = {"reports": "r.csv"} if reader.name == "dicom" else {}
        for field in reader.options.several_names():
            one, many = (reader.options(**needed, **{field: value}) for value in ("png", ["png", "jpg"]))
            assert getattr(one, field) == ("png",)
            assert getattr(many, field) == ("png", "jpg")
            checked += 1
    assert checked >= 10


def test_every_field_of_a_reader_is_documented_for_the_help():
    for reader in READERS.values():
        documented = {
            name
            for owner in reader.options.__mro__
            for name in re.findall(r"^        (\w+): ", owner.__doc__ or "", re.MULTILINE)
        }
        unhelped = {field.name for field in fields(reader.options)} - documented - {*reader.options.several_names()}
        assert unhelped == set(), reader.name


LISTED = [
    "--caption-key",
    "report",
    "--caption-key",
    "caption,report",
    "--label-key",
    "view, side",
    "--group-key",
    "who",
]


@pytest.mark.parametrize("source", [["table", "rows.jsonl"], ["shards", "a.tar", "--image-key", "png,jpg"]])
def test_options_that_take_names(folder, source):
    out = f"named-{source[0]}"
    done = run(folder, *source, *LISTED, "--out", out, "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["labels"] == ["view", "side"]
    assert rows_of(folder, out)[3]["captions"] == ["r 3", "c 3"]
    assert [row["group"] for row in rows_of(folder, out)] == ["0", "0", "1", "1"]


@pytest.mark.parametrize(
    "words",
    [
        ["roco", ".", "--splits", "train", "--kinds", "radiology", "--licence", "CC BY,CC0"],
        ["rocov2", ".", "--splits", "train", "--splits", "train"],
    ],
)
def test_options_of_the_published_layouts(folder, words):
    done = run(folder, *words, "--out", f"layout-{words[0]}")
    assert done.returncode == 0, done.stderr
    assert "kept 4" in done.stdout


def test_names_from_a_yaml_file(folder):
    (folder / "one.yaml").write_text("caption_key: report\nlabel_key: view\n")
    (folder / "two.yaml").write_text("caption_key: [report, caption]\nlabel_key:\n- view\n")
    for name, captions in (("one", ["r 0"]), ("two", ["r 0", "c 0"])):
        done = run(folder, "table", "rows.jsonl", "--config", f"{name}.yaml", "--out", f"yaml-{name}")
        assert done.returncode == 0, done.stderr
        assert rows_of(folder, f"yaml-{name}")[0]["captions"] == captions
        assert rows_of(folder, f"yaml-{name}")[0]["view"] == "AP"


@pytest.mark.parametrize(
    "words",
    [
        "table rows.jsonl --caption-key absent",
        "table rows.jsonl --caption-key caption,",
        "table rows.jsonl --label-key image",
        "table rows.jsonl --max-bad -0.1",
        "table rows.jsonl --max-bad nan",
        "table rows.jsonl --max-bad many",
        "table rows.jsonl --workers 0",
        "table rows.jsonl --workers 1.5",
        "table rows.jsonl --store-images perhaps",
        "table rows.jsonl --no-such-option 1",
        "table nothing.csv",
        "shards a.tar --caption-key absent",
        "shards a.tar --group-key absent",
        "shards a.tar --image-key npy",
        "shards a.tar a.tar",
        "shards b-{0..3}.tar",
        "shards train_images",
        "shards rows.jsonl.zip",
        "roco . --splits dev",
        "roco . --kinds surgery",
        "roco train_images",
        "rocov2 . --splits dev",
        "rocov2 data",
        "dicom train_images --reports rows.jsonl --match Name",
        "dicom train_images --reports rows.jsonl --group-by person --caption-key report",
        "dicom train_images --reports rows.jsonl --caption-key report --allow-burned-in-text 2",
        "dicom train_images",
        "phantom --num-pairs -5",
        "phantom --num-pairs 2.5",
        "phantom --seed -1",
        "phantom --image-size 0",
        "phantom --image-size 1000000",
        "phantom --num-pairs 10 --num-test -1",
    ],
)
def test_wrong_use_is_one_sentence_and_exit_2(folder, words, monkeypatch, capsys):
    monkeypatch.chdir(folder)
    assert main(["data", *words.split(), "--out", "wrong"]) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.startswith("gapless: ")
    assert "Error:" not in printed.err
    assert not (folder / "wrong").exists()


def test_what_was_passed_over_is_on_stderr_and_in_the_object(folder):
    write_shard(folder / "mac.tar", [("._0.png", b"x"), ("0.png", image_bytes(0)), ("0.txt", "c"), ("0.cls", "1")])
    done = run(folder, "shards", "mac.tar", "--out", "mac", "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["passed_over"] == {"left by macOS, Windows or tar": 1, "not used, .cls": 1}
    assert "passed over 1 members" in done.stderr
    assert "0.cls" in done.stderr
