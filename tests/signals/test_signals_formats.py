"""DICOM waveforms, sounds and .npy files: their values, and files that lie."""

import copy
import io
import pickle
from pathlib import Path

import numpy as np
import pytest
from signal_samples import SECRET, npy_bytes, wav_bytes

from gapless.core.errors import UsageError
from gapless.modalities.waveform import WaveformModality
from gapless.signals import audio_files, limits
from gapless.signals.audio_files import read_audio
from gapless.signals.limits import FileRefused
from gapless.signals.npy_files import read_npy
from gapless.signals.read import read_waveform

# ---- DICOM ----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def real():
    """A real 12-lead ECG, as pydicom reads it."""
    pydicom = pytest.importorskip("pydicom")
    path = Path(pydicom.__file__).parent / "data" / "test_files" / "waveform_ecg.dcm"
    if not path.is_file():
        pytest.skip("pydicom's files are not installed")
    return pydicom.dcmread(path)


def content_of(dataset):
    stream = io.BytesIO()
    dataset.save_as(stream)
    return stream.getvalue()


def test_a_real_ecg_has_the_values_that_pydicom_gives(real):
    for group in (0, 1):
        signal = read_waveform(content_of(real), group=group)
        np.testing.assert_allclose(signal.values, real.waveform_array(group).T / 1000, atol=1e-5)  # microvolts
    leads = ("I", "II", "III", "aVR", "V1", "V6")
    chosen = read_waveform(content_of(real), channels=leads).values
    np.testing.assert_allclose(chosen[2], chosen[1] - chosen[0], atol=0.01)  # Einthoven: III = II - I
    np.testing.assert_allclose(chosen[3], -(chosen[0] + chosen[1]) / 2, atol=0.01)  # Goldberger


def test_facts_of_a_real_ecg_hold_nothing_of_its_header(real):
    dataset = copy.deepcopy(real)
    dataset.PatientName = dataset.InstitutionName = SECRET
    content = content_of(dataset)
    assert SECRET.encode() in content
    facts = WaveformModality.check(content, {"rate": "1000", "channels": "I/V1"})
    assert facts == {"channels": 2, "rate": 1000.0, "seconds": 10.0, "flat": 0, "clipped": 0}
    assert SECRET.encode() not in WaveformModality(WaveformModality.Input(rate=1000.0)).preview(content)


@pytest.mark.parametrize(
    ("element", "value"),
    [
        ("NumberOfWaveformSamples", 10**9),
        ("NumberOfWaveformSamples", 10001),
        ("NumberOfWaveformChannels", 65535),
        ("NumberOfWaveformChannels", 11),
        ("SamplingFrequency", "0"),
        ("SamplingFrequency", "-5"),
        ("WaveformSampleInterpretation", "MB"),
        ("WaveformBitsAllocated", 8),
    ],
)
def test_waveforms_that_lie_are_refused(real, element, value):
    dataset = copy.deepcopy(real)
    setattr(dataset.WaveformSequence[0], element, value)
    with pytest.raises(FileRefused):
        read_waveform(content_of(dataset))


def test_padding_is_no_sample(real):
    dataset = copy.deepcopy(real)
    first = dataset.WaveformSequence[0]
    stored = np.frombuffer(first.WaveformData, "<i2").copy()
    stored[:24] = -32768
    first.WaveformData = stored.tobytes()
    first.add_new("WaveformPaddingValue", "OW", np.int16(-32768).tobytes())
    values = read_waveform(content_of(dataset)).values
    assert np.isnan(values[:, :2]).all()
    assert not np.isnan(values[:, 2:]).any()


def test_dicom_files_without_waveforms_and_truncated_ones_are_refused(real):
    content = content_of(real)
    for bad in (content[:500], content[: len(content) // 2], content[:140]):
        with pytest.raises(FileRefused):
            read_waveform(bad)
    dataset = copy.deepcopy(real)
    del dataset.WaveformSequence
    with pytest.raises(FileRefused, match="holds no waveform"):
        read_waveform(content_of(dataset))


# ---- sounds ---------------------------------------------------------------------------------------------------------

TONE = 0.5 * np.sin(2 * np.pi * 440 * np.arange(4000) / 8000)[None]


def test_wav_and_flac_have_the_samples_that_were_written():
    soundfile = pytest.importorskip("soundfile")
    two = np.concatenate([TONE, -TONE])
    signal = read_audio(wav_bytes(two))
    np.testing.assert_allclose(signal.values, two, atol=1e-4)
    assert signal.rate == 8000
    for form, kind in (("FLAC", "PCM_16"), ("WAV", "FLOAT"), ("WAV", "PCM_24"), ("WAV", "ULAW"), ("WAVEX", "PCM_16")):
        stream = io.BytesIO()
        soundfile.write(stream, two.T, 8000, format=form, subtype=kind)
        np.testing.assert_allclose(read_audio(stream.getvalue()).values, two, atol=0.02 if kind == "ULAW" else 1e-4)


def test_sounds_that_lie_are_refused():
    pytest.importorskip("soundfile")
    whole = wav_bytes(TONE)
    assert read_audio(wav_bytes(TONE, extra=b"LIST\x04\x00\x00\x00INFO")).values.shape == (1, 4000)
    lies = [wav_bytes(TONE, declared=declared) for declared in (0, 8002, 2**32 - 1, 7999)]
    lies += [whole[:length] for length in (11, 20, 40, 44, 200)]
    lies += [whole[:22] + bytes([0, 0]) + whole[24:], whole[:22] + bytes([255, 255]) + whole[24:]]
    lies += [wav_bytes(TONE, extra=b"LIST\xff\xff\xff\xffINFO"), wav_bytes(TONE, rate=0)]
    for lie in lies:
        with pytest.raises(FileRefused):
            read_audio(lie)


def test_truncated_flac_and_other_formats_are_refused():
    soundfile = pytest.importorskip("soundfile")
    stream = io.BytesIO()
    soundfile.write(stream, np.random.default_rng(0).normal(0, 0.1, 4000), 8000, format="FLAC")
    content = stream.getvalue()
    for length in (4, 20, 60, len(content) // 2):
        with pytest.raises(FileRefused):
            read_audio(content[:length])
    other = io.BytesIO()
    soundfile.write(other, TONE.T, 8000, format="AIFF")
    with pytest.raises(FileRefused, match="neither WAV nor FLAC"):
        read_audio(other.getvalue())


def test_a_flac_file_that_declares_2_to_36_samples_is_refused_before_they_are_read(monkeypatch):
    soundfile = pytest.importorskip("soundfile")
    stream = io.BytesIO()
    soundfile.write(stream, np.zeros(4000), 8000, format="FLAC")
    content = bytearray(stream.getvalue())
    content[21] |= 0x0F  # the upper 4 of 36 bits of the count of samples in STREAMINFO
    with pytest.raises(FileRefused):
        read_audio(bytes(content))
    monkeypatch.setattr(limits, "MAX_VALUES", 3999)
    with pytest.raises(FileRefused, match="above 3999 values"):
        read_audio(stream.getvalue())


def test_tags_of_a_sound_reach_nothing(capfd):
    pytest.importorskip("soundfile")
    text = SECRET.encode().ljust(12, b"\0")
    content = wav_bytes(TONE, extra=b"LIST" + bytes([24, 0, 0, 0]) + b"INFOIART" + bytes([12, 0, 0, 0]) + text)
    assert SECRET.encode() in content
    from gapless.modalities.audio import AudioInput, AudioModality

    assert AudioModality.check(content, {}) == {"rate": 8000.0, "channels": 1, "seconds": 0.5, "flat": 0, "clipped": 0}
    assert SECRET.encode() not in AudioModality(AudioInput()).preview(content)
    assert SECRET not in "".join(capfd.readouterr())


def test_a_missing_package_is_named(monkeypatch):
    import sys

    monkeypatch.setitem(sys.modules, "soundfile", None)
    with pytest.raises(UsageError, match=r"pip install 'gapless\[audio\]'"):
        read_audio(wav_bytes(TONE))
    assert audio_files.is_audio(wav_bytes(TONE))


# ---- .npy -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["<f8", ">f4", "<i2", "|u1", "<f2"])
def test_plain_arrays_are_read(dtype):
    array = np.arange(12).reshape(3, 4).astype(dtype)
    np.testing.assert_array_equal(read_npy(npy_bytes(array)), array)
    stream = io.BytesIO()
    np.save(stream, np.asfortranarray(array))
    np.testing.assert_array_equal(read_npy(stream.getvalue()), array)


def test_objects_are_never_unpickled(tmp_path):
    class Trap:
        def __reduce__(self):
            return Path.touch, (tmp_path / "ran",)

    stream = io.BytesIO()
    np.save(stream, np.array([Trap()], dtype=object), allow_pickle=True)
    with pytest.raises(FileRefused, match="objects, which are refused unread"):
        read_npy(stream.getvalue())
    assert not (tmp_path / "ran").exists()
    np.load(io.BytesIO(stream.getvalue()), allow_pickle=True)  # the control: the trap works
    assert (tmp_path / "ran").exists()
    with pytest.raises(FileRefused):
        read_waveform(pickle.dumps([1, 2, 3]))


@pytest.mark.parametrize("shape", [(10**9, 10**9), (2**62, 4), (13,), (0, 5), (-1, 12), (2**70,)])
def test_shapes_that_the_file_does_not_hold_are_refused(shape):
    with pytest.raises(FileRefused):
        read_npy(npy_bytes(np.zeros(12), shape=shape))


def test_other_values_and_damaged_headers_are_refused():
    for descr in ("<c16", "<U4", "|S8", "<M8[s]", "|V8", "|O"):
        with pytest.raises(FileRefused):
            read_npy(npy_bytes(np.zeros(12), descr=descr))
    for content in (b"\x93NUMPY", b"\x93NUMPY\x09\x00", b"\x93NUMPY\x01\x00\xff\xff{", npy_bytes(np.zeros(3))[:-1]):
        with pytest.raises(FileRefused):
            read_npy(content)


def test_other_files_are_refused_by_name():
    for content in (b"", b"text", b"\x89PNG\r\n", bytes(1000)):
        with pytest.raises(FileRefused, match="it is no WFDB header"):
            read_waveform(content)
    with pytest.raises(FileRefused, match="missing file"):
        read_waveform("/nowhere/x.npy")
