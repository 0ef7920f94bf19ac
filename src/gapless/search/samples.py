"""The samples that `gapless index` reads: their inputs, columns and previews, and a digest of each row's content."""

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from copy import copy
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from torch.utils.data import Subset

from gapless.core.errors import listed
from gapless.embeddings.embedding_set import EmbeddingSet
from gapless.inference.embed import Source
from gapless.manifest.manifest import Manifest
from gapless.manifest.previews import Preview, preview_of
from gapless.modalities.base import Modality
from gapless.search.row_contents import (
    Contents,
    contents_before_caption,
    contents_of_manifest,
    contents_of_vectors,
    digest,
    where_captioned,
)

PREVIEWS_AT_ONCE = 4


@dataclass(frozen=True)
class Samples:
    """Samples for a collection: how to embed each of them, its columns, and digests and previews of its rows.

    Args:
        source: inputs and columns, as `embed` reads them.
        contents: modality -> [sample] digest of what its row holds, None where the sample lacks the modality. A row
            whose digest is in the collection already is left alone.
        origin: where the samples come from, for people.
        previews: modality -> [sample] what is shown of it.
        earlier: [sample] digests that earlier versions of gapless gave all rows of the sample, or None.
        before_caption: modality -> [sample] the digest that the row had while the sample had no caption; None where it
            has none, or lacks the modality.
    """

    source: Source
    contents: Mapping[str, Sequence[str | None]]
    origin: str
    previews: Mapping[str, "LazyPreviews"] = field(default_factory=dict)
    earlier: Sequence[str] | None = None
    before_caption: Mapping[str, Sequence[str | None]] = field(default_factory=dict)

    @classmethod
    def of_manifest(cls, source: Source, manifest: Manifest, kinds: Mapping[str, Modality[Any]]) -> "Samples":
        """The rows of a manifest.

        Args:
            kinds: modality -> its kind, with the settings of the model; the modalities that are embedded.
        """
        shown = [name for name in kinds if manifest.column_of(name) != manifest.caption_column]
        rows = np.arange(len(manifest))
        return cls(
            source,
            contents_of_manifest(manifest, list(kinds)),
            str(manifest.info["source"]),
            {name: LazyPreviews(manifest, name, kinds[name], rows) for name in shown},
            before_caption=contents_before_caption(manifest, list(kinds)),
        )

    @classmethod
    def of_embeddings(
        cls, source: Source, embeddings: EmbeddingSet, origin: str, modalities: Sequence[str] | None = None
    ) -> "Samples":
        """The rows of a set of embeddings, of which there are no previews.

        Args:
            modalities: those that a model takes and that become rows; by default all of the set.
        """
        columns = {name: list(map(str, values)) for name, values in source.columns.items()}
        common = list(zip(*columns.values(), strict=True))
        names = [name for name in embeddings.embeddings if modalities is None or name in modalities]
        contents = contents_of_vectors(embeddings, names, common)
        captions = columns.get("captions", [])
        before: Contents = {}
        if any(captions):
            without = list(zip(*{**columns, "captions": [""] * len(captions)}.values(), strict=True))
            before = where_captioned(captions, contents_of_vectors(embeddings, names, without))
        earlier = None
        if embeddings.is_complete:
            matrices = embeddings.embeddings.values()
            earlier = [
                digest([*values, *(matrix[row].tobytes().hex() for matrix in matrices)])
                for row, values in enumerate(common)
            ]
        return cls(source, contents, origin, earlier=earlier, before_caption=before)

    @property
    def ids(self) -> Sequence[str]:
        return self.source.columns["id"]

    @property
    def labels(self) -> list[str]:
        return [name for name in self.source.columns if name not in ("id", "group", "split", "captions")]

    @property
    def without_rows(self) -> list[str]:
        """Modalities of the data that no sample has."""
        return [name for name, digests in self.contents.items() if not any(digests)]

    def take(self, rows: Sequence[int], modalities: Mapping[int, frozenset[str]] | None = None) -> "Samples":
        """These samples, in this order.

        Args:
            modalities: sample -> those of its modalities that are wanted; the others are neither read nor embedded.
                By default all that it has.
        """
        source = self.source
        columns = {name: [values[row] for row in rows] for name, values in source.columns.items()}
        present = None if source.present is None else {name: mask[list(rows)] for name, mask in source.present.items()}
        dataset: Any = source.dataset
        if modalities is not None:
            present = {name: np.array([name in modalities[row] for row in rows], dtype=bool) for name in self.contents}
            if all(mask.all() for mask in present.values()):
                present = None
            else:
                dataset = copy(dataset)
                dataset.present = {name: np.zeros(len(self.ids), dtype=bool) for name in self.contents}
                for name, mask in present.items():
                    dataset.present[name][np.asarray(rows)[mask]] = True
        contents = {name: [digests[row] for row in rows] for name, digests in self.contents.items()}
        for name, mask in (present or {}).items():
            contents[name] = [one if has else None for one, has in zip(contents[name], mask, strict=True)]
        return Samples(
            source=replace(source, dataset=Subset(dataset, list(rows)), columns=columns, present=present),
            contents=contents,
            origin=self.origin,
            previews={name: one.take(rows, contents[name]) for name, one in self.previews.items()},
            earlier=None if self.earlier is None else [self.earlier[row] for row in rows],
            before_caption={name: [of[row] for row in rows] for name, of in self.before_caption.items()},
        )

    @property
    def notes(self) -> list[str]:
        """A sentence on the previews that could not be made so far; none where all could."""
        failed = [
            (f"{self.ids[row]}/{name}", reason)
            for name, previews in self.previews.items()
            for row, reason in sorted(previews.refusals.items())
        ]
        if not failed:
            return []
        named = listed([f"{key}: {reason}" for key, reason in failed])
        return [f"{len(failed):,} rows are indexed without a preview, which could not be made ({named})"]

    @property
    def columns(self) -> dict[str, Sequence[Any]]:
        """What is stored beside the vectors: the columns of the source, and the content and the preview of each row."""
        return {
            **self.source.columns,
            **{content_column(name): digests for name, digests in self.contents.items()},
            **{preview_column(name): one for name, one in self.previews.items()},
        }

    @property
    def staged_source(self) -> Source:
        """What is embedded: the source with the further columns, under a name of its own."""
        return replace(self.source, columns=self.columns, data={"samples": digest(dict(self.contents))})


class LazyPreviews(Sequence[bytes | None]):
    """What is shown of the rows of one modality, made when a range of them is asked for.

    It is a JPEG without metadata or a short text in UTF-8 (`text_of_preview` tells them apart), of the first view of a
    row; None for a row that lacks the modality, or cannot be read.

    Args:
        manifest: where the sources are.
        name: the modality.
        kind: makes the previews.
        rows: numbers of rows of the manifest; -1 for a row without a preview.
        refusals: where the rows of the manifest whose preview could not be made are noted, with the reason; the parts
            that `take` gives write into the same.
    """

    def __init__(
        self,
        manifest: Manifest,
        name: str,
        kind: Modality[Any],
        rows: np.ndarray,
        refusals: dict[int, str] | None = None,
    ) -> None:
        self.manifest = manifest
        self.name = name
        self.kind = kind
        self.rows = rows
        self.refusals: dict[int, str] = {} if refusals is None else refusals

    def take(self, places: Sequence[int], wanted: Sequence[Any]) -> "LazyPreviews":
        """Those at these places; none where `wanted` has None."""
        chosen = self.rows[list(places)]
        has = np.array([one is not None for one in wanted], dtype=bool)
        return LazyPreviews(self.manifest, self.name, self.kind, np.where(has, chosen, -1), self.refusals)

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, places: Any) -> Any:
        chosen = self.rows[places]
        if np.ndim(chosen) == 0:
            return self._preview(int(chosen))
        with ThreadPoolExecutor(PREVIEWS_AT_ONCE) as pool:
            return list(pool.map(self._preview, chosen.tolist()))

    def _preview(self, row: int) -> bytes | None:
        preview = Preview() if row < 0 else preview_of(self.manifest, self.name, row, self.kind)
        if preview.refusal:
            self.refusals[row] = preview.refusal
        shown = preview.shown
        return (shown.encode("utf-8", errors="replace") if isinstance(shown, str) else shown) or None


def text_of_preview(preview: bytes | None) -> str | None:
    """The text of a preview; None of a JPEG, whose first byte is none of UTF-8."""
    return None if preview is None or preview.startswith(b"\xff") else preview.decode("utf-8")


def content_column(modality: str) -> str:
    """The column of staged rows with the digests of a modality's rows."""
    return f"content/{modality}"


def preview_column(modality: str) -> str:
    """The column of staged rows with the previews of a modality's rows."""
    return f"preview/{modality}"
