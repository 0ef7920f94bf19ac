"""The page of a collection of six modalities in a real browser: asking with values, files and several at once; cases.

As `page_visits` says, nothing may be written to the console, nothing asked elsewhere, nothing scroll sideways.
"""

import io
import re
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from page_visits import NARROW, Visit, visits
from small_cases import ecg_of, history_of, labs_of, open_cases, volume_of
from small_service import pixels_of, png_of, served

LABS, ECG, CT = (f"[data-modality={name}]" for name in ("labs", "ecg", "ct"))
MODALITY = "all => all.map(one => one.querySelector('.mark').textContent.slice(2))"


@pytest.fixture(scope="module")
def origin(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of the service, which runs in a thread of this process."""
    from gapless.server.app import create_app

    with served(create_app(open_cases(tmp_path_factory.mktemp("page-cases")), max_upload=1_000_000)) as address:
        yield address


def file_of(name: str, values: np.ndarray) -> dict[str, Any]:
    stream = io.BytesIO()
    np.save(stream, values)
    return {"name": name, "mimeType": "application/octet-stream", "buffer": stream.getvalue()}


def ask_labs(visit: Visit, **values: Any) -> list[str]:
    """Fill the form of the table; each value searches when it is left."""
    if not visit.page.is_visible(f"fieldset{LABS}"):
        visit.page.click(f"button{LABS}")
    for name, value in values.items():
        field = visit.page.locator(f"fieldset{LABS} [data-field={name}]")
        with visit.page.expect_response("**/api/search"):
            if isinstance(value, str):
                field.select_option(value)
            else:
                field.fill(str(value))
                field.press("Tab")
    return visit.hits()


def choose(visit: Visit, place: str, file: Any) -> list[str]:
    with visit.page.expect_response("**/api/search/upload"):
        visit.page.set_input_files(f"input{place}", file)
    return visit.hits()


def only(visit: Visit, modality: str) -> None:
    visit.page.select_option("#modality", modality)


def chips(visit: Visit) -> list[str]:
    found: list[str] = visit.page.eval_on_selector_all(
        ".chip", "all => all.map(one => one.querySelector('.chip-name').innerText)"
    )
    return found


# ---- asking ---------------------------------------------------------------------------------------------------------


def test_values_of_a_table_are_a_query(visit: Visit) -> None:
    only(visit, "labs")
    wanted = labs_of(4)
    hits = ask_labs(visit, age=wanted["age"], hb=wanted["hb"], ward="medicine")
    assert "case 4" in hits[0]
    assert "1.000" in hits[0]
    assert visit.page.inner_text(".chip-text") == "age 28, hb 9.2, ward medicine"
    shown = visit.page.eval_on_selector_all(".hit:first-child .values div", "all => all.map(one => one.textContent)")
    assert shown == ["age28", "hb9.2", "wardmedicine"]
    visit.shot(f"labs-{visit.page.viewport_size['width']}")
    visit.page.click(".chip .remove")
    assert visit.page.input_value(f"fieldset{LABS} [data-field=age]") == ""
    visit.until("document.querySelectorAll('.hit').length === 0")
    assert visit.status() == "Give words, a file or values."


def test_an_uploaded_waveform_is_a_query_and_every_modality_is_named(visit: Visit) -> None:
    hits = choose(visit, ECG, file_of("today.npy", ecg_of(5)))
    assert visit.page.inner_text(".chip").split() == ["ecg", "today.npy", "×"]
    first = next(hit for hit in hits if hit.strip().startswith("▲") or "ecg" in hit)
    assert "case 5" in first
    assert visit.page.locator(".hit .picture.curve img").count() >= 1
    named = visit.page.eval_on_selector_all(".hit", MODALITY)
    assert set(named) <= {"image", "text", "history", "labs", "ecg", "ct"}
    assert len(set(named)) > 1
    only(visit, "ecg")
    assert "1.000" in visit.hits()[0]
    visit.shot(f"ecg-{visit.page.viewport_size['width']}")


def test_the_files_of_a_series_are_chosen_together(wide: Visit) -> None:
    pytest.importorskip("pydicom")
    from dicom_samples import slice_bytes

    only(wide, "ct")
    slices = [slice_bytes(pixels, place) for place, pixels in enumerate(np.rint(volume_of(18)).astype(np.uint16))]
    files = [{"name": f"{n}.dcm", "mimeType": "application/dicom", "buffer": one} for n, one in enumerate(slices)]
    hits = choose(wide, CT, files)
    assert "case 18" in hits[0]
    assert wide.page.inner_text(".chip-text") == "6 files"


def test_two_parts_have_one_slider_between_them(wide: Visit) -> None:
    only(wide, "labs")
    wide.search("left pleural effusion")
    alone = wide.hits()
    wanted = labs_of(6)
    ask_labs(wide, age=wanted["age"])
    assert wide.page.inner_text("#balance").split() == ["words", "labs"]
    assert chips(wide) == ["labs"]
    by_weight = {}
    for weight in ("0", "0.5", "1"):
        with wide.page.expect_response("**/api/search") as sent:
            wide.page.fill("#weight", weight)
        by_weight[weight] = wide.hits()
        asked = sent.value.request.post_data_json
        assert asked["weights"] == {"text": 1 - float(weight), "labs": float(weight)}
        assert asked["parts"] == {"labs": {"age": wanted["age"]}}
    assert by_weight["0"] == alone
    assert by_weight["1"] != alone
    assert wide.page.evaluate("document.activeElement.id") == "weight", "the slider keeps the focus"


def test_three_parts_have_a_weight_each_and_can_be_removed(visit: Visit) -> None:
    visit.search("knee")
    ask_labs(visit, ward="surgery")
    choose(visit, ECG, file_of("a.npy", ecg_of(2)))
    choose(visit, "#file", {"name": "film.png", "mimeType": "image/png", "buffer": png_of(pixels_of(3, 96))})
    assert chips(visit) == ["words", "labs", "ecg", "image"]
    assert not visit.page.is_visible("#balance")
    visit.until("document.querySelector('.chip img').naturalWidth === 96")
    slider = visit.page.locator(".chip[data-part=ecg] input")
    with visit.page.expect_response("**/api/search/upload") as sent:
        slider.focus()
        visit.page.keyboard.press("End")
    weights = re.search(r'"weights":(\{[^}]*\})', sent.value.request.post_data or "")
    assert weights is None or '"ecg":1' in weights[1]
    visit.hits()
    assert slider.evaluate("one => one === document.activeElement")
    visit.shot(f"parts-{visit.page.viewport_size['width']}")
    for name, left in (("words", ["labs", "ecg", "image"]), ("labs", ["ecg", "image"]), ("ecg", ["image"])):
        with visit.page.expect_response("**/api/search/upload"):
            visit.page.click(f".chip[data-part={'text' if name == 'words' else name}] .remove")
        assert chips(visit) == left
    assert visit.page.input_value("#words") == ""


def test_a_dropped_file_goes_to_what_reads_it_or_to_the_button_under_it(wide: Visit) -> None:
    script = """([name, bytes, place]) => {
        const data = new DataTransfer();
        data.items.add(new File([new Uint8Array(bytes)], name));
        const target = document.querySelector(place);
        target.dispatchEvent(new DragEvent("drop", { bubbles: true, cancelable: true, dataTransfer: data }));
    }"""
    volume, signal = file_of("v.npy", volume_of(6))["buffer"], file_of("s.npy", ecg_of(7))["buffer"]
    drops = [
        ("film.png", png_of(pixels_of(2, 96)), "main", "image"),
        ("s.npy", signal, f"label{ECG}", "ecg"),
        ("v.npy", volume, f"label{CT}", "ct"),
    ]
    for name, content, place, modality in drops:
        with wide.page.expect_response("**/api/search/upload") as answer:
            wide.page.evaluate(script, [name, list(content), place])
        assert answer.value.status == 200
        assert chips(wide)[-1] == modality


def test_a_text_of_another_modality_and_the_way_back(wide: Visit) -> None:
    wide.page.click("button[data-modality=history]")
    with wide.page.expect_response("**/api/search"):
        wide.page.fill("[data-modality=history] textarea", history_of(6))
        wide.page.keyboard.press("Tab")
    only(wide, "history")
    assert "case 6" in wide.hits()[0]
    only(wide, "")
    with wide.page.expect_response("**/api/search"):
        wide.page.click("form button[type=submit]")
    with wide.page.expect_response("**/api/search"):
        wide.page.click(".hit:nth-child(2) .acts button")
    assert chips(wide) == ["more like"]
    assert wide.page.input_value("[data-modality=history] textarea") == ""
    wide.page.go_back()
    wide.until("document.querySelector('[data-modality=history] textarea').value.length > 0")
    assert chips(wide) == ["history"]


def test_a_file_that_cannot_be_used_is_said_on_the_page(wide: Visit) -> None:
    broken = {"name": "a.npy", "mimeType": "", "buffer": b"rec 2 100 300\nrec.dat 16\n"}
    with wide.page.expect_response("**/api/search/upload"):
        wide.page.set_input_files(f"input{ECG}", broken)
    wide.page.wait_for_selector("#status.error")
    assert "a record is several files" in wide.status()
    large = {"name": "a.npy", "mimeType": "", "buffer": bytes(2_000_000)}
    wide.page.set_input_files(f"input{CT}", large)
    assert wide.status() == "This ct has 2 MB; 1 MB is the most."
    wide.faults[:] = [fault for fault in wide.faults if "400 (Bad Request)" not in fault]


# ---- cases ----------------------------------------------------------------------------------------------------------


def open_case(visit: Visit, case: int) -> str:
    visit.page.evaluate(f"gapless.openCase('case {case}')")
    visit.page.wait_for_selector("#case .item")
    return str(visit.page.inner_text("#case"))


def test_a_click_on_a_hit_opens_its_case_with_all_that_it_has(visit: Visit) -> None:
    hits = visit.search("left pleural effusion")
    place = next(number for number, hit in enumerate(hits, 1) if "case 0" in hit.splitlines())
    visit.page.click(f".hit:nth-child({place}) .opens")
    visit.page.wait_for_selector("#case .item")
    assert visit.page.inner_text("#case-title") == "case 0"
    named = visit.page.eval_on_selector_all("#case .item", MODALITY)
    assert named == ["ct", "ecg", "history", "image", "labs", "text"]
    visit.until("[...document.querySelectorAll('#case img')].every(one => one.complete && one.naturalWidth > 0)")
    assert visit.page.locator("#case img").count() == 3
    told = visit.page.inner_text("#case")
    assert history_of(0) in told
    assert re.search(r"age\s*20\s*hb\s*–\s*ward\s*surgery", told)
    assert "Not in this case" not in told
    visit.shot(f"case-{visit.page.viewport_size['width']}")
    visit.page.keyboard.press("Escape")
    assert not visit.page.is_visible("#case")


def test_what_a_case_lacks_is_said_and_hostile_text_stays_text(wide: Visit) -> None:
    told = open_case(wide, 9)
    assert "Not in this case: ct, ecg." in told
    assert "<img src=x onerror=alert(1)> </script>" in told
    assert wide.page.locator("#case-items img").count() == 1, "the picture of the case alone"


def test_a_case_is_reached_by_keys_and_gives_the_focus_back(wide: Visit) -> None:
    wide.search("knee")
    wide.page.focus(".hit:first-child button")
    wide.page.keyboard.press("Tab")
    assert wide.page.evaluate("document.activeElement.innerText") == "Whole case"
    outline = wide.page.evaluate("getComputedStyle(document.activeElement).outlineWidth")
    assert float(outline.removesuffix("px")) >= 2
    wide.page.keyboard.press("Enter")
    wide.page.wait_for_selector("#case .item")
    assert wide.page.evaluate("document.activeElement.id") == "case-close"
    wide.page.keyboard.press("Escape")
    assert wide.page.evaluate("document.activeElement.innerText") == "Whole case"


def test_more_like_a_part_of_a_case(wide: Visit) -> None:
    open_case(wide, 0)
    with wide.page.expect_response("**/api/search") as sent:
        wide.page.click("#case .item:nth-child(2) button")
    assert sent.value.request.post_data_json["like"] == "case 0/ecg"
    assert not wide.page.is_visible("#case")
    assert "case 0" not in [line for hit in wide.hits() for line in hit.splitlines() if "▲ ecg" in hit]


def test_a_case_that_is_gone_is_said(wide: Visit) -> None:
    wide.page.evaluate("gapless.openCase('gone')")
    wide.page.wait_for_selector("#case-status.error")
    assert wide.page.inner_text("#case-status") == "there is no such case in the collection"
    wide.page.click("#case-close")
    wide.faults[:] = [fault for fault in wide.faults if "404 (Not Found)" not in fault]


def test_all_that_is_new_stands_out_in_both_schemes(browser: Any, origin: str) -> None:
    luminance = """one => {
        const part = (value) => (value <= 0.03928 ? value / 12.92 : ((value + 0.055) / 1.055) ** 2.4);
        const of = (text) => {
            const [r, g, b] = text.match(/[0-9.]+/g).map((value) => part(value / 255));
            return 0.2126 * r + 0.7152 * g + 0.0722 * b;
        };
        let under = one;
        while (getComputedStyle(under).backgroundColor.endsWith(", 0)")) under = under.parentElement;
        return [of(getComputedStyle(one).color), of(getComputedStyle(under).backgroundColor)];
    }"""
    for scheme in ("light", "dark"):
        for visit in visits(browser, origin, NARROW, scheme):
            visit.search("knee")
            ask_labs(visit, ward="medicine")
            choose(visit, ECG, file_of("a.npy", ecg_of(2)))
            selectors = [".adds .button", ".chip-name", ".chip-text", ".chip .weight", ".panel label", ".panel legend"]
            selectors += [".values dt", ".values dd", ".hit .acts button", ".hit .caption"]
            for selector in selectors:
                high, low = sorted(visit.page.eval_on_selector(selector, luminance), reverse=True)
                assert (high + 0.05) / (low + 0.05) > 4.5, (scheme, selector)
            open_case(visit, 9)
            for selector in (
                "#case-title",
                "#case .tags",
                ".item .line",
                ".item .quote",
                ".item button",
                "#case-status",
            ):
                high, low = sorted(visit.page.eval_on_selector(selector, luminance), reverse=True)
                assert (high + 0.05) / (low + 0.05) > 4.5, (scheme, selector)
