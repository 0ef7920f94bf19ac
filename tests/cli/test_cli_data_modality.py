"""`gapless data table --modality ...`, `data audit` and `data split` as people call them: words, exit codes, output."""

import json
from pathlib import Path

import pytest
from modality_samples import WORDS, kinds, sample_rows, write_csv

from gapless.cli.main import main

__all__ = ["kinds"]
pytestmark = pytest.mark.usefixtures("kinds")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """`a.csv` and `b.csv` with four rows each."""
    rows = sample_rows(tmp_path)
    write_csv(tmp_path / "a.csv", rows[:4])
    write_csv(tmp_path / "b.csv", rows[4:])
    monkeypatch.chdir(tmp_path)
    return tmp_path


MODALITIES = [word for text in WORDS for word in ("--modality", text)]
KEYS = ["--group-key", "patient", "--label-key", "region"]


def test_the_command_of_the_docs_builds_audits_and_splits(folder, capsys):
    words = ["data", "table", "train=a.csv", "test=b.csv", *MODALITIES, *KEYS, "--out", "m", "--json"]
    assert main(words) == 0
    info = json.loads(capsys.readouterr().out)
    assert info["counts"] == {"read": 8, "kept": 6, "skipped": 2}
    assert info["version"] == 2
    assert info["modalities"]["ecg"] == {"kind": "signal", "columns": ["path"], "params": {"rate": 500}, "present": 4}
    assert [count["rows"] for count in info["lines"]] == [4, 4]
    assert main(["data", "audit", "m", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["presence"]["present"]["labs"] == 4
    assert main(["data", "audit", "m", "--fail-on", "leakage,duplicates"]) == 0
    assert "image + report + history + labs + ecg: 2" in capsys.readouterr().out
    assert main(["data", "split", "m", "--out", "m2", "--stratify", "region"]) == 0
    said = capsys.readouterr().out
    assert said.startswith("read 6, kept 6, skipped 0")
    assert "present: image 5, report 5, history 4, labs 4, ecg 4" in said


def test_a_configuration_file_names_modalities_in_a_list(folder, capsys):
    lines = "\n".join(f"  - {word}" for word in WORDS)
    (folder / "c.yaml").write_text(f"modality:\n{lines}\ngroup_key: patient\nmin_present: 5\n")
    assert main(["data", "table", "a.csv", "b.csv", "--config", "c.yaml", "--out", "m", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["counts"] == {"read": 8, "kept": 2, "skipped": 6}


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["--modality", "image=imgae:file"], 2, "did you mean 'image'?"),
        (["--modality", "image=image:fil"], 2, "no column 'fil' for the modality 'image'; did you mean 'file'?"),
        (["--modality", "ecg=signal:path,rte=1"], 2, "did you mean 'rate'?"),
        (["--modality", "a=text:caption", "--modality", "a=text:history"], 2, "two modalities 'a'"),
        (["--modality", "split=text:caption"], 2, "a column of the manifest itself"),
        (["--modality", "a=text:caption", "--min-present", "2"], 2, "between 1 and the 1 modalities"),
        (["--min-present", "2"], 2, "--min-present needs --modality"),
        (["--modality", "a=text:caption", "--missing", "kep"], 2, "known: drop, keep"),
        (["--modality", "a=text:caption", "--modality", "ecg=signal:path,rate=9"], 3, "ecg: no signal"),
    ],
)
def test_what_is_wrong_is_said_in_a_sentence(folder, capsys, words, code, said):
    assert main(["data", "table", "a.csv", *words, "--out", "m"]) == code
    shown = capsys.readouterr()
    assert said in shown.err
    assert shown.out == ""
    assert "Traceback" not in shown.err
    assert not (folder / "m").exists()
