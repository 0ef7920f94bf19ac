"""The protocol of kinds of modalities, which process the inputs of a model, and the registry of all kinds.

    @dataclass(frozen=True)
    class CountsInput:
        kind: ClassVar[str] = "counts"
        size: int

    class Counts(Modality[CountsInput]):
        Input = CountsInput

        def prepare(self, raw): return np.log1p(np.asarray(raw, dtype=np.float32))

    MODALITIES.add("counts", Counts)

A model's configuration names it as `input: {kind: counts, size: 12}`. torch is imported where tensors are made, because
the processes that check a manifest's items need none.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Generic, Literal, TypeVar

import numpy as np

from gapless.core.errors import DataRefused, UsageError
from gapless.core.registry import Registry

if TYPE_CHECKING:
    from torch import Tensor

Settings = TypeVar("Settings")
Form = Literal["files", "texts", "numbers", "fields"]
FILES: Form = "files"
TEXTS: Form = "texts"
NUMBERS: Form = "numbers"
FIELDS: Form = "fields"


class RowRefused(DataRefused):
    """One of several rows that cannot be used; `row` is its place among them, from 0."""

    def __init__(self, row: int, message: str) -> None:
        self.row = row
        super().__init__(message)

    def __reduce__(self) -> tuple[type["RowRefused"], tuple[int, str]]:
        return RowRefused, (self.row, str(self))


@contextmanager
def row_named(row: int) -> Iterator[None]:
    """Raise the refusal of the block as that of one row. Raises RowRefused."""
    try:
        yield
    except (DataRefused, OSError) as error:
        raise RowRefused(row, str(error)) from None


class Modality(ABC, Generic[Settings]):
    """One kind of modality with the settings of one model: it turns sources of inputs into the encoder's tensors.

    A source is what a manifest or a user names (a path, a text, a list of numbers). `read` gives its raw input, and
    `prepare` a prepared input: a small value of fixed form that can be cached in memory.

    Args:
        settings: an instance of the class's `Input`.
        tokenizer: of the text encoder; only kinds with `takes_tokenizer` get one.
    """

    # A frozen dataclass with the class variable `kind`; its fields are the keys of `input: {kind: ...}`.
    Input: ClassVar[type[Any]]
    # Whether a query can be of this kind: not where the numbers are those of another encoder.
    takes_queries: ClassVar[bool] = True
    takes_tokenizer: ClassVar[bool] = False
    # What one view is in a column of a manifest: the name of a file, a text, a list of numbers, or a table's fields.
    manifest_form: ClassVar[Form] = FILES
    # Whether a file's name may be that of a folder, and a suffix that the name may leave out.
    takes_folders: ClassVar[bool] = False
    optional_suffix: ClassVar[str] = ""
    # Whether prepared inputs are worth keeping in memory between epochs.
    is_slow_to_prepare: ClassVar[bool] = False

    def __init__(self, settings: Settings, tokenizer: Any = None) -> None:
        self.settings = settings
        self.tokenizer = tokenizer

    @staticmethod
    def check(source: Any, params: Mapping[str, Any]) -> dict[str, Any]:
        """Facts about one item of a manifest, found while it is built, in a worker process.

        Args:
            source: the content of a file, or the cell of a table.
            params: how the manifest says that it is to be read.

        Raises:
            DataRefused: it cannot be used.
        """
        return {}

    @staticmethod
    def files(source: Any) -> list[Path]:
        """The files that a source consists of, in a fixed order, for digests and copies; none for cells and arrays.

        Raises:
            DataRefused: a file that names others which must not be read.
        """
        return [source] if isinstance(source, Path) else []

    def read(self, source: Any) -> Any:
        """The raw input that a source names. Raises DataRefused: it cannot be read."""
        return source

    @abstractmethod
    def prepare(self, raw: Any) -> Any:
        """A raw input, or a source, in the small fixed form that `collate` takes. Raises DataRefused."""

    def augment(self, prepared: Any, seed: int, epoch: int, sample_id: str) -> Any:
        """A random change that keeps captions true, drawn from (seed, epoch, sample id); by default none."""
        return prepared

    @abstractmethod
    def collate(self, prepared: Sequence[Any]) -> "dict[str, Tensor]":
        """Prepared inputs as the encoder's keyword arguments, each [row, ...]."""

    @classmethod
    def fit(cls, settings: Settings, rows: Sequence[Any]) -> Settings:
        """Settings with the statistics of the training rows in them; by default they stay as they are.

        Args:
            rows: sources of the training rows that have the modality.

        Raises:
            RowRefused: a row that cannot be read or does not fit to the others. DataRefused: rows as a whole.
        """
        return settings

    @classmethod
    @abstractmethod
    def default_encoder(cls, settings: Settings) -> dict[str, Any]:
        """The `encoder` of a model whose configuration names none: small, and trained from scratch."""

    @abstractmethod
    def preview(self, raw: Any) -> bytes | str:
        """A raw input for a page: a JPEG without metadata, or a short text."""

    def parse_query(self, value: Any) -> Any:
        """The source of a query from a string or an upload.

        Raises:
            UsageError: it is nothing of this kind, or no query can be of this kind.
        """
        raise UsageError(f"a query cannot be of the kind {self.Input.kind}")

    @abstractmethod
    def sample(self, count: int, random: np.random.Generator) -> list[Any]:
        """Made-up raw inputs, with which an exported graph is traced and checked."""

    @property
    def has_free_length(self) -> bool:
        """Whether the second axis of the tensors changes from batch to batch, as that of padded texts does."""
        return False


MODALITIES: Registry[type[Modality[Any]]] = Registry("modality kind", "gapless.modalities", "gapless.modalities")


def build_modality(settings: Any, tokenizer: Any = None) -> Modality[Any]:
    """The modality of an input specification, such as `ImageInput(size=224)`."""
    return MODALITIES[settings.kind](settings, tokenizer)
