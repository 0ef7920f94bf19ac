"""Writes files and directories completely or not at all, and reads JSON and YAML.

A new file or directory is filled under a temporary name and renamed at the end, so that no reader sees half of it.
"""

import fcntl
import hashlib
import itertools
import json
import math
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO

from gapless.core.errors import DataRefused, UsageError, one_line
from gapless.core.locks import LOCK_FILE

PARTIAL_MARK = ".partial-"
SYNCS_AT_ONCE = 16
ENTRIES_AT_ONCE = 4096  # that wait for it
MAX_YAML_VALUES = 1_000_000


def sync_path(path: Path) -> None:
    """Flush a file's content, or a directory's entries, to the disk, so that a rename survives a power cut."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def entries_below(directory: Path) -> Iterator[Path]:
    """Every file and directory below, a folder at a time; one that cannot be read is an error (`rglob` leaves it out).

    An entry may be removed when it has been given.
    """

    def refuse(error: OSError) -> None:
        raise error

    for folder, folders, names in os.walk(directory, onerror=refuse):
        yield from (Path(folder, name) for name in (*folders, *names))


@contextmanager
def new_file(path: Path) -> Iterator[BinaryIO]:
    """A stream that replaces a file when the block ends, and leaves it as it was when the block raises.

    What is written goes to a temporary file beside it: fsync, rename, directory fsync.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}{PARTIAL_MARK}")
    try:
        with os.fdopen(handle, "wb") as stream, write_lock(Path(name)):
            yield stream
            stream.flush()
            os.fsync(stream.fileno())
            os.chmod(name, 0o666 & ~_current_umask())
            os.replace(name, path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise
    sync_path(path.parent)


def write_bytes(path: Path, content: bytes) -> None:
    """Replace a file completely or not at all."""
    with new_file(path) as stream:
        stream.write(content)


def _current_umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def write_text(path: Path, text: str) -> None:
    """Replace a file by a text in UTF-8, completely or not at all."""
    write_bytes(path, text.encode())


def strict_json(value: Any, **options: Any) -> str:
    """JSON by the standard, which has no NaN and no infinity: such numbers become null.

    Args:
        options: of `json.dumps`.

    >>> strict_json({"value": float("nan"), "n": 3})
    '{"value": null, "n": 3}'
    """
    try:
        return json.dumps(value, allow_nan=False, **options)
    except ValueError:  # a number that is not finite
        return json.dumps(_finite(value), allow_nan=False, **options)


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _finite(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(entry) for entry in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def plain(value: Any) -> Any:
    """The value with tuples as lists and mappings as dictionaries, at every depth, as JSON and YAML have it.

    >>> plain({"sizes": (1, 2)})
    {'sizes': [1, 2]}
    """
    if isinstance(value, Mapping):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    return value


def json_text(value: Any) -> str:
    """Strict JSON with sorted keys, indented, with a final newline."""
    return strict_json(value, indent=2, sort_keys=True) + "\n"


def write_json(path: Path, value: Any) -> None:
    """Replace a file by a value as strict JSON, completely or not at all."""
    write_text(path, json_text(value))


def read_json(path: Path) -> Any:
    """The value of a JSON file. Raises UsageError: no such file. DataRefused: not valid JSON."""
    try:
        return json.loads(path.read_text())
    except FileNotFoundError:
        raise UsageError(f"{path} does not exist") from None
    except (ValueError, UnicodeDecodeError, RecursionError) as error:
        raise DataRefused(f"{path} is not valid JSON ({one_line(error)})") from None


def read_object(path: Path) -> dict[str, Any]:
    """A JSON file whose outermost value is an object."""
    value = read_json(path)
    if not isinstance(value, dict):
        raise DataRefused(f"{path} holds no JSON object, but a {type(value).__name__}")
    return value


def read_yaml(path: Path) -> dict[str, Any]:
    """A YAML file of names and plain values; tags, which may name code, are refused.

    Raises:
        DataRefused: not valid, not a mapping, or values that grow without bounds by aliases of aliases.
    """
    import yaml

    try:
        text = path.read_text()
        _check_size_of_yaml(yaml.compose(text, Loader=yaml.SafeLoader))
        value = {} if (loaded := yaml.safe_load(text)) is None else loaded
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise DataRefused(f"{path} is not valid YAML ({one_line(error)})") from None
    if not isinstance(value, dict):
        raise DataRefused(f"{path} holds no names with values, but a {type(value).__name__}")
    return value


def _check_size_of_yaml(root: Any) -> None:
    """Refuse (ValueError) more than a million values, counted as if every alias were written out."""
    sizes: dict[int, float] = {}

    def size(node: Any) -> float:
        if id(node) not in sizes:
            sizes[id(node)] = float("inf")  # stays infinite for a node that contains itself
            children = node.value if isinstance(getattr(node, "value", None), list) else []
            parts = [part for entry in children for part in (entry if isinstance(entry, tuple) else (entry,))]
            sizes[id(node)] = 1 + sum(map(size, parts))
        return sizes[id(node)]

    if size(root) > MAX_YAML_VALUES:
        raise ValueError("its aliases stand for more than a million values")


def check_directory(path: Path) -> None:
    """Raise UsageError for a path that cannot become a directory: it is a file, or lies below one."""
    there = next((place for place in (path, *path.parents) if place.exists()), None)
    if there is not None and not there.is_dir():
        raise UsageError(f"{path} cannot be made: {there} is a file")


def check_file(path: Path) -> None:
    """Raise UsageError for an output file that cannot be written: a directory has its name, or it lies below a file."""
    if path.is_dir():
        raise UsageError(f"{path} is a directory; name a file to write")
    check_directory(path.parent)


def check_new_directory(path: Path) -> None:
    """Raise UsageError for an output directory that is not empty, or that lies below a file."""
    if not path.exists():
        check_directory(path)
    if path.exists() and (not path.is_dir() or any(entry.name != LOCK_FILE for entry in path.iterdir())):
        raise UsageError(f"{path} is in use; choose another --out or remove it")


@contextmanager
def new_directory(path: Path) -> Iterator[Path]:
    """A temporary directory beside `path`: renamed to it when the block ends, removed when the block raises."""
    check_new_directory(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    remove_leftovers(path.parent, path.name)
    partial = Path(tempfile.mkdtemp(dir=path.parent, prefix=f".{path.name}{PARTIAL_MARK}"))
    try:
        with write_lock(partial):
            yield partial
            # Flushing thousands of images one by one takes many seconds; in parallel the disk commits them together.
            with ThreadPoolExecutor(SYNCS_AT_ONCE) as pool:
                entries = itertools.chain([partial], entries_below(partial))
                while some := list(itertools.islice(entries, ENTRIES_AT_ONCE)):
                    list(pool.map(sync_path, some))
            partial.chmod(0o777 & ~_current_umask())
            if path.exists():
                path.rmdir()
            partial.rename(path)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise
    sync_path(path.parent)


@contextmanager
def write_lock(path: Path) -> Iterator[None]:
    """Lock a file or directory that is being written, so that `remove_leftovers` of another process leaves it alone."""
    handle = os.open(path, os.O_RDONLY)
    try:
        with suppress(OSError):  # a file system without locks: `remove_leftovers` then removes nothing
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    finally:
        os.close(handle)


def remove_leftovers(directory: Path, name: str | None = None) -> None:
    """Remove the temporary files that killed processes left in a directory; files that are being written are locked.

    Args:
        name: of the file or directory that was being written; by default any.
    """
    for entry in list(directory.iterdir()) if directory.is_dir() else []:
        begins = f".{name}{PARTIAL_MARK}" if name is not None else "."
        if not entry.name.startswith(begins) or PARTIAL_MARK not in entry.name:
            continue
        with suppress(OSError):
            handle = os.open(entry, os.O_RDONLY)
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                if entry.is_dir():
                    shutil.rmtree(entry, ignore_errors=True)
                else:
                    entry.unlink()
            finally:
                os.close(handle)


def sha256_of(path: Path) -> str:
    """The sha256 of a file's content, 64 hexadecimal digits."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
