"""Counts names in a bounded amount of memory, however many different names there are."""

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from types import TracebackType

from gapless.core.errors import NoRoom

NAMES_IN_MEMORY = 65_536
CACHE_KIB = 16_384  # of the file's pages
NUM_BITS = 1 << 27  # 16 MiB


class NameCounts:
    """How often each name was added.

    The names that were added last are in memory. When there are more than fit, they are written to a temporary file
    without a name, which the system removes when the process ends. Use it in one thread.

    Args:
        in_memory: how many names are held in memory, at least 1.
    """

    def __init__(self, in_memory: int = NAMES_IN_MEMORY) -> None:
        self._in_memory = in_memory
        self._recent: dict[str, int] = {}
        self._file: sqlite3.Connection | None = None
        # A bit for each name in the file, at the place of its hash. Where it is 0 the name is new, and the file is not
        # asked; with that a name takes 5 microseconds, without it 11 (a million names).
        self._bits = bytearray()

    def __enter__(self) -> "NameCounts":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._file is not None:
            self._file.close()

    def __contains__(self, name: str) -> bool:
        return self[name] > 0

    def __getitem__(self, name: str) -> int:
        """How often the name was added; 0 for one that was not."""
        count = self._recent.get(name)
        if count is not None:
            return count
        place = _place(name)
        if self._file is None or not self._bits[place >> 3] & 1 << (place & 7):
            return 0
        with _room_is_needed():
            row = self._file.execute("SELECT count FROM names WHERE name = ?", (_key(name),)).fetchone()
        return 0 if row is None else int(row[0])

    def add(self, name: str) -> int:
        """Count the name once more.

        Returns:
            How often it was added, with this time.

        Raises:
            NoRoom: the folder of temporary files is full.
        """
        count = self[name] + 1
        self._recent[name] = count
        if len(self._recent) > self._in_memory:
            self._write_recent()
        return count

    def _write_recent(self) -> None:
        rows = sorted((_key(name), count) for name, count in self._recent.items())
        with _room_is_needed():
            if self._file is None:
                self._file, self._bits = _temporary_file(), bytearray(NUM_BITS >> 3)
            with self._file:  # one transaction; each row in its own takes up to four times as long
                self._file.executemany("INSERT OR REPLACE INTO names VALUES (?, ?)", rows)
        for place in map(_place, self._recent):
            self._bits[place >> 3] |= 1 << (place & 7)
        self._recent = {}


@contextmanager
def _room_is_needed() -> Iterator[None]:
    """Say in a sentence that the temporary file does not fit; SQLite writes pages out while it reads, too."""
    try:
        yield
    except sqlite3.OperationalError as error:
        raise NoRoom(
            f"the names of the rows do not fit into the folder of temporary files ({error}); name one with room by the "
            "environment variable SQLITE_TMPDIR, and give the same command again: it continues"
        ) from error


def _place(name: str) -> int:
    return hash(name) % NUM_BITS


def _key(name: str) -> bytes:
    """The bytes of a name, which may be that of a file and no Unicode."""
    return name.encode("utf-8", "surrogatepass")


def _temporary_file() -> sqlite3.Connection:
    file = sqlite3.connect("")  # an empty name: a file that only this connection has
    for setting in ("journal_mode = OFF", "synchronous = OFF", f"cache_size = -{CACHE_KIB}"):
        file.execute(f"PRAGMA {setting}")
    file.execute("CREATE TABLE names (name BLOB PRIMARY KEY, count INTEGER) WITHOUT ROWID")
    return file
