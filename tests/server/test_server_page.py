"""The page in a real browser: search, upload, paste, filters, keys, map; light and dark, narrow and wide.

Every test also requires that nothing was written to the console and that no other host was asked for anything.
"""

from collections.abc import Iterator
from itertools import product
from typing import Any
from urllib.parse import urldefrag

import pytest
from page_visits import NARROW, WIDE, Visit, serving, visits
from small_service import NUM_SAMPLES, caption_of, pixels_of, png_of, write_collection_of_images


@pytest.fixture(scope="module")
def origin(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    yield from serving(write_collection_of_images(tmp_path_factory.mktemp("page")))


def test_the_watch_sees_a_request_elsewhere_and_an_error(browser: Any, origin: str) -> None:
    context = browser.new_context(bypass_csp=True)
    visit = Visit(context.new_page(), origin)
    visit.page.goto(origin)
    visit.page.evaluate("fetch('http://localhost:1/').catch(() => 0)")
    visit.page.evaluate("setTimeout(() => { throw new Error('x') })")
    visit.page.wait_for_timeout(100)
    context.close()
    assert any("request to http://localhost:1/" in fault for fault in visit.faults)
    assert any("error: " in fault for fault in visit.faults)


@pytest.mark.parametrize(
    "violation",
    [
        "document.body.append(Object.assign(document.createElement('script'), { textContent: 'window.ran = 1' }))",
        "document.body.setAttribute('style', 'color: red')",
        "document.body.append(Object.assign(new Image(), { src: 'https://localhost:1/x.png' }))",
        "fetch('https://localhost:1/').catch(() => 0)",
        "setTimeout('window.ran = 1')",
    ],
)
def test_the_policy_stops_what_a_hostile_caption_would_try_and_the_watch_sees_it(
    browser: Any, origin: str, violation: str
) -> None:
    context = browser.new_context()
    visit = Visit(context.new_page(), origin)
    visit.page.goto(origin)
    visit.page.evaluate(violation)
    visit.page.wait_for_timeout(100)
    ran = visit.page.evaluate("window.ran")
    context.close()
    assert ran is None
    assert any("Content Security Policy" in fault for fault in visit.faults), visit.faults


def test_words_find_rows_with_captions_scores_and_pictures(visit: Visit) -> None:
    assert "Research use, not for diagnosis" in visit.page.inner_text("header")
    visit.shot(f"start-{visit.page.viewport_size['width']}")
    hits = visit.search("left pleural effusion")
    assert len(hits) == 24
    assert "24 nearest, by balanced score" in visit.status()
    captions = {caption_of(sample) for sample in range(NUM_SAMPLES)}
    scores = visit.page.eval_on_selector_all(".hit .score", "all => all.map(one => Number(one.textContent))")
    assert scores == sorted(scores, reverse=True)
    assert all(any(caption in hit for caption in captions) for hit in hits)
    visit.page.wait_for_load_state("networkidle")
    shown = "all => all.filter(one => one.complete).every(one => one.naturalWidth === 24)"
    assert visit.page.eval_on_selector_all(".hit img", shown)
    visit.shot(f"search-{visit.page.viewport_size['width']}")
    visit.page.click("#further")
    visit.page.wait_for_selector(".hit:nth-child(48)")
    assert visit.page.evaluate("document.activeElement.closest('.hit') === document.querySelectorAll('.hit')[24]")
    address, fragment = urldefrag(visit.page.url)
    assert (address, "effusion" in fragment) == (f"{visit.origin}/", True), "no server is sent a fragment"


def test_an_uploaded_image_finds_itself_and_mixes_with_words(visit: Visit) -> None:
    png = {"name": "study.png", "mimeType": "image/png", "buffer": png_of(pixels_of(9))}
    visit.page.select_option("#modality", "image")
    visit.page.set_input_files("#file", png)
    visit.page.wait_for_selector(".hit")
    assert caption_of(9) in visit.hits()[0]
    assert "1.000" in visit.hits()[0]
    assert visit.page.inner_text(".chip-text") == "study.png"
    assert not visit.page.is_visible("#balance")
    visit.page.fill("#words", "knee")
    assert visit.page.is_visible("#balance")
    first = {}
    for weight in ("0", "1"):  # words alone, image alone
        with visit.page.expect_response("**/api/search/upload"):
            visit.page.fill("#weight", weight)
        first[weight] = visit.hits()[0]
    assert "1.000" in first["1"]
    assert "1.000" not in first["0"]
    visit.shot(f"image-{visit.page.viewport_size['width']}")
    visit.page.click(".chip .remove")
    assert not visit.page.is_visible("#chips")


def test_images_that_cannot_be_used_are_said_on_the_page(wide: Visit) -> None:
    large = {"name": "x.png", "mimeType": "image/png", "buffer": bytes(2_000_000)}
    wide.page.set_input_files("#file", large)
    assert wide.status() == "This image has 2 MB; 1 MB is the most."
    broken = {"name": "x.png", "mimeType": "image/png", "buffer": b"broken"}
    with wide.page.expect_response("**/api/search/upload") as answer:
        wide.page.set_input_files("#file", broken)
    assert answer.value.status == 400
    wide.page.wait_for_selector("#status.error")
    assert wide.status() == "unreadable image (not an image of an allowed format)"
    told = [fault for fault in wide.faults if "400 (Bad Request)" in fault]
    assert told, "the browser itself notes the refusal"
    wide.faults[:] = [fault for fault in wide.faults if fault not in told]


def test_a_pasted_and_a_dropped_image_search(wide: Visit) -> None:
    script = """([name, bytes]) => {
        const data = new DataTransfer();
        data.items.add(new File([new Uint8Array(bytes)], "x.png", { type: "image/png" }));
        const given = { bubbles: true, cancelable: true };
        dispatchEvent(name === "paste"
            ? new ClipboardEvent(name, { ...given, clipboardData: data })
            : new DragEvent(name, { ...given, dataTransfer: data }));
    }"""
    wide.page.select_option("#modality", "image")
    for name, sample in (("paste", 4), ("drop", 5)):
        with wide.page.expect_response("**/api/search/upload"):
            wide.page.evaluate(script, [name, list(png_of(pixels_of(sample)))])
        wide.until(f"document.querySelector('.hit')?.innerText.includes('study {sample}')")
        assert caption_of(sample) in wide.hits()[0]


def test_more_like_this_and_the_way_back(visit: Visit) -> None:
    first = visit.search("knee")
    with visit.page.expect_response("**/api/search") as sent:
        visit.page.click(".hit:nth-child(2) .acts button")
    assert '"like":' in sent.value.request.post_data
    assert "more like" in visit.page.inner_text(".chip")
    assert visit.page.input_value("#words") == ""
    assert visit.hits() != first
    visit.page.go_back()
    visit.until("document.querySelector('#words').value === 'knee'")
    assert visit.hits() == first
    assert not visit.page.is_visible("#chips")


def test_filters_narrow_what_is_found(visit: Visit) -> None:
    visit.search("knee")
    with visit.page.expect_response("**/api/search"):
        visit.page.select_option("select[data-label=modality_type]", "CT")
    assert len(visit.hits()) == 20
    assert all("CT" in hit for hit in visit.hits())
    with visit.page.expect_response("**/api/search"):
        visit.page.select_option("select[data-label='finding site']", "it's here")
    found = visit.hits()
    assert all("it's here" in hit for hit in found)
    assert not visit.page.is_visible("select[data-label=view]"), "a fourth label would push the results off a phone"
    visit.page.click("summary:has-text('More filters')")
    with visit.page.expect_response("**/api/search"):
        visit.page.select_option("select[data-label=view]", "axial")
    assert {hit for hit in found if "axial" in hit} == set(visit.hits()) != set(found)
    with visit.page.expect_response("**/api/search"):
        visit.page.fill("#where", "split = 'train'")
        visit.page.keyboard.press("Enter")
    visit.until("document.querySelector('#status').innerText.startsWith('Nothing')")
    with visit.page.expect_response("**/api/search"):
        visit.page.click("#clear")
    assert len(visit.hits()) == 24
    visit.page.fill("#where", "smell = 'x'")
    visit.page.keyboard.press("Enter")
    visit.page.wait_for_selector("#status.error")
    assert "unknown field 'smell'" in visit.status()
    visit.faults[:] = [fault for fault in visit.faults if "400 (Bad Request)" not in fault]


def test_everything_is_reached_by_keys(wide: Visit) -> None:
    focused = "[...document.querySelectorAll('.hit')].indexOf(document.activeElement.closest('.hit'))"
    assert wide.page.evaluate("document.activeElement.id") == "words", "the box is ready to type in"
    wide.page.focus("#tab-search")
    wide.page.evaluate("document.activeElement.blur()")
    wide.page.keyboard.press("/")
    assert wide.page.evaluate("document.activeElement.id") == "words"
    wide.page.keyboard.type("liver cyst")
    wide.page.keyboard.press("Enter")
    wide.page.wait_for_selector(".hit")
    wide.page.focus(".hit:first-child button")
    for key, place in (("ArrowRight", 1), ("ArrowRight", 2), ("ArrowLeft", 1)):
        wide.page.keyboard.press(key)
        assert wide.page.evaluate(focused) == place
    wide.page.keyboard.press("ArrowDown")
    assert wide.page.evaluate(focused) > 2
    with wide.page.expect_response("**/api/search"):
        wide.page.keyboard.press("Enter")
    wide.until("document.activeElement.id === 'results'")
    wide.page.focus("#tab-search")
    wide.page.keyboard.press("ArrowRight")
    assert wide.page.evaluate("document.activeElement.id") == "tab-map"
    wide.page.wait_for_selector("#map-body:not([hidden])")


def test_the_map_shows_a_pair_under_the_pointer_and_under_the_keys(visit: Visit) -> None:
    visit.page.click("#tab-map")
    visit.page.wait_for_selector("#map-body:not([hidden])")
    assert "centroid distance" in visit.page.inner_text("#headlines")
    assert f"all {NUM_SAMPLES} pairs" in visit.page.inner_text("#map-facts")
    assert visit.page.inner_text("#legend").split() == ["●", "image", "▲", "text"]
    visit.page.focus("#plot")
    visit.page.keyboard.press("ArrowRight")
    first = visit.page.inner_text("#card")
    assert any(caption_of(sample) in first for sample in range(NUM_SAMPLES))
    assert visit.page.wait_for_selector("#card img").evaluate("one => one.decode().then(() => one.naturalWidth)") == 24
    for key in ("ArrowRight", "ArrowLeft", "ArrowUp", "ArrowDown", "+", "-", "0"):
        visit.page.keyboard.press(key)
    box = visit.page.locator("#plot").bounding_box()
    seen = set()
    for step in range(40):
        for row in (0.35, 0.5, 0.65):
            visit.page.mouse.move(box["x"] + box["width"] * (0.1 + 0.02 * step), box["y"] + box["height"] * row)
        seen.add(visit.page.inner_text("#card"))
    assert len(seen) > 3
    visit.page.select_option("#colour-by", "modality_type")
    assert "CT" in visit.page.inner_text("#legend")
    before = visit.page.evaluate("document.getElementById('plot').toDataURL()")
    visit.page.uncheck("#joined")
    assert visit.page.evaluate("document.getElementById('plot').toDataURL()") != before
    visit.shot(f"map-{visit.page.viewport_size['width']}")
    with visit.page.expect_response("**/api/search"):
        visit.page.click("#card button")
    visit.page.wait_for_selector(".hit")
    assert visit.page.is_visible("#search")


def test_the_schemes_differ_and_the_text_stands_out(browser: Any, origin: str) -> None:
    def luminance(colour: str) -> float:
        parts = [int(part) / 255 for part in colour.removeprefix("rgb(").removesuffix(")").split(",")]
        linear = [part / 12.92 if part <= 0.03928 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    papers = {}
    for scheme, width in product(("light", "dark"), (NARROW, WIDE)):
        for visit in visits(browser, origin, width, scheme):
            visit.search("knee")
            paper = visit.page.eval_on_selector("body", "one => getComputedStyle(one).backgroundColor")
            papers[scheme] = luminance(paper)
            for selector in ("#status", ".hit .tags", ".hit .line", ".research", ".hit .acts button"):
                ink = luminance(visit.page.eval_on_selector(selector, "one => getComputedStyle(one).color"))
                high, low = max(ink, papers[scheme]), min(ink, papers[scheme])
                assert (high + 0.05) / (low + 0.05) > 4.5, (scheme, selector)
    assert papers["light"] > 0.9
    assert papers["dark"] < 0.05
