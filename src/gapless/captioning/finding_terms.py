"""The vocabulary of radiological findings, and where its forms stand in a text.

`findings.tsv` beside this file is the vocabulary; a file of a user's own adds findings and forms to it. Forms and texts
are compared in lower case, without hyphens and without the plural's -s.
"""

import re
from collections.abc import Mapping, Sequence
from functools import lru_cache
from importlib import resources
from pathlib import Path
from typing import NamedTuple

from gapless.core.errors import UsageError

GAP = ".."  # in a form: up to MAX_GAP further words
MAX_GAP = 3
SHORT = {"w/o": "without", "w/": "with ", "r/o": "rule out", "c/w": "consistent with", "s/p": "status post"}
CONTRACTED = {"can't": "cannot", "won't": "will not", "n't": " not"}
# What a text means by left, right and both sides; the abbreviations are those of lobes and quadrants.
SIDES = {
    **dict.fromkeys(("left", "lt", "leftward", "lul", "lll", "luq", "llq"), "left"),
    **dict.fromkeys(("right", "rt", "rightward", "rul", "rml", "rll", "ruq", "rlq"), "right"),
    **dict.fromkeys(("bilateral", "bilaterally", "both", "bibasilar", "bibasal", "biapical"), "both"),
}
_TOKEN = re.compile(r"[a-z]+\d*|\d+(?:\.\d+)?|[,;:.?!]")


class Place(NamedTuple):
    """A form in a sentence.

    Args:
        findings: the names that the form stands for.
        length: tokens from its first to its last.
        gap: the words that stand at the gaps of the form.
    """

    findings: tuple[str, ...]
    length: int
    gap: tuple[str, ...] = ()


class Vocabulary:
    """Findings by their forms.

    Args:
        forms: finding -> forms as words.
    """

    def __init__(self, forms: Mapping[str, Sequence[str]]) -> None:
        self.findings = tuple(forms)
        self._by_first: dict[str, dict[tuple[str, ...], list[str]]] = {}
        for name, several in forms.items():
            for form in several:
                words = tuple(part if part == GAP else singular(part) for part in plain_words(form))
                names = self._by_first.setdefault(words[0], {}).setdefault(words, [])
                if name not in names:
                    names.append(name)

    def longest_at(self, tokens: Sequence[str], start: int) -> Place | None:
        """The longest form that begins at a token, by its own words; None where there is none."""
        best, most = None, 0
        for words, names in self._by_first.get(singular(tokens[start]), {}).items():
            own = sum(word != GAP for word in words)
            if own > most and (match := _match(words, tokens, start)) is not None:
                best, most = Place(tuple(names), *match), own
        return best


def _match(words: Sequence[str], tokens: Sequence[str], start: int) -> tuple[int, tuple[str, ...]] | None:
    """How many tokens a form takes from a place on, and the words at its gaps."""
    place, gap = start, []
    for index, word in enumerate(words):
        if word == GAP:
            following = words[index + 1]
            for _ in range(MAX_GAP):
                if place < len(tokens) and tokens[place].isalnum() and singular(tokens[place]) != following:
                    gap.append(tokens[place])
                    place += 1
        elif place < len(tokens) and singular(tokens[place]) == word:
            place += 1
        else:
            return None
    return place - start, tuple(gap)


def plain_words(form: str) -> list[str]:
    """The lower-case words of a form, and its gaps."""
    return [part for piece in form.lower().split() for part in ([GAP] if piece == GAP else re.findall(r"\w+", piece))]


def singular(word: str) -> str:
    """A word without the plural's -s, by its letters alone.

    >>> [singular(word) for word in ("masses", "opacities", "effusions", "stenosis", "thrombus")]
    ['mass', 'opacity', 'effusion', 'stenosis', 'thrombus']
    """
    if len(word) < 4 or not word.endswith("s") or word.endswith(("ss", "us", "is")):
        return word
    if word.endswith("ies") and len(word) > 4:
        return f"{word[:-3]}y"
    return word[:-2] if word.endswith(("sses", "xes", "ches", "shes")) else word[:-1]


def sentences_of(text: str) -> list[list[str]]:
    """The tokens of each sentence: lower-case words, numbers, and the marks , ; :

    >>> sentences_of("No left-sided effusion. A 2.5 cm mass.")
    [['no', 'left', 'sided', 'effusion'], ['a', '2.5', 'cm', 'mass']]
    """
    text = text.lower().replace("’", "'").replace("\n", " . ").replace("(", " , ").replace(")", " , ")
    for short, long in (*SHORT.items(), *CONTRACTED.items()):
        text = text.replace(short, long)
    text = re.sub(r"(^|\s)\?\s*(?=[a-z])", r"\1question of ", text)
    sentences: list[list[str]] = [[]]
    for token in _TOKEN.findall(text):
        if token in ".?!":
            sentences.append([])
        else:
            sentences[-1].append(token)
    return [sentence for sentence in sentences if sentence]


@lru_cache(maxsize=8)
def vocabulary(own: Path | None = None) -> Vocabulary:
    """The vocabulary, with a user's own file added to it.

    Args:
        own: a file of the same form: a finding, a tab, its forms with | between. A finding that is there already gets
            further forms.

    Raises:
        UsageError: no such file, or a line of another form.
    """
    shipped = resources.files("gapless.captioning").joinpath("findings.tsv").read_text(encoding="utf-8")
    forms = _forms_of(shipped, "findings.tsv")
    if own is not None:
        try:
            text = own.read_text(encoding="utf-8-sig")
        except (OSError, UnicodeDecodeError) as error:
            raise UsageError(f"--findings {own} cannot be read ({error})") from None
        for name, several in _forms_of(text, f"--findings {own}").items():
            forms.setdefault(name, []).extend(several)
    return Vocabulary(forms)


def _forms_of(text: str, what: str) -> dict[str, list[str]]:
    forms: dict[str, list[str]] = {}
    for number, line in enumerate(text.splitlines(), start=1):
        if not line.strip() or line.startswith("#"):
            continue
        name, tab, rest = line.partition("\t")
        several = [form.strip() for form in rest.split("|")]
        words = [plain_words(form) for form in several]
        if not tab or not name.strip() or not all(parts and GAP not in (parts[0], parts[-1]) for parts in words):
            raise UsageError(
                f"{what}: line {number} is not a finding, a tab and its forms with | between, each of words "
                f"({line.strip()[:60]!r})"
            )
        forms.setdefault(name.strip(), []).extend(several)
    if not forms:
        raise UsageError(f"{what} names no finding; write a finding, a tab and its forms with | between")
    return forms
