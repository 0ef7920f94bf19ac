"""What rows that lack modalities mean for a training: its rows, its anchor, and what is refused before it starts."""

import logging
from dataclasses import replace
from typing import Any

import numpy as np

from gapless.core.errors import DataRefused, UsageError
from gapless.inference.embed import check_kinds, check_names
from gapless.inference.label_rows import labels_for
from gapless.inference.presence import Presence, comparable_part, how_many, missing_in
from gapless.losses.base import check_takes_present, method_of
from gapless.losses.pairs import ANCHOR
from gapless.manifest.manifest import Manifest
from gapless.training.recipes import Recipe

logger = logging.getLogger(__name__)

TEXT = "text"


def trainable_rows(settings: Recipe, rows: Manifest) -> tuple[Recipe, Manifest]:
    """The rows that a training can learn from, and the recipe with its anchor.

    Rows with fewer than two of the recipe's modalities teach nothing; they are left out, with a warning that counts
    them.

    Raises:
        UsageError: the manifest lacks a modality, a given anchor that fewer than half of the rows have, a loss that
            takes complete rows only, or one that compares labels which the rows do not have.
        DataRefused: a modality that no row has together with another one.
    """
    check_names(settings.modalities, rows)
    check_kinds({name: entry["input"]["kind"] for name, entry in settings.modalities.items()}, rows)
    part = comparable_part(rows, settings.modalities)
    present = part.presence(settings.modalities)
    for name in settings.modalities:
        if not present[name].any():
            raise DataRefused(
                f"no training row of {rows.path} has {name!r} beside another modality of the recipe; leave it out of "
                "the recipe, or build the manifest with it"
            )
    if len(part) < len(rows):
        logger.warning(
            f"{len(rows) - len(part)} of {len(rows)} training rows are left out: they have fewer than two of "
            f"{', '.join(settings.modalities)}"
        )
    labels_for(settings.loss, part)
    anchor = _anchor(settings, present, len(part))
    if missing_in(present) or settings.modality_dropout:
        check_takes_present(method_of(settings.loss).build(settings.loss, anchor))
    return replace(settings, anchor=anchor), part


def _anchor(settings: Recipe, present: Presence, num_rows: int) -> str:
    """The recipe's anchor, or the default one."""
    needs_anchor = getattr(settings.loss, "pairs", ANCHOR) == ANCHOR
    anchor, counts = (
        settings.anchor or default_anchor(present),
        {name: int(mask.sum()) for name, mask in present.items()},
    )
    if not needs_anchor or 2 * counts[anchor] >= num_rows:
        return anchor
    said = f"the anchor {anchor!r} is in {counts[anchor]} of {num_rows} training rows, fewer than half of them"
    if settings.anchor is None:
        logger.warning(f"{said}; the other rows are not contrasted, and --loss.pairs all would do so")
        return anchor
    best = default_anchor(present)
    raise UsageError(f"{said}; use --anchor {best} (in {counts[best]} rows) or --loss.pairs all")


def default_anchor(present: Presence) -> str:
    """The modality that most rows share with others; of equals, text, then the last one."""
    several = how_many(present) >= min(2, len(present))
    shared = {name: int(np.sum(mask & several)) for name, mask in present.items()}
    most = [name for name, count in shared.items() if count == max(shared.values())]
    return TEXT if TEXT in most else most[-1]


def usual_anchor(modalities: Any) -> str:
    """The anchor of a model that no data is known of: text, or the last modality."""
    return TEXT if TEXT in modalities else list(modalities)[-1]
