"""The words of the page: a dictionary for each language, which the template and the scripts read.

A dictionary is `static/words/<language>.json`, key -> text with `{name}` where a value stands. A further language is a
further file. The page is written in English, and its scripts put the words of another language in their places.
"""

import json
from collections.abc import Mapping
from functools import cache
from importlib.resources import files as package_files

from markupsafe import Markup, escape

FIRST = "en"


@cache
def dictionaries() -> dict[str, dict[str, str]]:
    """Language -> key -> text; English first, then in the order of their names."""
    folder = package_files("gapless.server") / "static" / "words"
    found = {one.name.removesuffix(".json"): json.loads(one.read_text("utf-8")) for one in folder.iterdir()}
    return {name: found[name] for name in sorted(found, key=lambda name: (name != FIRST, name))}


def dictionaries_script() -> bytes:
    """The script that gives the dictionaries to the other scripts."""
    content = json.dumps(dictionaries(), ensure_ascii=False, separators=(",", ":"))
    return f'"use strict";\ngapless.dictionaries = {content};\n'.encode()


def text_of(key: str, values: Mapping[str, object]) -> str:
    """The English text of a key.

    Raises:
        KeyError: no such key, or a value that is not given.
    """
    return dictionaries()[FIRST][key].format(**values)


def said(key: str, tag: str = "span", attributes: str = "", **values: object) -> Markup:
    """An element with the text of a key, which the page's scripts find again to translate it."""
    text, held = text_of(key, values), held_values(values)
    space = " " if attributes else ""
    return Markup('<{} data-say="{}"{}{}>{}</{}>').format(
        Markup(tag), key, held, Markup(space + attributes), text, Markup(tag)
    )


def named(attribute: str, key: str, **values: object) -> Markup:
    """An attribute of an element, such as its `aria-label`, with the text of a key."""
    held = held_values(values)
    return Markup(' {}="{}" data-say-{}="{}"{}').format(
        Markup(attribute), text_of(key, values), Markup(attribute), key, held
    )


def held_values(values: Mapping[str, object]) -> Markup:
    return Markup(' data-values="{}"').format(escape(json.dumps(values, ensure_ascii=False))) if values else Markup("")
