"""The page's switch "balanced": on where everything is shown, off at will, without meaning inside one modality."""

from collections.abc import Iterator
from itertools import product

import pytest
from page_visits import NARROW, WIDE, Visit, serving
from small_service import write_collection_of_images


@pytest.fixture(scope="module")
def origin(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    yield from serving(write_collection_of_images(tmp_path_factory.mktemp("page-balanced")))


def scores(visit: Visit) -> list[float]:
    found: list[float] = visit.page.eval_on_selector_all(
        ".hit .score", "all => all.map(one => Number(one.textContent))"
    )
    return found


@pytest.mark.parametrize("visit", [*product((NARROW, WIDE), ("light", "dark"))], ids=str, indirect=True)
def test_the_switch_says_what_it_does_and_each_hit_has_both_numbers(visit: Visit) -> None:
    dark = visit.page.evaluate("matchMedia('(prefers-color-scheme: dark)').matches")
    name = f"balanced-{visit.page.viewport_size['width']}-{'dark' if dark else 'light'}"
    assert visit.page.is_checked("#balanced")
    assert "usual for its kind" in visit.page.inner_text("#welcome")
    visit.shot(f"start-{name}")
    hits = visit.search("left pleural effusion")
    assert "24 nearest, by balanced score" in visit.status()
    assert all("cosine " in hit and ("image" in hit or "text" in hit) for hit in hits)
    assert scores(visit) == sorted(scores(visit), reverse=True)
    visit.shot(f"on-{name}")
    with visit.page.expect_response("**/api/search"):
        visit.page.uncheck("#balanced")
    hits = visit.hits()
    assert "24 nearest, by cosine" in visit.status()
    assert not any("cosine " in hit for hit in hits)
    assert scores(visit) == sorted(scores(visit), reverse=True)
    visit.shot(f"off-{name}")
    with visit.page.expect_response("**/api/search"):
        visit.page.select_option("#modality", "image")
    assert visit.page.is_disabled("#balanced")
    visit.hits()
    assert "by cosine" in visit.status()
