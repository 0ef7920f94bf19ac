"""Counts of names are those of a Counter, wherever the names are held."""

import sqlite3
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gapless.core.errors import NoRoom
from gapless.core.name_counts import NameCounts

NAMES = st.text(
    alphabet=st.characters(exclude_categories=()), max_size=3
)  # with halves of surrogates, as files may have


@given(st.lists(NAMES, max_size=60), st.integers(1, 8))
def test_every_count_is_that_of_a_counter(names: list[str], in_memory: int):
    expected: Counter[str] = Counter()
    with NameCounts(in_memory) as counts:
        for name in names:
            assert counts[name] == expected[name]
            assert (name in counts) == (name in expected)
            expected[name] += 1
            assert counts.add(name) == expected[name]
        assert {name: counts[name] for name in names} == dict(expected)


def test_no_more_names_are_in_memory_than_allowed():
    with NameCounts(100) as counts:
        for number in range(1000):
            counts.add(f"images/{number}.png")
            assert len(counts._recent) <= 100
        assert all(counts[f"images/{number}.png"] == 1 for number in range(1000))
        assert counts["images/1000.png"] == 0


def test_a_full_folder_of_temporary_files_is_a_sentence(monkeypatch: pytest.MonkeyPatch):
    class Full:
        def __enter__(self) -> "Full":
            return self

        def __exit__(self, *error: object) -> None:
            pass

        def executemany(self, *words: object) -> None:
            raise sqlite3.OperationalError("database or disk is full")

        def close(self) -> None:
            pass

    monkeypatch.setattr("gapless.core.name_counts._temporary_file", Full)
    with NameCounts(1) as counts:
        counts.add("a")
        with pytest.raises(NoRoom, match=r"temporary files \(database or disk is full\); name one .* SQLITE_TMPDIR"):
            counts.add("b")
