"""What a user may write after `--where`: comparisons of a collection's fields, as a small part of SQL.

    modality_type = 'CT' AND (caption LIKE '%effusion%' OR split IN ('train', 'test'))

The words are read here, one by one, before the engine sees them: an unknown field is named with the known ones, and
nothing but fields, literals, operators and a few functions gets through. (The engine itself would silently drop what
follows a semicolon, and has functions that make a string of any length.)
"""

import re
from collections.abc import Iterator, Mapping

from gapless.errors import UsageError

MAX_LENGTH = 10_000
MAX_DEPTH = 30
KEYWORDS = re.compile("AND|OR|NOT|IN|IS|NULL|LIKE|ILIKE|BETWEEN|TRUE|FALSE|CAST|AS|INT|BIGINT|DOUBLE", re.IGNORECASE)
FUNCTIONS = re.compile("lower|upper|length|starts_with|ends_with|contains|regexp_like", re.IGNORECASE)
TOKEN = re.compile(
    r"""\s*(?:
        (?P<string>'(?:[^']|'')*')
      | (?P<quoted>`[^`]+`|"[^"]+")
      | (?P<number>\d+(?:\.\d+)?)
      | (?P<word>[^\W\d]\w*)
      | (?P<operator><=|>=|<>|!=|[=<>(),+*/%-])
    )""",
    re.VERBOSE,
)


def prepare_filter(where: str, fields: Mapping[str, str]) -> str:
    """The expression as the engine takes it.

    Args:
        where: what the user wrote.
        fields: name as the user writes it -> column of the table.

    Raises:
        UsageError: an unknown field, or something that is not part of a filter; the message lists the fields.
    """
    if len(where) > MAX_LENGTH:
        raise UsageError(f"a filter has at most {MAX_LENGTH:,} characters, got {len(where):,}")
    parts: list[str] = []
    depth = 0
    for kind, text in tokens(where, fields):
        depth += {"(": 1, ")": -1}.get(text, 0)
        if not 0 <= depth <= MAX_DEPTH:
            raise broken_filter(where, "its parentheses do not match or are too deep", fields)
        if kind == "quoted":
            parts.append(column_of(text[1:-1], fields))
        elif kind == "word" and not KEYWORDS.fullmatch(text) and not FUNCTIONS.fullmatch(text):
            parts.append(column_of(text, fields))
        else:
            parts.append(text)
    if not parts:
        raise broken_filter(where, "it is empty", fields)
    return " ".join(parts)


def tokens(where: str, fields: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    """Kind and text of each token."""
    where = where.rstrip()
    position = 0
    while position < len(where):
        found = TOKEN.match(where, position)
        if found is None:
            raise broken_filter(where, f"{where[position:].split()[0][:20]!r} cannot be part of one", fields)
        position = found.end()
        kind = str(found.lastgroup)
        yield kind, found[kind]


def column_of(name: str, fields: Mapping[str, str]) -> str:
    """The quoted column of a field; upper and lower case may differ where that leaves one choice."""
    alike = [name] if name in fields else [field for field in fields if field.lower() == name.lower()]
    if len(alike) != 1:
        raise UsageError(f"unknown field {name!r} in a filter; fields: {', '.join(fields)}")
    return f"`{fields[alike[0]]}`"


def broken_filter(where: str, why: str, fields: Mapping[str, str]) -> UsageError:
    shown = where if len(where) <= 60 else where[:57] + "..."
    return UsageError(
        f"the filter {shown!r} cannot be read ({why}); write FIELD = 'value', fields: {', '.join(fields)}"
    )


def literal(value: str) -> str:
    """A string as the engine's literal."""
    return "'" + value.replace("'", "''") + "'"
