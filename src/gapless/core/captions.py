"""Whether two captions are the same: one definition for the loss, for lenient recall and for the audit."""

import unicodedata
from collections.abc import Sequence
from hashlib import blake2b
from typing import Any

from gapless.core.values import text_of

FULL_STOPS = ".\u3002\u0964\u06d4"  # of Latin, Chinese and Japanese, Devanagari, and Urdu text
MINUS_SIGN = "\u2212"
# Characters that Unicode lists as invisible (Default_Ignorable_Code_Point) though they are no format characters (Cf).
_OTHER_INVISIBLE = frozenset(
    {"\u034f", "\u115f", "\u1160", "\u17b4", "\u17b5", "\u180b", "\u180c", "\u180d", "\u180f", "\u3164", "\uffa0"}
    | {chr(code) for code in (*range(0xFE00, 0xFE10), *range(0xE0100, 0xE01F0))}
)


def normalised_caption(caption: Any) -> str:
    """The form of a caption in which equal captions are equal texts; "" for a missing or empty caption.

    Captions are equal when they differ only in case, white space, a full stop at the end, the Unicode form (composed or
    not, ligatures, full-width letters), the kind of dash or hyphen, or invisible characters (soft hyphens, zero-width
    spaces and joiners). Any other difference makes two captions: "x-ray" and "x ray".

    Args:
        caption: a text; None and what `values.is_missing` calls missing give "".

    >>> normalised_caption("Chest  X\u2011ray.") == normalised_caption("chest x-ray")
    True
    """
    text = text_of(caption)
    if not (text.isascii() and text.isprintable()):
        text = _one_form(text)
    return " ".join(text.casefold().split()).rstrip(FULL_STOPS + " ")


def caption_codes(captions: Sequence[Any]) -> list[int]:
    """One integer for each caption, equal where the captions are the same; a missing caption equals no other.

    Returns:
        [pair] integers from 0, in the order in which new captions appear.

    >>> caption_codes(["No effusion.", "cyst", "no effusion", "", ""])
    [0, 1, 0, 2, 3]
    """
    numbers: dict[Any, int] = {}
    keys = (normalised_caption(caption) or (row,) for row, caption in enumerate(captions))
    return [numbers.setdefault(key, len(numbers)) for key in keys]


def caption_number(caption: Any, row: str) -> int:
    """An integer of 64 bits that is equal where captions are the same, in every batch and every process.

    Args:
        caption: a text.
        row: the row's name, from which a missing caption gets its number, so that it equals no other.
    """
    key = normalised_caption(caption) or f"\0{row}"
    return int.from_bytes(blake2b(key.encode("utf-8", "surrogatepass"), digest_size=8).digest(), signed=True)


def _one_form(text: str) -> str:
    """The text without invisible characters, in one Unicode form, with one kind of dash."""
    visible = "".join(character for character in text if not _is_invisible(character))
    # Case folding can decompose a letter, so the text is composed again after it.
    folded = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", visible).casefold())
    return "".join("-" if _is_dash(character) else character for character in folded)


def _is_invisible(character: str) -> bool:
    category = unicodedata.category(character)
    return category == "Cf" or character in _OTHER_INVISIBLE or (category == "Cc" and not character.isspace())


def _is_dash(character: str) -> bool:
    return character == MINUS_SIGN or unicodedata.category(character) == "Pd"
