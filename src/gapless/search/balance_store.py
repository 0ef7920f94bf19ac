"""Learns the balance of a collection from its own rows, and keeps it in a table beside them.

The rule: a run of `gapless index` learns when there is no balance, when its settings differ, when a modality has a
tenth more or fewer rows than when it was learnt, or when rows of the bank were replaced or a tenth of them deleted. In
between, new rows are scored with what is there: nothing of the balance but the banks belongs to single rows.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from gapless.core.errors import DataRefused
from gapless.search.balance import (
    SAME,
    Balance,
    Bank,
    level_and_spread,
    matching_offsets,
)
from gapless.search.table_version import TableVersion

BALANCE_TABLE = "balance"
BALANCE_VERSION = 1
BALANCE_KEY = b"gapless_balance"
BANK_ROWS = 512  # of each modality
MIN_BANK_ROWS = 8  # fewer say nothing of what a query usually scores
DEPTH = 24  # nearest rows in which the shares are to be right: the first page of results
CHANGED_SHARE = 0.1
HELD, ASKED = "held", "asked"
KEYS_AT_ONCE = 500


@dataclass(frozen=True)
class BalanceSettings:
    """What a balance is learnt with.

    Args:
        hub_correction: weight of the correction of hubs, from 0 (none) to 1.
        texts: [text, dim] unit-norm rows of a user's own queries; by default the rows held are the queries.
        texts_of: the modality that these queries are of.
        seed: of the draw of the banks.
    """

    hub_correction: float = 0.0
    texts: np.ndarray | None = None
    texts_of: str = "text"
    seed: int = 0


def learn(version: TableVersion, settings: BalanceSettings) -> Balance | str:
    """Learn the balance of a collection's rows; the same for the same rows and seed, whatever order they are stored in.

    A modality with fewer than `MIN_BANK_ROWS` different rows is not learnt, as long as two others are.

    Returns:
        the balance, or the reason why there is none, such as "rows of one modality only".
    """
    counts = version.counts()
    if len([name for name, count in counts.items() if count]) < 2:
        return "rows of one modality only"
    banks = {name: drawn_bank(version, name, settings.seed) for name in counts}
    held = {name: bank for name, bank in banks.items() if bank is not None}
    if len(held) < 2:
        few = next(name for name, count in counts.items() if count and name not in held)
        return f"fewer than {MIN_BANK_ROWS} different rows of {few}"
    asked = dict(held)
    if settings.texts is not None:
        asked[settings.texts_of] = Bank(settings.texts, (None,) * len(settings.texts))
    balance = Balance(held, asked, {}, counts, settings.hub_correction, settings.seed)
    return Balance(held, asked, learnt_offsets(version, balance), counts, settings.hub_correction, settings.seed)


def drawn_bank(version: TableVersion, modality: str, seed: int) -> Bank | None:
    """At most `BANK_ROWS` rows of a modality, copies of one another drawn once; None where too few are left."""
    drawn = version.reader.drawn(2 * BANK_ROWS, seed, modality)
    vectors = version.vectors(drawn) if len(drawn) else np.empty((0, version.dim), dtype=np.float32)
    copies = np.tril(vectors @ vectors.T > 1 - SAME, k=-1).any(axis=1)  # of a row before it
    kept = np.flatnonzero(~copies)[:BANK_ROWS]
    if len(kept) < MIN_BANK_ROWS:
        return None
    return Bank(vectors[kept], tuple(version.reader.keys(drawn[kept]).to_pylist()))


def learnt_offsets(version: TableVersion, balance: Balance) -> dict[str, dict[str, float]]:
    """Modality asked with -> modality held -> offset; the modality asked with has none.

    A query's own sample is left out in every modality, and copies of the query.
    """
    names = list(balance.held)
    numbers = [version.modalities.index(name) for name in names]
    total = np.array([balance.rows[name] for name in names], dtype=float)
    depth = int(min(DEPTH, max(1, (total.sum() - 1) // 4)))
    offsets = {}
    for asked, bank in balance.asked.items():
        own = own_places(version, bank, names)
        best = np.full((len(bank.vectors), len(names), depth), -np.inf)
        for rows in version.batches():
            scores = (bank.vectors @ rows.vectors.T).astype(np.float64)
            is_out = scores > 1 - SAME
            for column in own.T:  # the query's sample in one modality
                is_out |= rows.places[None] == column[:, None]
            if balance.hub_correction:
                scores -= balance.hubs_of(rows.vectors, asked)
            scores[is_out] = -np.inf
            for number, code in enumerate(numbers):
                some = scores[:, rows.modalities == code]
                merged = np.concatenate([best[:, number], some], axis=1)
                best[:, number] = -np.partition(-merged, depth - 1, axis=1)[:, :depth]
        for number, name in enumerate(names):
            held = balance.held[name]
            scores = bank.vectors @ held.vectors.T
            is_out = (scores > 1 - SAME) | same_sample(bank, held)
            if balance.hub_correction:
                scores = scores - balance.hubs(name, {asked: 1.0})
            level, spread = level_and_spread(scores, is_out)
            best[:, number] = (best[:, number] - level[:, None]) / spread[:, None]
        first = names.index(asked) if asked in names else 0
        order = [first, *(number for number in range(len(names)) if number != first)]
        found = matching_offsets(best[:, order], total[order] / total.sum(), depth)
        offsets[asked] = {names[number]: float(offset) for number, offset in zip(order, found, strict=True)}
    return offsets


def own_places(version: TableVersion, bank: Bank, modalities: Sequence[str]) -> np.ndarray:
    """[query, modality] the places of the query's own sample; -1 where there is none."""
    keys = [None if row is None else f"{row.rpartition('/')[0]}/{name}" for row in bank.rows for name in modalities]
    return version.reader.at_keys(keys).reshape(len(bank.rows), len(modalities))


def same_sample(queries: Bank, rows: Bank) -> np.ndarray:
    """[query, row] whether both are of one sample."""
    first, second = (
        np.array([row.rpartition("/")[0] if row else f"\0{side}{number}" for number, row in enumerate(bank.rows)])
        for side, bank in enumerate((queries, rows))
    )
    return np.asarray(first[:, None] == second[None])


def write_balance(database: Any, balance: Balance) -> None:
    """Bring a balance into the collection, in one commit."""
    roles = {(HELD, name): bank for name, bank in balance.held.items()}
    roles |= {(ASKED, name): bank for name, bank in balance.asked.items() if bank is not balance.held.get(name)}
    dim = next(iter(balance.held.values())).vectors.shape[1]
    known = {
        "version": BALANCE_VERSION,
        "offsets": balance.offsets,
        "rows": balance.rows,
        "bank": {name: len(bank.rows) for name, bank in balance.held.items()},
        "hub_correction": balance.hub_correction,
        "seed": balance.seed,
    }
    schema = pa.schema(
        [*((name, pa.string()) for name in ("role", "modality", "row")), ("vector", pa.list_(pa.float32(), dim))],
        metadata={BALANCE_KEY: json.dumps(known).encode()},
    )
    vectors = np.concatenate([bank.vectors for bank in roles.values()]).astype(np.float32)
    columns = [
        [role for (role, _), bank in roles.items() for _ in bank.rows],
        [name for (_, name), bank in roles.items() for _ in bank.rows],
        [row for bank in roles.values() for row in bank.rows],
    ]
    arrays = [pa.array(column, pa.string()) for column in columns]
    arrays.append(pa.FixedSizeListArray.from_arrays(pa.array(vectors.reshape(-1)), dim))
    database.create_table(
        BALANCE_TABLE, data=pa.Table.from_arrays(arrays, schema=schema), schema=schema, mode="overwrite"
    )


@dataclass(frozen=True)
class StoredBalance:
    """A balance as it stands in a collection.

    Args:
        balance: None where so many rows of its banks were deleted that it cannot be used.
        bank_rows: modality -> how many rows its bank had when it was learnt.
    """

    balance: Balance | None
    bank_rows: Mapping[str, int]
    version: int


def read_balance(table: Any, uri: str) -> StoredBalance | None:
    """What a collection's table of the balance holds; None for one of a later version of gapless.

    Raises:
        DataRefused: a table that gapless did not write.
    """
    version = int(table.version)
    rows = table.to_arrow()
    try:
        known = json.loads((table.schema.metadata or {})[BALANCE_KEY])
        if known["version"] != BALANCE_VERSION:
            return None
        dim = rows.schema.field("vector").type.list_size
        vectors = rows["vector"].combine_chunks().flatten().to_numpy().reshape(-1, dim)
        roles, names = np.array(rows["role"].to_pylist()), np.array(rows["modality"].to_pylist())
        keys = rows["row"].to_pylist()
        banks: dict[str, dict[str, Bank]] = {HELD: {}, ASKED: {}}
        for role, stored in banks.items():
            for name in known["rows"]:
                chosen = np.flatnonzero((roles == role) & (names == name))
                if len(chosen):
                    stored[name] = Bank(vectors[chosen], tuple(keys[place] for place in chosen))
        is_whole = all(
            len(banks[HELD].get(name, Bank(vectors[:0], ())).rows) >= MIN_BANK_ROWS for name in known["bank"]
        )
        balance = Balance(
            banks[HELD],
            banks[HELD] | banks[ASKED],
            known["offsets"],
            known["rows"],
            known["hub_correction"],
            known["seed"],
        )
        return StoredBalance(balance if is_whole else None, known["bank"], version)
    except (KeyError, TypeError, ValueError, AttributeError):
        raise DataRefused(f"{uri} holds a balance that 'gapless index' did not write; index again") from None


def must_learn(
    stored: StoredBalance | None, counts: Mapping[str, int], settings: BalanceSettings, replaced: frozenset[str]
) -> bool:
    """Whether the rule above asks for a new balance.

    Args:
        counts: modality -> its rows now.
        replaced: keys of rows that this run has replaced.
    """
    if stored is None or stored.balance is None or settings.texts is not None:
        return True
    balance = stored.balance
    if (balance.hub_correction, balance.seed) != (settings.hub_correction, settings.seed):
        return True
    if set(balance.rows) != set(counts):
        return True
    if any(abs(counts[name] - before) > CHANGED_SHARE * before for name, before in balance.rows.items()):
        return True
    if any(len(balance.held[name].rows) < (1 - CHANGED_SHARE) * size for name, size in stored.bank_rows.items()):
        return True
    return any(row in replaced for bank in balance.held.values() for row in bank.rows)


def forget_in_balance(table: Any, rows: Sequence[str]) -> None:
    """Take rows that are about to be deleted out of the banks."""
    bank = [row for row in table.to_arrow()["row"].to_pylist() if row is not None]
    gone = sorted(set(bank) & set(rows))
    for start in range(0, len(gone), KEYS_AT_ONCE):
        part = gone[start : start + KEYS_AT_ONCE]
        quoted = ", ".join("'" + row.replace("'", "''") + "'" for row in part)
        table.delete(f"row IN ({quoted})")
