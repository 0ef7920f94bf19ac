"""The page in a real browser, on a collection with an age: filters by number, and a note on words that were cut."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import small_service
from page_visits import Visit, serving

AGES = ["7", "70", "9"]  # by sample, in turns; as text "9" is above "60"


@pytest.fixture(scope="module")
def origin(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(small_service, "LABELS", {"age": AGES, "view": ["axial", "coronal"]})
        home = tmp_path_factory.mktemp("page-numbers")
        collection = small_service.write_collection_of_images(home)
    yield from serving(Path(collection))


def test_a_filter_compares_ages_and_the_page_says_which_fields_are_numbers(wide: Visit) -> None:
    wide.search("knee")
    wide.page.click("summary:has-text('More filters')")
    assert "age (numbers)" in wide.page.inner_text(".more")
    assert "view (numbers)" not in wide.page.inner_text(".more")
    with wide.page.expect_response("**/api/search"):
        wide.page.fill("#where", "age > 60")
        wide.page.keyboard.press("Enter")
    assert len(wide.hits()) == 20
    assert all("70" in hit for hit in wide.hits())
    with wide.page.expect_response("**/api/search"):
        wide.page.fill("#where", "")
        wide.page.select_option("select[data-label=age]", "9")
    wide.until("document.querySelectorAll('.hit').length === 20")
    wide.page.fill("#where", "age > 'old'")
    wide.page.keyboard.press("Enter")
    wide.page.wait_for_selector("#status.error")
    assert "age holds numbers, and 'old' is none" in wide.status()
    wide.shot("numbers")
    wide.faults[:] = [fault for fault in wide.faults if "400 (Bad Request)" not in fault]


def test_words_that_are_cut_are_said_beside_the_hits(wide: Visit) -> None:
    assert len(wide.search("effusion " * 60)) == 24
    assert "tokens long: the model read the first 32" in wide.status()
    assert "left out the rest" in wide.status()
    wide.shot("cut")
    wide.search("effusion")
    assert "left out" not in wide.status()
