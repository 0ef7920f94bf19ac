"""What may be continued: the same plan, and no other."""

from pathlib import Path

import pytest

from gapless.core.errors import UsageError
from gapless.core.plan import check_same, claimed_for, differences


def test_dotted_keys_of_what_differs() -> None:
    before, now = {"a": {"b": 1, "gone": 2}, "c": [1, 2]}, {"a": {"b": 1}, "c": [1, 3], "new": 0}
    assert differences(before, now) == ["a.gone", "c", "new"]
    assert differences({"source": "a", "fingerprint": 1}, {"source": "b", "fingerprint": 1}) == []
    assert differences({"source": "a"}, {"source": "b"}) == ["source"]


def test_the_refusal_names_what_it_is_the_keys_and_what_to_do() -> None:
    with pytest.raises(UsageError, match=r"^runs/x is another; differing: seed \(0, now 1\); choose$"):
        check_same({"seed": 0}, {"seed": 1}, "runs/x is another", "choose")
    with pytest.raises(UsageError, match=r"^x; differing: a\.b, c \(None, now True\)$"):  # long values are not shown
        check_same({"a": {"b": "f" * 64}}, {"a": {"b": "e" * 64}, "c": True}, "x")
    check_same({"seed": 0}, {"seed": 0}, "runs/x is another")


def test_a_directory_is_continued_by_its_own_plan_alone(tmp_path: Path) -> None:
    out = tmp_path / "study"
    for _ in range(2):
        with claimed_for({"seed": 0}, out):
            (out / "done").touch()
    with pytest.raises(
        UsageError, match=r"holds another comparison; differing: seed \(0, now 1\); choose another --out"
    ):
        claimed_for({"seed": 1}, out).__enter__()
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "file").touch()
    with pytest.raises(UsageError, match="in use"):
        claimed_for({"seed": 0}, tmp_path / "other").__enter__()
