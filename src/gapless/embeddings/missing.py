"""Rows that lack a modality: which ones do, and whether they stay (`--missing keep`) or go (`--missing drop`)."""

from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from gapless.core.errors import DataRefused, unknown_name
from gapless.embeddings.embedding_set import EmbeddingSet, check_columns, check_rows, listed_names, refuse_rows
from gapless.embeddings.row_states import RowStates

KEEP, DROP = "keep", "drop"
MISSING = (KEEP, DROP)
MIN_MODALITIES = 2  # a row with fewer is half of no pair
OPTION = "--missing keep takes them as absent, --missing drop leaves out their rows"


def settled(rows: EmbeddingSet, missing: str | None, least: int = MIN_MODALITIES) -> EmbeddingSet:
    """The rows that can be used, all of them checked; notes count those left out and those that lack something.

    Args:
        rows: as they were read; a row lacks a modality where `present` says so, or where it holds nothing but NaN.
        missing: keep, drop, or None, which refuses rows that lack a modality.
        least: modalities that a row must have to be kept; 1 for a model that takes each modality alone.

    Raises:
        UsageError: another word than keep or drop.
        DataRefused: rows that are broken, or lack a modality where `missing` is None; no row is left; no row has one
            of the modalities.
    """
    if missing is None:
        _refuse_absent(rows)
        check_rows(rows, OPTION)
        return rows
    if missing not in MISSING:
        raise unknown_name("way with missing rows", missing, MISSING)
    check_columns(rows)
    present = _present_and_sound(rows)
    if all(mask.all() for mask in present.values()):
        return replace(rows, present=None)
    for name, mask in present.items():
        if not mask.any():
            raise DataRefused(f"no row of {rows.origin} has {name}; leave {name} out")
    return _dropped(rows, present) if missing == DROP else _kept(rows, present, least)


def _refuse_absent(rows: EmbeddingSet) -> None:
    for name, mask in (rows.present or {}).items():
        refuse_rows(name, "are without a value", ~mask, rows.ids, OPTION)


def _present_and_sound(rows: EmbeddingSet) -> dict[str, np.ndarray]:
    """Modality -> [row] bool, once the rows that are there are neither broken nor zero."""
    present = {}
    for name, matrix in rows.embeddings.items():
        states = RowStates.of(matrix)
        mask = rows.presence[name] & ~states.empty
        refuse_rows(name, "hold some NaN or infinite values", states.broken & mask, rows.ids)
        refuse_rows(name, "are all zeros and have no direction", states.zero & mask, rows.ids)
        present[name] = mask
    return present


def _dropped(rows: EmbeddingSet, present: Mapping[str, np.ndarray]) -> EmbeddingSet:
    complete = np.logical_and.reduce(list(present.values()))
    if not complete.any():
        raise DataRefused(f"no row of {rows.origin} has all of {', '.join(present)}; use --missing keep")
    left_out = f"{int((~complete).sum()):,} of {len(rows):,} rows lack a modality ({absent_counts(present)})"
    taken = replace(rows, present=None).take(np.flatnonzero(complete))
    return replace(taken, notes=(*rows.notes, f"{left_out} and are left out"))


def _kept(rows: EmbeddingSet, present: Mapping[str, np.ndarray], least: int) -> EmbeddingSet:
    counts = np.sum(list(present.values()), axis=0)
    enough = counts >= min(least, len(present))
    notes = list(rows.notes)
    if not enough.all():
        few = "no modality" if least == 1 else f"fewer than {least} modalities, so that they pair with nothing,"
        first = listed_names([rows.ids[row] for row in np.flatnonzero(~enough)])
        notes.append(f"{int((~enough).sum()):,} of {len(rows):,} rows have {few} and are left out ({first})")
    if not enough.any():
        raise DataRefused(f"no row of {rows.origin} has {least} modalities ({absent_counts(present)} are missing)")
    taken = replace(rows, present=dict(present), notes=tuple(notes))
    if not enough.all():
        taken = taken.take(np.flatnonzero(enough))
    for name, mask in taken.presence.items():
        if not mask.any():
            raise DataRefused(f"no row of {rows.origin} has {name} beside another modality; leave {name} out")
    if taken.is_complete:
        return replace(taken, present=None)
    incomplete = int((~np.logical_and.reduce(list(taken.presence.values()))).sum())
    note = f"{incomplete:,} of {len(taken):,} rows lack a modality ({absent_counts(taken.presence)})"
    if least > 1:
        note += ": each pair of modalities stands on the rows that have both"
    return replace(taken, notes=(*taken.notes, note))


def absent_counts(present: Mapping[str, np.ndarray]) -> str:
    """How many rows lack each modality that a row lacks: `image 2, ecg 40`."""
    return ", ".join(f"{name} {int((~mask).sum()):,}" for name, mask in present.items() if not mask.all())
