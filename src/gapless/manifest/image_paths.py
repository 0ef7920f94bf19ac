"""Resolves the names of image files in tables to the files that they mean.

Tables travel between systems: Windows writes backslashes, macOS writes accents as two characters, other programs
write `./`, `file://` or whole paths. `name_below` gives the name as it stands below the root; it never leads out of
the root, which `contained_path` checks when the file is opened.
"""

import os
import posixpath
import re
import unicodedata
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from pathlib import Path, PurePosixPath
from urllib.parse import unquote

_DRIVE = re.compile(r"[A-Za-z]:[\\/]")
# The usual name, which `name_below` leaves as it is: no scheme, no backslash, no empty part, none with a dot first.
_PLAIN = re.compile(r"(?:[A-Za-z0-9_-][\w.-]*+/)*+[A-Za-z0-9_-][\w.-]*+", re.ASCII)
_ADDRESS = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+://")
# The names of a larger folder are not cached; in such a folder only exact names match.
MAX_LISTED = 1_000_000
FOLDERS_SEARCHED = 32  # of those beside a missing file, for a hint


class SeveralFiles(ValueError):
    """Several files have a name that differs only in how it is written."""


def name_below(root: Path, name: str) -> str:
    """The name of an image below `root`, for a name as a table writes it.

    A name that is exactly a file's stays. Otherwise backslashes may stand for slashes and accents may be composed or
    not, when exactly one file fits; a name that fits none stays as it is. Absolute paths inside the root, `file://`
    and a leading `./` become plain names.

    Raises:
        SeveralFiles: more than one file fits.
    """
    if _PLAIN.fullmatch(name):
        return name
    name = _below(root, _without_scheme(name))
    if "\\" not in name and name.isascii():
        return name
    if os.path.lexists(root / name):
        return name
    unix = _below(root, name.replace("\\", "/"))
    if ".." in PurePosixPath(unix).parts or os.path.isabs(unix):
        return name
    matches = _matches(root, unix, _nfc)
    distinct = {(status.st_dev, status.st_ino): path for path in matches if (status := os.stat(root / path))}
    if len(distinct) > 1:
        raise SeveralFiles(f"{len(distinct)} files fit: {', '.join(ascii(path) for path in sorted(distinct.values()))}")
    return next(iter(distinct.values()), name)


def hint_for(root: Path, name: str) -> str:
    """A hint for a message: why a name may have no file; "" when there is none."""
    if _ADDRESS.match(name):
        return "this is an address, and nothing is downloaded; download it first, and name the file"
    if _DRIVE.match(name):
        return "this is a Windows path with a drive; write paths below the image root"
    unix = posixpath.normpath(name.replace("\\", "/"))
    if os.path.isabs(unix) or ".." in PurePosixPath(unix).parts:
        return ""
    other = _matches(root, unix, _folded)
    if other:
        return f"there is {other[0]!r}: upper and lower case differ"
    folder = next((folder for folder in _folders_of(root) if (root / folder / unix).exists()), None)
    return f"it is in the folder {folder!r}; name that folder with --image-root" if folder else ""


@lru_cache(maxsize=64)
def _folders_of(root: Path) -> tuple[str, ...]:
    """The names of the folders in `root`, at most `FOLDERS_SEARCHED`; none where it cannot be listed."""
    try:
        with os.scandir(root) as entries:
            folders = sorted(entry.name for entry in entries if entry.is_dir(follow_symlinks=False))
    except OSError:
        return ()
    return tuple(folders[:FOLDERS_SEARCHED])


def _nfc(text: str) -> str:
    return unicodedata.normalize("NFC", text)


def _folded(text: str) -> str:
    return _nfc(text).casefold()


def _without_scheme(name: str) -> str:
    if not name.lower().startswith("file:"):
        return name
    path = name[len("file:") :]
    for begins in ("//localhost/", "///"):
        if path.startswith(begins):
            return unquote(path[len(begins) - 1 :])
    return unquote(path.removeprefix("//"))


def _below(root: Path, name: str) -> str:
    """The name without `./`, doubled slashes and the root; names with `..` stay, and are refused later."""
    if not name or "\0" in name or ".." in name.split("/") or _ADDRESS.match(name):
        return name
    if os.path.isabs(name):
        for start in (os.path.abspath(root), os.path.realpath(root)):
            if name.startswith(os.path.join(start, "")):
                return os.path.relpath(name, start)
        return name
    return posixpath.normpath(name)


def _matches(root: Path, name: str, form: Callable[[str], str]) -> list[str]:
    """The names below `root` whose every part has the same form as that of `name`."""
    matches = [""]
    for part in PurePosixPath(name).parts:
        matches = [
            posixpath.join(folder, entry)
            for folder in matches
            for entry in _entries(os.path.join(root, folder), form).get(form(part), ())
        ]
    return [path for path in matches if os.path.exists(root / path)]


def _entries(folder: str, form: Callable[[str], str]) -> Mapping[str, Sequence[str]]:
    try:
        return _listing(folder, form, os.stat(folder).st_mtime_ns)
    except OSError:
        return {}


@lru_cache(maxsize=16)
def _listing(folder: str, form: Callable[[str], str], changed: int) -> Mapping[str, Sequence[str]]:
    """The entries of a folder by the form of their names.

    Cached until the folder changes, because many names of one folder may be looked for.
    """
    names: dict[str, list[str]] = {}
    with os.scandir(folder) as entries:
        for number, entry in enumerate(entries):
            if number >= MAX_LISTED:
                return {}
            names.setdefault(form(entry.name), []).append(entry.name)
    return names
