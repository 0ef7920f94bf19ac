"""The requests and answers of the API, from which the OpenAPI document is generated."""

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from gapless.core.errors import UsageError
from gapless.search.collection import Hit

MAX_HITS = 200
MAX_PARTS = 16
MAX_FIELDS = 2_000  # of a table
MAX_WEIGHT = 1_000_000.0
MAX_SELECTED = 1_000
Words = Annotated[str, Field(max_length=2_000)]
Name = Annotated[str, Field(max_length=1_000)]
Numbers = Annotated[list[float], Field(max_length=200_000, fail_fast=True)]
PartValue = (
    Annotated[str, Field(max_length=10_000)]
    | Numbers
    | Annotated[list[Numbers], Field(max_length=1_024, fail_fast=True)]
    | Annotated[dict[Name, Name | int | float | bool | None], Field(max_length=MAX_FIELDS)]
)


class Query(BaseModel):
    """A query. Exactly one of: words, parts and uploaded files (any of them together), `vector`, `like`."""

    # strict: "3" and true are no numbers, 2.5 is no number of hits
    model_config = ConfigDict(extra="forbid", allow_inf_nan=False, strict=True)

    text: Words | None = Field(None, description="words to search with")
    image_weight: float = Field(0.5, ge=0, le=1, description="with words and an image: 0 is words alone, 1 image alone")
    parts: Annotated[dict[Name, PartValue], Field(max_length=MAX_PARTS)] = Field(
        default_factory=dict,
        description="modality -> a text; the fields of a table, as an object or as 'age=63, hb=11.2'; or the numbers "
        "of a signal, a list for each channel. Files come as the parts of a form to /api/search/upload",
    )
    weights: Annotated[dict[Name, Annotated[float, Field(ge=0, le=MAX_WEIGHT)]], Field(max_length=MAX_PARTS)] = Field(
        default_factory=dict,
        description="modality -> how much its part counts against the others; 1 where none is given, 0 leaves it out",
    )
    vector: Annotated[list[float], Field(max_length=65_536)] | None = Field(
        None, description="an embedding of the collection's model instead of words; any length but 0"
    )
    like: Name | None = Field(None, description="the row of a hit: more like this one")
    k: int = Field(24, ge=1, le=MAX_HITS, description="how many hits")
    modality: Name | None = Field(None, description="only rows of this modality; null searches all together")
    labels: Annotated[dict[Name, Name | int | float], Field(max_length=20)] = Field(
        default_factory=dict, description="only rows with these values of these labels"
    )
    where: Annotated[str, Field(max_length=10_000)] | None = Field(
        None, description="a filter in SQL: modality_type = 'CT' AND age > 60"
    )
    raw: bool = Field(False, description="order a mixed search by cosine, without balancing the modalities")
    hybrid: bool = Field(False, description="also search the captions for the words; the two rankings become one")

    @property
    def condition(self) -> str | None:
        """The filter; None when it is empty or only spaces."""
        return self.where if self.where and self.where.strip() else None

    def check_inputs(self, has_files: bool) -> None:
        """Check that the query has exactly one kind of input.

        Raises:
            UsageError: none, or several; weights of nothing.
        """
        has_parts = self.text is not None or bool(self.parts) or has_files
        if sum([has_parts, self.vector is not None, self.like is not None]) != 1:
            raise UsageError("ask with words, parts and files, or with 'vector', or with 'like': one of these")
        if self.weights and not has_parts:
            raise UsageError("'weights' are those of parts; a query by 'vector' or 'like' has none")
        if self.hybrid and not has_parts:
            raise UsageError("a hybrid search needs words, and a query by 'vector' or 'like' has none")

    def asks_by(self, has_files: bool) -> str:
        """What it asks with, for counting: one of five words, whatever the query holds."""
        if self.vector is not None or self.like is not None:
            return "like" if self.vector is None else "vector"
        if has_files:
            return "files"
        return "parts" if self.parts else "words"


class FoundRow(BaseModel):
    """A row of the collection; `row` is its key, opaque."""

    row: str
    id: str
    modality: str
    score: float = Field(description="cosine in [-1, 1], higher is nearer; the fused score of a hybrid search")
    similarity: float = Field(description="the cosine in every search; thresholds are for it")
    balanced: float | None = Field(
        description="what a balanced search is ordered by: standard deviations above what the query scores among the "
        "nearest of the row's modality; null where it is not balanced"
    )
    caption: str | None
    labels: dict[str, str | None]
    group: str | None
    has_thumbnail: bool
    preview: str | None = Field(description="what a row without a picture holds: a text, the values of a table")

    @classmethod
    def of(cls, hit: Hit) -> "FoundRow":
        return cls(**vars(hit))  # asdict would copy every value: half a millisecond for ten hits


class CutWords(BaseModel):
    """The number of tokens of a text, and how many of them the model reads."""

    tokens: int = Field(description="of the whole query")
    read: int = Field(description="so many of them the model read, from the start")


class Answer(BaseModel):
    hits: list[FoundRow]
    cut: CutWords | None = Field(None, description="null where the model read all words of the query")
    milliseconds: float = Field(description="inside the service, from the query's last byte to the hits")


class Case(BaseModel):
    """All that the collection has of one sample, in the order of the collection's modalities; scores mean nothing."""

    id: str
    rows: list[FoundRow]
    absent: list[str] = Field(description="modalities of the collection that the sample lacks")


class Selection(BaseModel):
    """Cases that somebody selected, by their ids; an id that is given twice counts once."""

    model_config = ConfigDict(extra="forbid", strict=True)

    ids: Annotated[list[Name], Field(min_length=1, max_length=MAX_SELECTED)]


class SharedValue(BaseModel):
    """A value of a label that selected cases have."""

    value: str
    count: int = Field(description="selected cases that have it")
    share: float = Field(description="of the selected cases, 0 to 1")
    collection_share: float = Field(description="of all rows of the collection, 0 to 1")


class Shared(BaseModel):
    """What selected cases have in common. Figures are null or left out where too few cases allow none."""

    num_cases: int
    absent: list[str] = Field(description="ids that the collection does not have; nothing here counts them")
    modalities: dict[str, int] = Field(description="modality -> selected cases that have a row of it")
    labels: dict[str, list[SharedValue]] = Field(description="label -> its values, those of the most cases first")
    texts: list[FoundRow] = Field(description="texts of the whole collection that are nearest to the selection's mean")
    within_cosine: dict[str, float] = Field(description="modality -> mean cosine of two different selected cases")
    num_pairs: int = Field(description="selected cases with two modalities or more, which `gap` is measured on")
    gap: dict[str, float] = Field(description="key of a figure -> its value for the selection")
    collection_gap: dict[str, float] = Field(description="the same for the cases of the map")


class Failure(BaseModel):
    """Every refusal: one sentence."""

    error: str


class Label(BaseModel):
    values: list[tuple[str, int]] = Field(description="values with their number of rows, the most frequent first")
    num_values: int = Field(description="how many there are; of very many only the first are listed")
    kind: str = Field(description="number where every value is one (a filter compares numbers then), else text")


class TableField(BaseModel):
    """A field of a table, as a form asks for it."""

    name: str
    numeric: bool
    values: list[str] = Field(description="the categories that the model knows; empty for numbers and unknown fields")


class Description(BaseModel):
    """The collection, its modalities and the fields of its filters."""

    rows: int
    modalities: list[str]
    index: dict[str, str | int | float | None] | None = Field(
        description="of the approximate index its kind, how it is asked, and its recall@10 against exact search, as "
        "'gapless index' measured it; null where every row is scored"
    )
    balanced: bool = Field(description="whether a mixed search balances the modalities")
    labels: dict[str, Label]
    queries: list[str] = Field(description="what the model embeds: modalities that a query can have parts of")
    words: str | None = Field(description="the modality that `text` is embedded as")
    kinds: dict[str, str] = Field(description="modality -> its kind: image, text, table, waveform, ...")
    files: list[str] = Field(description="those of `queries` that come as files, or as their numbers")
    table_fields: dict[str, list[TableField]] = Field(description="modality of a table -> its fields")
    fields: list[str] = Field(description="what `where` may name")
    embedding_dim: int
    fingerprint: str = Field(description="of the model")


class Health(BaseModel):
    status: str
    rows: int
    version: str
