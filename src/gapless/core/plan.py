"""What a directory was begun with, and whether it may be continued: the plan of the new call must be that of the first.

Runs, comparisons, studies and generated captions hold such a plan beside what they have finished.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from gapless.core.errors import UsageError, listed
from gapless.core.files import check_new_directory, read_json, write_json
from gapless.core.locks import only_writer

PLAN = "plan.json"


def differences(before: Any, now: Any, prefix: str = "") -> list[str]:
    """Dotted keys whose values differ; never a `source`, which can be spelt in many ways where a fingerprint tells."""
    if not (isinstance(before, dict) and isinstance(now, dict)):
        return [] if before == now else [prefix.removesuffix(".")]
    names = before.keys() | now.keys()
    if "fingerprint" in names:
        names -= {"source"}
    return [key for name in sorted(names) for key in differences(before.get(name), now.get(name), f"{prefix}{name}.")]


def check_same(before: Any, now: Any, what: str, advice: str = "") -> None:
    """Refuse to continue what was begun with another plan.

    Args:
        what: the start of the sentence: where it is and what it holds.
        advice: the end of the sentence.

    Raises:
        UsageError: the plans differ; the sentence names the keys.
    """
    differing = differences(before, now)
    if differing:
        raise UsageError(f"{what}; differing: {listed(differing)}{advice and f'; {advice}'}")


@contextmanager
def claimed_for(plan: dict[str, Any], out: Path) -> Iterator[None]:
    """The directory of a study, new or begun with the same plan, for this process alone.

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
