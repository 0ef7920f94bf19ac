"""Types that the readers of all table formats share: rows with their origin, options, counts of lines."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from gapless.core.errors import UsageError

Cells = Mapping[str, Any]
Line = tuple[str, Cells | None, str]  # origin, cells, what is wrong when there are none

# Separators between the cells of a row, by their names on the command line.
SEPARATORS = {"tab": "\t", "\\t": "\t", "comma": ",", "semicolon": ";", "pipe": "|", "space": " "}


@dataclass(frozen=True)
class TextOptions:
    """How a table of text is read.

    Args:
        encoding: a name that Python knows; None is UTF-8, or what the file's byte-order mark says.
        separator: one character, or its name ("tab"); None detects it from the header.
        can_be_chosen: whether the reader of the table has the option `--encoding`, which messages then name.
    """

    encoding: str | None = None
    separator: str | None = None
    can_be_chosen: bool = True

    def not_decoded(self) -> str:
        """What is wrong with a text that is not of this encoding, and what to do."""
        if self.encoding is not None:
            return f"not {self.encoding}; another --encoding may read it"
        remedy = ", --encoding cp1252 reads it" if self.can_be_chosen else ", save it as UTF-8"
        return f"not UTF-8; if the file is Windows-1252 or Latin-1{remedy}"

    def separator_character(self) -> str | None:
        """The one character.

        Raises:
            UsageError: more than one, or a quotation mark or line end.

        >>> TextOptions(separator="semicolon").separator_character()
        ';'
        """
        if self.separator is None:
            return None
        character = SEPARATORS.get(self.separator, self.separator)
        if len(character) != 1 or character in '"\r\n':
            raise UsageError(f"--separator is one character or one of {', '.join(SEPARATORS)}, got {self.separator!r}")
        return character


# Encoding and separator are detected from the file, and the user cannot name them.
DETECT = TextOptions(can_be_chosen=False)


@dataclass
class LineCount:
    """Counts the lines of one table: lines = header + rows + continued + blank.

    Args:
        file: the table's name.
        rows: kept or skipped; a row over several lines counts once, its further lines are `continued`.
        blank: lines without content, or with separators only.
    """

    file: str
    lines: int = 0
    header: int = 0
    rows: int = 0
    continued: int = 0
    blank: int = 0

    def check(self) -> None:
        """Raise AssertionError when the counts do not add up, which is an error of the reader and not of the file."""
        parts = self.header + self.rows + self.continued + self.blank
        assert parts == self.lines, f"{self.file}: {self.lines} lines, but {parts} of them accounted for"
