"""Records the verified images of a build, so that an interrupted build continues.

`.<name>.resume/` holds `journal.jsonl`, the copied images, and the files that a reader fetched from a server; it is
removed when the manifest is written or refused, and kept when the build is interrupted or the network fails.
A line of the journal holds the name of the row's copy, which is unique, the key of its image (from its bytes, or from
its file and times), and the result. Refusals are not recorded, so that an image that was missing or damaged is read
again.
"""

import json
import logging
import shutil
from collections.abc import Mapping, Sequence
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from types import TracebackType
from typing import Any

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
        self._known = self._read(header)
        directory.mkdir(parents=True, exist_ok=True)
        if not self._known:
            shutil.rmtree(self.images, ignore_errors=True)
        self._rewrite(header)
        self._stream = (directory / JOURNAL_FILE).open("a", encoding="utf-8")

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
        # The journal is kept after an interruption and a failure of the network: after another error the user must
        # change something first.
        if kind is not None and issubclass(kind, Exception) and not issubclass(kind, NeedsNetwork):
            self.discard()

    def _read(self, header: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
        try:
            first, *lines = (self.directory / JOURNAL_FILE).read_text(encoding="utf-8").split("\n")
        except (OSError, ValueError):
            shutil.rmtree(self.fetched, ignore_errors=True)
            return {}
        if differing := differences(_parsed(first), dict(header)):
            if any(lines):
                logger.warning(
                    f"{self.directory} holds the work of an interrupted run of another version or with other options: "
                    f"it is dropped, and every image is verified again; differing: {listed(differing)}"
                )
            shutil.rmtree(self.fetched, ignore_errors=True)
            return {}
        results = [_parsed(line) for line in lines]  # {} for a last line that the interruption cut short
        whole = [result for result in results if result.keys() >= ENTRIES or result.keys() >= ROW_ENTRIES]
        return {result["name"]: result for result in whole}

    def _rewrite(self, header: Mapping[str, Any]) -> None:
        """Write the file without a truncated last line; otherwise the next one would be appended to it."""
        lines = [header, *self._known.values()]
        files.write_text(self.directory / JOURNAL_FILE, "".join(json.dumps(line) + "\n" for line in lines))

    def find(self, name: str, source: Source) -> Mapping[str, Any] | None:
        """The recorded result of a row whose image has not changed since; None without one.

        Args:
            name: of the row's copy.
            source: its image, or its views.
        """
        result = self._known.get(name)
        return result if result is not None and result["key"] == source.key() else None

    def add(self, results: Sequence[Mapping[str, Any]]) -> None:
        """Record the results that are no refusals."""
        self._stream.writelines(json.dumps(result) + "\n" for result in results if "reason" not in result)
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


def _parsed(line: str) -> dict[str, Any]:
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
