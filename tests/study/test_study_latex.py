"""LaTeX of a report: what a small reader finds in it is balanced, escaped, and has the cells of the table."""

import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
from fake_comparison import write_comparison

from gapless.core.errors import UsageError
from gapless.manifest.readers.phantom import write_phantom
from gapless.study.latex_tables import ABREAST, simple_table
from gapless.study.report import report

EVIL = "50 % of a_b & {c}\\input{x} #1 $y$ ~ ^"
SPECIAL = re.compile(r"(?<!\\)[#_~^]")


def tabulars(text: str) -> list[tuple[int, list[list[str]]]]:
    """(number of columns, rows of cells) of every tabular; environments and braces must balance."""
    code = "\n".join(line for line in text.splitlines() if not line.startswith("%"))
    assert not re.search(r"(?<!\\)%", code), "a comment would swallow the rest of its line"
    depth = 0
    for mark in re.findall(r"(?<!\\)[{}]", code):
        depth += 1 if mark == "{" else -1
        assert depth >= 0
    assert depth == 0
    opened: list[str] = []
    for kind, name in re.findall(r"\\(begin|end)\{(\w+\*?)\}", code):
        if kind == "begin":
            opened.append(name)
        else:
            assert opened.pop() == name
    assert opened == []
    found = []
    for columns, body in re.findall(r"\\begin\{tabular\}\{((?:[^{}]|\{[^{}]*\})*)\}(.*?)\\end\{tabular\}", code, re.S):
        lines = re.split(r"\\\\\s*\n", re.sub(r"\\(top|mid|bottom)rule|\\cmidrule\(lr\)\{[\d-]+\}", "", body))
        rows = [[cell.strip() for cell in re.split(r"(?<!\\)&", line)] for line in lines if line.strip()]
        found.append((len(re.findall(r"[lrcp]", re.sub(r"\{[^{}]*\}", "", columns))), rows))
    return found


def width(row: list[str]) -> int:
    spans = [re.match(r"\\multicolumn\{(\d+)\}", cell) for cell in row]
    return sum(int(span[1]) if span else 1 for span in spans)


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("latex") / "study_1"
    path.mkdir()
    write_comparison(path, 3)
    return path


@pytest.fixture(scope="module")
def written(study: Path) -> str:
    out = study.parent / "report.tex"
    assert report(study, out=out, format="latex").written == [str(out)]
    return out.read_text(encoding="utf-8")


def test_every_row_has_the_columns_of_its_tabular(written: str) -> None:
    found = tabulars(written)
    assert len(found) == 3
    assert all(width(row) == columns for columns, rows in found for row in rows)
    assert [row[0] for row in found[0][1][2:]] == ["clip", "gapless", "random labels"]
    assert found[-1][1][0] == ["Method", "What it does", "Source"]
    assert len(set(re.findall(r"\\label\{([^}]*)\}", written))) == 2


def test_the_reader_would_notice_a_cell_too_many(written: str) -> None:
    broken = written.replace("gapless & ", "gapless & & ", 1)
    assert any(width(row) != columns for columns, rows in tabulars(broken) for row in rows)


def test_strings_of_users_are_escaped(tmp_path: Path) -> None:
    (tmp_path / "study").mkdir()
    table = {
        EVIL: {"gap/centroid_distance": {"mean": 0.1, "sd": 0.0}},
        "b\nc": {"gap/centroid_distance": {"mean": 0.2}},
    }
    write_comparison(tmp_path / "study", 1, methods=list(table), table=table, runs={}, differences={})
    report(tmp_path / "study", out=tmp_path / "report.tex", format="latex")
    text = (tmp_path / "report.tex").read_text(encoding="utf-8")
    for _, rows in tabulars(text):
        assert not any(SPECIAL.search(row[0]) for row in rows)
    assert "\\input{x}" not in text
    assert r"50 \% of a\_b \& \{c\}\textbackslash{}input\{x\} \#1 \$y\$ \textasciitilde{} \textasciicircum{}" in text


def test_many_columns_go_below_each_other() -> None:
    rows = [["name", *"abcdefghi"], ["x", *"123456789"]]
    panels = tabulars(simple_table(rows, "caption", "tab:x"))
    assert [len(part[1][0]) for part in panels] == [ABREAST + 1, ABREAST + 1, 2]
    assert [row[1:] for _, part in panels for row in part[1:]] == [list("1234"), list("5678"), ["9"]]


def test_the_same_results_give_the_same_bytes(written: str, study: Path, tmp_path: Path) -> None:
    report([study], out=tmp_path / "again.tex", format="latex")
    assert (tmp_path / "again.tex").read_text(encoding="utf-8") == written


@pytest.mark.parametrize(("more", "message"), [({"format": "docx"}, "docx"), ({"data": True}, "tables alone")])
def test_another_format_and_rows_are_refused(study: Path, tmp_path: Path, more: dict[str, Any], message: str) -> None:
    if "data" in more:
        more = {"format": "latex", "data": write_phantom(tmp_path / "data", num_pairs=8, image_size=32)}
    with pytest.raises(UsageError, match=message):
        report(study, out=tmp_path / "x", **more)
    assert not (tmp_path / "x").exists()


@pytest.mark.skipif(shutil.which("pdflatex") is None, reason="needs pdflatex")
def test_pdflatex_takes_it(written: str, tmp_path: Path) -> None:
    (tmp_path / "tables.tex").write_text(written, encoding="utf-8")
    document = (
        "\\documentclass[twocolumn]{article}\\usepackage{booktabs}\\begin{document}\\input{tables}\\end{document}"
    )
    (tmp_path / "paper.tex").write_text(document)
    command = ["pdflatex", "-halt-on-error", "-interaction=nonstopmode", "paper.tex"]
    subprocess.run(command, cwd=tmp_path, check=True, capture_output=True, timeout=120)
    assert (tmp_path / "paper.pdf").stat().st_size > 0
