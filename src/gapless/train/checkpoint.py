"""Checkpoints that are whole: sealed with the sha256 of every file; resume takes the newest one that verifies."""

import os
import re
import shutil
from pathlib import Path

from gapless.errors import DataRefused
from gapless.files import read_json, sha256_of, sync_path, write_json

SEAL = "seal.json"
NAME = re.compile(r"checkpoint-(\d+)")


def files_of(directory: Path) -> dict[str, Path]:
    return {
        str(file.relative_to(directory)): file
        for file in sorted(directory.rglob("*"))
        if file.is_file() and file.name != SEAL
    }


def seal(directory: Path) -> None:
    """Write the digests of all files of a finished checkpoint; it is the last file written."""
    write_json(directory / SEAL, {name: sha256_of(file) for name, file in files_of(directory).items()})


def publish(written: Path, final: Path) -> None:
    """Seal a finished checkpoint, flush it to the disk and move it to its place."""
    seal(written)
    for file in written.rglob("*"):
        if file.is_file():
            with file.open("rb") as stream:
                os.fsync(stream.fileno())
    shutil.rmtree(final, ignore_errors=True)
    written.rename(final)
    sync_path(final.parent)


def fault_of(directory: Path) -> str | None:
    """Why a checkpoint cannot be used, or None when every file is as it was sealed."""
    if not (directory / SEAL).exists():
        return "it was not finished"
    try:
        sealed = read_json(directory / SEAL)
    except DataRefused as error:
        return str(error)
    present = files_of(directory)
    if present.keys() != sealed.keys():
        return f"files are missing or extra: {', '.join(sorted(present.keys() ^ sealed.keys()))}"
    changed = [name for name, file in present.items() if sha256_of(file) != sealed[name]]
    return f"files changed after saving: {', '.join(changed)}" if changed else None


def step_of(directory: Path) -> int:
    match = NAME.fullmatch(directory.name)
    return int(match.group(1)) if match else -1


def checkpoints_of(directory: Path) -> list[Path]:
    """All checkpoint directories, newest first."""
    if not directory.is_dir():
        return []
    found = [entry for entry in directory.iterdir() if entry.is_dir() and step_of(entry) >= 0]
    return sorted(found, key=step_of, reverse=True)


def newest_valid(directory: Path) -> tuple[Path | None, dict[str, str]]:
    """The newest checkpoint that verifies, and why each newer one was passed over."""
    passed_over: dict[str, str] = {}
    for checkpoint in checkpoints_of(directory):
        fault = fault_of(checkpoint)
        if fault is None:
            return checkpoint, passed_over
        passed_over[checkpoint.name] = fault
    return None, passed_over
