"""The report's section on captions: the table with its baselines, images with true and generated captions."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from gapless.captioning.names import NEAREST, SAMPLES
from gapless.pages.palette import FAINT, GREEN
from gapless.study.caption_results import read_results, samples_at
from gapless.study.caption_table import COLUMNS, caption_table, data_of, interval_of
from gapless.study.drawing import inline_svg, new_figure, style
from gapless.study.picture import Picture
from gapless.study.reliability import Note, leakage_note
from gapless.study.renderings import figure_text, to_latex, to_markdown
from gapless.study.table import Table, number_of

SUBJECT = "Captions generated from the aligned space, beside what needs no captioner. Research use, not for diagnosis."
HEADLINES = ("caption/BLEU-4", "caption/METEOR", "caption/CIDEr", "caption/findings/F1", "caption/retrieval/R@10")
LATEX_CAPTION = "Scores of generated captions and of baselines that need no captioner."


def caption_section(paths: Sequence[Path]) -> dict[str, Any]:
    """The values of the report's template for caption runs; the baselines are those of the first run."""
    results = dict(zip(_names_of(paths), map(read_results, paths), strict=True))
    first = next(iter(results.values()))
    source = (first.get("data") or {}).get("source")
    table = caption_table(results)
    title = f"captions on {source}" if source else "captions"
    return {
        "name": "captions",
        "title": title,
        "subject": SUBJECT,
        "question": None,
        "sources": [],
        "multiplicity": None,
        "shortfalls": [],
        "repeat": None,
        "grid": _grid_of(paths, results),
        "worst": _worst_of(paths[0], next(iter(results))),
        "presence": None,
        "disjoint": None,
        "matrices": [],
        "pairs": [],
        "facts": _facts_of(results),
        "headlines": _headlines_of(results, table),
        "table": table,
        "pictures": _pictures_of(results),
        "effect": None,
        "verdicts": [],
        "choices": [],
        "notes": _notes_of(results),
        "all_figures": _all_figures_of(results),
        "methods": list(results),
        "baseline": None,
        "latex": to_latex(table, LATEX_CAPTION, label="tab:captions"),
        "markdown": to_markdown(table),
    }


def _names_of(paths: Sequence[Path]) -> list[str]:
    """The directories' names where these are distinct, else their paths."""
    names = [path.resolve().name for path in paths]
    return names if len(set(names)) == len(names) else [str(path) for path in paths]


def _grid_of(paths: Sequence[Path], results: Mapping[str, Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The samples of the first directory, each with the captions of its row by all directories of the same data."""
    data = [data_of(result) for result in results.values()]
    read = [samples_at(path / SAMPLES) for path in paths]
    by_id = [{sample["id"]: sample for sample in samples} for samples in read]
    return [
        {
            "id": sample["id"],
            "references": sample["references"],
            "image": f"data:image/jpeg;base64,{sample['image']}" if sample["image"] else None,
            "errors": "",
            "captions": [
                (name, one_sample[sample["id"]]["caption"], _score_text(one_sample[sample["id"]].get("score")))
                for name, one_sample, of in zip(results, by_id, data, strict=True)
                if of == data[0] and sample["id"] in one_sample
            ],
        }
        for sample in read[0]
    ]


def _pictures_of(results: Mapping[str, Mapping[str, Any]]) -> list[Picture]:
    """The reliability of each captioner whose captions have a confidence."""
    curves = {name: curve for name, result in results.items() if (curve := result.get("reliability"))}
    if not curves:
        return []
    level = next(iter(curves.values())).get("level")
    caption = (
        "Captions in ten bins of their confidence, against the share of them that is right; the area is the number of "
        f"captions. On the diagonal a confidence is what it says. Right: F1 of the findings at least {level}."
    )
    drawings = [inline_svg(reliability_figure({name: one}), f"Reliability of {name}") for name, one in curves.items()]
    return [Picture("reliability", "Reliability", caption, drawings, [], reliability_figure(curves))]


def reliability_figure(curves: Mapping[str, Mapping[str, Any]]) -> Figure:
    """A panel for each captioner."""
    figure, panels = new_figure(2.6 * len(curves), 2.6, columns=len(curves))
    with style():
        for axes, (name, curve) in zip(panels, curves.items(), strict=True):
            bins = curve["bins"]
            most = max((one["n"] for one in bins), default=1)
            axes.plot([0, 1], [0, 1], color=FAINT, linewidth=0.8)
            sizes = [12 + 150 * one["n"] / most for one in bins]
            axes.scatter([one["confidence"] for one in bins], [one["right"] for one in bins], s=sizes, color=GREEN)
            axes.set(xlim=(0, 1), ylim=(0, 1), title=name, xlabel="confidence", ylabel="share right")
    return figure


def _worst_of(path: Path, name: str) -> list[dict[str, Any]]:
    """The captions of the first directory with most wrong findings, beside their images."""
    return [
        {
            "id": sample["id"],
            "references": sample["references"],
            "image": f"data:image/jpeg;base64,{sample['image']}" if sample["image"] else None,
            "captions": [(name, sample["caption"], _score_text(sample.get("score")))],
            "errors": str(sample.get("errors") or ""),
        }
        for sample in samples_at(path / SAMPLES, "worst")
    ]


def _score_text(score: Any) -> str:
    return f"{score:.2f}".replace("-", "−") if isinstance(score, int | float) else ""


def _facts_of(results: Mapping[str, Mapping[str, Any]]) -> list[tuple[str, str]]:
    first = next(iter(results.values()))
    data = first.get("data") or {}
    named = {
        "Captioners": "; ".join(f"{name}: {described(result)}" for name, result in results.items()),
        "Data": data.get("source"),
        "Rows": ", ".join(f"{name} {count:,}" for name, count in (data.get("rows") or {}).items()),
        "Groups": data.get("groups"),
        "Split": first.get("split"),
        "Tokenizer": first.get("tokenizer"),
        "Judge": first.get("judge"),
        "Data fingerprint": data.get("fingerprint"),
        "Versions": ", ".join(f"{name} {number}" for name, number in (first.get("versions") or {}).items()),
    }
    return [(name, str(value)) for name, value in named.items() if value not in (None, "")]


def described(result: Mapping[str, Any]) -> str:
    """Mode, aligner, seed and generation method of a captioner as text."""
    parts = [f"{key} {value}" for key in ("mode", "aligner", "seed") if (value := result.get(key)) is not None]
    settings = (result.get("generation") or {}).get("settings") or {}
    parts += [f"method {settings['method']}"] if "method" in settings else []
    return ", ".join(parts) or "not recorded"


def _headlines_of(results: Mapping[str, Mapping[str, Any]], table: Table) -> list[dict[str, Any]]:
    """The main scores of the first captioner and of the baseline of the nearest train image."""
    rows = [next(iter(results)), *([NEAREST] if NEAREST in table.rows else [])]
    return [
        {
            "name": column.label + (", %" if column.percent else ""),
            "values": [(name, table.rows[name][index].mean) for name in reversed(rows)],
            "difference": "",
            "is_significant": False,
        }
        for index, column in enumerate(COLUMNS)
        if column.key in HEADLINES and table.rows[rows[0]][index].mean != "–"
    ]


def _notes_of(results: Mapping[str, Mapping[str, Any]]) -> list[Note]:
    first = next(iter(results.values()))
    is_ptb = first["tokenizer"] == "ptb"
    text = "The PTB tokenizer" if is_ptb else "Not the PTB tokenizer, so these scores do not compare with those"
    return [
        *(_baseline_note(name, result) for name, result in results.items()),
        Note("good" if is_ptb else "warn", "Tokenizer", f"{text} of published tables."),
        *(Note("warn", "Missing", f"{name} {why}.") for name, why in (first.get("missing") or {}).items()),
        leakage_note(first),
    ]


def _baseline_note(name: str, result: Mapping[str, Any]) -> Note:
    """A note on whether a captioner is better in CIDEr than every baseline, with intervals that do not overlap."""
    others = {other: figures.get("caption/CIDEr") for other, figures in result["baselines"].items()}
    best = max(others, key=lambda other: number_of(others[other]) or 0.0, default=None)
    if best is None:
        return Note("unknown", "Baselines", f"{name}: no baseline beside it.")
    own, other = interval_of(result["figures"].get("caption/CIDEr")), interval_of(others[best])
    if own is None or other is None:
        return Note("unknown", "Baselines", f"{name}: without intervals there is no telling it from {best}.")
    if own[0] > other[1]:
        return Note("good", "Baselines", f"{name}: above the best baseline ({best}) in CIDEr, intervals apart.")
    return Note("warn", "Baselines", f"{name}: not clearly above the best baseline ({best}) in CIDEr.")


def _all_figures_of(results: Mapping[str, Mapping[str, Any]]) -> list[tuple[str, list[str]]]:
    keys = sorted({key for result in results.values() for key in result["figures"]})
    return [(key, [figure_text(result["figures"].get(key)) for result in results.values()]) for key in keys]
