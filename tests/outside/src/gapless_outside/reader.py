"""A reader of a text file with `path<TAB>caption` on each line."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from gapless.core.errors import UsageError
from gapless.manifest.options import MAX_BAD, BuildOptions, ImageOptions
from gapless.manifest.raw_rows import FileSource, RawRow, faulty_row
from gapless.manifest.readers.base import Reader, ReaderOptions, Reading


@dataclass(frozen=True, kw_only=True)
class ListOptions(ReaderOptions):
    """Build a manifest from lines of path and caption.

    Args:
        comment: lines that begin with this are left out.
        max_bad: the largest share of bad rows.
    """

    comment: str = "#"
    max_bad: float = MAX_BAD


def read_list(sources: Sequence[str | Path], options: ListOptions) -> Reading:
    """The lines of one file; the paths start at its folder."""
    path = Path(sources[0])
    if not path.is_file():
        raise UsageError(f"{path} is no file")
    build = BuildOptions(source=path.name, images=ImageOptions(path.parent), max_bad=options.max_bad)
    return Reading(rows_of(path, options.comment), build)


def rows_of(path: Path, comment: str) -> Iterator[RawRow]:
    """A row for each line."""
    for number, line in enumerate(path.read_text().splitlines(), start=1):
        origin = f"{path.name}:{number}"
        name, tab, caption = line.partition("\t")
        if line.startswith(comment):
            continue
        if not tab:
            yield faulty_row(origin, "malformed line", "there is no tab in it")
        else:
            yield RawRow(origin, name, FileSource(path.parent, name), name, [caption])


READER = Reader("outside-list", "lines of path<TAB>caption -> manifest", ListOptions, read_list, "the list")
