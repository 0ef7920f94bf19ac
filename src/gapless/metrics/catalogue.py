"""The catalogue of figures: the label, unit, range and direction of each key that result files hold.

    label_of("retrieval/image_to_text/R@10")            # "R@10, image to text"
    entry_of("gap/centroid_distance").better            # "lower"

Tables, reports, cards, curves and docs/figures.md read these entries; nothing else states a name, unit or direction. A
further figure is one entry with a function, added by a module of this room or by another package (entry-point group
`gapless.figures`).
"""

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Any, Literal

from torch import Tensor

from gapless.core.registry import Registry
from gapless.metrics.pair_inputs import PairInputs
from gapless.metrics.uncertainty import Figure

Better = Literal["higher", "lower", "neither"]
Unit = Literal["", "fraction", "degrees", "rank", "tokens"]
# The pattern that each placeholder of an entry's key matches in the keys of a file.
_PLACEHOLDERS = {
    "<modality>": r"(?P<modality>[^/]+)",
    "<direction>": r"(?P<direction>[^/]+_to_[^/]+|mean)",
    "<k>": r"(?P<k>[0-9]+)",
    "<labeller>": r"(?P<labeller>[^/]+)",
}
# The figures that summarise the gap; every map of embeddings shows them.
GAP_HEADLINES = (
    "gap/centroid_distance",
    "gap/true_pair_cosine",
    "gap/margin_centred",
    "gap/d_prime_centred",
    "gap/separability_auc",
    "gap/mixing@10",
)
# After the key of a figure of the rows that have every modality, where others lack some.
COMPLETE = "@complete"
ARROWS: dict[Better, str] = {"higher": "↑", "lower": "↓", "neither": ""}


# What a further figure's function gives: a number, a number for each row ([pair], whose mean is the figure), or a
# figure with its own replicates.
Computed = float | Tensor | Figure


@dataclass(frozen=True)
class FigureEntry:
    """One figure.

    Args:
        key: as in every JSON file; `<modality>`, `<direction>` (image_to_text, mean), `<k>` and `<labeller>` stand for
            what varies.
        label: its name where no heading stands above it.
        meaning: the formula, or one sentence.
        low, high: the range; infinite where there is no bound.
        better: which way is better.
        family: the heading that it stands under.
        short: its name under that heading; default the label.
        unit: "fraction" is printed as percent.
        decimals: in tables.
        closed: its value when the gap is closed, as text; "" where closing does not fix it.
        misleads: how it misleads.
        cost: what it takes to compute.
        needs: inputs that it requires beside the embeddings.
        source: paper, or "" for what is standard.
        every_query: whether every row must be a query, so that the figure is left out where queries are sampled.
        in_tables: whether the tables of `compare` and the report have a column for a further figure.
        compute: the function of a further figure. It gives one number for a pair of modalities; or a number for each
            row ([pair]), whose mean is the figure and gets an interval; or a `Figure`, which brings its replicates; or
            a mapping of keys to these, where the key carries a modality (`PairInputs.names`). None for those that
            `measure` computes together in one pass.
    """

    key: str
    label: str
    meaning: str
    low: float
    high: float
    better: Better
    family: str
    short: str = ""
    unit: Unit = ""
    decimals: int = 3
    closed: str = ""
    misleads: str = ""
    cost: str = ""
    needs: str = ""
    source: str = ""
    in_tables: bool = True
    every_query: bool = False
    compute: Callable[[PairInputs], Computed | Mapping[str, Computed]] | None = None

    @property
    def arrow(self) -> str:
        """Which way is better; nothing where neither is."""
        return ARROWS[self.better]

    @property
    def is_percent(self) -> bool:
        return self.unit == "fraction"

    @property
    def decimals_shown(self) -> int:
        """Decimals in a table: percent, degrees, ranks and lengths have at most one."""
        return 1 if self.unit else self.decimals

    @cached_property
    def pattern(self) -> re.Pattern[str]:
        """Matches the key in a file, with the names of a pair or of a label where there are several."""
        escaped = re.escape(self.key)
        for placeholder, group in _PLACEHOLDERS.items():
            escaped = escaped.replace(re.escape(placeholder), group)
        if self.key.startswith("grouping/"):
            escaped = escaped.replace("grouping/", r"grouping/(?:(?P<label>[^/]+)/)?", 1)
        return re.compile(rf"{escaped}(?:/(?P<pair>[^/]+-[^/]+))?")

    def shown(self, number: float | None) -> str:
        """The number as tables print it, rates in percent; a dash where there is none."""
        if number is None or not math.isfinite(number):
            return "–"
        return f"{number * (100 if self.is_percent else 1):z.{self.decimals_shown}f}"

    @property
    def hint(self) -> str:
        """How to read it, in a few characters: its arrow, or its value when closed."""
        closed = f"{self.closed} when closed" if self.closed else ""
        return ", ".join(part for part in (self.arrow, closed) if part)


FIGURES: Registry[FigureEntry] = Registry("figure", "gapless.metrics", "gapless.figures")


def further_figures() -> tuple[FigureEntry, ...]:
    """The entries that have their own function."""
    return tuple(entry for entry in FIGURES.values() if entry.compute is not None)


@lru_cache(maxsize=4096)
def entry_of(key: str) -> FigureEntry | None:
    """The entry of a key as files hold it (`gap/centroid_distance/image-text`); None where the catalogue has none.

    >>> entry = entry_of("gap/centroid_distance/image-text@complete")
    >>> entry.key, entry.better
    ('gap/centroid_distance', 'lower')
    """
    key = key.removesuffix(COMPLETE)
    for entry in FIGURES.values():
        if entry.key == key:
            return entry
    return next((entry for entry in FIGURES.values() if entry.pattern.fullmatch(key)), None)


def required_entry(key: str) -> FigureEntry:
    """The entry of a key that must be in the catalogue; a missing one is an AssertionError."""
    entry = entry_of(key)
    assert entry is not None, f"{key} is not in the catalogue of figures"
    return entry


def label_of(key: str) -> str:
    """The label of a key, with its direction, modality and k filled in; the key itself where it has no entry.

    >>> label_of("retrieval/image_to_text/R@10")
    'R@10, image to text'
    >>> label_of("retrieval/image+history_to_text/R@10@complete")
    'R@10, image+history to text (complete rows)'
    """
    entry = entry_of(key)
    if entry is None:
        return key
    varying: dict[str, Any] = {}
    bare = key.removesuffix(COMPLETE)
    if (match := entry.pattern.fullmatch(bare)) is not None:
        varying = {name: text for name, text in match.groupdict().items() if text}
    label = entry.label
    for name in ("modality", "direction", "k", "labeller"):
        label = label.replace(f"<{name}>", varying.get(name, "").replace("_to_", " to "))
    extra = [varying[name] for name in ("label", "pair") if name in varying]
    extra += ["complete rows"] * (bare != key)
    return f"{label} ({', '.join(extra)})" if extra else label


def headline_of(key: str) -> str:
    """The label of a key with its value when the gap is closed, if it has one: `mixing (0.5 when closed)`.

    >>> headline_of("gap/mixing@10")
    'mixing (0.5 when closed)'
    """
    closed = required_entry(key).closed
    return f"{label_of(key)} ({closed} when closed)" if closed else label_of(key)


def range_text(entry: FigureEntry) -> str:
    """`0 to 2`, `0 or more`, `any`.

    >>> range_text(required_entry("gap/centroid_distance"))
    '0 to 2'
    """
    low, high = entry.low, entry.high
    if math.isinf(low):
        return "any" if math.isinf(high) else f"up to {high:g}"
    return f"{low:g} or more" if math.isinf(high) else f"{low:g} to {high:g}"


def markdown_table(family: str) -> str:
    """The figures of a family as the table that docs/figures.md shows; a test compares the page with it."""
    rows = [
        (
            f"`{entry.key}`",
            entry.label.replace("<direction>", "a direction")
            .replace("<modality>", "a modality")
            .replace("<k>", "k")
            .replace("<labeller>", "a labeller"),
            entry.meaning,
            range_text(entry),
            {"higher": "high", "lower": "low", "neither": "–"}[entry.better],
            entry.closed or "–",
            entry.misleads or "–",
        )
        for entry in FIGURES.values()
        if entry.family == family
    ]
    head = ("key", "name", "meaning", "range", "better", "closed", "how it misleads")
    lines = [head, ("---",) * len(head), *rows]
    return "\n".join(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in line)} |" for line in lines)
