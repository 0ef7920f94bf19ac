"""Files of one value per row: where lines end, what is no UTF-8, and arrays of every shape."""

import gzip

import numpy as np
import pytest

from gapless.core.errors import DataRefused, UsageError
from gapless.embeddings.row_values import read_row_values

VALUES = ["left lobe", "", "right\u2028lobe", "a\x0cb", "a\x85b", "last"]


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("more", ["", "\n", "\n\n"])
def test_lines_end_where_editors_end_them(tmp_path, end, more):
    path = tmp_path / "labels.txt"
    path.write_bytes((end.join(VALUES) + more.replace("\n", end)).encode())
    assert read_row_values(path, "labels", len(VALUES)) == VALUES


def test_an_empty_last_line_is_a_missing_value_where_a_row_is_left_for_it(tmp_path):
    path = tmp_path / "labels.txt"
    path.write_text("a\nb\n\n")
    assert read_row_values(path, "labels", 3) == ["a", "b", ""]
    assert read_row_values(path, "labels", 2) == ["a", "b"]
    with pytest.raises(DataRefused, match="has 3 labels, the embeddings have 4 rows"):
        read_row_values(path, "labels", 4)
    path.write_text("patient\na\nb\n")
    with pytest.raises(DataRefused, match=r"if the first line \('patient'\) is a heading, remove it"):
        read_row_values(path, "groups", 2)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("a\nb\n".encode("utf-16-le"), "UTF-16 without a byte-order mark; save it as UTF-8"),
        ("a\nR\xf6ntgen\n".encode("cp1252"), r"probably Windows-1252 or Latin-1 \(byte 0xf6 in line 2\)"),
        (b"a\nb\0\n", "holds NUL bytes"),
        (gzip.compress(b"a\nb\n", mtime=0)[:-6], "damaged gzip"),
        (b"PK\x03\x04" + bytes(20), "zip archive: unpack it first"),
    ],
)
def test_what_cannot_be_decoded_is_named_without_an_option_that_does_not_exist(tmp_path, content, message):
    path = tmp_path / "groups.txt"
    path.write_bytes(content)
    with pytest.raises((DataRefused, UsageError), match=message) as refusal:
        read_row_values(path, "groups", 2)
    assert "--encoding" not in str(refusal.value)


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-32"])
@pytest.mark.parametrize("pack", [bytes, gzip.compress])
def test_a_byte_order_mark_and_gzip_are_read(tmp_path, encoding, pack):
    path = tmp_path / "groups.txt"
    path.write_bytes(pack("a\nR\xf6ntgen\n".encode(encoding)))
    assert read_row_values(path, "groups", 2) == ["a", "R\xf6ntgen"]


def test_arrays_are_taken_by_their_shape_and_name(tmp_path):
    np.save(tmp_path / "one.npy", np.array([[1], [2]]))
    assert read_row_values(tmp_path / "one.npy", "groups", 2) == [1, 2]
    np.savez(tmp_path / "some.npz", image=np.ones((2, 4)), group=["a", "b"], label=["x", "y"])
    assert read_row_values(tmp_path / "some.npz", "labels", 2) == ["x", "y"]
    np.save(tmp_path / "wide.npy", np.ones((2, 3)))
    with pytest.raises(DataRefused, match="expected one array of one value per row"):
        read_row_values(tmp_path / "wide.npy", "groups", 2)


def test_what_is_no_file_of_lines_is_wrong_usage(tmp_path):
    (tmp_path / "groups.csv").write_text("patient,age\na,1\n")
    with pytest.raises(UsageError, match=r"groups\.csv is a table"):
        read_row_values(tmp_path / "groups.csv", "groups", 1)
    with pytest.raises(UsageError, match="is not a file"):
        read_row_values(tmp_path, "groups", 1)
