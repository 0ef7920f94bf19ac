"""Counts files and members of archives that are not read, by reason, for stderr and `manifest.json`.

The counts of a manifest are of rows (read = kept + skipped), and such files belong to no row.
"""

import logging
from collections import Counter
from collections.abc import Sequence
from pathlib import Path, PurePosixPath

logger = logging.getLogger(__name__)

# Folders and files that systems leave: macOS, Windows, Synology; `PaxHeader(s).123` where an old tar met a new one.
_FOLDERS = ("__MACOSX", "PaxHeader", "PaxHeaders", "@eaDir", "$RECYCLE.BIN", "System Volume Information")
_FILES = ("thumbs.db", "desktop.ini", "pax_global_header", "icon\r")
SYSTEM_LEFTOVER = "left by macOS, Windows or tar"
HIDDEN = "hidden (its name, or its folder's, begins with a dot)"


def leftover(name: str) -> str | None:
    """Why a file is not data (left by a system, hidden), by its path in the folder or archive; None for data."""
    *folders, file = PurePosixPath(name).parts or ("",)
    if file.startswith("._") or file == ".DS_Store" or file.lower() in _FILES:
        return SYSTEM_LEFTOVER
    if any(folder in _FOLDERS or folder.partition(".")[0] == "PaxHeaders" for folder in folders):
        return SYSTEM_LEFTOVER
    if any(part.startswith(".") and part != ".." for part in (*folders, file)):
        return HIDDEN
    return None


class PassedOver:
    """Counts what is not read. `manifest.json` holds `counts`, which grows while the rows are read."""

    def __init__(self, what: str) -> None:
        """`what` is counted, in the plural: "members", "files"."""
        self.what = what
        self.counts: Counter[str] = Counter()
        self._first: dict[str, str] = {}

    def add(self, reason: str, name: str) -> None:
        """Count a file under a reason; the first name of each reason is shown."""
        self.counts[reason] += 1
        self._first.setdefault(reason, name)

    def say(self) -> None:
        """One line on stderr for each reason, with the first name."""
        for reason, count in sorted(self.counts.items()):
            logger.warning("passed over %d %s: %s; the first: %s", count, self.what, reason, self._first[reason][:200])


def say_absent(root: Path, splits: Sequence[str]) -> None:
    """Log one line for the splits that were asked for, by name or by default, and are missing."""
    if splits:
        logger.warning("%s has nothing of the split %s", root, " and ".join(splits))
