"""Looks through a source before it is built, for what no single row tells: fields and their types, sizes of vectors.

Most values decide, so that one wrong cell becomes a bad row with a reason instead of turning a column of numbers into
words.
"""

import logging
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from gapless.core.errors import UsageError, listed
from gapless.manifest.modality_cells import CellRefused, field_values, is_number, views_of
from gapless.manifest.modality_spec import ModalitySpec, nearest
from gapless.modalities.base import FIELDS, NUMBERS

# A field with at least this share of numbers among its values is one of numbers.
SHARE_OF_NUMBERS = 0.9
# A field of words with at least this share of numbers is mentioned.
SHARE_TO_MENTION = 0.5
MAX_FIELDS = 1000

logger = logging.getLogger(__name__)


def needs_survey(specs: Sequence[ModalitySpec]) -> bool:
    """Whether a modality's params follow from its rows."""
    return any(spec.form == FIELDS or (spec.form == NUMBERS and "size" not in spec.params) for spec in specs)


def surveyed(
    specs: Sequence[ModalitySpec], rows: Callable[[], Iterable[Mapping[str, Any]]]
) -> tuple[ModalitySpec, ...]:
    """The modalities with `columns` and `categories` of tables and `size` of vectors among their params.

    Args:
        specs: as they were named.
        rows: gives the cells of every row, once.

    Raises:
        UsageError: a category that is no field, or a table of too many fields.
    """
    if not needs_survey(specs):
        return tuple(specs)
    tables = {spec.name: _Fields(spec) for spec in specs if spec.form == FIELDS}
    vectors = {
        spec.name: (spec, Counter[int]()) for spec in specs if spec.form == NUMBERS and "size" not in spec.params
    }
    for cells in rows():
        for fields in tables.values():
            fields.add(cells)
        for spec, sizes in vectors.values():
            try:
                sizes.update(len(view) for view in views_of(spec, cells, lambda cell: None))
            except CellRefused:
                continue
    found = []
    for spec in specs:
        if spec.name in tables:
            spec = tables[spec.name].spec()
        elif spec.name in vectors and vectors[spec.name][1]:
            size = min(vectors[spec.name][1].items(), key=lambda entry: (-entry[1], entry[0]))[0]
            spec = replace(spec, params={**spec.params, "size": size})
        found.append(spec)
    return tuple(found)


class _Fields:
    """Counts the values of each field of a table, and how many are numbers."""

    def __init__(self, named: ModalitySpec) -> None:
        self.named = named
        self.values: Counter[str] = Counter()
        self.numbers: Counter[str] = Counter()
        self.names: dict[str, None] = dict.fromkeys(named.columns if len(named.columns) > 1 else ())

    def add(self, cells: Mapping[str, Any]) -> None:
        try:
            values = field_values(self.named, cells)
        except CellRefused:
            return
        is_nested = len(self.named.columns) == 1 and isinstance(cells.get(self.named.columns[0]), Mapping)
        for name, value in values.items():
            if is_nested or value is not None:
                self.names.setdefault(name)
            if value is not None:
                self.values[name] += 1
                self.numbers[name] += is_number(value)
        if len(self.names) > MAX_FIELDS:
            raise UsageError(
                f"the table {self.named.name!r} has more than {MAX_FIELDS} fields; name the columns to take"
            )

    def spec(self) -> ModalitySpec:
        names = list(self.names) or list(self.named.columns)
        chosen = list(self.named.params.get("categories", ()))
        for name in chosen:
            if name not in names:
                raise UsageError(
                    f"--modality {self.named.name}: unknown field {name!r} among the categories{nearest(name, names)}"
                )
        words = [
            name for name in names if self.values[name] and name not in chosen and self._share(name) < SHARE_OF_NUMBERS
        ]
        mixed = [name for name in words if self._share(name) >= SHARE_TO_MENTION]
        if mixed:
            logger.warning(
                f"the fields {listed(mixed)} of {self.named.name} hold numbers and words, and are read as categories; "
                "empty the words if they are fields of numbers"
            )
        params = {**self.named.params, "columns": names, "categories": [n for n in names if n in chosen or n in words]}
        return replace(self.named, params=params)

    def _share(self, name: str) -> float:
        return self.numbers[name] / self.values[name]
