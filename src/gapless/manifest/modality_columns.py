"""The columns of a manifest of version 2, and what its cells give: views, presence, contents.

    id, group, split | one column a modality, null where it is absent | labels | licence | content | facts

`content` holds the sha256 of each view that is a file or numbers; `facts` is JSON of what `check` of a kind said of
files. Files are named below the image root.
"""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from gapless.core.errors import DataRefused, UsageError
from gapless.manifest.modality_spec import NUMBER, RESERVED, ModalitySpec
from gapless.modalities.base import FIELDS, FILES, NUMBERS

CONTENT, FACTS = "content", "facts"
STORED = "images"  # the folder of a manifest with the copies of its files


def modality_schema(specs: Sequence[ModalitySpec], labels: Sequence[str], with_licence: bool) -> pa.Schema:
    """The columns, in the order in which they are written.

    Raises:
        UsageError: two columns of one name.
    """
    names = [*(spec.name for spec in specs), *labels]
    for name, count in Counter(names).items():
        if name in RESERVED:
            raise UsageError(f"the column name {name!r} is taken by the manifest itself; rename that column")
        if count > 1:
            raise UsageError(f"a manifest cannot have the column {name!r} twice; name it once, or rename that column")
    with_content = [spec.name for spec in specs if spec.form in (FILES, NUMBERS)]
    digests = pa.struct([(name, pa.list_(pa.string())) for name in with_content])
    return pa.schema(
        [
            *((name, pa.string()) for name in ("id", "group", "split")),
            *((spec.name, _type_of(spec)) for spec in specs),
            *((name, pa.string()) for name in labels),
            *([("licence", pa.string())] if with_licence else []),
            *([(CONTENT, digests)] if with_content else []),
            *([(FACTS, pa.string())] if file_columns(specs) else []),
        ]
    )


def file_columns(specs: Sequence[ModalitySpec]) -> list[str]:
    """The columns that hold names of files."""
    return [spec.name for spec in specs if spec.form == FILES]


def _type_of(spec: ModalitySpec) -> pa.DataType:
    if spec.form == NUMBERS:
        return pa.list_(pa.list_(pa.float32()))
    if spec.form == FIELDS:
        fields = spec.fields or dict.fromkeys(spec.columns, NUMBER)
        return pa.struct([(name, pa.float64() if kind == NUMBER else pa.string()) for name, kind in fields.items()])
    return pa.list_(pa.string())


def modality_cells(
    specs: Sequence[ModalitySpec],
    views: Mapping[str, Sequence[Any]],
    checked: Mapping[str, Sequence[Mapping[str, Any]]],
) -> dict[str, Any]:
    """The cells of a row, for `modality_schema`.

    Args:
        views: modality -> its views, without those that the row lacks.
        checked: what `RowViews.check` says of them.
    """
    cells: dict[str, Any] = {}
    digests: dict[str, list[str]] = {}
    facts: dict[str, list[Any]] = {}
    for spec in specs:
        found = views.get(spec.name)
        results = checked.get(spec.name, ())
        if not found:
            cells[spec.name] = None
        elif spec.form == FILES:
            cells[spec.name] = [
                result["file"] if result["stored"] is None else f"{STORED}/{result['stored']}" for result in results
            ]
            facts[spec.name] = [result["facts"] for result in results]
        elif spec.form == NUMBERS:
            cells[spec.name] = [np.asarray(view, dtype=np.float32).tolist() for view in found]
        else:
            cells[spec.name] = dict(found[0]) if spec.form == FIELDS else list(found)
        if found and spec.form in (FILES, NUMBERS):
            digests[spec.name] = [result["sha256"] for result in results]
    if any(spec.form in (FILES, NUMBERS) for spec in specs):
        cells[CONTENT] = {spec.name: digests.get(spec.name) for spec in specs if spec.form in (FILES, NUMBERS)}
    if file_columns(specs):
        cells[FACTS] = json.dumps(facts, sort_keys=True)
    return cells


def is_filled(column: pa.ChunkedArray) -> NDArray[np.bool_]:
    """[row] bool, False for null and for an empty text or list."""
    kind = column.type
    valid = pc.is_valid(column)
    if pa.types.is_list(kind) or pa.types.is_large_list(kind):
        valid = pc.and_(valid, pc.fill_null(pc.greater(pc.list_value_length(column), 0), False))
    elif pa.types.is_string(kind) or pa.types.is_large_string(kind):
        valid = pc.and_(valid, pc.fill_null(pc.greater(pc.utf8_length(column), 0), False))
    filled: NDArray[np.bool_] = np.asarray(valid.to_numpy(), dtype=bool)
    return filled


def views_in(cell: Any, spec: ModalitySpec) -> list[Any] | None:
    """The views of a cell of the table; None where it is absent."""
    if cell is None:
        return None
    return [cell] if spec.form == FIELDS else list(cell)


def contents_of(table: pa.Table, specs: Sequence[ModalitySpec]) -> dict[str, list[list[str] | None]]:
    """Modality of files or numbers -> for each row the sha256 of its views, or None where it is absent."""
    if CONTENT not in table.column_names:
        return {}
    rows = table[CONTENT].to_pylist()
    return {spec.name: [row[spec.name] for row in rows] for spec in specs if spec.form in (FILES, NUMBERS)}


def facts_of(table: pa.Table, name: str) -> list[list[dict[str, Any]] | None]:
    """What `check` said of the views of a modality of files, row by row; None where it is absent."""
    if FACTS not in table.column_names:
        return [None] * len(table)
    return [json.loads(text).get(name) for text in table[FACTS].to_pylist()]


def specs_in(info: Mapping[str, Any], table: pa.Table, path: Any) -> tuple[ModalitySpec, ...]:
    """The modalities of a `manifest.json` of version 2, in the order of their columns.

    Raises:
        DataRefused: an entry that is none, or a modality whose column the table lacks.
    """
    entries = info.get("modalities")
    if not isinstance(entries, Mapping) or not entries:
        raise DataRefused(f"{path} is damaged: it does not describe its modalities; build the manifest again")
    specs = tuple(ModalitySpec.from_json(str(name), entry) for name, entry in entries.items())
    for spec in specs:
        if spec.name not in table.column_names or table.schema.field(spec.name).type != _type_of(spec):
            raise DataRefused(f"{path} is damaged: its table has no column {spec.name!r}; build the manifest again")
    return tuple(sorted(specs, key=lambda spec: table.schema.get_field_index(spec.name)))
