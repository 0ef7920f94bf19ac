"""What is to be in a collection: samples with what is known of them, and a digest of each one's content."""

import hashlib
import json
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from torch.utils.data import Subset

from gapless.embeddings.embedding_set import EmbeddingSet
from gapless.images.thumbnails import thumbnail
from gapless.inference.embed import Source
from gapless.manifest.manifest import Manifest

THUMBNAILS_AT_ONCE = 4


@dataclass(frozen=True)
class Samples:
    """What is to be in a collection: how to embed each sample, what is known of it, and a digest of all that.

    Args:
        source: inputs and columns, as `embed` reads them.
        contents: [sample] digests; a sample whose digest is in the collection already is left alone.
        origin: where the samples come from, for people.
        images: [sample] files for thumbnails, or None.
    """

    source: Source
    contents: list[str]
    origin: str
    images: list[Path | None] | None = None

    @classmethod
    def of_manifest(cls, source: Source, manifest: Manifest) -> "Samples":
        table = manifest.table
        kept = [name for name in table.column_names if name not in ("image", "width", "height", "licence")]
        contents = [digest(list(row.values())) for row in table.select(kept).to_pylist()]
        if "image" not in table.column_names:
            return cls(source, contents, str(manifest.info["source"]))
        names = table["image"].to_pylist()
        images = [manifest.image_path(row) if name else None for row, name in enumerate(names)]
        return cls(source, contents, str(manifest.info["source"]), images)

    @classmethod
    def of_embeddings(cls, source: Source, embeddings: EmbeddingSet, origin: str) -> "Samples":
        columns = [list(map(str, values)) for values in source.columns.values()]
        contents = [
            digest([*values, *(matrix[row].tobytes().hex() for matrix in embeddings.embeddings.values())])
            for row, values in enumerate(zip(*columns, strict=True))
        ]
        return cls(source, contents, origin)

    @property
    def ids(self) -> Sequence[str]:
        return self.source.columns["id"]

    @property
    def labels(self) -> list[str]:
        return [name for name in self.source.columns if name not in ("id", "group", "split", "captions")]

    def take(self, rows: Sequence[int]) -> "Samples":
        """These samples, in this order."""
        columns = {name: [values[row] for row in rows] for name, values in self.source.columns.items()}
        return Samples(
            source=replace(self.source, dataset=Subset(self.source.dataset, rows), columns=columns),
            contents=[self.contents[row] for row in rows],
            origin=self.origin,
            images=None if self.images is None else [self.images[row] for row in rows],
        )

    @property
    def staged_source(self) -> Source:
        """What is embedded: the source with contents and thumbnails as further columns, under a name of its own."""
        columns = {**self.source.columns, "content": self.contents}
        if self.images is not None:
            columns["thumbnail"] = LazyThumbnails(self.images)
        return replace(self.source, columns=columns, data={"samples": digest(self.contents)})


class LazyThumbnails(Sequence[Any]):
    """Thumbnails that are made when a range of them is asked for."""

    def __init__(self, images: Sequence[Path | None]) -> None:
        self.images = images

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, rows: Any) -> Any:
        with ThreadPoolExecutor(THUMBNAILS_AT_ONCE) as pool:
            return list(pool.map(lambda path: None if path is None else thumbnail(path), self.images[rows]))


def digest(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:32]
