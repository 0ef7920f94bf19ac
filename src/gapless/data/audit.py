"""`gapless data audit`: what is in the data before anything is trained on it.

report = audit(["manifest"])
print(format_audit(report))
refuse(report, fail_on=("leakage",))
"""

import math
import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from gapless.captions import normalised_caption
from gapless.data.duplicates import equal_rows, near_pairs, perceptual_hashes
from gapless.data.manifest import INFO_FILE, Manifest
from gapless.data.readers.roco import roco_articles, roco_coverage
from gapless.data.split import assign_splits, leakage
from gapless.errors import DataRefused, unknown_name

TOKEN_LIMITS = (77, 128)
NUM_EXAMPLES = 5
SMALL_SIDE = 224
# Six letters a token: within 3 % of CLIP's tokenizer over 3,000 ROCO captions (and 2 marks at the ends).
LETTERS_PER_TOKEN = 6
FAIL_ON = ("leakage", "duplicates", "near-duplicates")

_WORDS = re.compile(r"[A-Za-z]+|\d|[^\sA-Za-z\d]")
_SIDES = re.compile(r"\b(left|right|lt|rt|bilateral|left-sided|right-sided)\b", re.IGNORECASE)
_ABBREVIATED_SIDES = re.compile(r"\b(?:[LR](?:UL|LL|ML|UQ|LQ|MCA|CA|AD|CX)|RIGHT|LEFT)\b")


def audit(
    sources: str | Path | Sequence[str | Path],
    near_duplicates: bool = True,
    count_tokens: Callable[[str], int] | None = None,
) -> dict[str, Any]:
    """Look at one manifest, or at several as if they were trained and tested together.

    Args:
        sources: manifests; or one ROCO tree, of which only the text files are read.
        near_duplicates: decode every image to compare perceptual hashes; exact copies are found without.
        count_tokens: how a tokenizer counts a caption; by default an estimate.

    Returns:
        A dictionary for JSON; shares are fractions in [0, 1]. See `format_audit` for the text.
    """
    paths = [Path(source) for source in ([sources] if isinstance(sources, str | Path) else sources)]
    if len(paths) == 1 and not (paths[0] / INFO_FILE).exists() and paths[0].is_dir() and _is_roco(paths[0]):
        return _audit_roco(paths[0])
    manifests = [Manifest.read(path) for path in paths]
    columns = _Columns(manifests)
    report: dict[str, Any] = {
        "sources": [str(path) for path in paths],
        "rows": _counted(columns.splits),
        "groups": len(set(columns.groups)),
        "counts": _summed(manifest.info["counts"] for manifest in manifests),
        "skipped": _summed(manifest.info["skipped"] for manifest in manifests),
        "leakage": {"group": leakage(columns.groups, columns.splits)},
        "images": _sizes(columns),
        "duplicates": _duplicates(equal_rows(columns.sha256), columns),
        "captions": _captions(columns, count_tokens or estimate_tokens),
        "licences": _counted(columns.licences),
    }
    if near_duplicates:
        image_paths = [manifest.image_path(row) for manifest in manifests for row in range(len(manifest))]
        pairs = list(near_pairs(perceptual_hashes(image_paths)))
        copies = [list(pair) for pair in pairs if columns.sha256[pair[0]] != columns.sha256[pair[1]]]
        report["near_duplicates"] = _duplicates(copies, columns)
    if "burned_in_text" in columns.labels:
        report["burned_in_text"] = _counted(columns.labels["burned_in_text"])
    return report


class _Columns:
    """The columns of several manifests, one after the other."""

    def __init__(self, manifests: Sequence[Manifest]) -> None:
        def column(name: str) -> list[Any]:
            return [
                value
                for manifest in manifests
                for value in (
                    manifest.table[name].to_pylist() if name in manifest.table.column_names else [None] * len(manifest)
                )
            ]

        self.ids: list[str] = column("id")
        self.groups: list[str] = column("group")
        self.splits: list[str] = column("split")
        self.sha256: list[str] = column("sha256")
        self.captions: list[list[str]] = column("captions")
        self.licences: list[str | None] = [
            licence
            for manifest in manifests
            for licence in (
                manifest.table["licence"].to_pylist()
                if "licence" in manifest.table.column_names
                else [manifest.info.get("licence")] * len(manifest)
            )
        ]
        self.width, self.height = np.array(column("width")), np.array(column("height"))
        names = {name for manifest in manifests for name in manifest.labels}
        self.labels: dict[str, list[str | None]] = {name: column(name) for name in sorted(names)}


def _counted(values: Iterable[str | None]) -> dict[str, int]:
    counted = Counter("unknown" if value is None else value for value in values)
    return dict(counted.most_common())


def _summed(counts: Iterable[Mapping[str, int]]) -> dict[str, int]:
    total: Counter[str] = Counter()
    for count in counts:
        total.update(count)
    return dict(total)


def _sizes(columns: _Columns) -> dict[str, Any]:
    short_side = np.minimum(columns.width, columns.height)
    return {
        "short_side": {
            "min": int(short_side.min()),
            "median": float(np.median(short_side)),
            "max": int(short_side.max()),
        },
        "largest": f"{int(columns.width.max())} x {int(columns.height.max())}",
        f"share_below_{SMALL_SIDE}": float((short_side < SMALL_SIDE).mean()),
    }


def _duplicates(sets: Sequence[Sequence[int]], columns: _Columns) -> dict[str, Any]:
    """Sets of rows that show one picture, and how many of them straddle splits or groups."""
    across_splits = [rows for rows in sets if len({columns.splits[row] for row in rows}) > 1]
    across_groups = [rows for rows in sets if len({columns.groups[row] for row in rows}) > 1]
    shown = (across_splits or sets)[:NUM_EXAMPLES]
    return {
        "sets": len(sets),
        "rows": len({row for rows in sets for row in rows}),
        "sets_across_splits": len(across_splits),
        "sets_across_groups": len(across_groups),
        "examples": [[columns.ids[row] for row in rows[:NUM_EXAMPLES]] for rows in shown],
    }


def _captions(columns: _Columns, count_tokens: Callable[[str], int]) -> dict[str, Any]:
    texts = [text for captions in columns.captions for text in captions]
    owners = [row for row, captions in enumerate(columns.captions) for _ in captions]
    lengths = np.array([len(text) for text in texts])
    tokens = np.array([count_tokens(text) for text in texts])
    keys = [normalised_caption(text) for text in texts]
    repeated = [members for members in equal_rows(keys) if keys[members[0]]]
    across = [members for members in repeated if len({columns.splits[owners[member]] for member in members}) > 1]
    return {
        "captions": len(texts),
        "length": {
            "median": float(np.median(lengths)),
            "p95": float(np.percentile(lengths, 95)),
            "max": int(lengths.max()),
        },
        "share_cut_at_tokens": {str(limit): float((tokens > limit).mean()) for limit in TOKEN_LIMITS},
        "tokens_are_estimated": count_tokens is estimate_tokens,
        "duplicates": {
            "share": sum(len(members) for members in repeated) / len(texts),
            "sets": len(repeated),
            "sets_across_splits": len(across),
        },
        "share_with_side": sum(map(names_a_side, texts)) / len(texts),
    }


def names_a_side(text: str) -> bool:
    """Whether a horizontal flip of the image could make the caption false."""
    return bool(_SIDES.search(text) or _ABBREVIATED_SIDES.search(text))


def estimate_tokens(text: str) -> int:
    """About how many tokens a sub-word tokenizer makes of a caption, its 2 end marks included."""
    return 2 + sum(math.ceil(len(word) / LETTERS_PER_TOKEN) for word in _WORDS.findall(text))


# ---- ROCO, from its text files --------------------------------------------------------------------------------------


def _is_roco(path: Path) -> bool:
    return any((path / inner / "train" / "radiology").is_dir() for inner in ("", "data"))


def _audit_roco(path: Path) -> dict[str, Any]:
    """Leakage of the official split, and of a disjoint one of the same sizes, measured on the articles."""
    articles = roco_articles(path)
    groups = [article for split in articles for article in articles[split]]
    splits = [split for split in articles for _ in articles[split]]
    shares = [len(articles.get(split, ())) / len(groups) for split in ("train", "validation", "test")]
    assigned = assign_splits(groups, shares)
    return {
        "sources": [str(path)],
        "rows": _counted(splits),
        "groups": len(set(groups)),
        "coverage": roco_coverage(path),
        "leakage": {
            "official": leakage(groups, splits),
            "group-disjoint": leakage(groups, [assigned[group] for group in groups]),
        },
    }


# ---- what comes out -------------------------------------------------------------------------------------------------


def refuse(report: Mapping[str, Any], fail_on: Sequence[str]) -> None:
    """Raise when the report holds what the user will not accept.

    Raises:
        UsageError: an unknown name in `fail_on`.
        DataRefused: naming what was found.
    """
    found = {
        "leakage": [
            f"{figures['share']:.1%} of {pair.split()[0]} has its group in {pair.split()[-1]}"
            for pair, figures in next(iter(report["leakage"].values())).items()
            if figures["rows"]
        ],
        "duplicates": _straddling(report.get("duplicates"), "identical images"),
        "near-duplicates": _straddling(report.get("near_duplicates"), "nearly identical images"),
    }
    for name in fail_on:
        if name not in found:
            raise unknown_name("--fail-on", name, FAIL_ON)
    problems = [problem for name in fail_on for problem in found[name]]
    if problems:
        raise DataRefused(f"the audit found {'; '.join(problems)}; 'gapless data split' makes a disjoint split")


def _straddling(duplicates: Mapping[str, Any] | None, what: str) -> list[str]:
    count = duplicates["sets_across_splits"] if duplicates else 0
    return [f"{count} sets of {what} across splits"] if count else []


def format_audit(report: Mapping[str, Any]) -> str:
    """The report as text: one line a figure, nested names indented, shares in percent."""
    return "\n".join(_lines(report, ""))


def _lines(value: Mapping[str, Any], indent: str, in_shares: bool = False) -> Iterable[str]:
    for name, entry in value.items():
        title, is_share = f"{indent}{name.replace('_', ' ')}", in_shares or "share" in name
        if isinstance(entry, Mapping):
            yield f"{title}:" if entry else f"{title}: none"
            yield from _lines(entry, indent + "  ", is_share)
        elif isinstance(entry, list):
            items = (" = ".join(item) if isinstance(item, list) else str(item) for item in entry)
            yield f"{title}: {', '.join(items) or 'none'}"
        elif isinstance(entry, bool):
            yield f"{title}: {'yes' if entry else 'no'}"
        elif isinstance(entry, float):
            yield f"{title}: {entry:.1%}" if is_share else f"{title}: {entry:,.0f}"
        else:
            yield f"{title}: {entry:,}" if isinstance(entry, int) else f"{title}: {entry}"
