"""The site: links are moved, faults of a page are seen, and the built one is searched in a browser from a file."""

import sys
from pathlib import Path

import pytest

from gapless.core.errors import UsageError
from gapless.pages import documentation
from gapless.pages.built_site import SITE, pages_of

SCRIPTS = Path(__file__).parents[1] / "scripts"


@pytest.fixture(autouse=True)
def scripts(monkeypatch):
    monkeypatch.setattr(sys, "path", [str(SCRIPTS), *sys.path])


def write_site(folder: Path, body: str) -> Path:
    (folder / "index.html").write_text(f'<a href="./two.html#part">two</a>{body}')
    (folder / "two.html").write_text('<h2 id="part">part</h2>')
    return folder


def faults(folder: Path) -> list[str]:
    from site_checks import faults_of

    return faults_of(folder, [folder / "two.md"], folder)


def test_a_whole_site_has_no_faults(tmp_path):
    assert faults(write_site(tmp_path, '<a href="https://arxiv.org/abs/2602.20046">paper</a>')) == []


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ('<a href="gone.html">x</a>', "links to gone.html, which is not there"),
        ('<a href="two.html#gone">x</a>', "no such heading"),
        ('<script src="https://unpkg.com/x"></script>', "fetches https://unpkg.com/x"),
        ('<link rel="stylesheet" href="https://fonts.example/css">', "fetches https://fonts.example/css"),
        ('<img src="gone.png">', "links to gone.png"),
    ],
)
def test_a_fault_of_a_page_is_seen(tmp_path, body, said):
    (fault,) = faults(write_site(tmp_path, body))
    assert said in fault


def test_a_page_that_no_menu_names_and_a_sheet_that_fetches_are_seen(tmp_path):
    from site_checks import faults_of

    write_site(tmp_path, "")
    (tmp_path / "sheet.css").write_text("@font-face{src:url(https://fonts.example/a.woff)}")
    found = faults_of(tmp_path, [tmp_path / "three.md"], tmp_path)
    assert found == ["sheet.css fetches from elsewhere", "no menu names three.html"]


def test_links_become_those_of_the_site_and_code_stays():
    from site_pages import moved_links

    text = "[a](docs/close.md#methods) [b](CONTRIBUTING.md) [c](CITATION.cff) [d](https://x.org) `[e](docs/no.md)`"
    moved = "[a](close.md#methods) [b](contributing.md) c [d](https://x.org) `[e](docs/no.md)`"
    assert moved_links(text, ".") == moved
    with pytest.raises(FileNotFoundError, match="links to gone"):
        moved_links("[a](gone.md)", "docs")


def test_every_public_name_has_a_place_in_the_reference():
    from site_pages import python_page

    import gapless

    page = python_page()
    assert all(f".{name}\n" in page for name in gapless.__all__)
    assert "::: gapless.closing.base.ClosingMethod\n" in page


def test_a_page_is_named_or_refused(tmp_path):
    write_site(tmp_path, "")
    page = documentation("two", browser=False, site=tmp_path)
    assert page.address == (tmp_path / "two.html").as_uri()
    assert not page.opened
    with pytest.raises(UsageError, match="did you mean 'two'"):
        documentation("tow", browser=False, site=tmp_path)
    with pytest.raises(UsageError, match="make docs"):
        documentation(browser=False, site=tmp_path / "nothing")


@pytest.mark.skipif(not pages_of(SITE), reason="the site is not built (make docs)")
def test_the_built_site_is_searched_from_a_file_without_a_network(browser):
    asked: list[str] = []
    page = browser.new_page()
    page.on("request", lambda request: asked.append(request.url))
    page.goto((SITE / "index.html").as_uri())
    page.click(".md-search__button")
    page.wait_for_timeout(300)
    page.keyboard.type("modality bias")
    page.get_by_text("Mixed search", exact=True).first.wait_for(timeout=20_000)
    assert [url for url in asked if not url.startswith(("file:", "data:", "blob:"))] == []
