"""One model and one collection: words, an image or any other parts of a case, to the rows that are nearest.

searcher = Searcher.open("collections/x")
searcher.search(text="left pleural effusion", k=5)
searcher.search(query={"ecg": "ecg.edf", "labs": "hb=11.2,age=60"}, weights={"labs": 0.5}, modality="report")
"""

import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from gapless.core.errors import DataRefused, NeedsNetwork, UsageError, did_you_mean, unknown_name
from gapless.models.aligner import GaplessModel
from gapless.models.fingerprint import fingerprint_of
from gapless.models.load import load_model
from gapless.models.safe_loading import on_accelerator
from gapless.search.arguments import checked_count, checked_part_weight, inputs_of
from gapless.search.collection import Collection, Hit
from gapless.search.query_length import Cut, QueryCut, QueryLength, words_modality
from gapless.search.table_version import MEMORY_BYTES


class Part(NamedTuple):
    """One input of a query."""

    modality: str
    raw: Any
    weight: float


class Searcher:
    """Answers queries with a model and the collection that was indexed with it.

    Args:
        collection: where to look.
        model: what embeds the queries; its fingerprint must be the collection's.

    Raises:
        UsageError: another model.
    """

    def __init__(self, collection: Collection, model: GaplessModel) -> None:
        collection.check_model(fingerprint_of(model))
        self.collection = collection
        self.model = model.train(False)
        self._length = QueryLength(model)

    @classmethod
    def open(cls, uri: str | Path, model: str | Sequence[str] | None = None, *, in_memory: bool = False) -> "Searcher":
        """Open a collection with its model.

        Args:
            uri: the collection.
            model: where the model is now; by default where it was when the collection was indexed.
            in_memory: hold the vectors in memory whatever their size; by default up to 4 GiB, and of more none.

        Raises:
            UsageError: no collection, no model, or another model; `in_memory` of more than this computer has.
            DataRefused: one of them is damaged.
        """
        collection = Collection.open(uri, None if in_memory else MEMORY_BYTES)
        if in_memory:
            collection.table_version().check_memory(str(uri))
        recorded = collection.info["model"]["source"]
        try:
            loaded = load_model([model] if isinstance(model, str) else model or recorded)
        except (UsageError, NeedsNetwork) as error:
            if model is not None:
                raise
            where = " ".join(recorded)
            raise UsageError(f"the model of {uri} is not at {where} ({error}); say where it is with --model") from None
        return cls(collection, on_accelerator(loaded))

    def warm(self) -> None:
        """One query before the first: what stays in memory is read, and damage shows now and not to whoever asks.

        Raises:
            DataRefused: a damaged collection.
        """
        direction = np.eye(1, self.collection.info["embedding_dim"], dtype=np.float32)[0]
        vector = self.embed("warm") if self.words_modality else direction
        self.collection.search(vector, k=1, balanced={})

    def embed(
        self,
        text: str | None = None,
        image: Any = None,
        image_weight: float = 0.5,
        *,
        query: Mapping[str, Any] | None = None,
        weights: Mapping[str, float] | None = None,
    ) -> np.ndarray:
        """A query as a vector.

        Args:
            text: words, or None; they are a part of `words_modality`.
            image: a path, the bytes of an image file, an 8-bit array [height, width] or [height, width, 3], or None.
            image_weight: with words and image and without `weights`, the image's share of the two, from 0 to 1.
            query: modality -> what to ask with, as `Modality.parse_query` of its kind takes it.
            weights: modality -> how much its part counts, 1 by default; 0 leaves it out.

        Returns:
            [dim] unit norm: the normalised weighted mean of the unit-norm embeddings of the parts.

        Raises:
            UsageError: no part, empty words, a weight that is none, a modality that the model lacks.
            DataRefused: a file that cannot be read.

        Warns:
            QueryCut: a text is more than the model reads.
        """
        return self._vector_of(self.parts_of(text, image, image_weight, query=query, weights=weights))

    def parts_of(
        self,
        text: str | None = None,
        image: Any = None,
        image_weight: float = 0.5,
        *,
        query: Mapping[str, Any] | None = None,
        weights: Mapping[str, float] | None = None,
    ) -> list[Part]:
        """`parts` of a query with the shorthands for words and an image; arguments and errors are those of `embed`."""
        return self.parts(*inputs_of(text, image, image_weight, query, weights, words_as=self._words))

    def _vector_of(self, parts: Sequence[Part]) -> np.ndarray:
        cut = self.cut_of(parts)
        if cut is not None:
            warnings.warn(QueryCut(str(cut)), stacklevel=3)
        raws = [self._read(part) for part in parts]
        return weighted_mean(
            [self.encode(part.modality, [raw])[0] for part, raw in zip(parts, raws, strict=True)], parts
        )

    def cut(self, text: str) -> Cut | None:
        """What the model leaves out of these words, or None where it reads all."""
        words = self.words_modality
        return None if words is None else self._length.cut_of(words, self._parsed(words, text))

    def cut_of(self, parts: Sequence[Part]) -> Cut | None:
        """The first text of a query of which the model leaves something out, or None."""
        cuts = (self._length.cut_of(part.modality, part.raw) for part in parts)
        return next((cut for cut in cuts if cut is not None), None)

    def hybrid_words(self, text: str | None, query: Mapping[str, Any]) -> str:
        """The words that a hybrid search looks for in the captions: `text`, or the part of `words_modality`.

        Raises:
            UsageError: there are none, or they are no text.
        """
        words = query.get(self._words) if text is None else text
        if words is None:
            raise UsageError(f"a hybrid search needs words: give them by themselves, or as the part {self._words!r}")
        self._parsed(self._words, words)
        return str(words)

    @property
    def words_modality(self) -> str | None:
        """What words are a query of: the model's modality `text`, else its first one of texts; None without any."""
        return words_modality(self.model)

    @property
    def _words(self) -> str:
        return self.words_modality or "text"

    def parts(self, inputs: Mapping[str, Any], weights: Mapping[str, float] | None = None) -> list[Part]:
        """What of a query has to be encoded, each checked by its kind.

        Args:
            inputs: modality -> what the user gives for it.
            weights: modality -> how much it counts, 1 by default; 0 leaves it out.

        Raises:
            UsageError: nothing to ask with, an unknown modality, a weight that is none, an input that its kind does not
                take.
        """
        for name in weights or {}:
            if name not in inputs:
                raise unknown_name("part of the query with a weight", name, inputs)
        parts = [
            Part(name, self._parsed(name, value), checked_part_weight(name, (weights or {}).get(name, 1.0)))
            for name, value in inputs.items()
        ]
        weighty = [part for part in parts if part.weight > 0]
        if not weighty:
            raise UsageError("a query needs a part with a weight above 0")
        return weighty

    def encode_prepared(self, modality: str, prepared: Sequence[Any]) -> np.ndarray:
        """[len(prepared), dim] unit-norm rows of what `prepare` of the modality gave, in one pass of the model."""
        with torch.inference_mode():  # of a single text it takes 5 % less than no_grad
            return np.asarray(self.model.encode_prepared(modality, prepared).numpy(), dtype=np.float32)

    def encode(self, modality: str, raws: Sequence[Any]) -> np.ndarray:
        """[len(raws), dim] unit-norm rows of one modality, in one pass of the model."""
        return np.asarray(self.model.encode(modality, raws).numpy(), dtype=np.float32)

    @property
    def query_modalities(self) -> list[str]:
        """What a query may be: the modalities that the model embeds by itself, so not vectors of another encoder."""
        return [name for name in self.model.modalities if self.model.preprocessor(name).takes_queries]

    def _parsed(self, modality: str, value: Any) -> Any:
        """What a user gave for a modality, checked by its kind."""
        if modality not in self.model.modalities:
            meant = did_you_mean(modality, self.model.modalities)
            raise UsageError(f"the model takes {', '.join(self.model.modalities)}, and no {modality} query{meant}")
        kind = self.model.preprocessor(modality)
        try:
            return kind.parse_query(value)
        except UsageError as error:
            if kind.takes_queries:
                raise
            raise UsageError(f"{modality}: {error}") from None

    def _read(self, part: Part) -> Any:
        """The raw input of a part; a file is read and decoded."""
        try:
            return self.model.preprocessor(part.modality).read(part.raw)
        except DataRefused as error:
            named = part.raw if isinstance(part.raw, Path) else f"the {part.modality}"
            raise DataRefused(f"{named} cannot be searched with: {error}") from None

    def search(
        self,
        *,
        text: str | None = None,
        image: Any = None,
        image_weight: float = 0.5,
        query: Mapping[str, Any] | None = None,
        weights: Mapping[str, float] | None = None,
        k: int = 10,
        modality: str | None = None,
        where: str | None = None,
        labels: Mapping[str, str | float] | None = None,
        hybrid: bool = False,
        exact: bool | None = None,
        raw: bool = False,
    ) -> list[Hit]:
        """The k nearest rows to a query; the options are those of `embed` and of `Collection.search`.

        Args:
            hybrid: the words also search the captions, and the two rankings become one.
            raw: order by cosine where rows of several modalities are mixed; by default they are balanced there.

        Raises:
            UsageError: as `embed` and `Collection.search`; `hybrid` without words.
        """
        words = self.hybrid_words(text, query or {}) if hybrid else None
        checked_count(k)
        condition = self.collection.condition(modality, where, labels)  # refused before the model works
        parts = self.parts_of(text, image, image_weight, query=query, weights=weights)
        balanced = None if raw else asked_with(parts)
        return self.collection.search(
            self._vector_of(parts), k=k, where=condition, words=words, exact=exact, balanced=balanced
        )


def asked_with(parts: Sequence[Part]) -> dict[str, float]:
    """Modality -> its share of a query."""
    total = sum(part.weight for part in parts)
    return {part.modality: part.weight / total for part in parts}


def weighted_mean(vectors: Sequence[np.ndarray], parts: Sequence[Part]) -> np.ndarray:
    """[dim] the normalised mean of unit-norm vectors by the weights of their parts; one vector stays as it is."""
    if len(vectors) == 1:
        return vectors[0]
    both = np.sum([vector * part.weight for vector, part in zip(vectors, parts, strict=True)], axis=0)
    norm = np.linalg.norm(both)
    if norm < 1e-6:
        raise UsageError("the parts of the query point in opposite directions; choose other weights")
    return np.asarray(both / norm, dtype=np.float32)
