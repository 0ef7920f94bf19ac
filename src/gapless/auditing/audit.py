"""`gapless data audit`: sizes, leakage, duplicates and captions of a data set, before training on it.

report = audit(["manifest"])
report.leakage["group or image"]["test in train"]["share"]
report.refuse(("leakage",))                                # raises DataRefused where test rows leak
"""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa

from gapless.auditing.figures import estimate_tokens, near_figures, size_figures, summed, text_figures
from gapless.auditing.leakage import leakage
from gapless.auditing.modality_audit import audit_modalities
from gapless.auditing.notes import copy_notes, group_notes, split_notes
from gapless.auditing.report import AuditReport
from gapless.auditing.row_sets import NO_SET, Codes, set_figures
from gapless.auditing.text import LEAKAGE
from gapless.core.errors import DataRefused
from gapless.manifest.manifest import INFO_FILE, VERSION, Manifest
from gapless.manifest.readers.roco import roco_articles, roco_coverage
from gapless.manifest.split import assign_splits


def audit(
    sources: str | Path | Sequence[str | Path],
    *,
    near_duplicates: bool = True,
    count_tokens: Callable[[str], int] | None = None,
) -> AuditReport:
    """Audit one manifest, or several as if they were trained and tested together.

    Examples:
        >>> from tempfile import mkdtemp
        >>> from gapless.manifest.readers.phantom import write_phantom
        >>> manifest = write_phantom(Path(mkdtemp()) / "data", num_pairs=40, image_size=32)
        >>> report = audit(manifest.path, near_duplicates=False)
        >>> report.leakage["group or image"]["test in train"]["rows"]
        0

    Args:
        sources: manifests; or one ROCO tree, of which only the text files are read.
        near_duplicates: decode every image to compare perceptual hashes; exact copies are found by their checksums.
        count_tokens: caption to its number of tokens; by default an estimate.

    Returns:
        The report; shares are fractions in [0, 1], and lower is better in all of `leakage` and `duplicates`.

    Raises:
        UsageError: no manifest is there. DataRefused: a manifest that cannot be read, or one without rows.
    """
    paths = [Path(source) for source in ([sources] if isinstance(sources, str | Path) else sources)]
    if len(paths) == 1 and not (paths[0] / INFO_FILE).exists() and paths[0].is_dir() and _is_roco(paths[0]):
        return _audit_roco(paths[0])
    manifests = [Manifest.read(path) for path in paths]
    if any(manifest.version != VERSION for manifest in manifests):
        return audit_modalities(manifests, near_duplicates, count_tokens or estimate_tokens)
    columns = _Columns(manifests)
    if not len(columns.splits):
        raise DataRefused(f"{paths[0]} has no rows, so there is nothing to look at; build the manifest again")
    groups, images = columns.groups.tolist(), [None if code == NO_SET else code for code in columns.images.tolist()]
    rows = _counted(columns.splits)
    duplicates = set_figures(columns.images, columns.splits, columns.groups, columns.id_of)
    near = None
    if near_duplicates:
        near = near_figures(columns.images, columns.image_path, columns.splits, columns.groups, columns.id_of)
    has_text_marks = any("burned_in_text" in manifest.labels for manifest in manifests)
    return AuditReport(
        sources=[str(path) for path in paths],
        rows=rows,
        groups=len(np.unique(columns.groups)),
        counts=summed(manifest.info["counts"] for manifest in manifests),
        skipped=summed(manifest.info["skipped"] for manifest in manifests),
        leakage={
            "group": leakage(groups, columns.splits),
            LEAKAGE: leakage(groups, columns.splits, images),
        },
        images=size_figures(*(columns.column(name).to_numpy() for name in ("width", "height"))),
        duplicates=duplicates,
        captions=text_figures(columns.captions(), columns.splits, columns.groups, count_tokens or estimate_tokens),
        licences=columns.licences(),
        near_duplicates=near,
        burned_in_text=_counted(columns.column("burned_in_text").to_pylist()) if has_text_marks else None,
        notes=[
            *group_notes(columns.groups, columns.splits),
            *split_notes(rows),
            *copy_notes(duplicates, near),
        ],
    )


class _Columns:
    """The columns of several manifests, one after the other; repeated values are stored once, to save memory."""

    def __init__(self, manifests: Sequence[Manifest]) -> None:
        self.manifests = manifests
        self._starts = np.cumsum([0, *map(len, manifests)])
        names, codes = self._encoded("split")
        of_codes = names.to_pylist()
        self.splits: list[str] = [of_codes[code] for code in codes]
        self.groups: Codes = self._encoded("group")[1]
        self.images: Codes = self._encoded("sha256")[1]

    def column(self, name: str) -> pa.ChunkedArray:
        """One column, null in the manifests that have none of this name."""
        present = [manifest.table[name] for manifest in self.manifests if name in manifest.table.column_names]
        kind = present[0].type if present else pa.string()
        return pa.chunked_array(
            [
                chunk
                for manifest in self.manifests
                for chunk in (
                    manifest.table[name].chunks
                    if name in manifest.table.column_names
                    else [pa.nulls(len(manifest), kind)]
                )
            ],
            type=kind,
        )

    def _encoded(self, name: str) -> tuple[pa.Array, Codes]:
        """(the different values, [row] the number of each row's value): `NO_SET` for null."""
        # In one piece: to unify a dictionary for each piece of 2,048 rows takes time as the square of the rows. Large
        # strings, because one array of plain ones holds 2 GB of text.
        encoded = self.column(name).cast(pa.large_string()).combine_chunks().dictionary_encode()
        codes = encoded.indices.fill_null(NO_SET).to_numpy(zero_copy_only=False)
        return encoded.dictionary, codes.astype(np.int64)

    def id_of(self, row: int) -> str:
        manifest, row = self._place(row)
        return str(manifest.table["id"][row].as_py())

    def image_path(self, row: int) -> Path:
        manifest, row = self._place(row)
        return manifest.image_path(row)

    def _place(self, row: int) -> tuple[Manifest, int]:
        number = int(np.searchsorted(self._starts, row, side="right")) - 1
        return self.manifests[number], row - int(self._starts[number])

    def captions(self) -> Iterator[list[str]]:
        """The captions of each row."""
        for batch in self.column("captions").chunks:
            yield from batch.to_pylist()

    def licences(self) -> dict[str, int]:
        """Rows under each licence: that of the image, or of the whole manifest."""
        total: Counter[str] = Counter()
        for manifest in self.manifests:
            if "licence" in manifest.table.column_names:
                total.update(_counted(manifest.table["licence"].to_pylist()))
            else:
                total[manifest.info.get("licence") or "unknown"] += len(manifest)
        return dict(total.most_common())


def _counted(values: Iterable[str | None]) -> dict[str, int]:
    counted = Counter("unknown" if value is None else value for value in values)
    return dict(counted.most_common())


# ---- ROCO, from its text files --------------------------------------------------------------------------------------


def _is_roco(path: Path) -> bool:
    return any((path / inner / "train" / "radiology").is_dir() for inner in ("", "data"))


def _audit_roco(path: Path) -> AuditReport:
    """Leakage of the official split, and of a disjoint one of the same sizes, measured on the articles."""
    articles = roco_articles(path)
    groups = [article for split in articles for article in articles[split]]
    splits = [split for split in articles for _ in articles[split]]
    shares = [len(articles.get(split, ())) / len(groups) for split in ("train", "validation", "test")]
    assigned = assign_splits(groups, shares)
    return AuditReport(
        sources=[str(path)],
        rows=_counted(splits),
        groups=len(set(groups)),
        coverage=roco_coverage(path),
        leakage={
            "official": leakage(groups, splits),
            "group-disjoint": leakage(groups, [assigned[group] for group in groups]),
        },
    )
