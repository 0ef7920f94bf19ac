"""What a build has verified so far, beside the manifest to be, so that an interrupted run continues.

`.<name>.resume/` holds `journal.jsonl` and the copied images; it is removed when the manifest is written or refused,
and ignored when the options that shape a result have changed.
"""

import json
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol

from gapless.data.rows import ImageSource

JOURNAL_FILE = "journal.jsonl"
VERSION = 1


class _Options(Protocol):
    @property
    def image_root(self) -> Path | None: ...
    @property
    def max_pixels(self) -> int: ...
    @property
    def frame(self) -> int: ...
    @property
    def burned_in_text(self) -> str: ...


class Journal:
    """Results by the key of their image; appended to a file as they come."""

    def __init__(self, directory: Path, header: Mapping[str, Any]) -> None:
        self.directory = directory
        self.images = directory / "images"
        self._known = self._read(header)
        if not self._known:
            shutil.rmtree(directory, ignore_errors=True)
        directory.mkdir(parents=True, exist_ok=True)
        self._rewrite(header)
        self._stream = (directory / JOURNAL_FILE).open("a", encoding="utf-8")

    @classmethod
    def beside(cls, out: Path, options: _Options) -> "Journal":
        header = {
            "version": VERSION,
            "image_root": None if options.image_root is None else str(options.image_root.resolve()),
            "max_pixels": options.max_pixels,
            "frame": options.frame,
            "find_text": options.burned_in_text != "ignore",
        }
        return cls(out.parent / f".{out.name}.resume", header)

    def __enter__(self) -> "Journal":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stream.close()
        # Only an interruption is worth continuing: after an error there is something to change first.
        if kind is not None and issubclass(kind, Exception):
            self.discard()

    def _read(self, header: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
        try:
            lines = (self.directory / JOURNAL_FILE).read_text(encoding="utf-8").split("\n")
            if json.loads(lines[0]) != header:
                return {}
        except (OSError, ValueError):
            return {}
        known = {}
        for line in lines[1:]:
            try:
                result = json.loads(line)
                known[result["key"]] = result
            except (ValueError, KeyError, TypeError):  # the line that was being written
                continue
        return known

    def _rewrite(self, header: Mapping[str, Any]) -> None:
        """Without a torn last line, to which the next one would be glued."""
        lines = [header, *self._known.values()]
        (self.directory / JOURNAL_FILE).write_text("".join(json.dumps(line) + "\n" for line in lines))

    def find(self, source: ImageSource) -> Mapping[str, Any] | None:
        """The result for an image that was verified before the interruption and has not changed since."""
        return self._known.get(source.key()) if self._known else None

    def add(self, results: Sequence[Mapping[str, Any]]) -> None:
        self._stream.writelines(json.dumps(result) + "\n" for result in results)
        self._stream.flush()

    def move_images(self, directory: Path) -> None:
        """Hand the stored images over to the finished manifest."""
        if self.images.exists():
            self.images.rename(directory / self.images.name)

    def discard(self) -> None:
        shutil.rmtree(self.directory, ignore_errors=True)
