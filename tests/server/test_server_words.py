"""The dictionaries of the page: every key in every language, with the same values in it, and every key in use."""

import re
from importlib.resources import files as package_files

import pytest

pytest.importorskip("markupsafe", reason="needs the extra 'web'")
from gapless.pages.page import environment
from gapless.server.words import dictionaries, dictionaries_script, named, said, text_of

ENGLISH = dictionaries()["en"]
STATUS_CALLS = {"q", "like", "modality", "where", "theme", "lang", "parts", "weights", "k"}  # `text` of address.js


def fields(text: str) -> set[str]:
    return set(re.findall(r"\{(\w+)\}", text))


def sources() -> str:
    folder = package_files("gapless.server")
    scripts = [one.read_text("utf-8") for one in (folder / "static").iterdir() if one.name.endswith(".js")]
    return "\n".join([*scripts, (folder / "templates" / "search.html").read_text("utf-8")])


@pytest.mark.parametrize("language", [name for name in dictionaries() if name != "en"])
def test_a_language_has_every_key_with_the_same_values(language: str) -> None:
    words = dictionaries()[language]
    assert set(words) == set(ENGLISH)
    assert {key: fields(text) for key, text in words.items()} == {key: fields(text) for key, text in ENGLISH.items()}
    assert not [key for key, text in words.items() if not text.strip()]
    untranslated = [key for key, text in words.items() if text == ENGLISH[key] and len(text.split()) > 1]
    assert untranslated == []


def test_there_are_three_languages_and_english_comes_first() -> None:
    assert list(dictionaries()) == ["en", "de", "fr"]


def test_every_key_that_is_used_exists_and_every_key_is_used() -> None:
    text = sources()
    called = set(re.findall(r'(?:\bt|[.{ ]say|\btext)\("([a-z.-]+)"', text)) | set(
        re.findall(r'named\("[a-z-]+", "([^"]+)"', text)
    )
    assert called - {"theme.", *STATUS_CALLS} <= set(ENGLISH)
    unused = {key for key in ENGLISH if f'"{key}"' not in text and not key.startswith("theme.")}
    assert unused == set()


def test_elements_and_attributes_are_escaped() -> None:
    assert str(said("page.rows", count="<b>")) == (
        '<span data-say="page.rows" data-values="{&#34;count&#34;: &#34;&lt;b&gt;&#34;}">&lt;b&gt; rows</span>'
    )
    assert str(named("title", "close")) == ' title="Close" data-say-title="close"'
    with pytest.raises(KeyError):
        text_of("page.rows", {})


def test_the_page_and_the_report_say_the_same_of_diagnosis() -> None:
    html = environment("gapless.server").get_template("not_diagnosis.html").render()
    assert re.sub(r"<[^>]+>", "", html).strip() == ENGLISH["page.not-diagnosis"]


def test_the_script_holds_the_dictionaries() -> None:
    assert b"gapless.dictionaries = {" in dictionaries_script()
    assert b"Karte" in dictionaries_script()
