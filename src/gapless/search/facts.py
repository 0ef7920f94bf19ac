"""What `gapless index` has found out about a collection, kept in a table beside its rows.

The kinds of the labels hold for one version of the rows: whoever reads them for another computes them anew. What was
measured of the approximate index holds until it is measured again.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import pyarrow as pa

from gapless.core.errors import DataRefused
from gapless.search.kinds import EMPTY, TEXT, Kind

FACTS_TABLE = "facts"
SCHEMA = pa.schema([("facts", pa.string())])


@dataclass(frozen=True)
class IndexSettings:
    """How the approximate index is asked.

    Args:
        nprobes: partitions that are looked through; None leaves it to the engine.
        ef: breadth of the search in a graph; None leaves it to the engine.
        candidates: times k rows are asked for, and ordered by their exact scores.
    """

    nprobes: int | None = None
    ef: int | None = None
    candidates: int = 4


@dataclass(frozen=True)
class IndexReport:
    """What was measured of an approximate index.

    Args:
        kind: of the index.
        settings: with which it was measured, and which searches use.
        recall: of recall@10 in [0, 1], of all rows and of each modality by itself: the lowest.
        target: what was wanted.
        queries: rows of the collection that were asked.
    """

    kind: str
    settings: IndexSettings
    recall: float
    target: float
    queries: int

    def as_json(self) -> dict[str, Any]:
        """`recall@10` first, as it was before there was more."""
        found = {"recall@10": self.recall, "queries": self.queries, "kind": self.kind, "target": self.target}
        return found | asdict(self.settings)


@dataclass(frozen=True)
class Facts:
    """Everything that is kept.

    Args:
        version: of the rows that the kinds are of.
        kinds: column of a label -> what it holds.
        index: None where there is no approximate index.
    """

    version: int = -1
    kinds: Mapping[str, Kind] = field(default_factory=dict)
    index: IndexReport | None = None


def read_facts(table: Any, uri: str) -> Facts:
    """The facts of a collection.

    Raises:
        DataRefused: a table that gapless did not write.
    """
    try:
        known = json.loads(table.to_arrow()["facts"][0].as_py())
        kinds = {column: Kind(*kind) for column, kind in known["kinds"].items()}
        index = known["index"]
        report = None if index is None else IndexReport(**{**index, "settings": IndexSettings(**index["settings"])})
        return Facts(known["version"], kinds, report)
    except (KeyError, TypeError, ValueError, AttributeError, IndexError):
        raise DataRefused(f"{uri} holds facts that 'gapless index' did not write; index again") from None


def write_facts(database: Any, facts: Facts) -> None:
    """Bring the facts into the collection, in one commit."""
    rows = pa.table({"facts": [json.dumps(asdict(facts))]}, schema=SCHEMA)
    database.create_table(FACTS_TABLE, data=rows, schema=SCHEMA, mode="overwrite")


def joined_kind(held: Kind, new: Kind) -> Kind:
    """The kind of a label when rows are added to those that are there."""
    if new == EMPTY or held.name == TEXT.name:
        return held
    return new
