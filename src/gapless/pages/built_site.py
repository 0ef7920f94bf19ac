"""The documentation as it is installed: a built site whose search works without a network."""

import webbrowser
from dataclasses import dataclass
from pathlib import Path

from gapless.core.errors import UsageError, did_you_mean
from gapless.core.results import Result

SITE = Path(__file__).parent / "site"
FIRST_PAGE = "index"


@dataclass(frozen=True)
class Documentation(Result):
    """A page of the documentation.

    Args:
        page: its name, such as "measure" or "reference/commands".
        path: the file.
        address: the same for a browser.
        opened: whether a browser took it.
    """

    page: str
    path: Path
    address: str
    opened: bool


def documentation(page: str = FIRST_PAGE, *, browser: bool = True, site: Path = SITE) -> Documentation:
    """Find a page of the installed documentation, and show it in the user's browser.

    Args:
        page: a name without its ending; `pages_of` lists them.
        browser: open it.
        site: directory of the built pages.

    Raises:
        UsageError: no such page, or an installation without the built pages, such as a checkout.
    """
    pages = pages_of(site)
    if not pages:
        raise UsageError(
            "this installation has no built documentation, since it is a checkout of the source; `make docs` builds "
            "it, and docs/ holds the pages as text"
        )
    if page not in pages:
        raise UsageError(f"no page {page!r}{did_you_mean(page, pages)}; pages: {', '.join(pages)}")
    path = site / f"{page}.html"
    address = path.resolve().as_uri()
    return Documentation(page, path, address, browser and webbrowser.open(address))


def pages_of(site: Path = SITE) -> list[str]:
    """The names of all pages, sorted; none where the site was not built."""
    paths = sorted(site.rglob("*.html"))
    return [path.relative_to(site).with_suffix("").as_posix() for path in paths if path.name != "404.html"]
