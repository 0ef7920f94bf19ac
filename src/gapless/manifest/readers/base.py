"""What a reader is, and the registry of all readers: one file each, here or in a package of somebody else's.

    @dataclass(frozen=True, kw_only=True)
    class ListOptions(ReaderOptions):
        "Build a manifest from lines of `path<TAB>caption`. (Args: one line for each field, which the help shows)"

        image_root: Path | None = None
        max_bad: float = MAX_BAD

    def read_list(sources, options): return Reading(rows, BuildOptions(source="a list", max_bad=options.max_bad))

    READER = READERS.add("list", Reader("list", "lines of path<TAB>caption -> manifest", ListOptions, read_list))

`gapless data list FILE --out MANIFEST --max-bad 0.1` is then a verb: the fields are its options.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, NamedTuple, TypeVar, get_type_hints

from gapless.core.registry import Registry
from gapless.manifest.build import RawRows, write_manifest
from gapless.manifest.manifest import Manifest
from gapless.manifest.options import BuildOptions

Names = tuple[str, ...]

# Help that several readers share.
MANY = "FILE, or several SPLIT=FILE"
CAPTION_HELP = "column or key of captions: a text, or a list of texts (default: the reader's)"
LABEL_HELP = "columns to keep as labels; the first is the main one"
LICENCE_HELP = 'keep only images under these licences: "CC BY,CC0"'


class Option(NamedTuple):
    """The option of a field that holds several names; it may be given several times, or with commas.

        label_keys: Annotated[Names, Option("label_key", "columns to keep as labels")] = ()

    Args:
        name: `--label_key` for a field `label_keys`; in a configuration file and in Python a name or a list of names.
        text: its help.
        is_divided: whether a comma stands between two names; False where a comma is part of one.
    """

    name: str
    text: str
    is_divided: bool = True


@dataclass(frozen=True, kw_only=True)
class ReaderOptions:
    """The base of the options of a reader: a field is an option, and its line under `Args` is the option's help."""

    def __post_init__(self) -> None:
        for name in self.several_names():
            value = getattr(self, name)
            object.__setattr__(self, name, (value,) if isinstance(value, str) else tuple(value))

    @classmethod
    def several_names(cls) -> dict[str, Option]:
        """Field -> option of the fields that hold several names."""
        hints = get_type_hints(cls, include_extras=True)
        marked = {name: getattr(hint, "__metadata__", ()) for name, hint in hints.items()}
        return {name: marks[0] for name, marks in marked.items() if marks and isinstance(marks[0], Option)}


Options = TypeVar("Options", bound=ReaderOptions)


class Reading(NamedTuple):
    """What a reader returns: raw rows as `write_manifest` takes them, and the options of the build."""

    rows: RawRows
    options: BuildOptions


@dataclass(frozen=True)
class Reader(Generic[Options]):
    """Rows from a source.

    Args:
        name: the verb is `gapless data NAME`.
        summary: its line in the help.
        options: a frozen dataclass of keyword-only fields.
        read: (sources, options) -> `Reading`. It refuses wrong options and sources with a `UsageError` before any row
            is read; a row that cannot be used is a `faulty_row`, not an exception.
        source: the help of the verb's sources; None for a reader that has none.
        takes_several: whether there may be several sources.
        example: a command that a user can start from, without the word `gapless`.
    """

    name: str
    summary: str
    options: type[Options]
    read: Callable[[Sequence[str | Path], Options], Reading]
    source: str | None = "the file"
    takes_several: bool = False
    example: str = ""

    def build(self, sources: str | Path | Sequence[str | Path], out: str | Path, **options: Any) -> Manifest:
        """Write a manifest as `write` does, and read it back with all its rows."""
        return Manifest.read(self.write(sources, out, **options))

    def write(self, sources: str | Path | Sequence[str | Path], out: str | Path, **options: Any) -> Path:
        """Read the sources and write them as a manifest, a few rows in memory at a time unless the reader holds more.

        Args:
            sources: one or several, or an empty list for a reader that needs none.
            out: the manifest's directory; must be new.
            options: the fields of the reader's options.

        Returns:
            The manifest's directory.

        Raises:
            UsageError: a source, an option or `out` that cannot be used.
            DataRefused: a damaged source, or too many bad rows.
        """
        named = [sources] if isinstance(sources, str | Path) else list(sources)
        rows, build = self.read(named, self.options(**options))
        return write_manifest(rows, out, build)


READERS: Registry[Reader[Any]] = Registry("reader", "gapless.manifest.readers", "gapless.readers")
