"""Visits of the page in a real browser, as fixtures; a test module brings `origin`, the address that is visited.

A visit fails if the page wrote to the console, asked another host for anything, or scrolls sideways.

    def test_a_search(visit):       # narrow and light; CI runs it wide and dark too
        assert visit.search("knee")

    @pytest.mark.parametrize("visit", [(390, "dark")], indirect=True)      # another width and scheme
"""

import os
import shutil
import signal
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from command_server import shared_server

FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--disable-background-networking", "--no-first-run"]
SHOTS = os.environ.get("GAPLESS_SCREENSHOTS")  # a folder, to look at the page
NARROW, WIDE = 390, 1440  # pixels: a telephone, a desk


@dataclass
class Visit:
    """An open page, and what went wrong on it."""

    page: Any
    origin: str
    faults: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.page.on("console", lambda said: self.faults.append(f"console {said.type}: {said.text}"))
        self.page.on("pageerror", lambda error: self.faults.append(f"error: {error}"))
        self.page.on("request", self.check_request)

    def check_request(self, request: Any) -> None:
        if not request.url.startswith((self.origin, "blob:")):
            self.faults.append(f"request to {request.url}")

    def until(self, expression: str) -> None:
        """Wait for a condition; the page's policy forbids playwright's own way, which evaluates strings in the page."""
        end = time.monotonic() + 20
        while not self.page.evaluate(expression):
            assert time.monotonic() < end, expression
            self.page.wait_for_timeout(20)

    def hits(self) -> list[str]:
        self.until("!document.querySelector('#results').hasAttribute('aria-busy')")
        found: list[str] = self.page.eval_on_selector_all(".hit", "all => all.map(one => one.innerText)")
        return found

    def search(self, words: str) -> list[str]:
        self.page.fill("#words", words)
        with self.page.expect_response("**/api/search*"):
            self.page.keyboard.press("Enter")
        self.page.wait_for_selector(".hit")
        return self.hits()

    def status(self) -> str:
        return str(self.page.inner_text("#status"))

    def shot(self, name: str) -> None:
        if SHOTS:
            self.page.screenshot(path=Path(SHOTS) / f"{name}.png")


def serving(collection: Path) -> Iterator[str]:
    """The address of a collection that the command serves as long as it is wanted."""
    pytest.importorskip("uvicorn", reason="needs the extra 'web'")
    running = shared_server().start("serve", collection, "--port", 0, "--max-upload-mb", 1)
    yield running.said(r" at (http://\S+)")
    os.kill(running.pid, signal.SIGKILL)
    running.wait()


def visits(browser: Any, origin: str, width: int, scheme: str) -> Iterator[Visit]:
    """One visit, whose faults are looked at when it ends."""
    context = browser.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme)
    context.set_default_timeout(20_000)
    visit = Visit(context.new_page(), origin)
    visit.page.goto(origin)
    yield visit
    overflow = visit.page.evaluate("document.documentElement.scrollWidth - innerWidth")
    context.close()
    assert visit.faults == []
    assert overflow <= 0, "the page scrolls sideways"


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """Chromium; the test is skipped where it or playwright is missing."""
    playwright = pytest.importorskip("playwright.sync_api", reason="needs playwright")
    chromium = shutil.which("chromium")
    if chromium is None:
        pytest.skip("needs chromium (apt-get install chromium)")
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=chromium, args=FLAGS)
        yield browser
        browser.close()


@pytest.fixture(
    params=[(NARROW, "light"), pytest.param((WIDE, "dark"), marks=pytest.mark.ci)],
    ids=lambda given: f"{given[0]}-{given[1]}",
)
def visit(browser: Any, origin: str, request: pytest.FixtureRequest) -> Iterator[Visit]:
    yield from visits(browser, origin, *request.param)


@pytest.fixture
def wide(browser: Any, origin: str) -> Iterator[Visit]:
    yield from visits(browser, origin, WIDE, "light")
