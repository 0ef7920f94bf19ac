"""The figures of one model as text for a terminal, of two modalities in one block, of several a block for each pair."""

from collections.abc import Mapping
from typing import Any

from gapless.metrics.catalogue import COMPLETE, entry_of
from gapless.study.pair_tables import direction_title, pairs_of_modalities
from gapless.study.renderings import figure_text, figures_to_terminal, to_ascii
from gapless.study.table import modalities_of

WIDTH = 100


def results_to_terminal(results: Mapping[str, Any], ascii_only: bool = False) -> str:
    """Every figure of `results.json`: of three modalities or more the means over pairs, then each pair, then joint
    queries; beside each figure that of the complete rows, where rows lack modalities.

    Args:
        results: `figures`, and `present`, `pairs`, `complete`, `joint`, `n`, `gallery_size` where there are any.
    """
    figures = results["figures"]
    comparison = {**results, "table": {"": figures}, "methods": [""]}
    names = modalities_of(comparison)
    if len(names) < 3:
        return figures_to_terminal(figures, ascii_only)
    pairs = pairs_of_modalities(comparison)
    complete = results.get("complete") or {}
    beside = f"; second column: the {complete['n']:,} complete rows" if complete and "left_out" not in complete else ""
    rest = dict(figures)
    blocks = []
    for pair in pairs:
        directions = {f"retrieval/{a}_to_{b}" for a, b in ((pair.first, pair.second), (pair.second, pair.first))}
        block = {key: rest.pop(key) for key in figures if _is_of_pair(key, pair.name, directions)}
        blocks.append((pair.title + (beside if block else ""), _block(block, f"/{pair.name}")))
    for direction, one in (results.get("joint") or {}).items():
        block = {key: rest.pop(key) for key in figures if key.startswith(f"retrieval/{direction}/")}
        title = f"{direction_title(direction, one)}: {one['n']:,} rows, gallery {one['gallery_size']:,}"
        blocks.append((title + (beside if block else ""), _block(block, "")))
    blocks.insert(0, (f"means over {len(pairs)} pairs, and figures of all modalities{beside}", _block(rest, "")))
    text = "\n\n".join(f"{title}\n{body}".rstrip() for title, body in blocks)
    return to_ascii(text) if ascii_only else text


def _is_of_pair(key: str, name: str, directions: set[str]) -> bool:
    """Whether a figure is of this pair: its key ends with the pair, or has one of its directions."""
    bare = key.removesuffix(COMPLETE)
    return bare.endswith(f"/{name}") or bare.rpartition("/")[0] in directions


def _block(figures: Mapping[str, Any], ending: str) -> str:
    """A line for each key without `ending`: the figure, that of the complete rows, and which way is better."""
    keys = sorted({key.removesuffix(COMPLETE) for key in figures})
    names = {key: key.removesuffix(ending) if ending else key for key in keys}
    width = max(map(len, names.values()), default=0)
    own = {key: figure_text(figures.get(key)) for key in keys}
    complete = {key: figure_text(figures[key + COMPLETE]) if key + COMPLETE in figures else "" for key in keys}
    own_width, complete_width = max(map(len, own.values()), default=0), max(map(len, complete.values()), default=0)
    lines = []
    for key in keys:
        line = f"  {names[key]:<{width}}  {own[key]:<{own_width}}  {complete[key]:<{complete_width}}".rstrip()
        entry = entry_of(key)
        hint = f"  {entry.hint}" if entry is not None and entry.hint else ""
        lines.append(line + hint if len(line + hint) <= WIDTH else line)
    return "\n".join(lines)
