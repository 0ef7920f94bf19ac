"""Examples of cases for the report: what some rows hold, each modality as its kind previews it."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from gapless.core.errors import GaplessError
from gapless.manifest.manifest import Manifest
from gapless.manifest.modality_spec import ModalitySpec
from gapless.manifest.presence import pattern_of
from gapless.manifest.previews import preview_of
from gapless.modalities.base import MODALITIES, Modality
from gapless.modalities.params import settings_of
from gapless.pages.page import jpeg_address

NUM_CASES = 6
MAX_TEXT = 400
UNREADABLE = "cannot be read"


@dataclass(frozen=True)
class Item:
    """One modality of a case: a picture as a data address, or a text; neither where the row lacks it."""

    modality: str
    picture: str | None = None
    text: str | None = None


@dataclass(frozen=True)
class Case:
    """One row, by the order of the manifest's modalities."""

    id: str
    items: list[Item]


def cases_of(rows: Manifest, at_most: int = NUM_CASES) -> list[Case]:
    """Rows of different patterns of presence, the most frequent patterns first; the same rows every time.

    Every pattern gives one row before any gives a second one. Rows without a modality are left out.
    """
    present = rows.presence()
    patterns: dict[str, list[int]] = {}
    for row in np.random.default_rng(0).permutation(len(rows)).tolist():
        names = [name for name, has in present.items() if has[row]]
        if names:
            patterns.setdefault(pattern_of(names), []).append(row)
    ordered = sorted(patterns.values(), key=lambda of: -len(of))
    turns = max(map(len, ordered), default=0)
    chosen = [of[turn] for turn in range(turns) for of in ordered if turn < len(of)][:at_most]
    kinds = {spec.name: _kind_of(spec) for spec in rows.specs}
    ids = rows.table["id"].to_pylist()
    return [Case(str(ids[row]), [_item(rows, name, kind, row) for name, kind in kinds.items()]) for row in chosen]


def _kind_of(spec: ModalitySpec) -> Modality[Any] | None:
    """The kind of a modality with the parameters of the manifest; None for a kind that is not installed."""
    if spec.kind not in MODALITIES:
        return None
    kind = MODALITIES[spec.kind]
    params = spec.input_params
    if spec.kind == "vector":
        params = {"size": 1, **params}  # a preview shows a vector of any length
    try:
        return kind(settings_of(kind.Input, params))
    except (GaplessError, TypeError):
        return None


def _item(rows: Manifest, name: str, kind: Modality[Any] | None, row: int) -> Item:
    preview = preview_of(rows, name, row, kind, whole_text=True)
    shown = preview.shown
    if preview.refusal or shown is None:
        return Item(name, text=UNREADABLE if preview.refusal else None)
    if isinstance(shown, bytes):
        return Item(name, picture=jpeg_address(shown))
    return Item(name, text=shown if len(shown) <= MAX_TEXT else shown[: MAX_TEXT - 1] + "…")
