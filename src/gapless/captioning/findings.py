"""Reads the findings of a report: named, denied or uncertain, and on which side; and its numbers. English.

    found = findings_of("No pneumothorax. Small left effusion, 2 cm.", vocabulary())
    found["effusion"]          # Mention(status="present", side="left")

Research use, not for diagnosis. docs/captioning.md says how often it is right.
"""

import re
from bisect import bisect_left
from collections.abc import Sequence
from typing import Literal, NamedTuple

from gapless.captioning.finding_terms import SIDES, Vocabulary, sentences_of
from gapless.captioning.negation import Cue, longest_cue

Status = Literal["present", "uncertain", "denied"]
STATUSES: tuple[Status, ...] = ("present", "uncertain", "denied")  # of several mentions the first one counts
NAMED: tuple[Status, ...] = ("present", "uncertain")
TERM = "term"
ENDING = (Cue.STOP, Cue.DENIES_BEFORE, Cue.DOUBTS_BEFORE)  # no scope reaches beyond these
_DENYING = {"not", "no", "normal"}  # inside a form with a gap: "heart is not enlarged"
_COMPARING = {"worse", "larger", "greater", "more", "predominantly", "smaller", "less", "than"}
_BLOCKING = {";", ":", "but", "otherwise", "no", "without"}  # no side reaches forward over these
_NEAR = 6  # words between a side and the finding that follows it
_ADJACENT = 2  # words to the next finding, which a side just before it belongs to


class Mention(NamedTuple):
    """What a text says of a finding; `side` is left, right, both, or None where no side is said."""

    status: Status
    side: str | None = None


class Unit(NamedTuple):
    """A finding or a cue at a place of a sentence."""

    kind: Cue | str
    start: int
    length: int
    findings: tuple[str, ...] = ()
    is_denied: bool = False


def findings_of(text: str, words: Vocabulary) -> dict[str, Mention]:
    """Finding -> what the text says of it; of several mentions a present one counts before the others.

    >>> from gapless.captioning.finding_terms import vocabulary
    >>> findings_of("Right effusion, no pneumothorax.", vocabulary())
    {'effusion': Mention(status='present', side='right'), 'pneumothorax': Mention(status='denied', side=None)}
    """
    found: dict[str, list[Mention]] = {}
    for tokens in sentences_of(text):
        units = units_of(tokens, words)
        sides = SidesOfSentence(tokens, [unit for unit in units if unit.kind == TERM])
        for index, status in statuses_of(units).items():
            side = sides.of(units[index])
            for name in units[index].findings:
                found.setdefault(name, []).append(Mention(status, side))
    return {name: _together(mentions) for name, mentions in found.items()}


def _together(mentions: Sequence[Mention]) -> Mention:
    status = next(status for status in STATUSES if any(one.status == status for one in mentions))
    sides = {one.side for one in mentions if one.side and one.status == status}
    return Mention(status, next(iter(sides)) if len(sides) == 1 else "both" if sides else None)


def units_of(tokens: Sequence[str], words: Vocabulary) -> list[Unit]:
    """The findings and cues of a sentence, in their order; where both begin, the longer one counts."""
    units, place = [], 0
    while place < len(tokens):
        term, cue = words.longest_at(tokens, place), longest_cue(tokens, place)
        if term is not None and (cue is None or term.length >= cue[1]):
            units.append(Unit(TERM, place, term.length, term.findings, not _DENYING.isdisjoint(term.gap)))
            place += term.length
        elif cue is not None:
            units.append(Unit(cue[0], place, cue[1]))
            place += cue[1]
        else:
            place += 1
    return units


def statuses_of(units: Sequence[Unit]) -> dict[int, Status]:
    """Index of a finding among the units -> its status; one whose cue drops it is not there."""
    statuses = _forward(units)
    for index, unit in enumerate(units):
        kind = _direction(units, index)
        if kind is Cue.DENIES_BEFORE:
            statuses |= dict.fromkeys(_reached_back(units, index, statuses), "denied")
        elif kind is Cue.DOUBTS_BEFORE:
            reached = [term for term in _reached_back(units, index, statuses) if statuses[term] != "denied"]
            statuses |= dict.fromkeys(reached, "uncertain")
        elif kind is Cue.DOUBTS_BOTH and index and index - 1 in statuses:
            statuses[index - 1] = "uncertain"
        elif unit.kind == TERM and unit.is_denied and index in statuses:
            statuses[index] = "denied"
    return statuses


def _forward(units: Sequence[Unit]) -> dict[int, Status]:
    """The statuses under the cues that stand before the findings."""
    statuses: dict[int, Status] = {}
    scope: Status | Literal["dropped"] = "present"
    list_ends = _list_ends(units)
    for index in range(len(units)):
        kind = _direction(units, index)
        if kind == TERM and scope != "dropped":
            statuses[index] = scope
        elif kind is Cue.DENIES_AFTER:
            scope = "denied"
        elif kind in (Cue.DOUBTS_AFTER, Cue.DOUBTS_BOTH):
            scope = "denied" if scope == "denied" else "uncertain"
        elif kind is Cue.DROPS_AFTER:
            scope = "dropped"
        elif kind in ENDING or (kind is Cue.COMMA and not _joins(list_ends[index], scope)):
            scope = "present"
    return statuses


def _direction(units: Sequence[Unit], index: int) -> Cue | str:
    """The kind of a unit; a cue of either direction reaches forward where a finding follows in its clause."""
    kind = units[index].kind
    forward = {Cue.DENIES_EITHER: Cue.DENIES_AFTER, Cue.DOUBTS_EITHER: Cue.DOUBTS_AFTER}
    backward = {Cue.DENIES_EITHER: Cue.DENIES_BEFORE, Cue.DOUBTS_EITHER: Cue.DOUBTS_BEFORE}
    if kind not in forward:
        return kind
    for unit in units[index + 1 :]:
        if unit.kind == TERM:
            return forward[Cue(kind)]
        if unit.kind in (Cue.STOP, Cue.COMMA):
            break
    return backward[Cue(kind)]


def _list_ends(units: Sequence[Unit]) -> list[Cue | str | None]:
    """Of each unit the kind of the first one behind it that is neither a finding nor a comma of a list."""
    ends: list[Cue | str | None] = [None] * len(units)
    for index in range(len(units) - 2, -1, -1):
        following = units[index + 1].kind
        ends[index] = ends[index + 1] if following in (TERM, Cue.COMMA, Cue.PLAIN) else following
    return ends


def _joins(list_end: Cue | str | None, scope: str) -> bool:
    """Whether a scope goes on over a comma: where the list after it has an "or" (or, of doubts, an "and")."""
    return list_end in ((Cue.OR, Cue.AND) if scope == "uncertain" else (Cue.OR,))


def _reached_back(units: Sequence[Unit], cue: int, statuses: dict[int, Status]) -> list[int]:
    """The findings that a cue behind them reaches: back to a comma, or over commas of a list with "and" or "or"."""
    reached, is_list = [], False
    for index in range(cue - 1, -1, -1):
        kind = _direction(units, index)
        if kind == TERM:
            reached += [index] if index in statuses else []
        elif kind in (Cue.OR, Cue.AND):
            is_list = True
        elif kind in ENDING or (kind is Cue.COMMA and not is_list):
            break
    return reached


class SidesOfSentence:
    """The sides that a sentence names, by place: looked up once for all of its findings.

    Args:
        tokens: of the sentence.
        terms: all findings of the sentence.
    """

    def __init__(self, tokens: Sequence[str], terms: Sequence[Unit]) -> None:
        self._tokens = tokens
        named = (place for place, token in enumerate(tokens) if token in SIDES and not _compares(tokens, place))
        self._sides = {place: SIDES[tokens[place]] for place in named}
        self._places = list(self._sides)
        self._blocks = [place for place, token in enumerate(tokens) if token in _BLOCKING]
        self._terms = {one.start: one for one in terms}
        self._starts = sorted(self._terms)
        self._taken = {place for one in terms for place in _places_of(one)}

    def of(self, term: Unit) -> str | None:
        """The side of a finding: said inside or just before it, else after it before the next one, else earlier."""
        for look in (self._inside, self._before, self._after, self._earlier):
            side = look(term)
            if side is not None:
                return side
        return None

    def _inside(self, term: Unit) -> str | None:
        return next((self._sides[place] for place in _places_of(term) if place in self._sides), None)

    def _before(self, term: Unit) -> str | None:
        for place in range(term.start - 1, max(-1, term.start - _NEAR - 2), -1):
            if place in self._sides:
                return self._sides[place]
            if place in self._taken or self._tokens[place] in (",", ";", ":", "with", "without", "and", "or", "but"):
                break
        return None

    def _after(self, term: Unit) -> str | None:
        end = term.start + term.length
        following = bisect_left(self._starts, end)
        crossed: range | tuple[()] = ()  # "infiltrate or atelectasis at the left base": the next finding may be passed
        if following < len(self._starts) and self._starts[following] - end <= _ADJACENT:
            crossed = _places_of(self._terms[self._starts[following]])
        for place in range(end, len(self._tokens)):
            if place in self._sides and not any(place + near in self._terms for near in range(1, _ADJACENT + 1)):
                return self._sides[place]
            ends = place in self._taken and place not in crossed
            if ends or self._tokens[place] in (";", ":", "but", "without", "no"):
                break
        return None

    def _earlier(self, term: Unit) -> str | None:
        sides, blocks = bisect_left(self._places, term.start), bisect_left(self._blocks, term.start)
        if sides == 0 or (blocks > 0 and self._blocks[blocks - 1] > self._places[sides - 1]):
            return None
        return self._sides[self._places[sides - 1]]


def _places_of(unit: Unit) -> range:
    return range(unit.start, unit.start + unit.length)


def _compares(tokens: Sequence[str], place: int) -> bool:
    """Whether a side only says where there is more of something: "worse on the left", "left greater than right"."""
    before, after = tokens[max(0, place - 3) : place], tokens[place + 1 : place + 2]
    return not _COMPARING.isdisjoint(before) or not _COMPARING.isdisjoint(after)


_UNITS = {"mm": ("mm", 1.0), "cm": ("mm", 10.0), "millimeter": ("mm", 1.0), "centimeter": ("mm", 10.0)}
_UNITS |= {unit: (unit, 1.0) for unit in ("year", "month", "week", "day", "hour", "ml", "hu")}
_UNITS |= {"%": ("%", 1.0), "percent": ("%", 1.0), "cc": ("ml", 1.0)}
_NUMBER = re.compile(r"(?<![\w.])(\d+(?:\.\d+)?)(?:[\s-]*(x|by|×)(?=\s*\d)|[\s-]*(%|[a-z]+)|)", re.IGNORECASE)


def numbers_of(text: str) -> set[tuple[float, str]]:
    """The numbers of a text with their units, lengths in mm; parts of names such as L4 or T2 are none.

    >>> sorted(numbers_of("A 2.5 x 3 cm mass at L4-L5 in a 45-year-old."))
    [(25.0, 'mm'), (30.0, 'mm'), (45.0, 'year')]
    """
    numbers: set[tuple[float, str]] = set()
    waiting: list[float] = []
    for value, times, unit in _NUMBER.findall(text):
        name, factor = _UNITS.get(unit.lower().removesuffix("s") if len(unit) > 2 else unit.lower(), ("", 1.0))
        if times:
            waiting.append(float(value))
            continue
        numbers |= {(round(number * factor, 3), name) for number in (*waiting, float(value))}
        waiting = []
    return numbers | {(number, "") for number in waiting}
