"""The parts of a filter, and which of them may be compared: text with text, numbers with numbers.

A field of numbers is stored as text, so a part has two forms for the engine: as text and as a number. Which one is used
depends on what it is compared with; a comparison that mixes kinds is refused, because the engine would compare letters
(60 > 7 is false then) or fail in words of its own.
"""

import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass

from gapless.search.kinds import Kind, is_number


class Mismatch(Exception):
    """Parts that cannot be compared; the message is the middle of a sentence about the filter."""


@dataclass(frozen=True)
class Term:
    """One side of a comparison.

    Args:
        kind: what it gives: "text", "number", "boolean", or "empty" for a label without a value.
        sql: the engine's expression, as it is stored.
        shown: what the user wrote.
        quoted: the value of a string literal.
        field: what the field holds, where the term is one.
    """

    kind: str
    sql: str
    shown: str
    quoted: str | None = None
    field: Kind | None = None

    @property
    def as_number(self) -> str:
        """The engine's expression for its number."""
        if self.quoted is not None:
            return repr(float(self.quoted))
        # TRY: another process may have added a word since the kind was decided; such a row is not found.
        return f"TRY_CAST({self.sql} AS DOUBLE)" if self.field is not None else self.sql


def literal(value: str) -> str:
    """A string as the engine's literal."""
    return "'" + value.replace("'", "''") + "'"


def of_keys(rows: Sequence[str]) -> str:
    """A condition of the engine that means the rows of these keys."""
    return f"row IN ({', '.join(literal(row) for row in rows)})"


def field_term(column: str, kind: Kind, shown: str) -> Term:
    return Term(kind.name, f"`{column}`", shown, field=kind)


def text_term(value: str) -> Term:
    return Term("text", literal(value), literal(value), quoted=value)


def number_term(shown: str) -> Term:
    """A number as it was typed, without sign."""
    if float(shown) == float("inf"):
        raise Mismatch(f"{shown[:20]} is too large for a number")
    whole = shown.isdecimal() and len(shown) <= 15
    return Term("number", str(int(shown)) if whole else repr(float(shown)), shown)


def common_kind(terms: Sequence[Term]) -> str:
    """What these terms are compared as.

    Raises:
        Mismatch: they are of different kinds; a string in quotes is also a number where it is written as one.
    """
    fixed = [term for term in terms if term.quoted is None and term.kind != "empty"]
    kinds = {term.kind for term in fixed}
    if len(kinds) > 1:
        raise Mismatch(different(fixed))
    kind = kinds.pop() if kinds else "text"
    for term in terms:
        if term.quoted is not None and kind != "text" and not (kind == "number" and is_number(term.quoted)):
            raise Mismatch(f"{fixed[0].shown} {gives(fixed[0])}, and {term.shown[:40]} is none")
        if term.kind == "empty" and kind == "boolean":
            raise Mismatch(f"{term.shown} holds no value, and {fixed[0].shown} is true or false")
    return kind


def gives(term: Term) -> str:
    values = {"number": "numbers", "text": "text", "boolean": "true or false"}[term.kind]
    return f"holds {values}" if term.field is not None else f"gives {values}"


def different(terms: Sequence[Term]) -> str:
    """Why terms of several kinds cannot be compared, and what to write."""
    first = next((term for term in terms if term.field is not None), terms[0])
    other = next(term for term in terms if term.kind != first.kind)
    such = f" (such as {first.field.example[:40]!r})" if first.field and first.field.example else ""
    if first.kind == "text" and other.kind == "number" and other.field is None:
        return (
            f"{first.shown} holds text{such}, and {other.shown} is a number; in quotes it is compared letter by letter"
        )
    return f"{first.shown} {gives(first)}{such} and {other.shown} {gives(other)}"


def spellings(value: str) -> list[str]:
    """A value in the Unicode forms that a table may hold it in: é as one character, or as e and an accent."""
    return list(dict.fromkeys([value, unicodedata.normalize("NFC", value), unicodedata.normalize("NFD", value)]))


def compared(left: Term, operator: str, right: Term) -> Term:
    """`left operator right` as the engine takes it."""
    kind = common_kind([left, right])
    if kind == "number":
        return condition(f"{left.as_number} {operator} {right.as_number}")
    if kind == "boolean" and operator not in ("=", "<>", "!="):
        raise Mismatch(f"{left.shown} {gives(left)}, which has no order")
    if operator in ("=", "<>", "!=") and right.quoted is not None and len(spellings(right.quoted)) > 1:
        return among(left, [right], negated=operator != "=")
    return condition(f"{left.sql} {operator} {right.sql}")


def among(left: Term, values: Sequence[Term], negated: bool) -> Term:
    """`left IN (values)`."""
    number = common_kind([left, *values]) == "number"
    if number:
        listed = [value.as_number for value in values]
    else:
        texts = [spellings(value.quoted) if value.quoted is not None else None for value in values]
        pairs = zip(values, texts, strict=True)
        listed = [sql for value, own in pairs for sql in (map(literal, own) if own else [value.sql])]
    where = left.as_number if number else left.sql
    return condition(f"{where} {'NOT ' if negated else ''}IN ({', '.join(listed)})")


def between(left: Term, low: Term, high: Term, negated: bool) -> Term:
    """`left BETWEEN low AND high`, both included."""
    kind = common_kind([left, low, high])
    if kind == "boolean":
        raise Mismatch(f"{left.shown} {gives(left)}, which has no order")
    parts = [term.as_number if kind == "number" else term.sql for term in (left, low, high)]
    return condition(f"{parts[0]} {'NOT ' if negated else ''}BETWEEN {parts[1]} AND {parts[2]}")


def textual(term: Term) -> str:
    """The engine's expression for the text of a term; a field of numbers has one, its digits as they were written."""
    if term.kind == "boolean" or (term.kind == "number" and term.field is None):
        raise Mismatch(f"{term.shown} {gives(term)}, and text is needed there")
    return term.sql


def calculated(left: Term, operator: str, right: Term) -> Term:
    """`left + right` and so on, of numbers."""
    for term in (left, right):
        if term.kind not in ("number", "empty"):
            raise Mismatch(f"{term.shown} {gives(term)}, and {operator} calculates with numbers")
    shown = f"{left.shown} {operator} {right.shown}"
    return Term("number", f"({left.as_number} {operator} {right.as_number})", shown)


def condition(sql: str) -> Term:
    return Term("boolean", sql, "a comparison")
