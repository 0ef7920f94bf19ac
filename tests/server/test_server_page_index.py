"""The approximate index on the page and in the API: what was measured when it was built, in the browser's words."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from command_server import gapless, succeeded
from page_visits import WIDE, Visit, serving, visits
from small_service import write_collection_of_images

from gapless.search.collection import Collection


@pytest.fixture(scope="module")
def collection(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_collection_of_images(tmp_path_factory.mktemp("page-index"))


@pytest.fixture(scope="module")
def made(collection: Path) -> dict[str, Any]:
    """The report of `gapless index`."""
    words = ("index", collection.parent / "model", "--data", collection.parent / "manifest", "--out", collection)
    printed: dict[str, Any] = json.loads(succeeded(gapless(*words, "--ann", "ivf-flat", "--json")))["index"]
    return printed


@pytest.fixture(scope="module")
def origin(collection: Path, made: dict[str, Any]) -> Iterator[str]:
    yield from serving(collection)


def test_the_report_of_the_build_is_on_the_page_and_in_the_api(
    visit: Visit, collection: Path, made: dict[str, Any]
) -> None:
    assert 0 < made["recall@10"] <= 1
    assert visit.page.request.get(f"{visit.origin}/api/collection").json()["index"] == made
    assert Collection.open(collection).index_report().as_json() == made
    assert f"found {100 * made['recall@10']:.1f} % of the 10 rows" in visit.page.inner_text("#welcome")
    visit.page.click("#tab-map")
    visit.page.wait_for_selector("#map-body:not([hidden])")
    terms, values = (
        visit.page.eval_on_selector_all(f"#index {tag}", "all => all.map(one => one.innerText)") for tag in ("dt", "dd")
    )
    shown = dict(zip(terms, values, strict=True))
    assert (shown["kind"], shown["recall@10"]) == ("ivf-flat", f"{made['recall@10']:.3f}")
    assert (float(shown["recall@10 that was wanted"]), shown["candidates"]) == (
        made["target"],
        f"{made['candidates']} × k",
    )
    assert f"with {made['queries']} rows of the collection" in visit.page.inner_text("#index + p")
    visit.page.locator("#index").scroll_into_view_if_needed()
    visit.shot(f"index-{visit.page.viewport_size['width']}")
    visit.page.select_option("#language", "de")
    assert "Der angenäherte Index" in visit.page.inner_text("aside")


def test_a_collection_that_is_searched_exactly_says_nothing_of_an_index(browser: Any, tmp_path: Path) -> None:
    origin = serving(write_collection_of_images(tmp_path))
    for visit in visits(browser, next(origin), WIDE, "light"):
        assert visit.page.request.get(f"{visit.origin}/api/collection").json()["index"] is None
        assert visit.page.query_selector("#index") is None
        assert "approximate" not in visit.page.inner_text("#welcome")
    next(origin, None)
