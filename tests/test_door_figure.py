"""A figure of another package: one entry with its function, and it is measured, printed, compared and carded."""

import json

import numpy as np
import pytest


@pytest.fixture
def arrays(tmp_path):
    random = np.random.default_rng(0)
    image = random.standard_normal((60, 8))
    text = image + 2.0 * random.standard_normal((60, 8))
    np.save(tmp_path / "image.npy", image)
    np.save(tmp_path / "text.npy", text)
    return tmp_path, float(((image * text).sum(axis=1) > 0).mean())


@pytest.mark.ci  # a package from outside, installed and used in processes of its own
def test_the_command_measures_a_figure_of_another_package(outside_site, arrays):
    folder, expected = arrays
    words = ("measure", "--image", folder / "image.npy", "--text", folder / "text.npy", "--num_bootstrap", 50)
    done = outside_site.gapless(*words, "--json")
    assert done.returncode == 0, done.stderr
    figure = json.loads(done.stdout)["figures"]["gap/outside"]
    assert figure["value"] == pytest.approx(expected)
    assert figure["low"] < expected < figure["high"]
    shown = outside_site.gapless(*words).stdout
    assert "gap/outside" in shown
    assert "1 when closed" in next(line for line in shown.splitlines() if line.startswith("gap/outside"))


def test_tables_and_names_read_its_entry(outside_site):
    code = """
from gapless.metrics.catalogue import label_of
from gapless.study.table import paper_table
table = {"a": {"gap/outside": {"mean": 0.5, "sd": 0.1}}, "b": {"gap/outside": {"mean": 0.25, "sd": 0.1}}}
shown = paper_table({"methods": ["a", "b"], "table": table, "seeds": [0]})
column = [c.key for c in shown.columns].index("gap/outside")
cells = [shown.rows[method][column] for method in "ab"]
print(label_of("gap/outside"), shown.columns[column].arrow, [(cell.mean, cell.is_best) for cell in cells])
"""
    done = outside_site.python("-X", "utf8", "-c", code)
    assert done.stdout.strip() == "acute true pairs ↑ [('50.0', True), ('25.0', False)]", done.stderr


def test_without_the_package_nothing_knows_it():
    from gapless.metrics.catalogue import FIGURES, label_of

    assert "gap/outside" not in FIGURES  # the control: the figure comes from the outside package alone
    assert label_of("gap/outside") == "gap/outside"
