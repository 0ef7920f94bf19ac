"""Tables: the numbers and categories of named columns of one row, any of them absent, as one row of numbers.

A number becomes its percentile among the training rows, a text one of the categories of the training rows; beside each
stands a bit that says whether it is present, as in Symile-MIMIC (Saporta et al., arXiv 2411.01053).
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from gapless.core.errors import DataRefused, UsageError, listed
from gapless.modalities.base import FIELDS, MODALITIES, Modality, row_named
from gapless.modalities.params import settings_of
from gapless.modalities.table_fields import Cell, cell_of, encode, fit_field, width
from gapless.modalities.text import shortened

if TYPE_CHECKING:
    from torch import Tensor

Row = dict[str, Cell]


@dataclass(frozen=True)
class TableInput:
    """Named columns as one row of numbers.

    Args:
        columns: names of the fields, in the order in which they are encoded.
        categories: fields whose numbers are names, such as codes of wards.
        quantiles: how many steps the percentiles of a number have.
        max_categories: of a field; the rarest beyond are grouped with the unknown ones.
        min_rows: training rows that a category needs; a rarer one is grouped with the unknown ones.
        fields: statistics of the training rows, name -> what `table_fields.fit_field` gives; None before `fit`.
    """

    kind: ClassVar[str] = "table"
    columns: tuple[str, ...] = ()
    categories: tuple[str, ...] = ()
    quantiles: int = 100
    max_categories: int = 32
    min_rows: int = 5
    fields: Mapping[str, Any] | None = None

    def __post_init__(self) -> None:
        if len(set(self.columns)) != len(self.columns):
            raise UsageError(f"a table names each column once, got {listed(self.columns)}")
        if unknown := sorted(set(self.categories) - set(self.columns)):
            raise UsageError(f"categories of a table names {listed(unknown)}, which is none of its columns")
        if min(self.quantiles, self.max_categories, self.min_rows) < 1:
            raise UsageError("quantiles, max_categories and min_rows of a table are at least 1")
        if self.fields is not None and set(self.fields) != set(self.columns):
            raise UsageError("the statistics of a table are those of other columns; fit it again")


class TableModality(Modality[TableInput]):
    """Each field as its percentile or category, and its present bit."""

    Input = TableInput
    manifest_form = FIELDS

    @staticmethod
    def check(source: Any, params: Mapping[str, Any]) -> dict[str, Any]:
        """`fields`, how many are present. Raises DataRefused: NaN, an infinity, or no field at all."""
        row = _row_of(source, settings_of(TableInput, params))
        return {"fields": sum(cell is not None for cell in row.values())}

    def read(self, source: Any) -> Row:
        """Name -> number, text or None, in the order of the columns."""
        return _row_of(source, self.settings)

    def prepare(self, raw: Any) -> NDArray[np.float32]:
        """[size] fp32; a field that is absent has its present bit at 0 and the percentile 0.5.

        Raises:
            DataRefused: as `check`, or a text in a field of numbers; the message names the field.
            UsageError: the table is not fitted.
        """
        fields = self.settings.fields
        if fields is None:
            raise UsageError("a table is encoded with the statistics of training rows; fit it first")
        row = self.read(raw)
        return np.concatenate([encode(name, row[name], fields[name]) for name in self.settings.columns])

    def collate(self, prepared: Sequence[NDArray[np.float32]]) -> "dict[str, Tensor]":
        """`values` [row, size]."""
        import torch

        return {"values": torch.from_numpy(np.stack(prepared))}

    @classmethod
    def fit(cls, settings: TableInput, rows: Sequence[Any]) -> TableInput:
        """With `fields` of these rows; without `columns`, those of the first row.

        Raises:
            DataRefused: no row, or a field that holds numbers and texts.
        """
        if not rows:
            raise DataRefused("a table cannot be fitted: no training row has it")
        if not settings.columns:
            settings = replace(settings, columns=tuple(rows[0]), fields=None)
        read = []
        for place, row in enumerate(rows):
            with row_named(place):
                read.append(_row_of(row, settings))
        fields = {
            name: fit_field(
                name,
                [row[name] for row in read],
                as_category=name in settings.categories,
                quantiles=settings.quantiles,
                max_categories=settings.max_categories,
                min_rows=settings.min_rows,
            )
            for name in settings.columns
        }
        return replace(settings, fields=fields)

    @classmethod
    def default_encoder(cls, settings: TableInput) -> dict[str, Any]:
        size = None if settings.fields is None else sum(width(field) for field in settings.fields.values())
        return {"kind": "mlp", "size": size, "hidden": 256, "output": 128}

    def preview(self, raw: Any) -> str:
        """A line for each field in the order of the columns, such as "hb: 11.2"; an absent one is "crp: –"."""
        return shortened("\n".join(f"{name}: {_shown(cell)}" for name, cell in self.read(raw).items()))

    def parse_query(self, value: Any) -> Any:
        """A mapping, JSON of one, or "hb=11.2, age=60".

        Raises:
            UsageError: anything else, an unknown field, or a value that is none; the message names the field.
        """
        pairs = _pairs_of(value)
        try:
            row = self.read(pairs)
            if self.settings.fields is not None:
                self.prepare(row)
        except DataRefused as error:
            raise UsageError(str(error)) from None
        return row

    def sample(self, count: int, random: np.random.Generator) -> list[Any]:
        return [{name: self._sample_cell(name, row, random) for name in self.settings.columns} for row in range(count)]

    def _sample_cell(self, name: str, row: int, random: np.random.Generator) -> Cell:
        field = (self.settings.fields or {}).get(name, {"kind": "number", "quantiles": [0.0, 1.0]})
        if field["kind"] == "number":
            return float(random.choice(field["quantiles"]))
        known = field.get("categories") or ["unknown"]
        return str(known[row % len(known)])


def _row_of(source: Any, settings: TableInput) -> Row:
    """The fields of a row in the order of the columns. Raises DataRefused."""
    if not isinstance(source, Mapping):
        raise DataRefused(f"a row of a table is a mapping of fields to values, got {type(source).__name__}")
    columns = settings.columns or tuple(source)
    if unknown := [f"{name}"[:60] for name in source if name not in columns]:
        raise DataRefused(f"a table has no field {listed(unknown)}; its fields are {listed(columns, 40)}")
    row = {name: cell_of(name, source.get(name), name in settings.categories) for name in columns}
    if all(cell is None for cell in row.values()):
        raise DataRefused("no field of the table is present")
    return row


def _pairs_of(value: Any) -> Mapping[str, Any]:
    """The fields of a query. Raises UsageError."""
    if isinstance(value, Mapping):
        return value
    if isinstance(value, bytes | bytearray):
        value = bytes(value).decode("utf-8", errors="replace")
    if not isinstance(value, str) or not value.strip():
        raise UsageError('a table is queried by "hb=11.2,age=60" or by JSON of its fields')
    if value.lstrip().startswith("{"):
        return _json_object(value)
    pairs = {}
    for part in value.split(","):
        name, equals, text = part.partition("=")
        if not equals or not name.strip():
            raise UsageError(f'a table is queried by "hb=11.2,age=60", and {part.strip()!r:.60} is no field=value')
        if name.strip() in pairs:
            raise UsageError(f"the query names the field {name.strip()!r} twice")
        pairs[name.strip()] = text
    return pairs


def _json_object(text: str) -> Mapping[str, Any]:
    try:
        fields = json.loads(text, object_pairs_hook=_named_once)
    except UsageError:
        raise
    except (ValueError, RecursionError):
        raise UsageError('the query is no JSON; write {"hb": 11.2, "age": 60}') from None
    if not isinstance(fields, dict):
        raise UsageError('the query is no object of fields; write {"hb": 11.2, "age": 60}')
    return fields


def _named_once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """The object of JSON. Raises UsageError: a field that it names twice, of which Python would keep the last."""
    fields: dict[str, Any] = {}
    for name, value in pairs:
        if name in fields:
            raise UsageError(f"the query names the field {name!r:.60} twice")
        fields[name] = value
    return fields


def _shown(cell: Cell) -> str:
    if cell is None:
        return "–"
    return f"{cell:.6g}" if isinstance(cell, float) else " ".join(cell.split())


MODALITIES.add("table", TableModality)
