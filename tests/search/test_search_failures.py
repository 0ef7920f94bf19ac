"""What a failure is called: "damaged: remove it" only where files are broken, for that advice costs a collection."""

import errno
import shutil

import pyarrow as pa
import pytest
from absent_rows import vectors_model
from search_samples import collection_of, embedding_set, unit_rows, write

import gapless
from gapless.core.errors import DataRefused, GaplessError, UsageError
from gapless.search import build
from gapless.search.build import delete_rows
from gapless.search.collection import Collection
from gapless.search.engine import reading
from gapless.search.indices import KINDS, update_indices

DAMAGED = "it is damaged: remove it and index again"


@pytest.fixture
def collection(tmp_path):
    drawn = embedding_set({"text": unit_rows(30)}, captions=[f"finding {n}" for n in range(30)])
    return collection_of(tmp_path / "c", drawn)


def sentence(uri, error, where=None):
    """What `reading` makes of an error; the error itself where it lets it pass."""
    try:
        with reading(uri, where):
            raise error
    except BaseException as raised:
        return raised


@pytest.mark.parametrize(
    "said",
    [
        "lance error: LanceError(IO): file size is too small, /x/y.rs:12:3",
        "lance error: LanceError(IO): failed to decode Protobuf message: Manifest.fields: invalid varint",
        "lance error: Encountered corrupt file data.lance: mini-block",
        "lance error: Not found: tmp/c/rows.lance/data/1.lance, /x/y.rs:12:3",
        "lance error: LanceError(IO): Generic memory error: Invalid range 0..9 for object of size 0 bytes",
    ],
)
@pytest.mark.parametrize("where", [None, "type = 'CT'"])
def test_broken_files_are_damage_with_and_without_a_filter(tmp_path, said, where):
    error = sentence(str(tmp_path), RuntimeError(said), where)
    assert isinstance(error, DataRefused)
    assert DAMAGED in str(error)
    assert ".rs" not in str(error)


@pytest.mark.parametrize(
    ("number", "reason"),
    [
        (errno.EACCES, "permission denied"),
        (errno.ENOSPC, "no space left on device"),
        (errno.EFBIG, "file too large"),
        (errno.EMFILE, "too many open files"),
        (errno.EROFS, "read-only file system"),
        (errno.ENOTCONN, "transport endpoint"),
    ],
)
def test_trouble_of_the_system_is_said_in_its_words(tmp_path, number, reason):
    for error in (RuntimeError(f"lance error: LanceError(IO): X (os error {number})"), OSError(number, "X")):
        said = sentence(str(tmp_path), error)
        assert isinstance(said, DataRefused)
        assert reason in str(said)
        assert "still there" in str(said)
        assert "damaged" not in str(said)


@pytest.mark.parametrize("error", [TypeError("slices"), KeyError("x"), IndexError("x"), ValueError("x"), MemoryError()])
def test_a_mistake_of_ours_is_no_damage(tmp_path, error):
    assert sentence(str(tmp_path), error) is error


def test_wrong_calls_of_arrow_are_no_damage_and_torn_text_is(tmp_path):
    wrong = pa.ArrowTypeError("Expected bytes, got a 'int' object")
    assert sentence(str(tmp_path), wrong) is wrong
    torn = UnicodeDecodeError("utf-8", b"\xff", 0, 1, "invalid start byte")
    assert DAMAGED in str(sentence(str(tmp_path), torn))
    assert "damaged" not in str(sentence(str(tmp_path), RuntimeError("lance error: Commit conflict for version 7")))


def test_a_failing_filter_is_wrong_usage(tmp_path, collection):
    with pytest.raises(UsageError, match="cannot be applied") as error:
        collection.count("cast(caption as int) > 5")
    assert "damaged" not in str(error.value)
    assert isinstance(sentence(str(tmp_path), ValueError("Invalid input"), "x = 'y'"), UsageError)


def test_a_collection_that_was_removed_is_said_to_be_gone(collection, tmp_path):
    shutil.rmtree(tmp_path / "c")
    with pytest.raises(DataRefused, match="no longer there"):
        collection.search(unit_rows(1)[0])


def test_a_full_disk_while_writing_leaves_the_collection_and_says_so(collection, tmp_path, monkeypatch):
    def full(*args):
        raise RuntimeError("lance error: LanceError(IO): No space left on device (os error 28), /x/y.rs:1:2")

    monkeypatch.setattr(build, "commit", full)
    with pytest.raises(DataRefused, match="no space left on device") as error:
        write(tmp_path / "c", embedding_set({"text": unit_rows(40)}, captions=["x"] * 40), update=True)
    assert "damaged" not in str(error.value)
    assert Collection.open(tmp_path / "c").count() == 30


@pytest.mark.parametrize("kind", KINDS)
def test_an_empty_collection_answers_and_measures_nothing(collection, kind):
    """A recall over no rows would be a NaN, which is no JSON."""
    delete_rows(collection, "true")
    assert update_indices(collection, kind) is None
    assert collection.search(unit_rows(1)[0]) == collection.search(unit_rows(1)[0], words="finding") == []
    assert (collection.count(), collection.label_values(), collection.get("x/text")) == (0, {}, None)


def test_every_error_is_one_line(tmp_path):
    for error in (RuntimeError("lance error:\n  Not found:\n /a/b"), RuntimeError(""), OSError(errno.EIO, "a\nb")):
        said = sentence(str(tmp_path), error)
        assert isinstance(said, GaplessError)
        assert "\n" not in str(said)


def test_an_index_that_the_dim_cannot_have_is_refused_before_anything_is_written(tmp_path):
    vectors_model(["image", "text"], size=6, dim=12).save_pretrained(tmp_path / "model")
    rows = embedding_set({"image": unit_rows(30, 6), "text": unit_rows(30, 6, seed=1)})
    with pytest.raises(UsageError, match="ivf-rq takes a dim that is a multiple of 8, not 12; ivf-flat takes any"):
        gapless.index(tmp_path / "model", data=rows, out=tmp_path / "c2", ann="ivf-rq")
    assert not (tmp_path / "c2").exists()
    with pytest.raises(UsageError, match="unknown index 'ivf'"):
        gapless.index(tmp_path / "model", data=rows, out=tmp_path / "c2", ann="ivf")
