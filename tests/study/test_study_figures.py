"""The drawings: what they show agrees with plain references, their bytes repeat, and nothing global is touched."""

import re
import subprocess
import sys
from itertools import product

import matplotlib
import numpy as np
import pytest
from fake_comparison import embeddings, history

from gapless.study import figures
from gapless.study.drawing import image_bytes, inline_svg
from gapless.study.figures import (
    Panel,
    cosine_figure,
    curve,
    curves_figure,
    curves_present,
    difference_figure,
    difference_parts,
    effect_picture,
    latent_figure,
    pair_cosines,
    plane_limit,
    spread_rows,
)
from gapless.study.table import columns_for


def panel(title: str = "clip") -> Panel:
    return Panel(title, embeddings(1.0, 0.5, num_pairs=40), {"gap/centroid_distance": 1.0, "gap/true_pair_cosine": 0.1})


def test_one_pair_and_collapsed_rows_can_be_drawn() -> None:
    one = {"image": np.ones((1, 1)), "text": -np.ones((1, 1))}
    same = {name: np.ones((5, 3)) / np.sqrt(3) for name in ("image", "text")}
    assert plane_limit([Panel("same", same)]) > 0
    for latent in (one, same):
        assert image_bytes(latent_figure([Panel("x", latent)]), "png")
        assert image_bytes(cosine_figure([Panel("x", latent)]), "png")


def test_cosines_of_pairs_agree_with_plain_loops() -> None:
    latent = {name: embeddings(1.0, 0.5, num_pairs=6, seed=s)["image"] for s, name in enumerate("abc")}
    true, false = [], []
    for a, b in (("a", "b"), ("a", "c"), ("b", "c")):
        for i, j in product(range(6), repeat=2):
            cosine = sum(float(x) * float(y) for x, y in zip(latent[a][i], latent[b][j], strict=True))
            (true if i == j else false).append(cosine)
    ours = pair_cosines(latent)
    np.testing.assert_allclose(ours[0], true, atol=1e-9)
    np.testing.assert_allclose(ours[1], false, atol=1e-9)


def test_drawn_rows_are_spread_and_bounded() -> None:
    assert spread_rows(5).tolist() == [0, 1, 2, 3, 4]
    rows = spread_rows(10_000)
    assert len(rows) == figures.MAX_DRAWN
    assert rows[0] == 0
    assert rows[-1] == 9_999


def test_a_curve_keeps_numbers_only_and_shows_recall_in_percent() -> None:
    records = [{"step": 1, "eval/retrieval/mean/R@10": 0.25}, {"step": 2}, {"eval/retrieval/mean/R@10": 1.0}]
    records.append({"step": 3, "eval/retrieval/mean/R@10": None})
    assert curve(records, "eval/retrieval/mean/R@10") == ([1.0], [25.0])
    assert curves_present({"clip": [records]}) == [], "one step is no curve"


@pytest.mark.parametrize("kind", ["svg", "pdf", "png"])
def test_bytes_repeat(kind: str) -> None:
    first = image_bytes(latent_figure([panel(), panel("gapless")]), kind)
    again = latent_figure([panel(), panel("gapless")])
    assert image_bytes(again, kind) == first
    assert image_bytes(again, kind) == first, "nor may saving a figure change it"
    assert image_bytes(latent_figure([panel(), panel("other")]), kind) != first


def test_no_dates_and_no_program_names_in_the_files() -> None:
    figure = cosine_figure([panel()])
    assert b"<dc:date>" not in image_bytes(figure, "svg")
    assert b"/CreationDate" not in image_bytes(figure, "pdf")
    assert b"Software" not in image_bytes(figure, "png")


def test_an_inline_drawing_has_no_address_and_the_colours_of_the_page() -> None:
    svg = inline_svg(latent_figure([panel()]), 'a "quoted" <text> & more')
    assert svg.startswith('<svg viewBox="')
    assert "http" not in svg
    assert "xmlns" not in svg
    assert "var(--blue)" in svg
    assert "var(--orange)" in svg
    assert 'aria-label="a &quot;quoted&quot; &lt;text&gt; &amp; more"' in svg
    assert not re.search(r"#[0-9a-f]{6}", re.sub(r'(href="#\w+"|url\(#\w+\))', "", svg)), "a colour outside the page's"


@pytest.mark.parametrize("name", ["$\\frac{", "<script>alert(1)</script>", "方法", "a_b^c$x$"])
def test_names_are_drawn_as_they_are(name: str) -> None:
    svg = inline_svg(latent_figure([panel(name)]), name)
    assert "<script" not in svg
    curves_figure({name: [history("clip", 0, dict.fromkeys(figures.EVALUATED_CURVES, 0.5))]})


def test_differences_are_split_by_unit() -> None:
    columns = columns_for([])
    entry = {"value": 0.1, "low": -0.1, "high": 0.3}
    keys = ("gap/centroid_distance", "gap/true_pair_angle_deg", "grouping/ami")
    found = {"gapless": dict.fromkeys(keys, entry) | {"gap/true_pair_cosine": {"value": 1, "low": None, "high": None}}}
    parts = difference_parts(columns, found)
    assert [[column.key for column in part] for part in parts.values()] == [[key] for key in keys]
    figure = difference_figure(columns, found, ["clip", "gapless"], "clip")
    assert len(figure.axes) == 3
    points = [
        line for axes in figure.axes for line in axes.lines if line.get_marker() == "o" and len(line.get_xdata()) == 1
    ]
    assert [float(np.asarray(line.get_xdata())[0]) for line in points] == pytest.approx([0.1, 0.1, 10.0])
    assert all(line.get_markerfacecolor() == "none" for line in points), "an interval around zero is not filled"


def test_the_effect_picture_is_one_wide_picture() -> None:
    picture = image_bytes(effect_picture(panel("clip"), panel("gapless")), "png", dpi=100)
    width, height = (int.from_bytes(picture[start : start + 4], "big") for start in (16, 20))
    assert width == 1100
    assert height < width


def test_settings_of_the_caller_stay_and_pyplot_is_not_loaded() -> None:
    before = dict(matplotlib.rcParams)
    image_bytes(cosine_figure([panel()]), "svg")
    assert dict(matplotlib.rcParams) == before
    code = "import sys, gapless.study.figures, gapless.study.report; sys.exit('matplotlib.pyplot' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
