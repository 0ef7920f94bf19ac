"""EDF recordings: their values, and headers that lie or name the patient."""

import numpy as np
import pytest
from signal_samples import SECRET, edf_bytes

from gapless.core.errors import DataRefused
from gapless.modalities.waveform import WaveformModality
from gapless.signals.limits import FileRefused
from gapless.signals.read import read_waveform

edfio = pytest.importorskip("edfio")

VALUES = np.random.default_rng(0).uniform(-900, 900, (3, 400))  # microvolts


def test_values_are_millivolts_and_channels_are_found_by_their_electrode():
    signal = read_waveform(edf_bytes(VALUES, names=["EEG Fpz-Cz", "EEG Pz-Oz", "EOG"]), channels=("Pz-Oz", "EOG"))
    np.testing.assert_allclose(signal.values, VALUES[1:] / 1000, atol=2e-5)
    assert signal.rate == 100.0
    other = read_waveform(edf_bytes(VALUES, unit="degC"))
    np.testing.assert_allclose(other.values, VALUES, atol=0.02)


def test_a_file_of_edfio_is_read_back(tmp_path):
    signals = [
        edfio.EdfSignal(row, 100, label=f"C{place}", physical_dimension="mV") for place, row in enumerate(VALUES)
    ]
    edfio.Edf(signals, annotations=[edfio.EdfAnnotation(1, 1, SECRET)]).write(tmp_path / "x.edf")
    np.testing.assert_allclose(read_waveform(tmp_path / "x.edf").values, VALUES, atol=0.05)


def test_channels_of_several_rates_are_refused_unless_one_rate_is_named(tmp_path):
    signals = [edfio.EdfSignal(VALUES[0], 100, label="A"), edfio.EdfSignal(VALUES[1][:40], 10, label="B")]
    edfio.Edf(signals).write(tmp_path / "x.edf")
    with pytest.raises(FileRefused, match="2 rates"):
        read_waveform(tmp_path / "x.edf")
    assert read_waveform(tmp_path / "x.edf", channels=("B",)).rate == 10


@pytest.mark.parametrize(
    "lie",
    [
        {"records": -1},
        {"records": -5},
        {"records": 0},
        {"records": 5},
        {"records": 10**8 - 1},
        {"records": "x"},
        {"per_record": -100},
        {"per_record": 10**7},
        {"channels": -1},
        {"channels": 0},
        {"channels": 9999},
    ],
)
def test_counts_that_lie_are_refused_before_the_file_is_parsed(lie, monkeypatch):
    def never(*args, **kwargs):
        raise MemoryError("the file was parsed")  # what no reader turns into a refusal

    monkeypatch.setattr(edfio, "read_edf", never)
    with pytest.raises(FileRefused) as refusal:
        read_waveform(edf_bytes(VALUES, **lie))
    assert SECRET not in str(refusal.value)
    with pytest.raises(MemoryError):  # the control reaches the parser
        read_waveform(edf_bytes(VALUES))


def test_truncated_files_are_refused_wherever_they_end():
    content = edf_bytes(VALUES)
    for length in (8, 100, 255, 256, 600, 1024, len(content) - 1):
        with pytest.raises(FileRefused):
            read_waveform(content[:length])
    assert read_waveform(content + b"more").values.shape == (3, 400)


def test_a_recording_with_gaps_is_refused():
    recording = edfio.Edf([edfio.EdfSignal(VALUES[0], 100, label="A")], annotations=[edfio.EdfAnnotation(1, 1, "x")])
    content = recording.to_bytes()
    assert read_waveform(content).values.shape == (1, 400)
    with pytest.raises(FileRefused, match="with gaps"):
        read_waveform(content.replace(b"+1\x14\x14", b"+9\x14\x14", 1))


@pytest.mark.parametrize(
    ("old", "new"), [(b"32767   ", b"-32768  "), (b"1000    ", b"-1000   "), (b"1000    ", b"nan     ")]
)
def test_a_range_that_is_none_is_refused_rather_than_read_as_stored_integers(old, new):
    content = edf_bytes(VALUES)
    start = content.index(old, 256)
    with pytest.raises(FileRefused):
        read_waveform(content[:start] + new + content[start + 8 :])


def test_nothing_of_the_patient_reaches_facts_errors_or_the_preview(capfd, caplog):
    content = edf_bytes(VALUES, names=[SECRET, "A", "B"])
    assert content.count(SECRET.encode()) == 3  # the control
    assert WaveformModality.check(content, {})["seconds"] == 4.0
    kind = WaveformModality(WaveformModality.Input(rate=100.0))
    assert SECRET.encode() not in kind.preview(content)
    damaged = content.replace(b"32767   ", SECRET[:8].encode())
    for bad, params in ((content, {"channels": "Z"}), (content, {"rate": 50}), (damaged, {})):
        with pytest.raises(DataRefused) as refusal:
            WaveformModality.check(bad, params)
        assert SECRET[:8] not in str(refusal.value)
    assert SECRET[:8] not in "".join([*capfd.readouterr(), caplog.text])
