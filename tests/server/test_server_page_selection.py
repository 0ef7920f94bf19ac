"""Selecting cases on the page, comparing two, the address that holds it all, languages, and axe, in a real browser.

As `page_visits` says, nothing may be written to the console, nothing asked elsewhere, nothing scroll sideways.
"""

import csv
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urldefrag

import pytest
from page_visits import Visit
from small_service import NUM_SAMPLES, open_searcher, served

from gapless.server.words import dictionaries, dictionaries_script

SELECTED = "gapless.selection.ids()"
NUMBER = "#selection-number"


@pytest.fixture(scope="module")
def origin(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    from gapless.server.app import create_app

    with served(create_app(open_searcher(tmp_path_factory.mktemp("page-selection")))) as address:
        yield address


def selected(visit: Visit) -> list[str]:
    found: list[str] = visit.page.evaluate(SELECTED)
    return found


def open_map(visit: Visit) -> dict[str, float]:
    """Opens the map; gives the place of its canvas."""
    visit.page.click("#tab-map")
    visit.page.wait_for_selector("#map-body:not([hidden])")
    visit.page.locator("#plot").scroll_into_view_if_needed()
    box: dict[str, float] = visit.page.locator("#plot").bounding_box()
    return box


def opened(browser: Any, address: str, **context: Any) -> Visit:
    """The page of an address in a browser that has never been there."""
    visit = Visit(browser.new_context(**context).new_page(), urldefrag(address).url.rstrip("/"))
    visit.page.goto(address)
    return visit


# ---- selecting ------------------------------------------------------------------------------------------------------


def test_hits_are_selected_by_box_and_key_and_saved_with_their_ids(visit: Visit) -> None:
    visit.search("knee")
    assert not visit.page.is_visible("#selection")
    visit.page.check(".hit:nth-child(1) .pick input")
    assert visit.page.inner_text(NUMBER) == "1 case selected"
    visit.page.focus(".hit:nth-child(1) .acts button")
    visit.page.keyboard.press("ArrowRight")
    visit.page.keyboard.press("x")
    ids = selected(visit)
    texts = visit.page.eval_on_selector_all(".hit .identity", "all => all.slice(0, 2).map(one => one.textContent)")
    assert ids == list(dict.fromkeys(texts))
    with visit.page.expect_download() as download:
        visit.page.click("#selection-save")
    assert download.value.suggested_filename == "selection.csv"
    with Path(download.value.path()).open(newline="") as stream:
        assert [row["id"] for row in csv.DictReader(stream)] == ids
    visit.page.keyboard.press("Escape")
    visit.page.click("#selection-clear")
    assert selected(visit) == []
    assert not visit.page.locator(".pick input:checked").count()


def test_what_the_selection_shares_is_what_the_service_says(visit: Visit) -> None:
    visit.search("knee")
    for place in (1, 3, 5):
        visit.page.check(f".hit:nth-child({place}) .pick input")
    with visit.page.expect_response("**/api/selection") as answer:
        visit.page.click("#selection-shared")
    found = answer.value.json()
    visit.page.wait_for_selector("#shared-body table")
    shown = visit.page.inner_text("#shared-body")
    assert f"{found['gap']['gap/true_pair_cosine']:.3f}" in shown
    assert found["texts"][0]["caption"] in shown
    first = found["labels"]["view"][0]
    row = visit.page.locator("#shared-body tr", has_text=first["value"]).first.inner_text()
    assert row.split()[-5:-3] == [str(first["count"]), f"{100 * first['share']:.0f}"]
    visit.shot(f"shared-{visit.page.viewport_size['width']}")
    visit.page.keyboard.press("Escape")
    assert not visit.page.is_visible("#shared")


def test_a_lasso_takes_the_marks_inside_and_no_others(wide: Visit) -> None:
    box = open_map(wide)
    middle, low = box["width"] / 2, box["height"] / 2  # the left upper quarter
    inside = wide.page.evaluate(f"gapless.map.idsWhere(({{ x, y }}) => x < {middle} && y < {low})")
    assert 0 < len(inside) < NUM_SAMPLES
    wide.page.click("#lasso")
    corners = [(2, 2), (middle, 2), (middle, low), (2, low), (2, 4)]
    wide.page.mouse.move(box["x"] + 2, box["y"] + 2)
    wide.page.mouse.down()
    for x, y in corners:
        wide.page.mouse.move(box["x"] + x, box["y"] + y)
    wide.page.mouse.up()
    assert set(selected(wide)) == set(inside)
    wide.shot("lasso")
    wide.page.click("#lasso")
    before = wide.page.evaluate("document.getElementById('plot').toDataURL()")
    wide.page.mouse.move(box["x"] + middle, box["y"] + 60)
    wide.page.mouse.down()
    wide.page.mouse.move(box["x"] + middle + 80, box["y"] + 90)
    wide.page.mouse.up()
    assert set(selected(wide)) == set(inside), "without the lasso a drag moves the map"
    assert wide.page.evaluate("document.getElementById('plot').toDataURL()") != before


def test_the_map_selects_by_keys_alone(visit: Visit) -> None:
    open_map(visit)
    visit.page.focus("#plot")
    visit.page.keyboard.press("ArrowRight")
    visit.page.keyboard.press(" ")
    assert len(selected(visit)) == 1
    assert selected(visit)[0] in visit.page.inner_text("#card")
    visit.page.keyboard.press(" ")
    assert selected(visit) == []
    visit.page.focus("#select-view")
    visit.page.keyboard.press("Enter")
    assert len(selected(visit)) == NUM_SAMPLES
    visit.shot(f"map-selected-{visit.page.viewport_size['width']}")


def test_two_cases_stand_side_by_side(visit: Visit) -> None:
    visit.search("knee")
    visit.page.check(".hit:nth-child(1) .pick input")
    assert visit.page.is_disabled("#selection-compare")
    visit.page.locator(".pick input:not(:checked)").nth(4).check()
    ids = selected(visit)
    assert len(ids) == 2
    with visit.page.expect_response("**/api/selection") as answer:
        visit.page.click("#selection-compare")
    cosine = answer.value.json()["within_cosine"]["image"]
    visit.page.wait_for_selector("#case .alike")
    assert visit.page.eval_on_selector_all("#case h3", "all => all.map(one => one.textContent)") == ids
    assert f"cosine of the two {cosine:.3f}" in visit.page.inner_text("#case-items")
    tops = visit.page.eval_on_selector_all("#case .item", "all => all.map(one => one.getBoundingClientRect().top)")
    assert tops[0::2] == tops[1::2], "like stands beside like"
    visit.page.wait_for_load_state("networkidle")
    visit.shot(f"compare-{visit.page.viewport_size['width']}")
    visit.page.keyboard.press("Escape")
    assert not visit.page.is_visible("#case")


def test_tab_reaches_every_control_and_the_bar_hides_none(visit: Visit) -> None:
    visit.search("knee")
    visit.page.check(".hit:nth-child(1) .pick input")
    visit.page.check(".hit:nth-child(5) .pick input")
    number_all = """() => {
        const meant = "button:not(:disabled), select, input, a[href], summary, canvas, [tabindex='0']";
        const seen = [...document.querySelectorAll(meant)].filter((one) => one.checkVisibility() && one.tabIndex >= 0);
        seen.forEach((one, number) => { one.dataset.number = number; });
        document.activeElement.blur();
        return seen.length;
    }"""
    at_focus = """() => {
        const one = document.activeElement, bar = document.getElementById("selection");
        const isHidden = !bar.contains(one) && one.getBoundingClientRect().bottom > bar.getBoundingClientRect().top + 1;
        return [one.dataset.number ?? null, isHidden, one.outerHTML.slice(0, 100)];
    }"""
    for view in ("search", "map"):
        if view == "map":
            open_map(visit)
        count = visit.page.evaluate(number_all)
        reached, hidden = set(), []
        for _ in range(count + 5):
            visit.page.keyboard.press("Tab")
            number, is_hidden, html = visit.page.evaluate(at_focus)
            reached.add(number)
            hidden += [html] if is_hidden and number is not None and "canvas" not in html else []
        assert reached >= {str(number) for number in range(count)}
        assert hidden == []


# ---- the address ----------------------------------------------------------------------------------------------------


def test_a_link_restores_what_was_shown_and_no_server_is_sent_the_words(browser: Any, wide: Visit) -> None:
    asked: list[str] = []
    wide.page.on("request", lambda request: asked.append(unquote(request.url)))
    wide.search("left pleural effusion")
    wide.page.select_option("select[data-label='finding site']", "it's here")
    wide.page.uncheck("#balanced")
    wide.page.select_option("#theme", "dark")
    wide.page.select_option("#language", "fr")
    wide.hits()  # the last answer is shown
    wide.page.check(".hit:nth-child(2) .pick input")
    hits = wide.page.eval_on_selector_all(".hit .identity", "all => all.map(one => one.textContent)")
    ids, address = selected(wide), wide.page.url
    assert not any("effusion" in url for url in asked)
    other = opened(browser, address, color_scheme="light", locale="en-US")
    other.page.on("request", lambda request: asked.append(unquote(request.url)))
    other.page.wait_for_selector(".hit")
    other.hits()
    assert other.page.input_value("#words") == "left pleural effusion"
    assert other.page.input_value("select[data-label='finding site']") == "it's here"
    assert not other.page.is_checked("#balanced")
    assert selected(other) == ids
    assert other.page.eval_on_selector_all(".hit .identity", "all => all.map(one => one.textContent)") == hits
    assert other.page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(20, 23, 26)"
    assert other.page.get_attribute("html", "lang") == "fr"
    assert other.page.inner_text("#tab-map") == "Carte"
    assert other.page.url == address
    assert not any("effusion" in url for url in asked)
    assert other.faults == []
    other.page.context.close()


def test_a_link_to_more_like_this_and_to_the_map(browser: Any, wide: Visit) -> None:
    wide.search("knee")
    with wide.page.expect_response("**/api/search"):
        wide.page.click(".hit:nth-child(2) .acts button")
    hits = wide.hits()
    other = opened(browser, wide.page.url)
    other.page.wait_for_selector(".hit")
    assert "more like" in other.page.inner_text(".chip")
    captions = [re.sub(r"\d+ ms", "", hit) for hit in other.hits()]
    assert captions == [re.sub(r"\d+ ms", "", hit) for hit in hits]
    other.page.goto(f"{wide.origin}/#map")
    other.page.wait_for_selector("#map-body:not([hidden])")
    other.page.context.close()


@pytest.mark.parametrize(
    "fragment",
    [
        "like=nobody/image",
        "modality=smell&label.view=none&label.what=1&k=-7&theme=pink&lang=xx&parts=[1]&weights={&s=nobody",
        "k=99999999999999999999&parts={%22labs%22:{%22age%22:1}}&weights={%22image%22:7}",
        "%E0%A4%A&&&==&q",
        "q=%3Cimg%20src=x%20onerror=alert(1)%3E",
    ],
)
def test_an_address_that_says_nonsense_leaves_a_page_that_works(browser: Any, origin: str, fragment: str) -> None:
    visit = opened(browser, f"{origin}/#{fragment}")
    visit.hits()
    assert len(visit.search("knee")) >= 24
    visit.faults = [fault for fault in visit.faults if "404 (Not Found)" not in fault]  # the browser's note of `like`
    assert visit.faults == []
    visit.page.context.close()


def test_back_goes_to_the_filters_of_then_and_keeps_the_selection(wide: Visit) -> None:
    wide.search("knee")
    with wide.page.expect_response("**/api/search"):
        wide.page.select_option("#modality", "text")
    wide.search("liver")
    with wide.page.expect_response("**/api/search"):
        wide.page.select_option("#modality", "image")
    wide.page.check(".hit:nth-child(1) .pick input")
    wide.page.go_back()
    wide.until("document.querySelector('#words').value === 'knee'")
    wide.hits()
    assert wide.page.input_value("#modality") == "text"
    assert len(selected(wide)) == 1


# ---- languages and access -------------------------------------------------------------------------------------------


def shown_words(page: Any) -> list[str]:
    """Every text and label of the page that people see or hear."""
    found: list[str] = page.evaluate(
        """() => {
            const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
            const texts = [];
            while (walker.nextNode()) {
                if (!walker.currentNode.parentElement.closest("script, noscript, kbd, #language")) {
                    texts.push(walker.currentNode.data);
                }
            }
            const names = ["aria-label", "placeholder", "title", "alt", "aria-roledescription"];
            for (const name of names) {
                for (const one of document.body.querySelectorAll(`[${name}]`)) texts.push(one.getAttribute(name));
            }
            return texts.filter((text) => text.trim());
        }"""
    )
    return found


def outside_of_marks(text: str) -> str:
    """What does not stand in ⟦ ⟧, which may stand in each other."""
    while (shorter := re.sub(r"⟦[^⟦⟧]*⟧", " ", text)) != text:
        text = shorter
    return text


def test_every_word_of_the_page_comes_from_the_dictionary(browser: Any, origin: str) -> None:
    marked = {key: f"⟦{text}⟧" for key, text in dictionaries()["en"].items()}
    script = dictionaries_script().decode() + f"gapless.dictionaries.de = {json.dumps(marked)};\n"
    context = browser.new_context(locale="de-DE", viewport={"width": 1200, "height": 900})
    page = context.new_page()
    page.route("**/static/dictionaries.js", lambda route: route.fulfill(body=script, content_type="text/javascript"))
    visit = Visit(page, origin)
    page.goto(origin)
    data = context.request.get(f"{origin}/api/map").text() + context.request.get(f"{origin}/api/collection").text()
    own = {word.lower() for word in re.findall(r"[A-Za-z]+", data)}
    own |= {
        "gapless",
        "api",
        "openapi",
        "collection",
        "numbers",
        "like",
        "contrast",
    }  # the last two of an example in SQL
    seen = shown_words(page)
    visit.search("knee")
    for place in (1, 5):
        page.locator(".pick input").nth(place).check()
    seen += shown_words(page)
    page.click("#selection-shared")
    page.wait_for_selector("#shared-body table")
    seen += shown_words(page)
    page.keyboard.press("Escape")
    page.click("#selection-compare")
    page.wait_for_selector("#case-items h3")
    seen += shown_words(page)
    page.keyboard.press("Escape")
    page.click(".hit .acts button")
    visit.hits()
    open_map(visit)
    page.focus("#plot")
    page.keyboard.press("ArrowRight")
    seen += shown_words(page)
    context.close()
    leaks = [
        text for text in seen if {word.lower() for word in re.findall(r"[A-Za-z]{2,}", outside_of_marks(text))} - own
    ]
    assert leaks == []
    assert sum("⟦" in text for text in seen) > 100
    assert outside_of_marks("⟦a ⟦b⟧ c⟧ Leak").split() == ["Leak"], "the control"


def axe_script() -> str:
    package = pytest.importorskip("axe_playwright_python", reason="needs axe (pip install axe-playwright-python)")
    return (Path(package.__file__).parent / "axe.min.js").read_text(encoding="utf-8")


def violations(page: Any) -> list[str]:
    """What axe finds against WCAG 2.2 A and AA."""
    tags = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa"]
    found = page.evaluate("(tags) => axe.run(document, { runOnly: { type: 'tag', values: tags } })", tags)
    return [f"{one['id']}: {node['html'][:150]}" for one in found["violations"] for node in one["nodes"]]


@pytest.mark.ci
@pytest.mark.parametrize(
    ("width", "scheme", "language"), [(390, "dark", "fr"), (1440, "light", "de"), (1440, "dark", "en")]
)
def test_axe_finds_nothing_against_wcag_aa(browser: Any, origin: str, width: int, scheme: str, language: str) -> None:
    script = axe_script()
    context = browser.new_context(  # axe writes styles of its own, which the page's policy would stop
        viewport={"width": width, "height": 900}, color_scheme=scheme, bypass_csp=True
    )
    visit = Visit(context.new_page(), origin)
    page = visit.page
    page.goto(f"{origin}/#lang={language}")
    page.evaluate(script)
    assert violations(page) == []
    visit.search("knee")
    for place in (1, 5):
        page.locator(".pick input").nth(place).check()
    visit.shot(f"hits-{language}-{width}-{scheme}")
    assert violations(page) == []
    for opener, ready in (("#selection-shared", "#shared-body table"), ("#selection-compare", "#case-items h3")):
        page.click(opener)
        page.wait_for_selector(ready)
        assert violations(page) == []
        page.keyboard.press("Escape")
    open_map(visit)
    page.focus("#plot")
    page.keyboard.press("ArrowRight")
    assert violations(page) == []
    page.evaluate("document.querySelector('#map').append(document.createElement('input'))")
    assert any(one.startswith("label:") for one in violations(page)), "the control: a field without a label"
    context.close()
    assert visit.faults == []
