"""Queries of each kind, as a user or a request gives them: strings, numbers and bytes, and what is wrong with them."""

import gzip
import struct

import numpy as np
import pytest
from signal_samples import SECRET, ecg, edf_bytes, npy_bytes, wfdb_record

from gapless.core.errors import DataRefused, UsageError
from gapless.modalities.audio import AudioInput, AudioModality
from gapless.modalities.table import TableInput, TableModality
from gapless.modalities.volume import VolumeInput, VolumeModality
from gapless.modalities.waveform import WaveformInput, WaveformModality
from gapless.signals.wfdb_files import is_header

WAVEFORM = WaveformModality(WaveformInput(rate=100.0, seconds=3.0))
VOLUME = VolumeModality(VolumeInput(depth=2, size=16))


def asked(kind, value):
    """The raw input of a query."""
    return kind.read(kind.parse_query(value))


# ---- numbers --------------------------------------------------------------------------------------------------------


def test_a_list_of_numbers_is_the_array_of_them():
    values = ecg(2, 40)
    given = [values, values.tolist(), npy_bytes(values)]
    read = [asked(WAVEFORM, one) for one in given]
    assert all((one.values == values.astype(np.float32)).all() and one.rate == 100 for one in read)
    assert asked(WAVEFORM, [1, 2.5, 3]).values.tolist() == [[1.0, 2.5, 3.0]]
    assert asked(VOLUME, np.arange(24).reshape(2, 3, 4).tolist()).voxels.shape == (2, 3, 4)


@pytest.mark.parametrize(
    "value", [[], [[]], [[1.0], [2.0, 3.0]], ["1"], [None, 1.0], [True, False], [{}], [10**400], {"a": 1}, True]
)
def test_lists_that_are_no_numbers_are_refused(value):
    with pytest.raises(UsageError, match=r"^a waveform is a path, the bytes of a file or an array of numbers, got "):
        WAVEFORM.parse_query(value)


def test_infinities_and_numbers_without_a_number_are_refused():
    for values, sentence in (([1.0, float("inf")], "infinite values"), ([float("nan")] * 3, "no sample")):
        with pytest.raises(DataRefused, match=sentence):
            asked(WAVEFORM, values)


# ---- files ----------------------------------------------------------------------------------------------------------


def test_a_path_and_its_bytes_are_one_query(tmp_path):
    pytest.importorskip("edfio")
    content = edf_bytes(ecg(2, 300) * 100)
    (tmp_path / "a.edf").write_bytes(content)
    by_bytes, by_path = (asked(WAVEFORM, given).values for given in (content, str(tmp_path / "a.edf")))
    assert (by_bytes == by_path).all()


def test_a_record_of_several_files_is_named_by_its_path(tmp_path):
    pytest.importorskip("wfdb")
    header = wfdb_record(tmp_path, ecg())
    assert asked(WAVEFORM, str(header)).values.shape == asked(WAVEFORM, str(header.with_suffix(""))).values.shape
    with pytest.raises(DataRefused, match="a record is several files, and this is its header alone") as refusal:
        asked(WAVEFORM, header.read_bytes())
    assert SECRET not in str(refusal.value)
    with pytest.raises(DataRefused, match="it is no WFDB header"):
        asked(WAVEFORM, header.with_suffix(".dat").read_bytes())


def test_what_is_a_header_of_a_record():
    for content in (b"# note\n100 2 360 650000\n", b"a_1/3 12 500\r\n", b"rec 1"):
        assert is_header(content)
    for content in (
        b"",
        b"#",
        b"\x00\x01",
        b"a plain text of 2 words",
        b"RIFF....WAVE",
        b"rec",
        b"a/b 2 360",
        b"\n" * 99,
    ):
        assert not is_header(content)


@pytest.mark.parametrize("target", ["/etc/passwd", "../secret.dat", "http://127.0.0.1:1/x", "a/b.dat"])
def test_a_header_that_names_a_file_elsewhere_is_refused(tmp_path, target):
    pytest.importorskip("wfdb")
    (tmp_path / "secret.dat").write_bytes(bytes(2880))
    header = wfdb_record(tmp_path / "in", ecg(), file=target)
    with pytest.raises(DataRefused, match="names a file that is not beside it") as refusal:
        asked(WAVEFORM, header)
    assert target not in str(refusal.value)


def test_a_file_that_inflates_to_more_than_it_declares_is_refused():
    nibabel = pytest.importorskip("nibabel")
    content = nibabel.Nifti1Image(np.zeros((4, 4, 4), np.uint8), np.eye(4)).to_bytes()
    bomb = gzip.compress(content + bytes(5_000_000))
    assert len(bomb) < 10_000
    with pytest.raises(DataRefused, match="inflates to more than its header declares"):
        asked(VOLUME, bomb)
    assert asked(VOLUME, gzip.compress(content + bytes(100))).voxels.shape == (4, 4, 4)


@pytest.mark.parametrize("kind", [WAVEFORM, VOLUME, AudioModality(AudioInput())], ids=lambda kind: kind.Input.kind)
def test_bytes_of_nothing_known_are_a_sentence_without_their_words(kind):
    for content in (b"", SECRET.encode(), b"\x93NUMPY" + SECRET.encode(), b"fLaC" + SECRET.encode() * 9, b"RIFF"):
        with pytest.raises(DataRefused) as refusal:
            asked(kind, content)
        assert SECRET not in str(refusal.value)


def test_an_array_of_objects_is_never_unpickled():
    content = npy_bytes(np.zeros(4), descr="|O")
    for kind in (WAVEFORM, VOLUME):
        with pytest.raises(DataRefused, match="Python objects"):
            asked(kind, content)


def test_a_header_of_npy_that_claims_a_terabyte_allocates_nothing():
    content = npy_bytes(np.zeros(4), shape=(1 << 37,))
    with pytest.raises(DataRefused, match="above"):
        asked(WAVEFORM, content)
    text = b"{'descr': '<f8', 'fortran_order': False, 'shape': (" + b"9" * 3000 + b",)}\n"
    with pytest.raises(DataRefused):
        asked(WAVEFORM, b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text)


# ---- tables ---------------------------------------------------------------------------------------------------------


def fitted():
    rows = [{"age": 40 + number, "ward": "ab"[number % 2]} for number in range(20)]
    return TableModality(TableModality.fit(TableInput(columns=("age", "ward")), rows))


@pytest.mark.parametrize(
    "query", ["age=63, ward=A", " age = 63 ,ward= a ", '{"age": 63, "ward": "A"}', {"age": "63", "ward": "A"}]
)
def test_a_table_is_asked_by_pairs_by_json_or_by_a_mapping(query):
    assert fitted().parse_query(query) == {"age": 63.0, "ward": "a"}


def test_fields_that_are_not_given_are_absent():
    table = fitted()
    assert table.parse_query("ward=b") == {"age": None, "ward": "b"}
    assert table.parse_query("age=1e2")["age"] == 100.0


@pytest.mark.parametrize(
    ("query", "sentence"),
    [
        ("age=11,5", "'5' is no field=value"),
        ("age=63; ward=a", "'age' is one of numbers"),
        ("age", "'age' is no field=value"),
        ("=3", "'=3' is no field=value"),
        ("ages=3", "no field ages; its fields are age, ward"),
        ("age=1,age=2", "the field 'age' twice"),
        ('{"age": 1, "age": 2}', "the field 'age' twice"),
        ('{"age": 1' + "0" * 400 + "}", "'age' holds inf"),
        ('{"age": 1' + "0" * 5000 + "}", "no JSON"),
        ('{"age": NaN}', "'age' holds nan"),
        ('{"age": [1]}', "'age' holds a list"),
        ('{"age": {"a": 1}}', "'age' holds a dict"),
        ('{"a":' * 50_000, "no JSON"),
        ("{}", "no field of the table is present"),
        ({}, "no field of the table is present"),
        ({3: 4}, "no field 3"),
        ({"age": 10**400}, "'age' holds inf"),
        ({"x" * 5000: 1}, "no field"),
        ([1], "a table is queried by"),
        (None, "a table is queried by"),
        ("", "a table is queried by"),
        (b"\xff\xfe", "is no field=value"),
    ],
)
def test_a_query_that_is_no_row_is_a_sentence_about_its_field(query, sentence):
    with pytest.raises(UsageError) as refusal:
        fitted().parse_query(query)
    assert sentence in str(refusal.value)
    assert len(str(refusal.value)) < 300
    assert not isinstance(refusal.value, DataRefused)
