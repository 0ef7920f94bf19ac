"""How long the page of `gapless serve` takes in a browser: the first paint, and the map.

    python benchmarks/page.py [--size 10000] [--rounds 5] [--out FILE.json]

The service is the real command in a process of its own, over drawn 512-d vectors with captions and three labels. The
browser is headless Chromium, with an empty cache in each round. "First paint" is the browser's own first-contentful-
paint, from the start of the navigation. "Map" is from the click on its tab until the frame after it is drawn; the
first time the service computes the plane and the figures, later it has them. Pictures are left out, because drawn
vectors have none, and the page loads them after it is painted.
"""

import argparse
import json
import shutil
import statistics
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypedDict

import numpy as np
from search import drawn_vectors, make_collection
from search_http import drawn_model, service

from gapless.models.fingerprint import fingerprint_of

PAINT_TARGET, MAP_TARGET = 0.5, 2.0  # seconds
FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--no-first-run"]
LABELS = {"modality_type": 4, "finding": 40, "ward": 12}  # label -> how many values it has
PAINTED = "() => performance.getEntriesByName('first-contentful-paint')[0]?.startTime ?? null"
OPEN_MAP = """() => new Promise((resolve) => {
    const body = document.getElementById("map-body");
    const drawn = () => requestAnimationFrame(() => requestAnimationFrame(() => resolve(performance.now() - start)));
    new MutationObserver(() => { if (!body.hidden) drawn(); }).observe(body, { attributes: true });
    const start = performance.now();
    document.getElementById("tab-map").click();
})"""


class Seconds(TypedDict):
    """What was measured in the rounds."""

    seconds: list[float]
    median_s: float
    target_s: float


def drawn_labels(count: int) -> Mapping[str, list[str]]:
    random = np.random.default_rng(3)
    return {name: [f"{name} {n}" for n in random.integers(0, values, count)] for name, values in LABELS.items()}


def painted(page: Any) -> float:
    """Seconds until the first paint, which comes a moment after the page is loaded."""
    while (found := page.evaluate(PAINTED)) is None:
        page.wait_for_timeout(10)
    return float(found) / 1000


def measured(origin: str, rounds: int) -> dict[str, list[float]]:
    """Way -> seconds of each round; the map is computed in the first round alone."""
    from playwright.sync_api import sync_playwright

    found: dict[str, list[float]] = {"first paint": [], "map, computed": [], "map, again": []}
    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=shutil.which("chromium"), args=FLAGS)
        for number in range(rounds + 1):
            context = browser.new_context(viewport={"width": 1440, "height": 900})
            page = context.new_page()
            page.goto(origin)
            found["first paint"].append(painted(page))
            found["map, again" if number else "map, computed"].append(page.evaluate(OPEN_MAP) / 1000)
            drawn = page.evaluate("document.getElementById('map-facts').textContent")
            if "pairs" not in drawn:
                raise SystemExit(f"the map was not drawn: {page.inner_text('#map-status')}")
            context.close()
        browser.close()
    return found


def run(size: int, rounds: int) -> dict[str, Seconds]:
    with tempfile.TemporaryDirectory() as folder:
        model = drawn_model(Path(folder) / "model")
        about = {"source": [str(Path(folder) / "model")], "fingerprint": fingerprint_of(model)}
        path = Path(folder) / "collection"
        make_collection(path, drawn_vectors(size, 1), about, drawn_labels(size // 2))
        with service(path) as address:
            found = measured(f"http://{address}", rounds)
    return {
        name: Seconds(
            seconds=seconds,
            median_s=statistics.median(seconds),
            target_s=PAINT_TARGET if name == "first paint" else MAP_TARGET,
        )
        for name, seconds in found.items()
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, default=10_000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--out", type=Path, default=None, help="also write the figures as JSON")
    options = parser.parse_args()
    ways = run(options.size, options.rounds)
    print(f"{options.size:,} rows, {options.rounds + 1} visits with an empty cache")
    print(f"{'':<16}{'median s':>10}{'worst s':>10}{'target s':>10}")
    for name, way in ways.items():
        verdict = "met" if way["median_s"] <= way["target_s"] else "MISSED"
        print(f"{name:<16}{way['median_s']:>10.3f}{max(way['seconds']):>10.3f}{way['target_s']:>10.1f}  {verdict}")
    if options.out:
        options.out.write_text(json.dumps({"size": options.size, "ways": ways}, indent=2))


if __name__ == "__main__":
    main()
