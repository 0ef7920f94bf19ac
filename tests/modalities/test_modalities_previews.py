"""What each kind shows of an input: the picture that a hand-made input must give, and nothing of a file's header."""

import io
import struct

import numpy as np
import pytest
from PIL import Image, PngImagePlugin
from signal_samples import SECRET, ecg, edf_bytes, npy_bytes, wav_bytes, wfdb_record

from gapless.modalities.audio import AudioInput, AudioModality
from gapless.modalities.image import ImageInput, ImageModality
from gapless.modalities.table import TableInput, TableModality
from gapless.modalities.text import TextInput, TextModality
from gapless.modalities.vector import VectorInput, VectorModality
from gapless.modalities.volume import VolumeInput, VolumeModality
from gapless.modalities.waveform import WaveformInput, WaveformModality


def pixels_of(jpeg):
    return np.asarray(Image.open(io.BytesIO(jpeg)).convert("L")).astype(int)


def ink_of(jpeg):
    """Where a drawing is dark."""
    return pixels_of(jpeg) < 128


def nifti_bytes(voxels, note=SECRET):
    """A NIfTI-1 file of one part with a name in its description."""
    nibabel = pytest.importorskip("nibabel")
    image = nibabel.Nifti1Image(voxels, np.eye(4))
    image.header["descrip"] = note.encode()
    return image.to_bytes()


# ---- nothing of a header --------------------------------------------------------------------------------------------


def png_with_notes():
    notes = PngImagePlugin.PngInfo()
    notes.add_text("Patient", SECRET)
    image = Image.fromarray(np.arange(400, dtype=np.uint8).reshape(20, 20))
    exif = Image.Exif()
    exif[0x010E] = SECRET
    stream = io.BytesIO()
    image.save(stream, "PNG", pnginfo=notes, exif=exif)
    return stream.getvalue()


def wav_with_a_name():
    info = b"INFOIART" + struct.pack("<I", len(SECRET)) + SECRET.encode()
    return wav_bytes(ecg(1, 800), extra=b"LIST" + struct.pack("<I", len(info)) + info)


def dicom_with_a_name():
    from dicom_samples import dicom_bytes

    return dicom_bytes(np.arange(400, dtype=np.uint16).reshape(20, 20), PatientName=SECRET, StudyDescription=SECRET)


def series_with_a_name():
    from dicom_samples import slice_bytes

    return [slice_bytes(np.full((6, 7), 50 * place), place, PatientName=SECRET) for place in range(3)]


HOLDERS = {
    "dicom": (ImageModality(ImageInput()), dicom_with_a_name),
    "series": (VolumeModality(VolumeInput()), series_with_a_name),
    "image": (ImageModality(ImageInput()), png_with_notes),
    "edf": (WaveformModality(WaveformInput()), lambda: edf_bytes(ecg(2, 300) * 100)),
    "audio": (AudioModality(AudioInput()), wav_with_a_name),
    "volume": (VolumeModality(VolumeInput()), lambda: nifti_bytes(np.arange(60, dtype=np.int16).reshape(3, 4, 5))),
}


@pytest.mark.parametrize("name", HOLDERS)
def test_nothing_of_a_header_is_in_a_preview(name):
    needed = {"edf": "edfio", "audio": "soundfile", "volume": "nibabel", "dicom": "pydicom", "series": "pydicom"}
    pytest.importorskip(needed.get(name, "numpy"))
    kind, make = HOLDERS[name]
    content = make()
    assert SECRET.encode() in (content[0] if isinstance(content, list) else content), "the control: the file holds it"
    preview = kind.preview(content)
    assert SECRET.encode() not in preview
    picture = Image.open(io.BytesIO(preview))
    assert picture.format == "JPEG"
    assert (dict(picture.getexif()), picture.info.get("comment")) == ({}, None)
    assert max(picture.size) <= 480


def test_nothing_of_a_record_and_its_folder_is_in_a_preview(tmp_path):
    pytest.importorskip("wfdb")
    header = wfdb_record(tmp_path / SECRET, ecg(), names=[SECRET, "II"])
    preview = WaveformModality(WaveformInput()).preview(header)
    assert SECRET.encode() not in preview
    other = wfdb_record(tmp_path / "b", ecg(), names=["x", "II"])
    assert WaveformModality(WaveformInput()).preview(other) == preview, "names of channels are not drawn"


# ---- what is drawn --------------------------------------------------------------------------------------------------


def test_a_curve_stands_where_its_values_are():
    steps = np.repeat([0.0, 1.0], 50)[None]
    ink = ink_of(WaveformModality(WaveformInput(rate=100.0, seconds=1.0)).preview(steps))
    height, width = ink.shape
    assert ink[height // 2 :, : width // 2 - 4].any(axis=0).all()
    assert not ink[: height // 3, : width // 2 - 4].any()
    assert ink[: height // 2, width // 2 + 4 :].any(axis=0).all()
    assert not ink[2 * height // 3 :, width // 2 + 4 :].any()


def test_channels_stand_below_each_other_and_twelve_at_most():
    values = np.random.default_rng(0).standard_normal((20, 100))
    kind = WaveformModality(WaveformInput(rate=100.0, seconds=1.0))
    assert kind.preview(values) == kind.preview(values[:12])
    ink = ink_of(kind.preview(np.stack([np.zeros(100), np.arange(100.0)])))
    rows = np.flatnonzero(ink[:, 20:-20].all(axis=1))
    assert len(rows), "the first channel is flat"
    assert rows.max() < ink.shape[0] / 2


@pytest.mark.parametrize(("crop", "first"), [("start", 0), ("centre", 400)])
def test_the_piece_that_the_model_sees_is_drawn(crop, first):
    values = np.random.default_rng(0).standard_normal((1, 1000))
    kind = WaveformModality(WaveformInput(rate=100.0, seconds=2.0, crop=crop))
    whole = WaveformModality(WaveformInput(rate=100.0, seconds=20.0))
    assert kind.preview(values) == whole.preview(values[:, first : first + 200])
    assert kind.preview(values) != whole.preview(values)


@pytest.mark.parametrize(
    "values",
    [
        np.zeros((1, 1)),
        np.full((2, 50), 7.0),
        np.array([[np.nan] * 30 + [1.0] * 2]),
        np.array([[np.nan] * 40, [1.0, 2.0] * 20]),
        np.array([[3e38, -3e38] * 20]),
        np.zeros((1, 100_000)),
    ],
)
def test_odd_curves_are_drawn_without_a_warning(values):
    assert pixels_of(WaveformModality(WaveformInput(rate=50.0)).preview(values)).shape == (320, 480)


def test_a_recording_without_a_rate_is_drawn_whole():
    values = np.arange(100.0)[None]
    ink = ink_of(WaveformModality(WaveformInput()).preview(npy_bytes(values)))
    assert ink.any(axis=0).all()


def test_the_shape_of_a_sound_is_its_loudness():
    pytest.importorskip("soundfile")
    loud = np.concatenate([np.zeros(4000), 0.8 * np.sin(np.arange(4000))])[None]
    ink = ink_of(AudioModality(AudioInput()).preview(wav_bytes(loud)))
    half = ink.shape[1] // 2
    assert ink[:, : half - 4].sum(axis=0).max() < 10 < ink[:, half + 4 :].sum(axis=0).min()


def test_the_middle_slice_is_shown_through_the_window():
    voxels = np.zeros((3, 10, 10), dtype=np.float32)
    voxels[0], voxels[1, :, 5:], voxels[2] = 500.0, 100.0, 500.0
    shown = pixels_of(VolumeModality(VolumeInput(window=(0.0, 200.0))).preview(voxels))
    assert abs(shown[80, 20] - 128) < 4, "0 is the middle of the window"
    assert shown[80, 140] > 250
    voxels[1] = np.nan
    assert pixels_of(VolumeModality(VolumeInput()).preview(voxels)).max() <= 2, "black, as JPEG rounds it"


def test_a_text_is_shown_whole_and_a_very_long_one_in_part():
    kind = TextModality(TextInput())
    history = "58-year-old with cough.\nNo fever. " * 20
    assert kind.preview(history) == history
    long = kind.preview("a" * 5000)
    assert (len(long), long[-1]) == (2000, "…")
    assert kind.preview("half \udc9d").encode() == b"half ?"


def test_each_field_of_a_table_has_a_line_of_its_own():
    kind = TableModality(TableInput(columns=("age", "ward", "hb")))
    shown = kind.preview({"age": 63, "ward": "B\n2\thb: 99", "hb": None})
    assert shown.split("\n") == ["age: 63", "ward: b 2 hb: 99", "hb: –"]


def test_a_vector_is_shown_by_its_range():
    assert VectorModality(VectorInput(3)).preview([1.0, -2.0, 0.5]) == "3 numbers from -2 to 1"
