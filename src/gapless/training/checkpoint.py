"""Checkpoints with a seal, the sha256 of every file; a resume takes the newest checkpoint that verifies."""

import re
import shutil
from pathlib import Path

from gapless.core.errors import DataRefused
from gapless.core.files import PARTIAL_MARK, entries_below, json_text, read_json, sha256_of, sync_path, write_json

SEAL = "seal.json"
NAME = re.compile(r"checkpoint-(\d+)")


def _files_of(directory: Path) -> dict[str, Path]:
    """Relative name -> path of every file below a checkpoint, except its seal."""
    entries = {str(entry.relative_to(directory)): entry for entry in sorted(entries_below(directory))}
    return {
        name: entry for name, entry in entries.items() if name != SEAL and (entry.is_symlink() or not entry.is_dir())
    }


def seal(directory: Path) -> None:
    """Write the seal of a finished checkpoint: the sha256 of each file. It is the last file that is written."""
    write_json(directory / SEAL, {name: sha256_of(file) for name, file in _files_of(directory).items()})


def publish(written: Path, final: Path) -> None:
    """Seal a finished checkpoint, flush it to the disk and rename it to `final`."""
    seal(written)
    for entry in (*entries_below(written), written):
        sync_path(entry)
    shutil.rmtree(final, ignore_errors=True)
    written.rename(final)
    sync_path(final.parent)
    sync_path(final.parent.parent)  # the folder of checkpoints is new when this is the first one


def fault_of(directory: Path) -> str | None:
    """Why a checkpoint cannot be used, or None when every file is as it was sealed."""
    try:
        if not (directory / SEAL).is_file():
            return "it was not finished"
        sealed = read_json(directory / SEAL)
        if not isinstance(sealed, dict) or (directory / SEAL).read_text() != json_text(sealed):
            return f"{SEAL} is damaged"
        present = _files_of(directory)
        if present.keys() != sealed.keys():
            return f"files are missing or extra: {', '.join(sorted(present.keys() ^ sealed.keys()))}"
        changed = [name for name, file in present.items() if not file.is_file() or sha256_of(file) != sealed[name]]
    except (DataRefused, OSError) as error:
        return str(error)
    return f"files changed after saving: {', '.join(changed)}" if changed else None


def step_of(directory: Path) -> int:
    """The step in the name of a checkpoint; -1 for a directory of another name."""
    match = NAME.fullmatch(directory.name)
    return int(match.group(1)) if match else -1


def checkpoints_of(directory: Path) -> list[Path]:
    """All checkpoint directories, newest first."""
    if not directory.is_dir():
        return []
    checkpoints = [entry for entry in directory.iterdir() if entry.is_dir() and step_of(entry) >= 0]
    return sorted(checkpoints, key=step_of, reverse=True)


def remove_unfinished(directory: Path) -> None:
    """Remove what a process left that was killed while it saved or removed a checkpoint."""
    for entry in directory.glob(f"{PARTIAL_MARK}*"):
        shutil.rmtree(entry)


def rotate(directory: Path, limit: int, best: str | None) -> None:
    """Remove all checkpoints but the newest `limit` that verify, and the one named `best`.

    Damaged checkpoints are not counted, so that the last good one is never removed.
    """
    num_good = 0
    for checkpoint in checkpoints_of(directory):
        if num_good < limit:
            num_good += fault_of(checkpoint) is None
        elif checkpoint.name != best:
            removed = checkpoint.with_name(f"{PARTIAL_MARK}old-{checkpoint.name}")
            checkpoint.rename(removed)  # so that a kill leaves no half-removed checkpoint under its name
            shutil.rmtree(removed)


def newest_valid(directory: Path) -> tuple[Path | None, dict[str, str]]:
    """The newest checkpoint that verifies, and why each newer one was passed over."""
    passed_over: dict[str, str] = {}
    for checkpoint in checkpoints_of(directory):
        fault = fault_of(checkpoint)
        if fault is None:
            return checkpoint, passed_over
        passed_over[checkpoint.name] = fault
    return None, passed_over
