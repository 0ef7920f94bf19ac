"""WFDB records: their values, and headers that name files elsewhere, lie or hold names."""

import os

import numpy as np
import pytest
from signal_samples import SECRET, ecg, wfdb_record

from gapless.core.errors import DataRefused
from gapless.modalities.waveform import WaveformModality
from gapless.signals.limits import MAX_CHANNELS, FileRefused
from gapless.signals.read import read_waveform, waveform_files

pytest.importorskip("wfdb")


def test_a_record_is_read_in_millivolt_with_and_without_its_suffix(tmp_path):
    values = ecg()
    header = wfdb_record(tmp_path, values, names=["I", "V5"])
    for source in (header, header.with_suffix(""), str(header)):
        signal = read_waveform(source)
        np.testing.assert_allclose(signal.values, values, atol=1e-6)
        assert signal.rate == 360
    np.testing.assert_allclose(read_waveform(header, channels=("v5", "I")).values, values[::-1], atol=1e-6)
    masked = read_waveform(header, channels=("II", "I"), missing="mask").values
    assert np.isnan(masked[0]).all()
    np.testing.assert_allclose(masked[1], values[0], atol=1e-6)


def test_the_files_of_a_record_are_its_header_and_its_samples(tmp_path):
    header = wfdb_record(tmp_path, ecg())
    assert [file.name for file in waveform_files(header)] == ["rec.hea", "rec.dat"]
    assert waveform_files(b"bytes") == []


def test_channels_that_are_not_there_are_named_and_those_of_the_file_are_not(tmp_path):
    header = wfdb_record(tmp_path, ecg(), names=[SECRET, "I"])
    with pytest.raises(FileRefused, match="V9 is not among the 2 channels") as refusal:
        read_waveform(header, channels=("V9",))
    assert SECRET not in str(refusal.value)
    with pytest.raises(FileRefused, match="named twice"):
        read_waveform(wfdb_record(tmp_path, ecg(), name="two", names=["I", "Lead I"]), channels=("I",))


# ---- attacks --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name", ["../{0}/rec.dat", "{1}/rec.dat", "./rec.dat", "s3://bucket/x", "..", "sub\\rec.dat", "~"]
)
def test_a_header_that_names_a_file_elsewhere_is_refused(tmp_path, name):
    elsewhere = tmp_path / "elsewhere"
    wfdb_record(elsewhere, ecg())
    header = wfdb_record(tmp_path / "here", ecg(), file=name.format("elsewhere", elsewhere))
    with pytest.raises(FileRefused, match="not beside it") as refusal:
        read_waveform(header)
    assert "elsewhere" not in str(refusal.value)
    assert read_waveform(elsewhere / "rec.hea").rate == 360  # the control: the same samples beside their header


def test_a_link_to_another_folder_is_refused_and_one_inside_is_not(tmp_path):
    wfdb_record(tmp_path / "elsewhere", ecg())
    header = wfdb_record(tmp_path / "here", ecg(), file="link.dat")
    os.symlink("rec.dat", tmp_path / "here" / "link.dat")
    assert read_waveform(header).rate == 360
    (tmp_path / "here" / "link.dat").unlink()
    os.symlink(tmp_path / "elsewhere" / "rec.dat", tmp_path / "here" / "link.dat")
    with pytest.raises(FileRefused, match="link to another folder"):
        read_waveform(header)


def test_a_pipe_or_a_folder_as_samples_is_refused(tmp_path):
    os.mkfifo(tmp_path / "pipe.dat")
    (tmp_path / "folder.dat").mkdir()
    for name in ("pipe.dat", "folder.dat", "absent.dat"):
        with pytest.raises(FileRefused):
            read_waveform(wfdb_record(tmp_path, ecg(), file=name))


@pytest.mark.parametrize(
    "lie", [{"declared": 10**9}, {"declared": 721}, {"channels": 10**6}, {"channels": 3}, {"rate": 0}, {"rate": 10**11}]
)
def test_a_header_that_declares_more_than_there_is_is_refused_before_it_is_read(tmp_path, lie, monkeypatch):
    import wfdb

    def never(*args, **kwargs):
        raise MemoryError("samples were read")  # what no reader turns into a refusal

    header = wfdb_record(tmp_path, ecg(), **lie)
    monkeypatch.setattr(wfdb, "rdrecord", never)
    with pytest.raises(FileRefused):
        read_waveform(header)
    with pytest.raises(MemoryError):
        read_waveform(wfdb_record(tmp_path, ecg(), name="control"))


def test_headers_that_are_long_or_of_several_segments_are_refused(tmp_path):
    wfdb_record(tmp_path, ecg())
    (tmp_path / "many.hea").write_text("many 1 360 10\n" + "rec.dat 16\n" * (MAX_CHANNELS + 2))
    (tmp_path / "long.hea").write_text("long 1 360 10\nrec.dat 16\n" + "# x\n" * 300_000)
    (tmp_path / "parts.hea").write_text("parts/2 2 360 1440\nrec 720\nrec 720\n")
    for name in ("many", "long", "parts"):
        with pytest.raises(FileRefused):
            read_waveform(tmp_path / f"{name}.hea")


@pytest.mark.parametrize(
    "content", ["", "#", "rec", "rec x y z", "rec 1 360\n", "rec 1 360 10\nrec.dat 99 200\n", "\0\0", SECRET]
)
def test_damaged_headers_are_refused_by_their_class_alone(tmp_path, content):
    wfdb_record(tmp_path, ecg())
    (tmp_path / "rec.hea").write_text(content)
    with pytest.raises(FileRefused) as refusal:
        read_waveform(tmp_path / "rec.hea")
    assert SECRET not in str(refusal.value)


def test_nothing_of_the_comments_reaches_facts_or_the_preview(tmp_path, capfd, caplog):
    header = wfdb_record(tmp_path, ecg(), names=[SECRET, "I"])
    assert SECRET in header.read_text()  # the control
    facts = WaveformModality.check(header, {"rate": 360})
    assert facts == {"channels": 2, "rate": 360.0, "seconds": 2.0, "flat": 0, "clipped": 0}
    kind = WaveformModality(WaveformModality.Input(rate=360.0))
    assert SECRET.encode() not in kind.preview(header)
    for bad in ({"rate": 500}, {"channels": "II"}):
        with pytest.raises(DataRefused) as refusal:
            WaveformModality.check(header, bad)
        assert SECRET not in str(refusal.value)
    assert SECRET not in "".join([*capfd.readouterr(), caplog.text])
