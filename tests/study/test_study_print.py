"""The report on paper: on A4 no table is cut at the right, nothing is dark, and no row or figure lies on two pages."""

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fake_comparison import write_comparison

from gapless.core.files import write_json
from gapless.study.report import write_report

pytestmark = pytest.mark.slow

MILLIMETRE = 96 / 25.4
PAPER = (210 - 2 * 14) * MILLIMETRE  # pixels between the margins
SHEET = (297 - 2 * 14) * MILLIMETRE
RIGHT_EDGES = """() => Object.fromEntries([...document.querySelectorAll("table, svg, pre.command, dl.facts")]
  .filter(one => one.getClientRects().length)
  .map((one, number) => [`${number} ${one.tagName} ${one.className}`, one.getBoundingClientRect().right]))"""
HEIGHTS = """() => [...document.querySelectorAll(".panels > div, tr")].map(one => one.getBoundingClientRect().height)"""


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A report of long names and many runs, with a digest and a command."""
    path = tmp_path_factory.mktemp("print") / "study"
    path.mkdir()
    written = write_comparison(path, 1)
    others = {f"a method of somebody with a long name {number}": "clip" for number in range(5)}
    for part in ("table", "runs"):
        written[part] |= {name: written[part][method] for name, method in others.items()}
    write_json(path / "compare.json", written | {"methods": [*written["methods"], *others]})
    model = path / "runs/clip-seed0/model"
    model.mkdir()
    (model / "config.json").write_text("{}")
    (model / "model.safetensors").write_bytes(b"weights")
    write_report([path], path.parent / "report.html")
    return f"file://{path.parent / 'report.html'}"


@pytest.fixture(scope="module")
def printed(browser: Any, address: str) -> Any:
    """The page as it is laid out for paper, of a reader whose screen is dark."""
    page = browser.new_page(viewport={"width": int(PAPER), "height": int(SHEET)}, color_scheme="dark")
    page.goto(address)
    page.emulate_media(media="print", color_scheme="dark")
    return page


def test_nothing_is_cut_at_the_right(printed: Any) -> None:
    edges = printed.evaluate(RIGHT_EDGES)
    assert len(edges) > 5
    assert {name: edge for name, edge in edges.items() if edge > PAPER + 1} == {}


def test_without_the_print_styles_a_table_would_be_cut(printed: Any) -> None:
    printed.emulate_media(media="screen")
    edges = printed.evaluate(RIGHT_EDGES)
    printed.emulate_media(media="print", color_scheme="dark")
    assert max(edges.values()) > PAPER + 1


def test_paper_is_white_and_every_drawing_fits_a_sheet(printed: Any) -> None:
    colours = printed.evaluate(
        "() => [getComputedStyle(document.body).backgroundColor, getComputedStyle(document.body).color]"
    )
    assert colours == ["rgb(255, 255, 255)", "rgb(0, 0, 0)"]
    assert max(printed.evaluate(HEIGHTS)) < SHEET
    assert printed.evaluate("() => document.querySelector('.paste').getClientRects().length") == 0


def test_the_pdf_has_few_pages_with_ink_on_each(printed: Any, tmp_path: Path) -> None:
    content = printed.pdf(prefer_css_page_size=True, print_background=True)
    num_pages = len(re.findall(rb"/Type\s*/Page\b", content))
    assert 3 <= num_pages <= 9
    assert re.findall(rb"/MediaBox\s*\[0 0 (\d+)", content)[0] in (b"594", b"595", b"596")
    pdfium = pytest.importorskip("pypdfium2", reason="pages are looked at as pictures with pypdfium2")
    document = pdfium.PdfDocument(content)
    assert len(document) == num_pages
    for number in range(num_pages):
        picture = np.asarray(document[number].render(scale=1).to_pil().convert("L"))
        margin = int(13 / 297 * picture.shape[0])
        assert picture[:, -margin:].min() > 250, f"page {number + 1} has ink in its right margin"
        assert picture.mean() > 200, f"page {number + 1} is dark"
        assert picture.min() < 100, f"page {number + 1} is empty"
