"""The order of a table of named things does not depend on the names of the files that add them."""

from pathlib import Path

import pytest

from gapless.core.registry import Registry


@pytest.fixture
def room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A package of three modules that add two things each, in the order of the files: d, b, c, first, second, a."""
    folder = tmp_path / "ordered_room"
    folder.mkdir()
    (folder / "__init__.py").write_text("THINGS = []\n")
    for file, names in (("a_file", "db"), ("b_file", "c1"), ("c_file", "2a")):
        (folder / f"{file}.py").write_text(
            f"from ordered_room import THINGS\nTABLE = THINGS[0]\nfor n in {names!r}: TABLE.add(n, n)\n"
        )
    monkeypatch.syspath_prepend(tmp_path)
    return folder.name


def names_of(room: str, monkeypatch: pytest.MonkeyPatch, *first: str) -> str:
    import ordered_room  # type: ignore[import-not-found]

    table: Registry[str] = Registry("thing", room, "no.such.group", first)
    monkeypatch.setattr(ordered_room, "THINGS", [table])
    for module in ("a_file", "b_file", "c_file"):
        monkeypatch.delitem(__import__("sys").modules, f"{room}.{module}", raising=False)
    assert [name for name, _ in table.items()] == list(table)
    return "".join(table.names())


def test_named_first_things_stand_first_and_the_others_by_name(room: str, monkeypatch: pytest.MonkeyPatch) -> None:
    assert names_of(room, monkeypatch, "1", "2", "absent") == "12abcd"


def test_without_first_names_the_files_give_the_order(room: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The control: this is what a new file would change."""
    assert names_of(room, monkeypatch) == "dbc12a"
