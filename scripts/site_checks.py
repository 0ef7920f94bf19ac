"""Looks for faults in a built site: dead links, pages that no menu names, and things fetched from elsewhere."""

import posixpath
import re
from collections.abc import Sequence
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

FETCHED = {"script": "src", "img": "src", "iframe": "src", "source": "src", "video": "src", "audio": "src"}
FETCHED_RELATIONS = {"stylesheet", "icon", "preload", "preconnect", "dns-prefetch", "prefetch", "modulepreload"}
CSS_ADDRESS = re.compile(r"url\(\s*['\"]?(https?:)?//|@import\s+['\"]?(https?:)?//")


class Page(HTMLParser):
    """What a page links to and fetches, and the anchors that it has."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.links: list[str] = []
        self.fetched: list[str] = []
        self.anchors: set[str] = set()
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = {name: value or "" for name, value in attrs}
        self.anchors |= {values[name] for name in ("id", "name") if name in values}
        if tag == "a" and "href" in values:
            self.links.append(values["href"])
        if tag in FETCHED and FETCHED[tag] in values:
            self.fetched.append(values[FETCHED[tag]])
        if tag == "link" and set(values.get("rel", "").split()) & FETCHED_RELATIONS:
            self.fetched.append(values.get("href", ""))


def faults_of(site: Path, sources: Sequence[Path], source_root: Path) -> list[str]:
    """A sentence for each fault of a built site; empty where there is none.

    Args:
        site: directory of the built pages.
        sources: the Markdown pages; each must be built, and be named by the menu of the first page.
        source_root: the folder that their addresses start at.
    """
    pages = {path: Page(path.read_text(encoding="utf-8")) for path in sorted(site.rglob("*.html"))}
    faults = [fault for path, page in pages.items() if path.name != "404.html" for fault in _of_page(path, page, pages)]
    for sheet in site.rglob("*.css"):
        if CSS_ADDRESS.search(sheet.read_text(encoding="utf-8")):
            faults.append(f"{sheet.relative_to(site)} fetches from elsewhere")
    menu = {posixpath.normpath(unquote(urlsplit(link).path)) for link in pages[site / "index.html"].links}
    for source in sources:
        address = source.relative_to(source_root).with_suffix(".html").as_posix()
        if address not in menu and address != "index.html":
            faults.append(f"no menu names {address}")
    return faults


def _of_page(path: Path, page: Page, pages: dict[Path, Page]) -> list[str]:
    faults = [f"{path.name} fetches {address}" for address in page.fetched if urlsplit(address).netloc]
    for address in (*page.links, *page.fetched):
        parts = urlsplit(address)
        if parts.scheme or parts.netloc:
            continue
        target = (path.parent / unquote(parts.path)).resolve() if parts.path else path
        target = target / "index.html" if target.is_dir() else target
        if not target.exists():
            faults.append(f"{path.name} links to {address}, which is not there")
        elif parts.fragment and target in pages and unquote(parts.fragment) not in pages[target].anchors:
            faults.append(f"{path.name} links to {address}, and there is no such heading")
    return faults
