"""The image files of one folder by their names without suffix: `id.jpg`, `id.JPG`, `id.png`."""

import os
from collections.abc import Iterable
from pathlib import Path

from gapless.core.errors import DataRefused
from gapless.manifest.raw_rows import RawRow, faulty_row
from gapless.manifest.readers.passed_over import PassedOver, leftover

SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".tif", ".tiff", ".bmp", ".gif", ".jp2", ".dcm")
NO_LINE = "an image that no line of the text files names"


class ImageFolder:
    """The image files of a folder, which is listed once; a missing folder is empty."""

    def __init__(self, folder: Path, passed_over: PassedOver) -> None:
        """Leftovers of the system and files of other suffixes are counted in `passed_over`."""
        self.folder = folder
        self._files: dict[str, list[str]] = {}
        try:
            names = sorted(os.listdir(folder)) if folder.is_dir() else []
        except OSError as error:
            raise DataRefused(f"{folder} cannot be read ({error.strerror}): its images would be missing") from None
        for name in names:
            stem, suffix = os.path.splitext(name)
            if reason := leftover(name):
                passed_over.add(reason, f"{folder.name}/{name}")
            elif suffix.lower() in SUFFIXES:
                self._files.setdefault(stem, []).append(name)
            elif not (folder / name).is_dir():
                passed_over.add("no image by its suffix", f"{folder.name}/{name}")

    def name_of(self, id: str) -> str:
        """The file name of an image; `<id>.jpg`, which does not exist, when there is none."""
        return self._files.get(id, [f"{id}.jpg"])[0]

    def has(self, id: str) -> bool:
        """Whether an image of that id is in the folder."""
        return id in self._files

    def fault(self, origin: str, id: str) -> RawRow | None:
        """A bad row when two files have the name, so that the image is ambiguous; None otherwise."""
        names = self._files.get(id, ())
        if len(names) < 2:
            return None
        return faulty_row(origin, "two images", f"{' and '.join(names)} in {self.folder.name}: remove one", id)

    def pass_over_unnamed(self, ids: Iterable[str], passed_over: PassedOver) -> None:
        """Count the images whose id is not among `ids`."""
        for stem in sorted(self._files.keys() - set(ids)):
            passed_over.add(NO_LINE, f"{self.folder.name}/{self._files[stem][0]}")
