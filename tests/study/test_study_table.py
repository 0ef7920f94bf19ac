"""The table says what compare.json says: dashes for what is missing, marks for what is significant, best in bold."""

import math
import shutil
import subprocess
import unicodedata
from pathlib import Path
from typing import Any

import pytest

from gapless.study.renderings import figure_text, figures_to_terminal, latex_escaped, to_latex, to_markdown, to_terminal
from gapless.study.table import Table, columns_for, excludes_zero, paper_table

DISTANCE, COSINE, RECALL = "gap/centroid_distance", "gap/true_pair_cosine", "retrieval/image_to_text/R@10"


def comparison(**changes: Any) -> dict[str, Any]:
    table = {
        "clip": {
            DISTANCE: {"mean": 0.5, "sd": 0.01},
            COSINE: {"mean": 0.2, "sd": 0.0},
            RECALL: {"mean": 0.25, "sd": 0.02},
        },
        "gapless": {
            DISTANCE: {"mean": 0.1, "sd": 0.02},
            COSINE: {"mean": 0.6, "sd": 0.0},
            RECALL: {"mean": 0.3, "sd": 0.1},
        },
    }
    differences = {
        "gapless": {
            DISTANCE: {"value": -0.4, "low": -0.5, "high": -0.3},
            COSINE: {"value": 0.4, "low": -0.1, "high": 0.9},
        }
    }
    whole = {"methods": list(table), "baseline": "clip", "seeds": [0, 1, 2], "n": 1024, "gallery_size": 1024}
    return whole | {"split": "test", "table": table, "differences": differences} | changes


def cell(table: Table, method: str, key: str) -> Any:
    return table.rows[method][[column.key for column in table.columns].index(key)]


def test_means_and_deviations_are_shown_rates_in_percent() -> None:
    table = paper_table(comparison())
    assert cell(table, "clip", DISTANCE).text == "0.500 ±0.010"
    assert cell(table, "clip", RECALL).text == "25.0 ±2.0"


@pytest.mark.parametrize("figure", [None, {"mean": None, "sd": None}, {"mean": math.nan, "sd": 0.0}])
def test_a_missing_figure_is_a_dash_never_zero(figure: Any) -> None:
    broken = comparison()
    broken["table"]["gapless"][RECALL] = figure
    shown = paper_table(broken)
    assert cell(shown, "gapless", RECALL).text == "–"
    assert cell(shown, "gapless", "grouping/v_measure").text == "–"
    assert not cell(shown, "gapless", RECALL).is_best
    assert "– not measured." in shown.notes
    for text in (to_terminal(shown), to_markdown(shown), to_latex(shown)):
        assert "nan" not in text.lower().replace("significant", "")


def test_a_figure_of_zero_is_shown_as_a_number() -> None:
    zero = comparison()
    zero["table"]["gapless"][RECALL] = {"mean": 0.0, "sd": 0.0}
    zero["table"]["gapless"][DISTANCE] = {"mean": 0.0, "sd": 0.0}
    table = paper_table(zero)
    assert cell(table, "gapless", RECALL).text == "0.0 ±0.0"
    assert cell(table, "gapless", DISTANCE).text == "0.000 ±0.000*"
    assert cell(table, "gapless", DISTANCE).is_best, "a distance of 0 is the best one, and not a missing one"


def test_a_value_that_rounds_to_zero_has_no_sign() -> None:
    tiny = comparison()
    tiny["table"]["clip"][COSINE]["mean"] = -0.00001
    assert cell(paper_table(tiny), "clip", COSINE).mean == "0.000"


def test_only_intervals_that_exclude_zero_are_marked() -> None:
    table = paper_table(comparison())
    assert cell(table, "gapless", DISTANCE).is_significant
    assert not cell(table, "gapless", COSINE).is_significant
    assert not cell(table, "gapless", RECALL).is_significant, "no interval, no mark"
    assert not any(entry.is_significant for entry in table.rows["clip"])
    assert any(note.startswith("* the 95 % interval of the difference to clip") for note in table.notes)


@pytest.mark.parametrize("seeds", [[], [0], [0, 1]])
def test_too_few_seeds_claim_nothing(seeds: list[int]) -> None:
    table = paper_table(comparison(seeds=seeds))
    assert not any(entry.is_significant for row in table.rows.values() for entry in row)
    assert "Differences are marked from 3 seeds on." in table.notes
    assert cell(table, "gapless", DISTANCE).difference == "−0.400 [−0.500, −0.300]", "the interval itself stays"


def test_without_significance_there_is_no_legend_for_it() -> None:
    assert not any("interval" in note for note in paper_table(comparison(differences={})).notes)


@pytest.mark.parametrize(
    ("interval", "expected"),
    [
        ({"low": 0.1, "high": 0.2}, True),
        ({"low": -0.2, "high": -0.1}, True),
        ({"low": -0.1, "high": 0.1}, False),
        ({"low": 0.0, "high": 0.1}, False),
        ({"low": None, "high": 0.1}, False),
        ({}, False),
        (None, False),
    ],
)
def test_excluding_zero(interval: Any, expected: bool) -> None:
    assert excludes_zero(interval) is expected


def test_the_best_is_lowest_where_low_is_good_and_highest_elsewhere() -> None:
    table = paper_table(comparison())
    assert [cell(table, method, DISTANCE).is_best for method in ("clip", "gapless")] == [False, True]
    assert [cell(table, method, COSINE).is_best for method in ("clip", "gapless")] == [False, True]


def test_equal_as_printed_means_nobody_is_best() -> None:
    close = comparison()
    close["table"]["clip"][DISTANCE]["mean"] = 0.10004
    close["table"]["gapless"][DISTANCE]["mean"] = 0.10001
    table = paper_table(close)
    assert not any(cell(table, method, DISTANCE).is_best for method in table.rows)


def test_columns_follow_the_paper() -> None:
    keys = [column.key for column in columns_for([])]
    sides = ("image_to_text", "text_to_image", "mean")
    assert keys == [
        "gap/centroid_distance",
        "gap/centroid_distance_unbiased",
        "gap/true_pair_cosine",
        "gap/true_pair_angle_deg",
        *(f"retrieval/{side}/R@{k}" for side in sides for k in (1, 5, 10)),
        "grouping/v_measure",
        "grouping/ami",
        "grouping/knn_accuracy",
    ]


def test_other_modalities_give_other_directions() -> None:
    keys = [column.key for column in columns_for([], ["report", "scan"])]
    assert "retrieval/report_to_scan/R@5" in keys
    assert "retrieval/scan_to_report/R@5" in keys


def test_the_chance_level_stands_in_its_own_row_and_only_where_known() -> None:
    table = paper_table(comparison(random={"grouping/v_measure": 0.02}))
    assert cell(table, "random labels", "grouping/v_measure").text == "2.0"
    assert cell(table, "random labels", DISTANCE).text == ""
    assert "random" not in to_terminal(paper_table(comparison()))


def test_notes_tell_gallery_split_seeds_groups_and_versions() -> None:
    notes = " ".join(paper_table(comparison(data={"groups": 400}, versions={"torch": "2.15.0"})).notes)
    for part in ("split test", "1,024 pairs", "gallery 1,024", "400 groups", "3 seeds (0, 1, 2)", "torch 2.15.0"):
        assert part in notes
    assert "gallery size unknown" in " ".join(paper_table(comparison(gallery_size=None)).notes)


def width(text: str) -> int:
    return sum(2 if unicodedata.east_asian_width(character) in "WF" else 1 for character in text)


@pytest.mark.parametrize("columns", [60, 100, 220])
def test_the_terminal_table_is_aligned_and_no_wider_than_asked(columns: int) -> None:
    wide = comparison()
    wide["methods"] = ["clip", "gapless", "方法"]
    wide["table"]["方法"] = wide["table"]["gapless"]
    table = paper_table(wide)
    table_lines = to_terminal(table, width=columns).removesuffix("\n".join(table.notes)).splitlines()
    assert max(map(width, table_lines)) <= columns
    rows = [line for line in table_lines if line.startswith(("clip", "gapless", "方法")) and "±" in line]
    assert len(rows) % 3 == 0
    for first in range(0, len(rows), 3):
        places = [[width(row[:i]) for i, sign in enumerate(row) if sign == "±"] for row in rows[first : first + 3]]
        assert places[0] == places[1] == places[2]


def test_ascii_terminals_get_ascii_and_stay_aligned() -> None:
    text = to_terminal(paper_table(comparison()), ascii_only=True)
    assert text.isascii()
    rows = [line for line in text.splitlines() if line.startswith(("clip", "gapless")) and "+-" in line]
    assert rows[0].index("+-") == rows[1].index("+-")


def test_markdown_has_as_many_cells_in_every_line_whatever_the_names() -> None:
    odd = comparison(methods=["a|b*c", "gapless"])
    odd["table"]["a|b*c"] = odd["table"].pop("clip")
    lines = [line for line in to_markdown(paper_table(odd)).splitlines() if line.startswith("|")]
    assert len({line.replace("\\|", "").count("|") for line in lines}) == 1
    assert len({line.count("|") for line in lines}) > 1, "the control: the unescaped bar would have broken the table"
    assert "**0.100 ±0.020\\***" in lines[-1]


def test_latex_escapes_and_marks() -> None:
    odd = comparison(methods=["a_b & 100%", "gapless"])
    odd["table"]["a_b & 100%"] = odd["table"].pop("clip")
    latex = to_latex(paper_table(odd))
    assert r"a\_b \& 100\% &" in latex
    assert r"\textbf{0.100}{\scriptsize\,$\pm$0.020}\rlap{$^{*}$}" in latex
    for name in ("toprule", "midrule", "bottomrule", "cmidrule"):
        assert name in latex
    assert latex.count("{") == latex.count("}")


def test_latex_escaping_covers_every_special_character() -> None:
    assert latex_escaped("\\&%$#_{}~^") == (r"\textbackslash{}\&\%\$\#\_\{\}\textasciitilde{}\textasciicircum{}")


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("pdflatex") is None, reason="needs pdflatex")
def test_the_latex_table_compiles_and_fits_the_page(tmp_path: Path) -> None:
    odd = comparison(methods=["a_b & {100%} ~^\\", "gapless"])
    odd["table"]["a_b & {100%} ~^\\"] = odd["table"].pop("clip")
    text = "\\documentclass[twocolumn]{article}\\usepackage{booktabs}\\begin{document}\n" + to_latex(paper_table(odd))
    (tmp_path / "table.tex").write_text(text + "\\end{document}\n", encoding="utf-8")
    command = ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "table.tex"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-2000:]
    assert "Overfull" not in done.stdout


def test_single_figures_are_listed_with_their_intervals() -> None:
    text = figures_to_terminal(
        {"retrieval/mean/R@1": 0.25, "gap/margin": {"value": 0.5, "low": 0.4, "high": 0.6}, "grouping/ami": None}
    )
    assert "gap/margin          0.5000 [0.4000, 0.6000]" in text
    assert text.index("gap/margin") < text.index("grouping/ami") < text.index("retrieval/mean")
    assert figure_text({"mean": 0.5, "sd": 0.1}) == "0.5000 ±0.1000"
    assert figure_text(math.inf) == "–"


def test_columns_are_headed_by_names_and_not_by_keys() -> None:
    labels = [column.label for column in columns_for([])]
    assert labels[-3:] == ["V-measure", "AMI", "kNN"]
    assert labels[:4] == ["distance", "unbiased", "cosine", "angle°"]
    assert "R@10" in labels
