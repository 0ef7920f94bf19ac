"""Records the verified images of a build, so that an interrupted build continues.

`.<name>.resume/` holds `journal.jsonl`, the copied images, and the files that a reader fetched from a server; it is
removed when the manifest is written or refused, and kept when the build is interrupted or the network fails.
A line of the journal holds the name of the row's copy, which is unique, the key of its image (from its bytes, or from
its file and times), and the result. Of a refusal it holds the name and the reason alone, so that an image that was
missing or damaged is read again.

The lines are in the order of the rows, and a build that goes on reads them in step with its rows: it starts at once,
and holds a line in memory only where a row comes later than its line did.
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
from typing import Any, BinaryIO

from gapless.core import files
from gapless.core.errors import NeedsNetwork, listed
from gapless.core.plan import differences, directory_beside
from gapless.images.limits import MAX_PIXELS
from gapless.manifest.options import ImageOptions
from gapless.manifest.verify import Source

JOURNAL_FILE = "journal.jsonl"
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
        file = directory / JOURNAL_FILE
        length = self._usable_bytes(file, header)
        directory.mkdir(parents=True, exist_ok=True)
        if not length:
            shutil.rmtree(self.images, ignore_errors=True)
            files.write_text(file, json.dumps(header) + "\n")
        self._earlier = _results_in(file, length)
        self._passed: dict[str, dict[str, Any]] = {}  # read from the file, and not asked for yet
        if length:
            os.truncate(file, length)  # the next line would be appended to a last one that was cut short
        self._stream = file.open("ab")

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
        self._stream.close()
        self._earlier.close()
        # The journal is kept after an interruption and a failure of the network: after another error the user must
        # change something first.
        if kind is not None and issubclass(kind, Exception) and not issubclass(kind, NeedsNetwork):
            self.discard()

    def _usable_bytes(self, file: Path, header: Mapping[str, Any]) -> int:
        """The length of the whole lines of an interrupted run whose results are valid for this one; 0 without one."""
        try:
            with file.open("rb") as stream:
                differing = differences(_parsed(stream.readline()), dict(header))
                if not differing:
                    return _length_of_lines(stream)
                has_results = bool(stream.readline())
        except OSError:  # there is none
            differing, has_results = [], False
        if has_results:
            logger.warning(
                f"{self.directory} holds the work of an interrupted run of another version or with other options: "
                f"it is dropped, and every image is verified again; differing: {listed(differing)}"
            )
        shutil.rmtree(self.fetched, ignore_errors=True)
        return 0

    def find(self, name: str, source: Source) -> Mapping[str, Any] | None:
        """The recorded result of a row whose image has not changed since; None without one.

        Args:
            name: of the row's copy.
            source: its image, or its views.
        """
        result = self._passed.pop(name, None) or self._read_until(name)
        if result is None or "reason" in result:
            return None
        key = source.key()
        if result["key"] != key:
            # The image has changed since that line. A later run may have verified it again, further on in the file.
            self._read_until(None)
            result = self._passed.pop(name, result)
        return result if result.get("key") == key else None

    def _read_until(self, name: str | None) -> dict[str, Any] | None:
        """Read on to the line of that name; None when there is none, and all lines are read."""
        for result in self._earlier:
            if result["name"] == name:
                return result
            self._passed[result["name"]] = result
        return None

    def add(self, results: Sequence[Mapping[str, Any]]) -> None:
        """Record the results, in the order of the rows; of refusals nothing but the reason."""
        for result in results:
            line = {key: result[key] for key in REFUSAL_ENTRIES} if "reason" in result else result
            self._stream.write(json.dumps(line).encode() + b"\n")
        self._stream.flush()

    def move_images(self, directory: Path) -> None:
        """Hand the stored images over to the finished manifest."""
        if self.images.exists():
            self.images.rename(directory / self.images.name)

    def discard(self) -> None:
        """Remove the journal, the copies that it still has, and what was fetched."""
        shutil.rmtree(self.images, ignore_errors=True)
        shutil.rmtree(self.fetched, ignore_errors=True)
        (self.directory / JOURNAL_FILE).unlink(missing_ok=True)
        with suppress(OSError):  # not empty while this run's lock is in it, which `only_writer` removes with it
            self.directory.rmdir()


def _length_of_lines(stream: BinaryIO) -> int:
    """The length of a file up to the end of its last whole line."""
    length = stream.seek(0, os.SEEK_END)
    while length:
        start = max(0, length - BYTES_AT_ONCE)
        stream.seek(start)
        if (last := stream.read(length - start).rfind(b"\n")) >= 0:
            return start + last + 1
        length = start
    return 0


def _results_in(file: Path, length: int) -> Generator[dict[str, Any], None, None]:
    """The results in so many bytes of a journal, without its header."""
    if not length:
        return
    with file.open("rb") as stream:
        stream.readline()
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
