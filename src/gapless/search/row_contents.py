"""Digests of what the rows of a collection hold, by which `gapless index` knows a row again."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from gapless.embeddings.embedding_set import EmbeddingSet
from gapless.manifest.manifest import VERSION, Manifest

NO_CONTENT = ("image", "width", "height", "licence")  # of version 1: its column `sha256` says what the image is
Contents = dict[str, list[str | None]]


def contents_of_manifest(manifest: Manifest, names: Sequence[str]) -> Contents:
    """Modality -> [row] digest of what its row in a collection holds, None where it is absent.

    Of version 2 a row holds what is known of the whole sample (id, group, split, labels, the caption) and its own cell,
    so that a modality that arrives later leaves the other rows as they are. Of version 1, whose rows all have an image
    and captions, every row of a sample has the digest of the whole sample. Names of files are not part of it.
    """
    table = manifest.table
    masks = manifest.presence(names)
    if manifest.version == VERSION:
        whole = table.select([name for name in table.column_names if name not in NO_CONTENT])
        common = [digest(list(row.values())) for row in whole.to_pylist()]
        return {name: _where(mask, common) for name, mask in masks.items()}
    return _contents_with(manifest, masks, _captions_of(manifest))


def contents_before_caption(manifest: Manifest, names: Sequence[str]) -> Contents:
    """Modality -> [row] the digest that its row had while the sample had no caption; None where it has none.

    A row in a collection shows the caption of its sample, so that its digest counts the caption in. A caption that a
    sample gets later makes no row of it another one. Empty for version 1, whose rows all have captions.
    """
    captions = _captions_of(manifest)
    if manifest.version == VERSION or not any(captions):
        return {}
    masks = manifest.presence(names)
    return where_captioned(captions, _contents_with(manifest, masks, [""] * len(manifest)))


def _captions_of(manifest: Manifest) -> list[str]:
    return [""] * len(manifest) if manifest.caption_column is None else manifest.first_captions


def _contents_with(manifest: Manifest, masks: Mapping[str, np.ndarray], captions: Sequence[str]) -> Contents:
    """The digests of rows of a manifest of version 2, with these captions."""
    known = manifest.table.select(["id", "group", "split", *manifest.labels]).to_pylist()
    common = [digest([*row.values(), caption]) for row, caption in zip(known, captions, strict=True)]
    files = manifest.contents()
    contents = {}
    for name, mask in masks.items():
        cells = files[name] if name in files else manifest.table[name].to_pylist()
        contents[name] = _where(mask, [digest(both) for both in zip(common, cells, strict=True)])
    return contents


def contents_of_vectors(embeddings: EmbeddingSet, names: Sequence[str], common: Sequence[tuple[str, ...]]) -> Contents:
    """The digests of rows of embeddings, of which `common` is known of the whole sample."""
    return {
        name: [
            digest([*values, matrix[row].tobytes().hex()]) if has else None
            for row, (values, has) in enumerate(zip(common, embeddings.presence[name], strict=True))
        ]
        for name, matrix in embeddings.embeddings.items()
        if name in names
    }


def where_captioned(captions: Sequence[str], contents: Contents) -> Contents:
    """The digests of the rows of samples with a caption; None of the others."""
    return {
        name: [one if caption else None for one, caption in zip(digests, captions, strict=True)]
        for name, digests in contents.items()
    }


def _where(mask: np.ndarray, digests: Sequence[str]) -> list[str | None]:
    return [one if has else None for one, has in zip(digests, mask, strict=True)]


def digest(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:32]
