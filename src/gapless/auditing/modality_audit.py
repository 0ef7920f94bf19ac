"""The audit of manifests with modalities: presence, copies of any item, equal texts, beside what every audit counts."""

from array import array
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gapless.auditing.figures import near_figures, size_figures, summed, text_figures
from gapless.auditing.leakage import content_leakage
from gapless.auditing.notes import group_notes, split_notes
from gapless.auditing.presence import UNKNOWN, adjust, label_figures, presence_notes, split_figures
from gapless.auditing.report import AuditReport
from gapless.auditing.row_sets import Codes, set_figures
from gapless.auditing.text import ITEM_LEAKAGE
from gapless.core.errors import DataRefused
from gapless.manifest.manifest import SPLITS, VERSION, Manifest
from gapless.manifest.modality_columns import facts_of
from gapless.manifest.modality_spec import ModalitySpec
from gapless.manifest.presence import PresenceCount
from gapless.manifest.split import copied_contents
from gapless.modalities.base import TEXTS


class _Rows:
    """The rows of several manifests of any version, one after the other."""

    def __init__(self, manifests: Sequence[Manifest]) -> None:
        self.manifests = manifests
        self._starts = np.cumsum([0, *map(len, manifests)])
        self.specs: dict[str, ModalitySpec] = {}
        for spec in (spec for manifest in manifests for spec in manifest.specs):
            if self.specs.setdefault(spec.name, spec).kind != spec.kind:
                raise DataRefused(
                    f"the modality {spec.name!r} is of the kind {spec.kind} in one manifest and of another kind "
                    f"({self.specs[spec.name].kind}) in another; audit them one by one"
                )
        self.ids: list[str] = self._column("id")
        self.splits: list[str] = self._column("split")
        self.groups: Codes = np.unique(np.asarray(self._column("group"), dtype=object), return_inverse=True)[1]
        self.present = {name: self._present(name) for name in self.specs}
        copied = [copied_contents(manifest) for manifest in manifests]
        names = [name for name in self.specs if any(name in contents for contents in copied)]
        self.contents: dict[str, list[list[str] | None]] = {
            name: [
                digests
                for manifest, contents in zip(manifests, copied, strict=True)
                for digests in contents.get(name, [None] * len(manifest))
            ]
            for name in names
        }

    def _column(self, name: str) -> list[Any]:
        return [
            value
            for manifest in self.manifests
            for value in (
                manifest.table[name].to_pylist() if name in manifest.table.column_names else [None] * len(manifest)
            )
        ]

    def _present(self, name: str) -> NDArray[np.bool_]:
        parts = [
            manifest.presence()[name] if name in manifest.modalities else np.zeros(len(manifest), dtype=bool)
            for manifest in self.manifests
        ]
        return np.concatenate(parts)

    def cells(self, name: str) -> Iterator[list[Any] | None]:
        """The views of a modality in each row."""
        for manifest in self.manifests:
            yield from manifest.cells(name) if name in manifest.modalities else [None] * len(manifest)

    def views(self, name: str, row: int) -> list[Any]:
        """The views of a modality that a row has."""
        number = int(np.searchsorted(self._starts, row, side="right")) - 1
        return self.manifests[number].views(name, row - int(self._starts[number])) or []

    def labels(self) -> dict[str, Codes]:
        """Label -> [row] the number of its value, `UNKNOWN` where it is missing."""
        names = dict.fromkeys(name for manifest in self.manifests for name in manifest.labels)
        return {name: _numbered(self._column(name)) for name in names}

    def sizes(self) -> list[tuple[int, int]]:
        """Width and height of every view that is an image."""
        return [
            (int(fact["width"]), int(fact["height"]))
            for manifest in self.manifests
            for spec in manifest.specs
            if spec.kind == "image"
            for facts in _image_facts(manifest, spec.name)
            for fact in facts or ()
        ]

    def licences(self) -> dict[str, int]:
        """Rows under each licence."""
        total: Counter[str] = Counter()
        for manifest in self.manifests:
            if "licence" in manifest.table.column_names:
                total.update(value or "unknown" for value in manifest.table["licence"].to_pylist())
            else:
                total[manifest.info.get("licence") or "unknown"] += len(manifest)
        return dict(total.most_common())


def _image_facts(manifest: Manifest, name: str) -> list[list[dict[str, Any]] | None]:
    if manifest.version != VERSION:
        return facts_of(manifest.table, name)
    width, height = (manifest.table[side].to_pylist() for side in ("width", "height"))
    return [[{"width": w, "height": h}] for w, h in zip(width, height, strict=True)]


def _numbered(values: Sequence[str | None]) -> Codes:
    numbers: dict[str, int] = {}
    return np.array([UNKNOWN if value is None else numbers.setdefault(value, len(numbers)) for value in values])


def audit_modalities(
    manifests: Sequence[Manifest], near_duplicates: bool, count_tokens: Callable[[str], int]
) -> AuditReport:
    """The report of manifests of which one at least has modalities.

    Raises:
        DataRefused: no rows, or one name for two kinds.
    """
    rows = _Rows(manifests)
    if not rows.ids:
        raise DataRefused(f"{manifests[0].path} has no rows, so there is nothing to look at; build the manifest again")
    per_split = dict(Counter(rows.splits).most_common())
    presence = presence_figures(rows)
    sizes = np.array(rows.sizes())
    return AuditReport(
        sources=[str(manifest.path) for manifest in manifests],
        rows=per_split,
        groups=int(rows.groups.max()) + 1,
        counts=summed(manifest.info["counts"] for manifest in manifests),
        skipped=summed(manifest.info["skipped"] for manifest in manifests),
        presence=presence,
        leakage={
            "group": content_leakage(rows.groups.tolist(), rows.splits, {}),
            ITEM_LEAKAGE: content_leakage(rows.groups.tolist(), rows.splits, rows.contents),
        },
        images=size_figures(sizes[:, 0], sizes[:, 1]) if len(sizes) else None,
        copies={name: _copies(rows, contents) for name, contents in rows.contents.items()},
        texts={
            name: text_figures(rows.cells(name), rows.splits, rows.groups, count_tokens)
            for name, spec in rows.specs.items()
            if spec.form == TEXTS
        },
        licences=rows.licences(),
        near_duplicates=_near_copies(rows) if near_duplicates and len(sizes) else None,
        notes=[*group_notes(rows.groups, rows.splits), *split_notes(per_split), *presence_notes(presence)],
    )


def manifest_presence(manifest: Manifest, modalities: Sequence[str] | None = None) -> dict[str, Any]:
    """The figures of presence of a manifest, of all its modalities or of some, and `notes`: sentences on them."""
    names = manifest.modalities if modalities is None else modalities
    rows = _Rows([manifest])
    rows.present = manifest.presence(names)
    figures = presence_figures(rows)
    return {**figures, "notes": list(presence_notes(figures))}


def presence_figures(rows: _Rows) -> dict[str, Any]:
    """Counts as in `manifest.json`, what presence tells of each label, and how it differs between splits."""
    counted = PresenceCount(rows.present)
    for row, split in enumerate(rows.splits):
        counted.add(split, (name for name, has in rows.present.items() if has[row]))
    labels = rows.labels()
    tests = len(labels) + (len(rows.present) if len(set(rows.splits)) > 1 else 0)
    told = {name: label_figures(rows.present, codes, rows.groups, tests) for name, codes in labels.items()}
    known = {name: figures for name, figures in told.items() if figures is not None}
    of_labels, between = adjust(known, split_figures(rows.present, rows.splits, rows.groups, tests))
    return {**counted.as_json(SPLITS), "labels": of_labels, "between_splits": between}


def _copies(rows: _Rows, contents: Sequence[Sequence[str] | None]) -> dict[str, Any]:
    """Figures on rows that share an item of a modality; an item that a row holds twice counts once."""
    owners, codes, numbers = _flat([None if of is None else list(dict.fromkeys(of)) for of in contents])
    if not numbers:
        codes, owners = np.zeros(0, np.int64), np.zeros(0, np.int64)
    return set_figures(
        codes, [rows.splits[row] for row in owners], rows.groups[owners], lambda view: rows.ids[owners[view]]
    )


def _flat(contents: Sequence[Sequence[str] | None]) -> tuple[Codes, Codes, dict[str, int]]:
    """([view] its row, [view] the number of its checksum, checksum -> number)."""
    numbers: dict[str, int] = {}
    pairs = [(row, numbers.setdefault(digest, len(numbers))) for row, of in enumerate(contents) for digest in of or ()]
    table = np.array(pairs, dtype=np.int64).reshape(-1, 2)
    return table[:, 0], table[:, 1], numbers


def _near_copies(rows: _Rows) -> dict[str, Any]:
    """Near copies among all views that are images, of whichever modality."""
    names = [name for name, spec in rows.specs.items() if spec.kind == "image"]
    numbers: dict[str, int] = {}
    # [view] the number of its checksum, its row, the number of its modality, and which view of its row it is.
    codes, owners, modalities, places = (array("q") for _ in range(4))
    for modality, name in enumerate(names):
        for row, digests in enumerate(rows.contents[name]):
            for place, digest in enumerate(digests or ()):
                codes.append(numbers.setdefault(digest, len(numbers)))
                owners.append(row)
                modalities.append(modality)
                places.append(place)

    def path_of(view: int) -> Path:
        return Path(rows.views(names[modalities[view]], owners[view])[places[view]])

    return near_figures(
        np.array(codes),
        path_of,
        [rows.splits[row] for row in owners],
        rows.groups[np.array(owners)],
        lambda view: rows.ids[owners[view]],
    )
