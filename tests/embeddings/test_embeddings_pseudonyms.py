"""Pseudonyms: keyed hashes that are the same in every run, of a key that is made once and belongs to its owner."""

import hashlib
import hmac
import stat
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from gapless.core.errors import UsageError
from gapless.embeddings.pseudonyms import Pseudonyms


def test_they_are_hmac_sha_256_of_kind_and_name() -> None:
    key = bytes(range(32))
    expected = hmac.new(key, b"id\0case 7", hashlib.sha256).hexdigest()[:32]
    assert Pseudonyms(key).of("id", "case 7") == expected


def test_kinds_names_and_keys_are_told_apart() -> None:
    one, other = Pseudonyms(bytes(32)), Pseudonyms(bytes(31) + b"\1")
    assert one.of("id", "7") == one.of("id", "7")
    found = {one.of("id", "7"), one.of("group", "7"), one.of("id", "8"), other.of("id", "7"), one.of("id", "é")}
    assert len(found) == 5
    assert one.fingerprint != other.fingerprint


def test_a_key_is_made_once_for_its_owner_alone(tmp_path: Path) -> None:
    path = tmp_path / "keys" / "site.key"
    first = Pseudonyms.of_file(path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert len(bytes.fromhex(path.read_text())) == 32
    assert Pseudonyms.of_file(path).of("id", "a") == first.of("id", "a")
    assert Pseudonyms.of_file(tmp_path / "other.key").of("id", "a") != first.of("id", "a")
    assert [entry.name for entry in path.parent.iterdir()] == ["site.key"]


def test_all_who_start_together_have_one_key(tmp_path: Path) -> None:
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda _: Pseudonyms.of_file(tmp_path / "site.key").fingerprint, range(32)))
    assert len(set(found)) == 1
    assert [entry.name for entry in tmp_path.iterdir()] == ["site.key"]


@pytest.mark.parametrize("content", ["", "secret", "00" * 31, "00" * 33, "zz" * 32, "ü" * 64])
def test_a_file_without_a_key_is_refused_and_kept(content: str, tmp_path: Path) -> None:
    path = tmp_path / "notes.txt"
    path.write_text(content)
    with pytest.raises(UsageError, match="holds no key of 64 hexadecimal digits"):
        Pseudonyms.of_file(path)
    assert path.read_text() == content


def test_a_place_for_no_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="is a directory"):
        Pseudonyms.of_file(tmp_path)
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError, match="is a file"):
        Pseudonyms.of_file(tmp_path / "file" / "site.key")
