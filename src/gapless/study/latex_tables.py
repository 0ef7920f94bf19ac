"""The tables of a report as LaTeX for a paper: booktabs, every text escaped, to be taken in by `\\input`."""

from collections.abc import Mapping, Sequence
from typing import Any

from gapless.study.choice import ChoiceSection
from gapless.study.disjoint_table import DisjointTable
from gapless.study.method_sources import MethodSource
from gapless.study.picture import file_name
from gapless.study.renderings import latex_escaped, to_latex

PREAMBLE = "% Tables of a gapless report. Needs \\usepackage{booktabs}; take them in with \\input.\n"
ABREAST = 4  # columns of figures with intervals that fit a page of two columns beside each other
SOURCE_COLUMNS = "lp{0.4\\textwidth}p{0.4\\textwidth}"


def latex_tables(sections: Sequence[Mapping[str, Any]]) -> str:
    """All tables of the sections of a report: main table, pairs of modalities, leakage, choices, methods."""
    return PREAMBLE + "".join(f"\n{table}" for section in sections for table in _tables_of(section))


def _tables_of(section: Mapping[str, Any]) -> list[str]:
    name = file_name(section["name"])
    counted = section["multiplicity"]
    tables = [section["latex"]]
    tables += [
        to_latex(table, caption=title, label=f"tab:{name}-{file_name(title)}")
        for title, table in section["pairs"]
        if table.columns
    ]
    if section["disjoint"]:
        tables.append(_disjoint(section["disjoint"], name))
    tables += [_choice(choice, name) for choice in section["choices"]]
    if section["sources"]:
        tables.append(_sources(section["sources"], name))
    remarks = [*(counted.sentences if counted else []), *section["shortfalls"]]
    return tables + ([_comment(remarks)] if remarks else [])


def _comment(sentences: Sequence[str]) -> str:
    """Sentences that belong into the text of a paper, as comments: a line break in one does not end its comment."""
    return "".join(f"% {' '.join(sentence.split())}\n" for sentence in sentences)


def _sources(sources: Sequence[MethodSource], name: str) -> str:
    rows = [["Method", "What it does", "Source"], *([one.name, one.summary, one.source] for one in sources)]
    return simple_table(rows, "The methods and their sources.", f"tab:{name}-methods", SOURCE_COLUMNS)


def _disjoint(table: DisjointTable, name: str) -> str:
    rows = [["Figure", *table.columns], *table.rows]
    return simple_table(rows, " ".join(table.sentences), f"tab:{name}-leakage")


def _choice(choice: ChoiceSection, name: str) -> str:
    return simple_table(choice.rows, f"How {choice.name} was chosen.", f"tab:{name}-choice-{file_name(choice.name)}")


def simple_table(rows: Sequence[Sequence[str]], caption: str, label: str, columns: str | None = None) -> str:
    """A booktabs `table*` of texts; more columns than fit a page go below, under the first column again.

    Args:
        rows: the heading first; a shorter row is filled up with empty cells.
        columns: the argument of `tabular`, for columns that fit beside each other; by default the first column left,
            the others right.
    """
    num_columns = len(rows[0])
    step = num_columns - 1 if columns else ABREAST
    bands = [range(start, min(start + step, num_columns)) for start in range(1, num_columns, step)]
    panels = [_tabular(rows, [0, *band], columns or f"l{'r' * len(band)}") for band in bands]
    head = f"\\begin{{table*}}\n\\centering\\footnotesize\n\\caption{{{latex_escaped(caption)}}}\n\\label{{{label}}}\n"
    return head + "\n\n\\vspace{1ex}\n".join(panels) + "\n\\end{table*}\n"


def _tabular(rows: Sequence[Sequence[str]], indices: Sequence[int], columns: str) -> str:
    lines = [
        " & ".join(latex_escaped(row[index]) if index < len(row) else "" for index in indices) + " \\\\" for row in rows
    ]
    ruled = ["\\toprule", lines[0], "\\midrule", *lines[1:], "\\bottomrule"]
    return "\n".join([f"\\begin{{tabular}}{{{columns}}}", *ruled, "\\end{tabular}"])
