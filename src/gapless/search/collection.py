"""A collection: one LanceDB table of embeddings, one row for each modality that a sample has, which search reads.

    collection = Collection.open("collections/x")            # or an object store: s3://bucket/x
    collection.search(vector, k=10, where="modality_type = 'CT'")

All modalities stand in one table and one space. A row holds its vector, the sample's caption, labels, group, split and
source, and a thumbnail or a text that shows what the row is. The table's own metadata says which model the vectors are
of.
"""

import json
import os
import threading
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from gapless.core.errors import DataRefused, UsageError, missing_extra, unknown_name
from gapless.search.approximate import fused, indexed
from gapless.search.arguments import checked_count, checked_key
from gapless.search.balance import Balance
from gapless.search.balance_store import BALANCE_TABLE, StoredBalance, read_balance
from gapless.search.engine import reading
from gapless.search.facts import FACTS_TABLE, Facts, IndexReport, IndexSettings, read_facts, write_facts
from gapless.search.filter_terms import literal
from gapless.search.filters import label_filter, prepare_filter
from gapless.search.kinds import BOOLEAN, TEXT, Kind
from gapless.search.lift import BalancedLift, RowHubs
from gapless.search.row_readers import NORM_TOLERANCE, HeldRows
from gapless.search.table_version import MEMORY_BYTES, TableVersion, exact_scores

FORMAT = "gapless-collection"
VERSION = 1
TABLE = "rows"
METADATA_KEY = b"gapless"
# The metadata in which LanceDB names embedding models that it builds and runs itself; a collection with it is refused.
ENGINE_FUNCTIONS = b"embedding_functions"
OWN_FIELDS = ("id", "modality", "caption", "group", "split", "source", "has_thumbnail")
HIT_COLUMNS = ("row", "id", "modality", "caption", "group", "has_thumbnail")
PREVIEW = "preview"  # the column of texts that show what a row holds
MIN_FUSED = 100  # rows that either ranking of a hybrid search gives
SETTINGS_SECONDS = 1.0
BALANCE_SECONDS = 1.0  # opening its table takes longer than a search


@dataclass(frozen=True)
class Hit:
    """One row that a search found.

    Args:
        row: the key of the row.
        score: cosine in [-1, 1], higher is nearer; of a hybrid search the fused score.
        similarity: the cosine in every search; thresholds are for it.
        balanced: what the hits of a balanced search are ordered by, higher is nearer: how many standard deviations a
            row lies above what the query scores among the nearest of the row's modality. None where it is not balanced.
        preview: what a row without a picture holds, a text or the values of a table; None where there is none.
    """

    row: str
    id: str
    modality: str
    score: float
    similarity: float
    balanced: float | None
    caption: str | None
    labels: Mapping[str, str | None]
    group: str | None
    has_thumbnail: bool
    preview: str | None = None


@dataclass(frozen=True)
class Condition:
    """Which rows of a collection are meant: modality, filter and labels, read and checked (see `Collection.condition`).

    Args:
        sql: as the engine takes it; None means every row.
        where: the filter as the user wrote it, for messages.
        modality: the only one that is meant; None where several may be.
    """

    sql: str | None
    where: str | None = None
    modality: str | None = None


@dataclass(frozen=True)
class Pairs:
    """Samples that have rows of two modalities or more; row i of everything is one sample.

    Args:
        vectors: modality -> [sample, dim], zeros where a sample lacks it.
        present: modality -> [sample] bool, whether a sample has it.
        thumbnails: the key of a row of each sample with a picture, or None.
    """

    ids: list[str]
    vectors: dict[str, np.ndarray]
    present: dict[str, np.ndarray]
    captions: list[str | None]
    labels: dict[str, list[str | None]]
    groups: list[str | None]
    thumbnails: list[str | None]


class Collection:
    """An open collection. It may be read by many threads, while another process writes."""

    def __init__(self, uri: str, table: Any, info: Mapping[str, Any], memory_bytes: int | None = MEMORY_BYTES) -> None:
        self.uri = uri
        self.table = table
        self.info = info
        self.memory_bytes = memory_bytes
        self._lock = threading.Lock()
        self._held: TableVersion | None = None
        self._balance: StoredBalance | None = None
        self._balance_seen: tuple[TableVersion, float] | None = None
        self._hubs: RowHubs | None = None
        self._label_values: tuple[TableVersion, dict[str, list[tuple[str, int]]]] | None = None
        self._report: tuple[IndexReport | None, float] | None = None

    @classmethod
    def open(cls, uri: str | Path, memory_bytes: int | None = MEMORY_BYTES) -> "Collection":
        """Open a collection that `gapless index` wrote.

        Args:
            uri: a directory, or an address of an object store that LanceDB knows.
            memory_bytes: a collection up to this size is held in memory, of a larger one nothing is: its exact searches
                read the vectors. None holds it whatever its size.

        Raises:
            UsageError: nothing is there. DataRefused: something else, or a damaged collection.
        """
        uri = str(uri)
        if not is_remote(uri) and not Path(uri).exists():
            raise UsageError(f"{uri} does not exist; 'gapless index' writes a collection")
        with reading(uri):
            database = connect(uri)
            if TABLE not in table_names(database):
                raise UsageError(f"{uri} is no collection; 'gapless index' writes one")
            table = database.open_table(TABLE)
            info = info_of(table.schema, uri)
        return cls(uri, table, info, memory_bytes)

    def check_model(self, fingerprint: str) -> None:
        """Refuse a model whose vectors are not those of the collection.

        Raises:
            UsageError: another model.
        """
        recorded = self.info["model"]
        if fingerprint != recorded["fingerprint"]:
            raise UsageError(
                f"{self.uri} was indexed with another model ({' '.join(recorded['source'])}, "
                f"{recorded['fingerprint'][:12]}, not {fingerprint[:12]}); name that model, or index again"
            )

    @property
    def has_previews(self) -> bool:
        """Whether rows may have a text that shows what they hold; those of earlier versions of gapless have none."""
        return self._has_previews(self.table.schema.names)

    def _has_previews(self, columns: Sequence[str]) -> bool:
        return PREVIEW in columns and PREVIEW not in self.info["labels"].values()

    @property
    def fields(self) -> dict[str, str]:
        """What a filter may name -> column of the table; a label whose name is taken goes by its column's."""
        own = {name: name for name in OWN_FIELDS}
        labels = self.info["labels"].items()
        return own | {column if label.lower() in own else label: column for label, column in labels}

    def keep_facts(self, facts: Facts) -> None:
        """Bring these facts into the collection."""
        with reading(self.uri):
            write_facts(connect(self.uri), facts)
        self._report = None

    def facts(self) -> Facts:
        """What the last run of `gapless index` found out; nothing for a collection of an earlier version."""
        with reading(self.uri):
            database = connect(self.uri)
            if FACTS_TABLE not in table_names(database):
                return Facts()
            return read_facts(database.open_table(FACTS_TABLE), self.uri)

    def table_version(self) -> TableVersion:
        """The rows of the newest version; the same object as long as nothing is written."""
        with reading(self.uri), self._lock:
            if self._held is None or self._held.number != self.table.version:
                table = connect(self.uri).open_table(TABLE)
                table.checkout(table.version)
                dim, modalities = self.info["embedding_dim"], self.info["modalities"]
                facts = self.facts()
                self._held = TableVersion(table, dim, modalities, self.memory_bytes)
                if facts.version == self._held.number:
                    self._held.know_kinds(facts.kinds)
            return self._held

    def count(self, where: str | None = None) -> int:
        """How many rows a filter lets through; all of them without one."""
        condition = self.condition(where=where)
        with reading(self.uri, where):
            return int(self.table.count_rows(condition.sql))

    def rows_per_modality(self) -> dict[str, int]:
        """Modality -> how many rows it has, in the order of the collection's modalities."""
        version = self.table_version()
        with reading(self.uri):
            return version.counts()

    def label_kind(self, label: str) -> str:
        """What a label holds: "number" when every value of it is written as one, else "text"; "empty" without any."""
        return self._kind_of(self.info["labels"][label]).name

    def _kind_of(self, column: str) -> Kind:
        if column in OWN_FIELDS:
            return BOOLEAN if column == "has_thumbnail" else TEXT
        with reading(self.uri):
            return self.table_version().kind(column)

    def search(
        self,
        vector: np.ndarray,
        *,
        k: int = 10,
        modality: str | None = None,
        where: str | Condition | None = None,
        labels: Mapping[str, str | float] | None = None,
        words: str | None = None,
        exact: bool | None = None,
        balanced: Mapping[str, float] | None = None,
    ) -> list[Hit]:
        """The k nearest rows, best first; ties come in the order of their keys.

        Args:
            vector: [dim], unit norm.
            k: a whole number, at least 1; of more than there are, all.
            modality: only rows of this one; None searches all together.
            where: a filter, `filters` says what it may hold; or a condition that was read before, which `modality` and
                `labels` are part of.
            labels: label -> the value that its rows must have.
            words: hybrid search: the ranking by vectors and the ranking of the captions by these words become one, by
                reciprocal ranks.
            exact: every vector is scored; by default unless the collection has an approximate index.
            balanced: what was asked with, modality -> its share of the query: where rows of several modalities may be
                found, and the collection has a balance, hits are ordered by balanced scores. An empty mapping does
                so for a query of unknown modality; None orders by cosine.

        Raises:
            UsageError: another k, an unknown modality, label or field, a broken filter, a vector of another size.
        """
        query = self._query(vector)
        k = checked_count(k)
        condition = where if isinstance(where, Condition) else self.condition(modality, where, labels)
        version = self.table_version()
        with reading(self.uri, condition.where):
            k = min(k, max(1, len(version)))  # the engine takes no number above 64 bits
            wanted = k if words is None else max(k, MIN_FUSED)
            lift = None if balanced is None or condition.modality else self._lift(version, query, balanced)
            if exact is False or (exact is None and version.has_index):
                apart = self.info["modalities"] if lift is not None else ()
                places, scores = indexed(version, query, wanted, condition.sql, self._settings(), lift, apart)
            else:
                places, scores = version.exact(query, wanted, condition.sql, lift)
            if words is not None:
                places, scores = fused(version, places, words, wanted, condition.sql)
            return self._hits(version, places[:k], scores[:k], query, lift)

    def index_report(self) -> IndexReport | None:
        """What was measured of the approximate index; what another process measured is seen within a second."""
        now = time.monotonic()
        if self._report is None or now - self._report[1] > SETTINGS_SECONDS:
            self._report = (self.facts().index, now)
        return self._report[0]

    def _settings(self) -> IndexSettings:
        report = self.index_report()
        return IndexSettings() if report is None else report.settings

    def balance(self) -> Balance | None:
        """What the collection has learnt of its modalities; None for one that was indexed without."""
        stored = self.stored_balance()
        return None if stored is None else stored.balance

    def why_unbalanced(self) -> str | None:
        """A sentence where a mixed search cannot be balanced although there are several modalities; else None."""
        if len(self.info["modalities"]) < 2 or self.balance() is not None:
            return None
        return (
            f"{self.uri} has no balance, so hits are ordered by cosine; 'gapless index' with the same data learns it "
            "where there are enough rows"
        )

    def stored_balance(self, newest: bool = False) -> StoredBalance | None:
        """The balance; the same object as long as none is written.

        Args:
            newest: look now; by default a balance that another process wrote for the same rows is seen within a second.
        """
        version, now = self.table_version(), time.monotonic()
        seen = self._balance_seen
        if not newest and seen is not None and seen[0] is version and now - seen[1] < BALANCE_SECONDS:
            return self._balance
        with reading(self.uri):
            database = connect(self.uri)
            table = database.open_table(BALANCE_TABLE) if BALANCE_TABLE in table_names(database) else None
            with self._lock:
                if table is None:
                    self._balance = None
                elif self._balance is None or self._balance.version != int(table.version):
                    self._balance = read_balance(table, self.uri)
                self._balance_seen = (version, now)
                return self._balance

    def _lift(self, version: TableVersion, query: np.ndarray, asked_with: Mapping[str, float]) -> BalancedLift | None:
        balance = self.balance()
        if balance is None:
            return None
        hubs = self._hubs
        if hubs is None or hubs.version is not version or hubs.balance is not balance:
            hubs = self._hubs = RowHubs(version, balance)
        return BalancedLift(hubs, query, asked_with)

    def get(self, row: str) -> Hit | None:
        """The row of a key, with score 1."""
        version = self.table_version()
        with reading(self.uri):
            place = version.place_of(checked_key(row))
            if place is None:
                return None
            own = np.array([place])
            return self._hits(version, own, np.ones(1), version.vectors(own)[0])[0]

    def rows_of(self, sample_id: str) -> list[Hit]:
        """All rows of one sample, in the order of the collection's modalities, each with score 1; [] for none."""
        keys = [key_of(checked_key(sample_id), name) for name in self.info["modalities"]]
        return [hit for key in keys if (hit := self.get(key)) is not None]

    def vector_of(self, row: str) -> np.ndarray | None:
        """[dim] fp32 of a key."""
        version = self.table_version()
        with reading(self.uri):
            place = version.place_of(checked_key(row))
            return None if place is None else version.vectors(np.array([place]))[0]

    def thumbnail_of(self, row: str) -> bytes | None:
        """The JPEG of a key; None for a text, or an image that could not be read."""
        version = self.table_version()
        with reading(self.uri):
            place = version.place_of(checked_key(row))
            if place is None:
                return None
            content: bytes | None = version.fetch(np.array([place]), ["thumbnail"])["thumbnail"][0].as_py()
            return content

    def label_values(self) -> dict[str, list[tuple[str, int]]]:
        """Each label's values with how many rows have them, the most frequent first; counted once for each version."""
        version = self.table_version()
        if self._label_values is None or self._label_values[0] is not version:
            self._label_values = (version, self._counted_labels(version))
        return self._label_values[1]

    def _counted_labels(self, version: TableVersion) -> dict[str, list[tuple[str, int]]]:
        found: dict[str, list[tuple[str, int]]] = {}
        with reading(self.uri):
            for name, column in self.info["labels"].items():
                counts: Counter[str] = Counter()
                for batch in version.table.search().select([column]).to_batches():
                    for entry in pc.value_counts(batch.column(column).drop_null()).to_pylist():
                        counts[entry["values"]] += entry["counts"]
                found[name] = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
        return found

    def pairs(self, max_pairs: int) -> Pairs:
        """Samples with two rows or more; of more than `max_pairs` a random choice that is always the same."""
        version = self.table_version()
        with reading(self.uri):
            ids = _paired_ids(version, max_pairs)
        return self.pairs_of(ids)

    def pairs_of(self, sample_ids: Sequence[str]) -> Pairs:
        """These samples in this order, also those with one row; those without a row are left out."""
        version = self.table_version()
        modalities = self.info["modalities"]
        with reading(self.uri):
            keys = {name: [key_of(checked_key(one), name) for one in sample_ids] for name in modalities}
            places = {name: version.reader.at_keys(of) for name, of in keys.items()}
            has_row = np.any([at >= 0 for at in places.values()], axis=0)
            ids = [one for one, has in zip(sample_ids, has_row.tolist(), strict=True) if has]
            places = {name: at[has_row] for name, at in places.items()}
            present = {name: at >= 0 for name, at in places.items()}
            pictured: list[str | None] = [None] * len(ids)
            vectors, first = {}, np.full(len(ids), -1)
            for name, at in places.items():
                has = np.flatnonzero(present[name])
                vectors[name] = np.zeros((len(ids), version.dim), dtype=np.float32)
                if len(has):
                    vectors[name][has] = version.vectors(at[has])
                    shown = version.fetch(at[has], ["has_thumbnail"])["has_thumbnail"].to_pylist()
                    for sample, is_picture in zip(has.tolist(), shown, strict=True):
                        pictured[sample] = pictured[sample] or (key_of(ids[sample], name) if is_picture else None)
                first = np.where(first < 0, at, first)
            known = version.fetch(first, ["caption", "group", *self.info["labels"].values()])
            return Pairs(
                ids=ids,
                vectors=vectors,
                present=present,
                captions=known["caption"].to_pylist(),
                labels={name: known[column].to_pylist() for name, column in self.info["labels"].items()},
                groups=known["group"].to_pylist(),
                thumbnails=pictured,
            )

    def _query(self, vector: np.ndarray) -> np.ndarray:
        try:
            query = np.asarray(vector, dtype=np.float32)
        except (TypeError, ValueError):
            raise UsageError(f"a query vector is made of numbers, got {type(vector).__name__}") from None
        if query.shape != (self.info["embedding_dim"],) or not abs(np.linalg.norm(query) - 1) < NORM_TOLERANCE:
            raise UsageError(
                f"a query is a unit-norm vector of {self.info['embedding_dim']} numbers, got {query.shape}"
            )
        return query

    def condition(
        self,
        modality: str | None = None,
        where: str | None = None,
        labels: Mapping[str, str | float] | None = None,
    ) -> Condition:
        """Read and check which rows are meant; the arguments and errors are those of `search`."""
        if modality is not None and modality not in self.info["modalities"]:
            raise unknown_name("modality", modality, self.info["modalities"])
        parts = [] if modality is None else [f"modality = {literal(modality)}"]
        columns = self.info["labels"]
        for name, value in (labels or {}).items():
            if name not in columns:
                raise unknown_name("label", name, columns)
            parts.append(label_filter(name, columns[name], value, self._kind_of(columns[name])))
        if where is not None:
            parts.append(f"({prepare_filter(where, self.fields, self._kind_of)})")
        return Condition(" AND ".join(parts) or None, where, modality)

    def _hits(
        self,
        version: TableVersion,
        places: np.ndarray,
        scores: np.ndarray,
        query: np.ndarray,
        lift: BalancedLift | None = None,
    ) -> list[Hit]:
        if len(places) == 0:
            return []
        rows = version.rows_at(places)
        cosines = exact_scores(rows.vectors, query)
        lifted = [None] * len(places) if lift is None else lift(rows, cosines.astype(np.float64), final=True).tolist()
        labels = self.info["labels"]
        columns = [*HIT_COLUMNS, *([PREVIEW] if self._has_previews(version.columns) else [])]
        table = version.fetch(places, [*columns, *labels.values()])
        return [
            Hit(
                **{name: values[name] for name in columns},
                score=float(score),
                similarity=float(cosine),
                balanced=balanced,
                labels={name: values[column] for name, column in labels.items()},
            )
            for values, score, cosine, balanced in zip(table.to_pylist(), scores, cosines, lifted, strict=True)
        ]


def _paired_ids(version: TableVersion, count: int) -> list[str]:
    """The ids of samples with two rows or more, in order; of more than `count` a random choice, always the same."""
    if isinstance(version.reader, HeldRows):
        counts = pc.value_counts(pc.replace_substring_regex(version.reader.all_keys, r"/[^/]*$", ""))
        several = counts.filter(pc.greater_equal(counts.field("counts"), 2)).field("values")
        ids = sorted(several.to_pylist())
        if len(ids) <= count:
            return ids
        chosen = np.sort(np.random.default_rng(0).permutation(len(ids))[:count])
        return [ids[place] for place in chosen.tolist()]
    drawn = 2 * len(version.modalities) * count
    while True:
        keys = version.reader.keys(version.reader.drawn(drawn, 0, None)).to_pylist()
        ids = list(dict.fromkeys(key.rpartition("/")[0] for key in keys))
        found = [version.reader.at_keys([key_of(one, name) for one in ids]) >= 0 for name in version.modalities]
        paired = [one for one, rows in zip(ids, np.sum(found, axis=0).tolist(), strict=True) if rows >= 2]
        if len(paired) >= count or len(keys) < drawn:
            return sorted(paired[:count])
        drawn *= 4  # few samples have several rows


def key_of(sample: str, modality: str) -> str:
    """The key of a row."""
    return f"{sample}/{modality}"


def is_remote(uri: str) -> bool:
    return "://" in uri


def connect(uri: str) -> Any:
    """The database of a collection; every read sees the newest version."""
    os.environ.setdefault("LANCEDB_LOG", "error")  # its notes would stand between ours
    try:
        import lancedb
    except ImportError:
        raise missing_extra("lancedb", "search") from None
    return lancedb.connect(uri, read_consistency_interval=timedelta(0))


def table_names(database: Any) -> Sequence[str]:
    names: list[str] = database.list_tables().tables
    return names


def info_of(schema: pa.Schema, uri: str) -> dict[str, Any]:
    """What the table says of itself.

    Raises:
        DataRefused: a table that gapless did not write, or not this version of it.
    """
    try:
        info = json.loads((schema.metadata or {})[METADATA_KEY])
        known = info["format"] == FORMAT and ENGINE_FUNCTIONS not in schema.metadata
    except (KeyError, TypeError, ValueError, RecursionError):
        known = False
    if not known:
        raise DataRefused(f"{uri} holds a table that 'gapless index' did not write; choose another collection")
    if info["version"] != VERSION:
        raise DataRefused(f"{uri} is a collection of version {info['version']!r}, this gapless reads {VERSION}")
    return dict(info)
