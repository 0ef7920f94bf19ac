"""Builds the site of docs/ strictly into the package, from where `gapless docs` opens it; `make docs` runs this.

It fails on a dead link, an unknown name in the reference, a page that no menu names, and anything that a page would
fetch from elsewhere.
"""

import os
import shutil
import subprocess
import sys
from pathlib import Path

from site_checks import faults_of
from site_pages import ROOT, pictures, staged_pages

PAGES = ROOT / "build" / "site-pages"
BUILT = ROOT / "build" / "site"
WORKER = Path(__file__).parent / "search_in_frame.js"
FETCHED_WORKER = "https://unpkg.com/iframe-worker/shim"
SHIPPED = ROOT / "src" / "gapless" / "pages" / "site"


def stage() -> None:
    """Write the pages that zensical reads."""
    shutil.rmtree(PAGES, ignore_errors=True)
    for address, text in staged_pages().items():
        path = PAGES / address
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    for picture in pictures():
        shutil.copy(picture, PAGES / picture.name)


def without_fetches(site: Path) -> None:
    """Put the script with which search works from a file beside the pages; zensical has every page fetch it."""
    shutil.copy(WORKER, site / "assets" / WORKER.name)
    for page in site.rglob("*.html"):
        up = "../" * (len(page.relative_to(site).parts) - 1)
        text = page.read_text(encoding="utf-8")
        page.write_text(text.replace(FETCHED_WORKER, f"{up}assets/{WORKER.name}"), encoding="utf-8")


def build() -> int:
    """Build, check and put the site into the package; the exit code."""
    stage()
    shutil.rmtree(BUILT, ignore_errors=True)
    command = [str(Path(sys.executable).parent / "zensical"), "build", "--strict", "--clean"]
    done = subprocess.run(
        command, cwd=ROOT, check=False, capture_output=True, text=True, env={**os.environ, "NO_COLOR": "1"}
    )
    if done.returncode:
        print(done.stdout, done.stderr, sep="\n", file=sys.stderr)
        return 1
    without_fetches(BUILT)
    faults = faults_of(BUILT, sorted(PAGES.rglob("*.md")), PAGES)
    if faults:
        print(*faults, sep="\n", file=sys.stderr)
        return 1
    shutil.rmtree(SHIPPED, ignore_errors=True)
    shutil.copytree(BUILT, SHIPPED)
    print(f"{len(list(SHIPPED.rglob('*.html')))} pages in {SHIPPED.relative_to(ROOT)}")
    return 0


if __name__ == "__main__":
    raise SystemExit(build())
