"""Renders the table as text for a terminal, as Markdown and as LaTeX."""

import math
import unicodedata
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from gapless.metrics.catalogue import entry_of
from gapless.study.table import Cell, Table, number_of

ASCII = {"±": "+-", "→": "->", "°": " deg", "↓": "", "↑": "", "–": "-", "─": "-"}


def to_ascii(text: str) -> str:
    """The text in ASCII, for terminals that show nothing else."""
    for character, plain in ASCII.items():
        text = text.replace(character, plain)
    return text.encode("ascii", "replace").decode()


def _printed_width(text: str) -> int:
    """Columns a text takes on a terminal: wide characters take two, combining marks none."""
    return sum(
        0 if unicodedata.combining(character) else 2 if unicodedata.east_asian_width(character) in "WF" else 1
        for character in text
    )


def _padded(text: str, width: int) -> str:
    return text + " " * (width - _printed_width(text))


def to_terminal(table: Table, width: int = 100, ascii_only: bool = False) -> str:
    """Aligned text, at most `width` columns wide where that is possible: groups of columns that do not fit go below."""
    say = to_ascii if ascii_only else str
    name_width = max(_printed_width(say(name)) for name in [*table.rows, "method"])
    lines: list[str] = []
    for indices in bands(table, width - name_width, say):
        names = table.names_of(indices)
        groups = [
            _group_lines(table, heading, column_indices, names, say)
            for heading, column_indices in table.groups()
            if column_indices[0] in indices
        ]
        left = [_padded(say(name), name_width) for name in ["", "method", *names]]
        body = ["  ".join(parts).rstrip() for parts in zip(left, *groups, strict=True)]
        lines += [*body[:2], say("─") * max(map(_printed_width, body)), *body[2:], ""]
    return "\n".join([*lines, *map(say, table.notes)])


def pairs_to_terminal(tables: Sequence[tuple[str, Table]], width: int = 100, ascii_only: bool = False) -> str:
    """The tables of pairs of modalities below each other, each under its title; empty without any."""
    say = to_ascii if ascii_only else str
    parts = []
    for title, table in tables:
        body = to_terminal(table, width, ascii_only) if table.columns else ""
        parts += [say(title), body.rstrip("\n"), ""] if body else [say(title), ""]
    return "\n".join(parts)


def bands(table: Table, width: int, say: Callable[[str], str]) -> list[list[int]]:
    """The columns in bands of whole groups that fit into the width beside each other."""
    column_bands: list[list[int]] = []
    left = 0
    for heading, indices in table.groups():
        needed = 2 + _printed_width(_group_lines(table, heading, indices, list(table.rows), say)[0])
        if not column_bands or needed > left:
            column_bands.append([])
            left = width
        column_bands[-1] += indices
        left -= needed
    return column_bands


def _group_lines(
    table: Table, heading: str, indices: Sequence[int], names: Sequence[str], say: Callable[[str], str]
) -> list[str]:
    """A group of columns as lines of one width: heading, labels, a line for each row."""
    columns = []
    for index in indices:
        lines = [say(table.columns[index].label + table.columns[index].arrow)]
        lines += _aligned([table.rows[name][index] for name in names], say)
        columns.append([_padded(line, max(map(_printed_width, lines))) for line in lines])
    joined = ["  ".join(parts) for parts in zip(*columns, strict=True)]
    width = max(_printed_width(joined[0]), _printed_width(say(heading)))
    return [_padded(line, width) for line in [say(heading), *joined]]


def _aligned(cells: Sequence[Cell], say: Callable[[str], str]) -> list[str]:
    """The cells of a column as text, padded so that means, deviations and marks each line up."""
    mean_width = max((len(entry.mean) for entry in cells), default=0)
    sd_width = max((len(entry.sd) for entry in cells), default=0)
    texts = []
    for entry in cells:
        sd = f" ±{entry.sd:>{sd_width}}" if entry.sd else " " * (sd_width + 2) * bool(sd_width)
        texts.append(say(f"{entry.mean:>{mean_width}}{sd}{'*' if entry.is_significant else ' '}"))
    return texts


def counts_to_terminal(results: Mapping[str, Any]) -> str:
    """How many pairs the figures are of; where rows lack modalities, how many have each, and those of every pair."""
    split = f"split {results['split']}"
    lines = (
        [f"{results['n']:,} pairs, gallery {results['gallery_size']:,}, {split}"] if not results.get("pairs") else []
    )
    if not lines:
        present = ", ".join(f"{name} {count:,}" for name, count in results["present"].items())
        lines = [f"{results['n']:,} rows with two modalities or more, {split} ({present})"]
    named = {**results.get("pairs", {}), **({"complete rows": results["complete"]} if results.get("complete") else {})}
    named |= results.get("joint", {})
    width = max(map(len, named), default=0)
    for name, one in named.items():
        left_out = f": left out, {one['left_out']}" if "left_out" in one else f", gallery {one['gallery_size']:,}"
        lines.append(f"  {name:<{width}}  {one['n']:,}{left_out}")
    return "\n".join(lines)


def figures_to_terminal(figures: Mapping[str, Any], ascii_only: bool = False) -> str:
    """Every figure of one model on its own line with which way is better, families apart, intervals beside."""
    say = to_ascii if ascii_only else str
    width = max((len(key) for key in figures), default=0)
    texts = {key: figure_text(figure) for key, figure in figures.items()}
    text_width = max(map(len, texts.values()), default=0)
    lines, family = [], None
    for key in sorted(figures):
        if family is not None and key.split("/")[0] != family:
            lines.append("")
        family = key.split("/")[0]
        entry = entry_of(key)
        hint = entry.hint if entry is not None else ""
        lines.append(say(f"{key:<{width}}  {texts[key]:<{text_width}}  {hint}").rstrip())
    return "\n".join(lines)


def verdict_to_terminal(verdict: Mapping[str, Any], ascii_only: bool = False) -> str:
    """The three sentences of a verdict and, where it was asked for, the table of what closing would bring."""
    lines = [sentence["text"] for sentence in verdict["sentences"].values()]
    for method, figures in verdict.get("prediction", {}).items():
        lines += ["", f"predicted on held-out groups, --method {method}"]
        if "reason" in figures:
            lines.append(f"  {figures['reason']}")
            continue
        for key, one in figures.items():
            interval = {name: one[name] for name in ("low", "high")} | {"value": one["after"]}
            lines.append(f"  {key:<32} {figure_text(one['before']):>8} -> {figure_text(interval)}")
    if verdict.get("prediction") == {}:
        lines += ["", "there are too few groups to hold any out, so nothing is predicted"]
    text = "\n".join(lines)
    return to_ascii(text) if ascii_only else text


def figure_text(figure: Any) -> str:
    """A figure as text in any of its forms (number, over seeds, with an interval); a dash when there is none."""
    number = number_of(figure)
    if number is None or not math.isfinite(number):
        return "–"
    text = f"{number:.4g}" if abs(number) >= 1000 else f"{number:.4f}"
    if isinstance(figure, Mapping) and figure.get("sd") is not None:
        text += f" ±{figure['sd']:.4f}"
    if isinstance(figure, Mapping) and figure.get("low") is not None and figure.get("high") is not None:
        text += f" [{figure['low']:.4f}, {figure['high']:.4f}]"
    return text


def to_markdown(table: Table) -> str:
    """One Markdown table, best in bold, notes below."""

    def escaped(text: str) -> str:
        return text.replace("\\", "\\\\").replace("|", "\\|").replace("*", "\\*").replace("\n", " ")

    header = [f"{column.short_name}{' %' * column.percent} {column.arrow}" for column in table.columns]
    lines = [["method", *header], ["---", *["---:"] * len(header)]]
    for name, row in table.rows.items():
        texts = [f"**{escaped(entry.text)}**" if entry.is_best else escaped(entry.text) for entry in row]
        lines.append([escaped(name), *texts])
    body = "\n".join(f"| {' | '.join(line)} |" for line in lines)
    return body + "\n\n" + "  \n".join(escaped(note) for note in table.notes) + "\n"


CAPTION = "The modality gap, retrieval and grouping of each method."
LATEX_ESCAPES = {
    "\\": r"\textbackslash{}",
    **{character: f"\\{character}" for character in "&%$#_{}"},
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "→": r"$\rightarrow$",
    "↓": r"$\downarrow$",
    "↑": r"$\uparrow$",
    "±": r"$\pm$",
    "°": r"$^\circ$",
    "–": "--",
    "−": "$-$",
    "×": r"$\times$",
    "≤": r"$\leq$",
    "≥": r"$\geq$",
    "\n": " ",
    "\r": " ",
}


def latex_escaped(text: str) -> str:
    """A text with LaTeX's special characters escaped."""
    return "".join(LATEX_ESCAPES.get(character, character) for character in text)


def to_latex(table: Table, caption: str = CAPTION, label: str = "tab:gapless") -> str:
    """A booktabs `table*` of two panels (gap and grouping; retrieval), best in bold. Needs `\\usepackage{booktabs}`."""
    headings = table.groups()
    is_retrieval = [any("retrieval/" in table.columns[i].key for i in indices) for _, indices in headings]
    panels = [
        [group for group, inside in zip(headings, is_retrieval, strict=True) if inside is wanted]
        for wanted in (False, True)
    ]
    tabulars = "\n\n\\vspace{1ex}\n".join(_latex_panel(table, panel) for panel in panels if panel)
    notes = " ".join(latex_escaped(note) for note in table.notes)
    return (
        "% \\usepackage{booktabs}\n\\begin{table*}\n\\centering\\footnotesize\\setlength{\\tabcolsep}{3pt}\n"
        f"\\caption{{{latex_escaped(caption)}}}\n\\label{{{label}}}\n{tabulars}\n\n"
        f"\\vspace{{1ex}}\n\\parbox{{\\textwidth}}{{\\scriptsize {notes}}}\n\\end{{table*}}\n"
    )


def _latex_panel(table: Table, groups: Sequence[tuple[str, list[int]]]) -> str:
    indices = [i for _, column_indices in groups for i in column_indices]
    columns = [table.columns[i] for i in indices]
    heads, rules, start = [], [], 2
    for heading, column_indices in groups:
        heads.append(f"\\multicolumn{{{len(column_indices)}}}{{c}}{{{latex_escaped(heading)}}}")
        rules.append(f"\\cmidrule(lr){{{start}-{start + len(column_indices) - 1}}}")
        start += len(column_indices)
    lines = [
        f"\\begin{{tabular}}{{l{'r' * len(columns)}}}",
        "\\toprule",
        f" & {' & '.join(heads)} \\\\",
        "".join(rules),
        f"Method & {' & '.join(latex_escaped(f'{column.label} {column.arrow}') for column in columns)} \\\\",
        "\\midrule",
        *(
            f"{latex_escaped(name)} & {' & '.join(_latex_cell(table.rows[name][i]) for i in indices)} \\\\"
            for name in table.names_of(indices)
        ),
        "\\bottomrule",
        "\\end{tabular}",
    ]
    return "\n".join(lines)


def _latex_cell(entry: Cell) -> str:
    if entry.mean == "–":
        return "--"
    mean = f"\\textbf{{{entry.mean}}}" if entry.is_best else entry.mean
    sd = f"{{\\scriptsize\\,$\\pm${entry.sd}}}" if entry.sd else ""
    return mean + sd + ("\\rlap{$^{*}$}" if entry.is_significant else "")
