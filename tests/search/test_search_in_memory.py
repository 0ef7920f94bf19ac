"""`--in-memory` of `gapless search` and `gapless serve`: what a collection larger than the usual limit reads."""

import json
from pathlib import Path

import pytest
from small_service import write_collection_of_images

from gapless.cli.main import main
from gapless.core.errors import UsageError
from gapless.search import searcher, table_version
from gapless.search.collection import Collection
from gapless.search.row_readers import HeldRows, ReadRows
from gapless.search.searcher import Searcher


@pytest.fixture(scope="module")
def collection(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_collection_of_images(tmp_path_factory.mktemp("in_memory"))


@pytest.fixture
def readers(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """How rows were read since the test began; the limit is 0 bytes, so that any collection is larger."""
    used: list[str] = []

    def remembering(kind: type) -> type:
        class Remembering(kind):  # type: ignore[misc]
            def __init__(self, *given: object) -> None:
                used.append(kind.__name__)
                super().__init__(*given)

        return Remembering

    monkeypatch.setattr(searcher, "MEMORY_BYTES", 0)
    monkeypatch.setattr(table_version, "HeldRows", remembering(HeldRows))
    monkeypatch.setattr(table_version, "ReadRows", remembering(ReadRows))
    return used


def test_search_holds_a_collection_above_the_limit_where_it_is_asked_to(
    collection: Path, readers: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    found = []
    for words, reader in (((), "ReadRows"), (("--in-memory",), "HeldRows")):
        readers.clear()
        capsys.readouterr()
        assert main(["search", str(collection), "left mass", *words, "--json"]) == 0
        found.append(json.loads(capsys.readouterr().out)["hits"])
        assert set(readers) == {reader}
    assert found[0] == found[1]


def test_serve_holds_a_collection_above_the_limit_where_it_is_asked_to(
    collection: Path, readers: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("uvicorn", reason="needs the extra 'web'")
    monkeypatch.setattr("gapless.server.stopping.DrainingServer.run", lambda server, sockets: None)
    for words, reader in (((), "ReadRows"), (("--in-memory",), "HeldRows")):
        readers.clear()
        assert main(["serve", str(collection), "--port", "0", *words]) == 0
        assert set(readers) == {reader}


def test_rows_that_this_computer_cannot_hold_are_refused_before_they_are_read(
    collection: Path, readers: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    pages = {"SC_PHYS_PAGES": 2, "SC_PAGE_SIZE": 4096}
    assert Collection.open(collection).table_version().held_bytes > 2 * 4096, "60 rows of 16 numbers and their keys"
    monkeypatch.setattr("os.sysconf", pages.__getitem__)
    with pytest.raises(UsageError, match=r"0\.0 GB in memory and this computer has 0\.0; leave --in_memory out"):
        Searcher.open(collection, in_memory=True)
    assert readers == []
