"""One catalogue says what a figure is: every key has an entry, the documents show it, and nothing states it twice."""

import ast
from pathlib import Path

import numpy as np
import pytest

import gapless
from gapless import measure
from gapless.metrics.catalogue import FIGURES, FigureEntry, entry_of, headline_of, label_of, markdown_table

SOURCE = Path(gapless.__file__).parent
DOCS = Path(__file__).parents[2] / "docs"
PAGES = {"modality gap": "figures.md", "retrieval": "figures.md", "mixed search": "figures.md"}
PAGES |= {"grouping": "figures.md", "caption": "captioning.md"}


def rows(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((40, 8))


def measured(num_modalities: int) -> dict[str, object]:
    names = ("image", "text", "ecg")[:num_modalities]
    labels = {"view": ["AP", "PA"] * 20, "side": ["left"] * 10 + ["right"] * 30}
    captions = [f"caption {row // 2}" for row in range(40)]
    return measure({name: rows(seed) for seed, name in enumerate(names)}, labels, captions=captions, num_bootstrap=10)


@pytest.mark.parametrize("num_modalities", [2, 3])
def test_every_key_that_is_measured_has_an_entry_and_lies_in_its_range(num_modalities):
    found = {key: figure for key, figure in measured(num_modalities).items() if "/" in key}
    skipped = ("grouping/random/", "grouping/num_", "grouping/view/", "grouping/side/")
    assert len(found) > 30
    for key, figure in found.items():
        if key.startswith(skipped):
            continue
        entry = entry_of(key)
        assert entry is not None, key
        value = figure.get("value", figure.get("mean")) if isinstance(figure, dict) else figure
        slack = 0.6 if key.startswith("gap/separability_auc") else 1e-9  # below 0.5 is chance
        assert entry.low - slack <= value <= entry.high + slack, key
    assert entry_of("gap/nonsense") is None  # the control: an unknown key has none


@pytest.mark.parametrize(
    ("key", "label"),
    [
        ("gap/centroid_distance", "centroid distance"),
        ("gap/centroid_distance/image-text", "centroid distance (image-text)"),
        ("retrieval/image_to_text/R@10", "R@10, image to text"),
        ("retrieval/mean/R@1", "R@1, mean"),
        ("gap/uniformity/ecg", "uniformity of ecg"),
        ("grouping/view/v_measure", "V-measure (view)"),
        ("nothing/known", "nothing/known"),
    ],
)
def test_a_key_has_one_name_with_what_varies_in_it(key, label):
    assert label_of(key) == label


def test_values_are_shown_in_the_unit_of_the_figure():
    assert FIGURES["retrieval/<direction>/R@<k>"].shown(0.25) == "25.0"
    assert FIGURES["gap/centroid_distance"].shown(0.25) == "0.250"
    assert FIGURES["gap/true_pair_cosine"].shown(-1e-9) == "0.000"
    assert FIGURES["gap/centroid_distance"].shown(float("nan")) == "–"
    assert headline_of("gap/mixing@10") == "mixing (0.5 when closed)"


@pytest.mark.parametrize("family", PAGES)
def test_the_documents_show_the_catalogue(family):
    page = (DOCS / PAGES[family]).read_text(encoding="utf-8")
    table = markdown_table(family)
    assert table in page
    assert table.replace("| high |", "| low |") not in page  # the control: another direction would be seen


def test_every_entry_says_what_it_is():
    families = {entry.family for entry in FIGURES.values()}
    assert families == set(PAGES)
    for entry in FIGURES.values():
        assert entry.meaning, entry.key
        assert entry.low < entry.high, entry.key


def test_only_the_catalogue_states_a_direction():
    """A dictionary or a call with `lower_is_better` or an arrow beside a key would be a second statement of it."""
    stated = []
    for path in SOURCE.rglob("*.py"):
        if path.name in ("catalogue.py", "figure_entries.py", "renderings.py"):  # renderings.py has the ASCII of arrows
            continue
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.keyword) and node.arg in ("lower_is_better", "higher_is_better"):
                stated.append(f"{path.name}: {node.arg}")
            if isinstance(node, ast.Constant) and isinstance(node.value, str) and node.value in ("↑", "↓"):
                stated.append(f"{path.name}: {node.value}")
    assert stated == []


def test_two_figures_cannot_have_one_key():
    entry = FigureEntry("gap/margin", "mine", "", 0.0, 1.0, "higher", "modality gap")
    with pytest.raises(ValueError, match="already"):
        FIGURES.add("gap/margin", entry)
