"""`gapless search` and `gapless index delete` as one call each; `Searcher` keeps a model and a collection open."""

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from gapless.core.results import Result
from gapless.search.build import delete_rows
from gapless.search.collection import Collection, Hit
from gapless.search.query_length import Cut, QueryCut
from gapless.search.searcher import Searcher


@dataclass(frozen=True)
class Found(Result):
    """The answer to one query.

    Args:
        hits: the nearest rows, best first.
        model: source and fingerprint of the collection's model.
        cut: how much of the words the model read, where it did not read all.
        unbalanced: why the modalities of a mixed search were not balanced although `raw` was not set; else None.
    """

    hits: Sequence[Hit]
    model: Mapping[str, Any]
    cut: Cut | None
    unbalanced: str | None = None

    def as_json(self) -> dict[str, Any]:
        """What `gapless search --json` prints; every hit has its rank, from 1."""
        return {
            "hits": [{"rank": rank, **asdict(hit)} for rank, hit in enumerate(self.hits, 1)],
            "model": self.model,
            "cut": None if self.cut is None else asdict(self.cut),
            "unbalanced": self.unbalanced,
        }

    @property
    def notes(self) -> tuple[str, ...]:
        """Sentences where words of the query were left out, and where nothing balances the modalities."""
        return tuple(str(note) for note in (self.cut, self.unbalanced) if note is not None)


@dataclass(frozen=True)
class Deleted(Result):
    """Rows that left a collection, and how many are in it now."""

    deleted: int
    rows: int


def search(
    collection: str | Path,
    words: str | None = None,
    *,
    image: Any = None,
    image_weight: float = 0.5,
    query: Mapping[str, Any] | None = None,
    weights: Mapping[str, float] | None = None,
    k: int = 10,
    modality: str | None = None,
    where: str | None = None,
    hybrid: bool = False,
    exact: bool | None = None,
    raw: bool = False,
    in_memory: bool = False,
    model: str | Sequence[str] | None = None,
) -> Found:
    """The k nearest rows of a collection to words, an image, or any parts of a case together.

    It loads the model for this one query; `Searcher.open` loads it once for many.

    Examples:
        >>> from gapless.search import search
        >>> found = search("collection", "left pleural effusion", where="split = 'test'", modality="image", k=2)
        >>> [hit.modality for hit in found.hits]
        ['image', 'image']

    Args:
        collection: what `gapless.index` wrote.
        words: what to search for.
        image: a path, the bytes of an image file, or an 8-bit array [height, width] or [height, width, 3].
        image_weight: with words and image, the image's share of the two, from 0 (words alone) to 1 (image alone).
        query: further parts, modality -> a text, a path, an array, or the fields of a table, as its kind takes it.
        weights: modality -> how much its part of the query counts, 1 by default; 0 leaves it out.
        k: how many hits, at least 1.
        modality: only rows of this one; by default all, mixed.
        where: a filter, such as "modality_type = 'CT' AND age > 60".
        hybrid: also search the captions for the words; the two rankings become one.
        exact: score every row; by default unless the collection has an approximate index.
        raw: order by cosine where rows of several modalities are mixed; by default they are balanced there.
        in_memory: hold the vectors in memory whatever their size; by default up to 4 GiB, and of more none.
        model: where the collection's model is now; by default where it was when the collection was indexed.

    Returns:
        The hits with cosines in [-1, 1], higher is nearer (of a hybrid search with fused scores).

    Raises:
        UsageError: no collection, no query, a modality that the model lacks, a weight without its part, another model,
            an unknown field, a broken filter.
        DataRefused: a damaged collection or model, a file that cannot be read.
    """
    searcher = Searcher.open(collection, model, in_memory=in_memory)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", QueryCut)  # the result says it
        hits = searcher.search(
            text=words,
            image=image,
            image_weight=image_weight,
            query=query,
            weights=weights,
            k=k,
            modality=modality,
            where=where,
            hybrid=hybrid,
            exact=exact,
            raw=raw,
        )
    cut = searcher.cut_of(searcher.parts_of(words, image, image_weight, query=query, weights=weights))
    unbalanced = None if raw or modality is not None else searcher.collection.why_unbalanced()
    return Found(hits, searcher.collection.info["model"], cut, unbalanced)


def delete(collection: str | Path, *, where: str) -> Deleted:
    """Delete the rows of a collection that a filter lets through; they stay out until `restore_deleted` of `index`.

    Raises:
        UsageError: no collection, an unknown field, a broken filter. DataRefused: a damaged collection.
    """
    opened = Collection.open(collection)
    deleted = delete_rows(opened, where)
    return Deleted(deleted, opened.count())
