"""Decides whether a field of a collection holds text, numbers or booleans, by its values.

A label is stored as the text that its table held, and holds numbers when every value of it is written as one: 60, -1.5,
2e-3. A code with a leading zero (007) is text, a number of more than 15 digits too (an accession number would lose its
last digits), and one word among numbers makes the label text. A missing value is neither.
"""

import re
from collections.abc import Iterable
from typing import NamedTuple

import pyarrow as pa
import pyarrow.compute as pc

# No leading zeros, so that codes stay text; at most 15 digits, which a 64-bit float holds exactly.
NUMBER = r"[+-]?(?:(?:0|[1-9][0-9]{0,14})(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][+-]?[0-9]{1,2})?"
_WHOLE = re.compile(NUMBER)


class Kind(NamedTuple):
    """What a field holds.

    Args:
        name: "text", "number", "boolean", or "empty" for a label without a value.
        example: of text: a value that is no number.
    """

    name: str
    example: str | None = None


TEXT, NUMBERS, BOOLEAN, EMPTY = Kind("text"), Kind("number"), Kind("boolean"), Kind("empty")


def is_number(text: str) -> bool:
    """Whether a value is written as a number."""
    return _WHOLE.fullmatch(text) is not None


def kind_of_batches(batches: Iterable[pa.Array]) -> Kind:
    """The kind of a label by its values, some at a time; the first word ends it."""
    kind = EMPTY
    for values in batches:
        found = kind_of(values)
        if found.name == TEXT.name:
            return found
        kind = kind if found == EMPTY else found
    return kind


def kind_of(values: pa.Array | pa.ChunkedArray) -> Kind:
    """The kind of a label by its values, null where missing."""
    present = pc.unique(values).drop_null()
    if len(present) == 0:
        return EMPTY
    words = present.filter(pc.invert(pc.match_substring_regex(present, f"^(?:{NUMBER})$")))
    return TEXT._replace(example=words[0].as_py()) if len(words) else NUMBERS
