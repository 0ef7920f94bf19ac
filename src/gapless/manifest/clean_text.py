"""Cleans texts: one line each, without invisible characters; words stay as they are."""

import unicodedata
from collections.abc import Iterable

from gapless.core.values import is_missing

# Arabic, Syriac and Kaithi signs that enclose a number: Unicode has them in class Cf, but they are visible.
_DRAWN_FORMATS = frozenset("\u0600\u0601\u0602\u0603\u0604\u0605\u06dd\u070f\u0890\u0891\u08e2\U000110bd\U000110cd")


def clean_captions(captions: Iterable[str]) -> list[str]:
    """Each caption as one clean line, without those that say that there is none ("nan", "None", "-", ...)."""
    return [text for text in map(clean_text, captions) if not is_missing(text)]


def clean_text(text: str) -> str:
    """A text as one line with single spaces and without invisible characters; words stay as they are.

    Invisible characters are Unicode's class Cf but the few that are drawn: soft hyphens, zero-width spaces and joiners,
    byte order marks. They are removed, so that no word is split. Spaces of every kind, line breaks and control
    characters become one space.
    """
    if not text.isprintable():
        text = "".join(map(_visible, text))
    # Only plain spaces are left by now, so that most texts are one line of single spaces already.
    return " ".join(text.split()) if "  " in text else text.strip()


def _visible(character: str) -> str:
    if character.isprintable() or character in _DRAWN_FORMATS:
        return character
    return "" if unicodedata.category(character) == "Cf" else " "
