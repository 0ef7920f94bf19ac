"""The plan of a directory: what it was begun with. A later call may continue it only with the same plan.

Runs, comparisons, embeddings, generated captions and interrupted builds keep a plan beside what they have finished.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from gapless.core.errors import UsageError, listed
from gapless.core.files import check_new_directory, read_json, write_json
from gapless.core.locks import only_writer

PLAN = "plan.json"


def directory_beside(out: Path) -> Path:
    """The directory with what an interrupted call has finished of `out`."""
    return out.parent / f".{out.name}.resume"


MAX_SHOWN = 20  # characters of a value that a refusal shows


def differences(before: Any, now: Any) -> list[str]:
    """The dotted keys of two plans whose values differ.

    A `source` beside a `fingerprint` is not compared: one source can be spelt in many ways.

    Args:
        before, now: plans as JSON holds them: dictionaries, lists and plain values.

    >>> differences({"loss": {"weight": 1}, "seed": 0}, {"loss": {"weight": 2}, "seed": 0})
    ['loss.weight']
    """
    return [key for key, _, _ in _differing(before, now)]


def _differing(before: Any, now: Any, prefix: str = "") -> list[tuple[str, Any, Any]]:
    """(dotted key, earlier value, later value) wherever the two differ; None stands for a value that is absent."""
    if not (isinstance(before, dict) and isinstance(now, dict)):
        return [] if before == now else [(prefix.removesuffix("."), before, now)]
    names = before.keys() | now.keys()
    if "fingerprint" in names:
        names -= {"source"}
    return [
        entry for name in sorted(names) for entry in _differing(before.get(name), now.get(name), f"{prefix}{name}.")
    ]


def _described(key: str, before: Any, now: Any) -> str:
    """The key, with both values where they are short."""
    shown = [repr(value) for value in (before, now)]
    return f"{key} ({shown[0]}, now {shown[1]})" if max(map(len, shown)) <= MAX_SHOWN else key


def check_same(before: Any, now: Any, what: str, advice: str = "") -> None:
    """Refuse to continue what was begun with another plan.

    Args:
        before, now: plans as JSON holds them.
        what: the start of the sentence: where it is and what it holds.
        advice: the end of the sentence.

    Raises:
        UsageError: the plans differ; the sentence names the keys, and short values.
    """
    differing = [_described(*entry) for entry in _differing(before, now)]
    if differing:
        raise UsageError(f"{what}; differing: {listed(differing)}{advice and f'; {advice}'}")


@contextmanager
def claimed_for(plan: dict[str, Any], out: Path) -> Iterator[None]:
    """Give the directory of a study, new or begun with the same plan, to this process alone.

    Raises:
        UsageError: it is in use, holds another study, or another process is writing it.
    """
    _check_directory(plan, out)
    with only_writer(out):
        _check_directory(plan, out)  # again: another process may have made it
        write_json(out / PLAN, plan)
        yield


def _check_directory(plan: dict[str, Any], out: Path) -> None:
    if (out / PLAN).exists():
        check_same(read_json(out / PLAN), plan, f"{out} holds another comparison", "choose another --out")
    else:
        check_new_directory(out)
