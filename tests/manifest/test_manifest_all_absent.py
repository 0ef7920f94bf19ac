"""A table of which no row can be used says why, and an address in a cell says what to do."""

import pytest
from data_samples import write_jsonl

from gapless.core.errors import DataRefused
from gapless.manifest.readers.table import read_table

WORDS = ["report=text:report", "labs=table:age"]


def test_rows_that_lack_everything_are_counted_by_their_reason(tmp_path):
    write_jsonl(tmp_path / "t.jsonl", [{"report": "", "age": None}, {"report": "a nodule", "age": None}])
    with pytest.raises(DataRefused, match="none of 2 rows is selected: 2 fewer than 2 modalities"):
        read_table(tmp_path / "t.jsonl", tmp_path / "M", modality=WORDS, workers=1)


def test_the_address_of_a_wfdb_record_is_refused_with_what_to_do(tmp_path):
    pytest.importorskip("wfdb")
    rows = [{"report": "rhythm", "ecg": "https://physionet.org/files/mitdb/100.hea"}]
    write_jsonl(tmp_path / "t.jsonl", rows)
    with pytest.raises(DataRefused, match=r"ecg: missing file: .*nothing is downloaded; download it first, and name"):
        read_table(tmp_path / "t.jsonl", tmp_path / "M", modality=["report=text:report", "ecg=waveform:ecg"], workers=1)
