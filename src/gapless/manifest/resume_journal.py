"""Records the verified images of a build, so that an interrupted build continues.

`.<name>.resume/` holds `journal.jsonl`, `again.jsonl`, the copied images, and the files that a reader fetched from a
server; it is removed when the manifest is written or refused, and kept when the build is interrupted, the network fails
or the folder of temporary files is full.

A line holds the name of the row's copy, which is unique, the key of its image (from its bytes, or from its file and
times), and the result. Of a refusal it holds the name and the reason alone, so that an image that was missing or
damaged is read again. `journal.jsonl` holds the first result of each row, in the order of the rows, and a build that
goes on reads it in step with its rows: it need not hold it. Rows that are verified again, because they were refused or
their image has changed, have their results in `again.jsonl`, which is held in memory; its last line on a row counts.

A row that has no line (it is new, or stands elsewhere in the table now) is looked for to the end of the file, and the
lines before it are then held in memory.
"""

import json
import logging
import os
import shutil
from collections.abc import Generator, Mapping, Sequence
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from types import TracebackType
from typing import Any

from gapless.core import files
from gapless.core.errors import NeedsNetwork, NoRoom, listed
from gapless.core.plan import differences, directory_beside
from gapless.images.limits import MAX_PIXELS
from gapless.manifest.options import ImageOptions
from gapless.manifest.verify import Source, is_stored

JOURNAL_FILE = "journal.jsonl"
AGAIN_FILE = "again.jsonl"
VERSION = 2
ENTRIES = frozenset({"name", "key", "image", "bytes", "width", "height", "sha256"})
ROW_ENTRIES = frozenset({"name", "key", "views"})  # of a row with modalities
REFUSAL_ENTRIES = frozenset({"name", "reason"})
BYTES_AT_ONCE = 1 << 16
# Results are valid for these versions only: another version may decode an image differently.
DECODERS = ("gapless", "pillow", "pydicom", "pylibjpeg", "pylibjpeg-openjpeg", "pylibjpeg-libjpeg", "pyjpegls")
READERS_OF_KINDS = ("wfdb", "edfio", "nibabel", "soundfile")

logger = logging.getLogger(__name__)


class Journal:
    """Results of verified images by the name of their row's copy, appended to `journal.jsonl` as they come.

    Args:
        directory: holds the journal and the copies of images.
        header: what decides the results, as JSON holds it; a journal with another header is dropped with a warning.
    """

    def __init__(self, directory: Path, header: Mapping[str, Any]) -> None:
        self.directory = directory
        self.images = directory / "images"
        self.fetched = directory / "fetched"
        first, again = directory / JOURNAL_FILE, directory / AGAIN_FILE
        is_usable = self._is_usable(first, header)
        directory.mkdir(parents=True, exist_ok=True)
        if not is_usable:
            shutil.rmtree(self.images, ignore_errors=True)
            again.unlink(missing_ok=True)
            files.write_text(first, json.dumps(header) + "\n")
        again.touch()
        lengths = [_whole_lines(file) for file in (first, again)]
        self._newer = {result["name"]: result for result in _results_in(again, lengths[1])}
        self._lines = _results_in(first, lengths[0])  # not those that this run adds
        self._waiting: dict[str, dict[str, Any]] = {}  # lines that were read before their row came
        self._to_repeat: set[str] = set()  # rows in work that have a line already
        self._first, self._again = first.open("ab"), again.open("ab")

    @classmethod
    def beside(cls, out: Path, options: ImageOptions) -> "Journal":
        """The journal of a build of `out` with these options by the installed decoders."""
        header: dict[str, Any] = {
            "version": VERSION,
            "image_root": None if options.root is None else str(options.root.resolve()),
            "max_pixels": MAX_PIXELS,
            "frame": options.frame,
            "find_text": options.find_text,
            "decoders": {name: number for name in DECODERS if (number := _version_of(name))},
        }
        if options.modalities:
            header["modalities"] = {spec.name: spec.as_json() for spec in options.modalities}
            readers = {name: number for name in READERS_OF_KINDS if (number := _version_of(name))}
            header["decoders"] |= readers
        return cls(directory_beside(out), header)

    def __enter__(self) -> "Journal":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for opened in (self._first, self._again, self._lines):
            opened.close()
        # The journal is kept after an interruption, a failure of the network and a full folder of temporary files:
        # after another error the user must change something first.
        if kind is not None and issubclass(kind, Exception) and not issubclass(kind, (NeedsNetwork, NoRoom)):
            self.discard()

    def _is_usable(self, file: Path, header: Mapping[str, Any]) -> bool:
        """Whether there is the journal of an interrupted run whose results are valid for this one."""
        try:
            with file.open("rb") as stream:
                line = stream.readline()
                differing = differences(_parsed(line), dict(header))
                if not differing and line.endswith(b"\n"):
                    return True
                has_results = bool(stream.readline())
        except OSError:  # there is none
            differing, has_results = [], False
        if has_results:
            logger.warning(
                f"{self.directory} holds the work of an interrupted run of another version or with other options: "
                f"it is dropped, and every image is verified again; differing: {listed(differing)}"
            )
        shutil.rmtree(self.fetched, ignore_errors=True)
        return False

    def find(self, name: str, source: Source, store: Path | None = None) -> Mapping[str, Any] | None:
        """The recorded result of a row whose image, and stored copy, have not changed since; None without one.

        Args:
            name: of the row's copy.
            source: its image, or its views.
            store: where the copies are; None where images stay in place.
        """
        first = self._waiting.pop(name, None) or self._read_until(name)
        if first is None:
            return None
        result = self._newer.get(name, first)
        if "reason" not in result and result["key"] == source.key() and is_stored(result, store):
            return result
        self._to_repeat.add(name)
        return None

    def _read_until(self, name: str) -> dict[str, Any] | None:
        """Read on to the line of that name; None when there is none, and all lines are read."""
        for result in self._lines:
            if result["name"] == name:
                return result
            self._waiting[result["name"]] = result
        return None

    def add(self, results: Sequence[Mapping[str, Any]]) -> None:
        """Record the results, in the order of the rows; of refusals nothing but the reason."""
        for result in results:
            line = {key: result[key] for key in REFUSAL_ENTRIES} if "reason" in result else result
            is_repeated = result["name"] in self._to_repeat
            self._to_repeat.discard(result["name"])
            (self._again if is_repeated else self._first).write(json.dumps(line).encode() + b"\n")
        self._first.flush()
        self._again.flush()

    def move_images(self, directory: Path) -> None:
        """Hand the stored images over to the finished manifest."""
        if self.images.exists():
            self.images.rename(directory / self.images.name)

    def discard(self) -> None:
        """Remove the journal, the copies that it still has, and what was fetched."""
        shutil.rmtree(self.images, ignore_errors=True)
        shutil.rmtree(self.fetched, ignore_errors=True)
        for name in (JOURNAL_FILE, AGAIN_FILE):
            (self.directory / name).unlink(missing_ok=True)
        with suppress(OSError):  # not empty while this run's lock is in it, which `only_writer` removes with it
            self.directory.rmdir()


def _whole_lines(file: Path) -> int:
    """The length of a journal, after a last line that an interruption cut short is removed.

    Otherwise the next line would be appended to it.
    """
    with file.open("rb+") as stream:
        length = stream.seek(0, os.SEEK_END)
        while length:
            start = max(0, length - BYTES_AT_ONCE)
            stream.seek(start)
            if (last := stream.read(length - start).rfind(b"\n")) >= 0:
                length = start + last + 1
                break
            length = start
        return stream.truncate(length)


def _results_in(file: Path, length: int) -> Generator[dict[str, Any], None, None]:
    """The results in so many bytes of a journal; lines without one, such as the header, are passed over."""
    with file.open("rb") as stream:
        while stream.tell() < length:
            result = _parsed(stream.readline())
            if any(result.keys() >= entries for entries in (ENTRIES, ROW_ENTRIES, REFUSAL_ENTRIES)):
                yield result


def _parsed(line: str | bytes) -> dict[str, Any]:
    try:
        value = json.loads(line)
    except ValueError:
        return {}
    return value if isinstance(value, dict) else {}


def _version_of(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
