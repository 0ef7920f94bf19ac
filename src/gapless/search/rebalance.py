"""Brings the balance of a collection up to date after rows came or went."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from gapless.core.errors import DataRefused, UsageError
from gapless.models.aligner import GaplessModel
from gapless.search.balance import SAME
from gapless.search.balance_store import (
    BALANCE_TABLE,
    MIN_BANK_ROWS,
    BalanceSettings,
    forget_in_balance,
    learn,
    must_learn,
    write_balance,
)
from gapless.search.collection import Collection, connect, table_names
from gapless.search.engine import reading

MAX_TEXTS = 4096  # of a user's own bank of queries


@dataclass(frozen=True)
class Balancing:
    """The balance of a collection after a run, or the reason why it has none.

    Args:
        offsets: modality asked with -> modality held -> offset; None where there is no balance.
        reason: why there is none, as the end of a sentence; None where there is one.
    """

    offsets: Mapping[str, Mapping[str, float]] | None
    reason: str | None = None


def update_balance(
    collection: Collection, settings: BalanceSettings, replaced: frozenset[str] = frozenset()
) -> Balancing:
    """Learn the balance where the rule of `balance_store` asks for it.

    Args:
        replaced: keys of rows that this run has replaced.
    """
    version = collection.table_version()
    stored = collection.stored_balance(newest=True)
    with reading(collection.uri):
        counts = collection.rows_per_modality()
        if not must_learn(stored, counts, settings, replaced):
            assert stored is not None
            assert stored.balance is not None
            return Balancing(stored.balance.offsets)
        if settings.texts is None and stored is not None and stored.balance is not None:
            for name, given in stored.balance.asked.items():
                if given is not stored.balance.held.get(name):
                    settings = replace(settings, texts=given.vectors, texts_of=name)  # a bank that the user gave stays
        found = learn(version, settings)
        database = connect(collection.uri)
        if isinstance(found, str):
            if BALANCE_TABLE in table_names(database):
                database.drop_table(BALANCE_TABLE)
            collection.stored_balance(newest=True)
            return Balancing(None, found)
        write_balance(database, found)
        database.open_table(BALANCE_TABLE).optimize()
    collection.stored_balance(newest=True)
    return Balancing(found.offsets)


def forget_deleted(collection: Collection, rows: Sequence[str]) -> None:
    """Take rows out of the banks before they are deleted: people delete rows to be rid of them."""
    with reading(collection.uri):
        database = connect(collection.uri)
        if BALANCE_TABLE in table_names(database):
            forget_in_balance(database.open_table(BALANCE_TABLE), rows)


def texts_of(bank: str | Path | Sequence[str] | None) -> list[str] | None:
    """The texts of a bank of queries: a file of one a line, or a list; equal ones count once.

    Raises:
        UsageError: no such file, too few texts.
    """
    if bank is None:
        return None
    if isinstance(bank, str | Path):
        if not Path(bank).is_file():
            raise UsageError(f"{bank} is no file; --bank names one with a query a line")
        try:
            lines: Sequence[str] = Path(bank).read_text(encoding="utf-8").splitlines()
        except UnicodeDecodeError:
            raise DataRefused(f"{bank} is no text in UTF-8; --bank names a file with a query a line") from None
    else:
        lines = bank
    texts = list(dict.fromkeys(" ".join(line.split()) for line in lines if line.strip()))
    if len(texts) < MIN_BANK_ROWS:
        raise UsageError(f"the bank holds {len(texts)} different texts; {MIN_BANK_ROWS} are the least")
    if len(texts) > MAX_TEXTS:
        texts = [texts[place] for place in np.sort(np.random.default_rng(0).permutation(len(texts))[:MAX_TEXTS])]
    return texts


def encoded(model: GaplessModel, modality: str | None, texts: Sequence[str], batch_size: int) -> np.ndarray:
    """[text, dim] unit-norm rows of the texts, copies left out.

    Args:
        modality: what words are a query of; None for a model without words.

    Raises:
        UsageError: a model without words, or texts that it embeds alike.
    """
    if modality is None:
        raise UsageError("--bank needs a model that embeds words")
    parts = [
        model.encode(modality, texts[start : start + batch_size]).numpy() for start in range(0, len(texts), batch_size)
    ]
    vectors = np.concatenate(parts).astype(np.float32)
    vectors = vectors[~np.tril(vectors @ vectors.T > 1 - SAME, k=-1).any(axis=1)]
    if len(vectors) < MIN_BANK_ROWS:
        raise UsageError(f"the model tells {len(vectors)} texts of the bank apart; {MIN_BANK_ROWS} are the least")
    return vectors
