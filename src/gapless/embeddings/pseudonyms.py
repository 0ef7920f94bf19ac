"""Names that take the place of ids and groups where embeddings leave a site: only who holds the key traces them back.

    names = Pseudonyms.of_file(Path("site.key"))     # makes the key where there is none
    names.of("id", "case-17")                        # 32 hexadecimal digits

A name has the same pseudonym in every run with the same key.
"""

import hashlib
import hmac
import os
import secrets
from contextlib import suppress
from pathlib import Path

from gapless.core.errors import UsageError, one_line
from gapless.core.files import check_file

KEY_BYTES = 32
DIGITS = 32  # of a pseudonym, 128 bits


class Pseudonyms:
    """Keyed hashes (HMAC-SHA-256, RFC 2104) of names.

    Without the key nobody can compute the pseudonym of a name that they guess, as they could with a bare hash.

    Args:
        key: 32 random bytes.
    """

    def __init__(self, key: bytes) -> None:
        self._key = key

    @classmethod
    def of_file(cls, path: Path) -> "Pseudonyms":
        """With the key of a file of 64 hexadecimal digits; where there is no such file, a new key is made and written.

        The new file can be read by its owner alone.

        Raises:
            UsageError: the file cannot be read or written, or holds no key.
        """
        check_file(path)
        try:
            with suppress(FileExistsError):
                _write_new(path, secrets.token_hex(KEY_BYTES))
            text = path.read_bytes()
        except OSError as error:
            raise UsageError(f"{path} cannot be read or written: {one_line(error)}") from None
        try:
            key = bytes.fromhex(text.decode("ascii"))
        except ValueError:
            key = b""
        if len(key) != KEY_BYTES:
            raise UsageError(f"{path} holds no key of {2 * KEY_BYTES} hexadecimal digits; name a new file to make one")
        return cls(key)

    @property
    def fingerprint(self) -> str:
        """Tells two keys apart and says nothing of either."""
        return self.of("key", "")

    def of(self, kind: str, name: str) -> str:
        """The pseudonym of a name of a kind: "id", "group", "positives"."""
        return hmac.new(self._key, f"{kind}\0{name}".encode(), hashlib.sha256).hexdigest()[:DIGITS]


def _write_new(path: Path, text: str) -> None:
    """Write a file of which nobody sees a part, for its owner alone.

    Processes that start together all try; the first makes the file, and the others read it.

    Raises:
        FileExistsError: there is one.
    """
    if path.exists():
        raise FileExistsError
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    handle = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(handle, "w") as stream:
            stream.write(f"{text}\n")
            stream.flush()
            os.fsync(stream.fileno())
        os.link(partial, path)  # unlike a rename this fails where the file exists
    finally:
        partial.unlink()
