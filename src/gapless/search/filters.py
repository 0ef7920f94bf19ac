"""What a user may write after `--where`: comparisons of a collection's fields, as a small part of SQL.

    modality_type = 'CT' AND (age > 60 OR split IN ('train', 'test'))

A filter is read here, word by word, before the engine sees it: an unknown field is named with the nearest, a comparison
of text with a number is refused, and nothing but fields, literals, operators and a few functions gets through. (The
engine itself would silently drop what follows a semicolon, and has functions that make a string of any length. A parser
of all of SQL does not serve: fields go by names such as `group`, `order` or `select`, which are words of its grammar.)
"""

import re
import unicodedata
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import NamedTuple

from gapless.core.errors import UsageError, did_you_mean, listed
from gapless.core.values import is_unicode
from gapless.search.filter_terms import (
    Mismatch,
    Term,
    among,
    between,
    calculated,
    compared,
    condition,
    field_term,
    number_term,
    text_term,
    textual,
)
from gapless.search.kinds import TEXT, Kind

MAX_LENGTH = 10_000
MAX_DEPTH = 30
SHOWN_FIELDS = 20
KEYWORDS = frozenset(
    ["AND", "OR", "NOT", "IN", "IS", "NULL", "LIKE", "ILIKE", "BETWEEN", "TRUE", "FALSE", "CAST", "AS"]
)
CASTS = {"INT": "number", "BIGINT": "number", "DOUBLE": "number"}
COMPARISONS = frozenset(["=", "<>", "!=", "<", "<=", ">", ">="])
# name -> number of arguments, kind of what it gives
FUNCTIONS = {
    "lower": ((1, 1), "text"),
    "upper": ((1, 1), "text"),
    "length": ((1, 1), "number"),
    "starts_with": ((2, 2), "boolean"),
    "ends_with": ((2, 2), "boolean"),
    "contains": ((2, 2), "boolean"),
    "regexp_like": ((2, 3), "boolean"),
}
TOKEN = re.compile(
    r"""\s*(?:
        (?P<string>'(?:[^']|'')*')
      | (?P<quoted>`[^`]+`|"[^"]+")
      | (?P<number>(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][+-]?[0-9]+)?(?!\w))
      | (?P<word>[^\W\d]\w*)
      | (?P<operator><=|>=|<>|!=|[=<>(),+*/%-])
    )""",
    re.VERBOSE,
)
HINTS = {
    "==": "write = once",
    ";": "a filter is one condition",
    "\u2018": "strings stand in straight quotes",
    "\u2019": "strings stand in straight quotes",
    "\u201c": "strings stand in straight quotes",
    "\u201d": "strings stand in straight quotes",
    "'": "a quote is not closed",
}

KindOf = Callable[[str], Kind]


class Token(NamedTuple):
    kind: str
    text: str

    @property
    def word(self) -> str:
        """The keyword in capitals, "" for anything else."""
        return self.text.upper() if self.kind == "word" and self.text.upper() in KEYWORDS else ""


END = Token("end", "")


def prepare_filter(where: str, fields: Mapping[str, str], kind_of: KindOf = lambda column: TEXT) -> str:
    """The expression as the engine takes it.

    Args:
        where: what the user wrote.
        fields: name as the user writes it -> column of the table.
        kind_of: what a column holds; asked only for columns that the filter names.

    Raises:
        UsageError: an unknown field, a comparison of different kinds, or something that is not part of a filter.
    """
    if not isinstance(where, str):
        raise UsageError(f"a filter is a string, got {type(where).__name__}")
    if len(where) > MAX_LENGTH:
        raise UsageError(f"a filter has at most {MAX_LENGTH:,} characters, got {len(where):,}")
    try:
        return Filter(where, fields, kind_of).sql()
    except Mismatch as error:
        raise broken_filter(where, str(error), fields) from None


def label_filter(label: str, column: str, value: str | float, kind: Kind) -> str:
    """The filter for rows whose label has this value, as the engine takes it.

    Raises:
        UsageError: a word where the label holds numbers, or what is no value.
    """
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise UsageError(f"a value of the label {label!r} is text or a number, got {value!r}")
    try:
        text = value if isinstance(value, str) else repr(value).removesuffix(".0")
        return compared(field_term(column, kind, f"the label {label!r}"), "=", text_term(text)).sql
    except Mismatch as error:
        raise UsageError(f"no row can have that: {error}") from None


class Filter:
    """One filter, read from left to right."""

    def __init__(self, where: str, fields: Mapping[str, str], kind_of: KindOf) -> None:
        self.where = where
        self.fields = fields
        self.kind_of = kind_of
        self.tokens = self.read_tokens()
        self.position = 0
        self.depth = 0

    def sql(self) -> str:
        if self.next is END:
            raise Mismatch("it is empty")
        whole = self.truth(self.either())
        if self.next is not END:
            closes = "; its parentheses do not match" if self.next.text == ")" else ""
            raise Mismatch(f"{self.next.text[:20]!r} is not expected there{closes}")
        return whole

    def read_tokens(self) -> list[Token]:
        where, position, tokens = self.where.rstrip(), 0, []
        if not is_unicode(where):
            raise Mismatch("it holds half of a surrogate pair, which is no character")
        while position < len(where):
            match = TOKEN.match(where, position)
            if match is None:
                rest = where[position:].split()[0]
                hint = next((f"; {text}" for start, text in HINTS.items() if rest.startswith(start)), "")
                raise Mismatch(f"{rest[:20]!r} cannot be part of one{hint}")
            position = match.end()
            tokens.append(Token(str(match.lastgroup), match[str(match.lastgroup)]))
        return tokens

    @property
    def next(self) -> Token:
        return self.tokens[self.position] if self.position < len(self.tokens) else END

    def take(self) -> Token:
        token = self.next
        self.position += 1
        return token

    def took(self, *words: str) -> bool:
        """Go past these keywords or operators, if they stand here."""
        ahead = self.tokens[self.position : self.position + len(words)]
        if [token.word or token.text for token in ahead if token.kind in ("word", "operator")] != list(words):
            return False
        self.position += len(words)
        return True

    def expect(self, text: str, why: str) -> None:
        if not self.took(text):
            raise Mismatch(f"{why} needs {text!r}, got {self.next.text[:20]!r}")

    def deeper(self) -> None:
        self.depth += 1
        if self.depth > MAX_DEPTH:
            raise Mismatch("its parentheses are too deep")

    def truth(self, term: Term) -> str:
        """A term that is true or false, for the engine."""
        if term.kind != "boolean":
            raise Mismatch(f"{term.shown[:40]} is no comparison")
        return term.sql

    def either(self) -> Term:
        terms = [self.all_of()]
        while self.took("OR"):
            terms.append(self.all_of())
        return terms[0] if len(terms) == 1 else condition(" OR ".join(map(self.truth, terms)))

    def all_of(self) -> Term:
        terms = [self.negation()]
        while self.took("AND"):
            terms.append(self.negation())
        return terms[0] if len(terms) == 1 else condition(" AND ".join(map(self.truth, terms)))

    def negation(self) -> Term:
        if not self.took("NOT"):
            return self.comparison()
        self.deeper()
        negated = condition(f"NOT ({self.truth(self.negation())})")
        self.depth -= 1
        return negated

    def comparison(self) -> Term:
        left = self.sum()
        if self.next.kind == "operator" and self.next.text in COMPARISONS:
            operator = self.take().text
            if self.next.text == "=":
                raise Mismatch(f"{operator}= is no comparison; {HINTS['==']}")
            return compared(left, operator, self.sum())
        if self.took("IS"):
            return self.state(left)
        negated = self.took("NOT")
        if self.took("IN"):
            return among(left, self.arguments("IN"), negated)
        if self.took("BETWEEN"):
            low = self.sum()
            self.expect("AND", "BETWEEN")
            return between(left, low, self.sum(), negated)
        for word in ("LIKE", "ILIKE"):
            if self.took(word):
                return condition(f"{textual(left)} {'NOT ' if negated else ''}{word} {textual(self.sum())}")
        if negated:
            raise Mismatch("IN, BETWEEN or LIKE follows NOT")
        return left

    def state(self, left: Term) -> Term:
        negated = "NOT " if self.took("NOT") else ""
        if self.took("NULL"):
            return condition(f"{left.sql} IS {negated}NULL")
        for word in ("TRUE", "FALSE"):
            if self.took(word):
                return condition(f"{self.truth(left)} IS {negated}{word}")
        raise Mismatch("NULL, TRUE or FALSE follows IS")

    def sum(self) -> Term:
        left = self.product()
        while self.next.kind == "operator" and self.next.text in "+-":
            left = calculated(left, self.take().text, self.product())
        return left

    def product(self) -> Term:
        left = self.signed()
        while self.next.kind == "operator" and self.next.text in "*/%":
            left = calculated(left, self.take().text, self.signed())
        return left

    def signed(self) -> Term:
        if not self.took("-"):
            return self.single()
        self.deeper()
        term = self.signed()
        self.depth -= 1
        minus = calculated(number_term("0"), "-", term)
        return Term("number", minus.sql, f"-{term.shown}")

    def single(self) -> Term:
        token = self.take()
        if token.kind == "string":
            return text_term(token.text[1:-1].replace("''", "'"))
        if token.kind == "number":
            return number_term(token.text)
        if token.kind == "quoted":
            return self.field(token.text[1:-1], token.text)
        if token.text == "(":
            return self.group()
        if token.word:
            return self.keyword(token)
        if token.kind != "word":
            raise Mismatch("it ends too early" if token is END else f"{token.text!r} is not expected there")
        return self.function(token.text) if self.next.text == "(" else self.field(token.text, token.text)

    def group(self) -> Term:
        self.deeper()
        term = self.either()
        self.expect(")", "its '('")
        self.depth -= 1
        return replace(term, sql=f"({term.sql})")

    def keyword(self, token: Token) -> Term:
        if token.word in ("TRUE", "FALSE"):
            return Term("boolean", token.word, token.word)
        if token.word == "NULL":
            raise Mismatch("nothing equals NULL; write IS NULL or IS NOT NULL")
        if token.word != "CAST":
            raise Mismatch(f"{token.text!r} is not expected there; a field of that name stands in double quotes")
        self.expect("(", "CAST")
        value = self.sum()
        self.expect("AS", "CAST")
        kind = self.take().text.upper()
        if kind not in CASTS:
            raise Mismatch(f"CAST makes {', '.join(CASTS)}, not {kind[:20]!r}")
        self.expect(")", "CAST")
        return Term("number", f"CAST({value.sql} AS {kind})", "a CAST")

    def function(self, name: str) -> Term:
        if name.lower() not in FUNCTIONS:
            raise Mismatch(f"there is no function {name[:40]!r}; functions: {', '.join(FUNCTIONS)}")
        (least, most), gives = FUNCTIONS[name.lower()]
        values = self.arguments(name)
        if not least <= len(values) <= most:
            raise Mismatch(f"{name} takes {least} value{'s'[: least - 1]}, got {len(values)}")
        return Term(gives, f"{name.lower()}({', '.join(map(textual, values))})", name)

    def arguments(self, name: str) -> list[Term]:
        """What stands in parentheses, comma between."""
        self.expect("(", name)
        values = [self.sum()]
        while self.took(","):
            values.append(self.sum())
        self.expect(")", name)
        return values

    def field(self, name: str, shown: str) -> Term:
        column = column_of(name, self.fields)
        return field_term(column, self.kind_of(column), shown)


def column_of(name: str, fields: Mapping[str, str]) -> str:
    """The column of a field; upper and lower case may differ where that leaves one choice."""
    alike = [name] if name in fields else [field for field in fields if folded(field) == folded(name)]
    if len(alike) != 1:
        nearest = did_you_mean(name, fields) or ";"
        raise UsageError(
            f"unknown field {name[:40]!r} in a filter{nearest} fields: {listed(list(fields), SHOWN_FIELDS)} "
            "(a string stands in single quotes)"
        )
    return fields[alike[0]]


def folded(name: str) -> str:
    return unicodedata.normalize("NFC", name).casefold()


def broken_filter(where: str, why: str, fields: Mapping[str, str]) -> UsageError:
    shown = where if len(where) <= 60 else where[:57] + "..."
    return UsageError(
        f"the filter {shown!r} cannot be read ({why}); write FIELD = 'value', fields: "
        f"{listed(list(fields), SHOWN_FIELDS)}"
    )
