"""Progress of long work on stderr: a bar on a terminal; lines in a file or a pipe, where a command asks for them.

Python callers get the bar on a terminal and else nothing; `gapless VERB` shows lines where stderr is no terminal, so
that the log of a job that runs for hours says how far it is, and `--quiet` shows nothing.
"""

import sys
import time
from collections.abc import Iterable, Iterator
from typing import Any, Generic, Literal, TypeVar

Item = TypeVar("Item")
Mode = Literal["bar", "lines", "off"]

FIRST_LINE = 10.0  # seconds; work that is done sooner shows no line
LATER_LINES = 0.1  # of the time so far passes between two lines, and at least FIRST_LINE
_mode: Mode = "bar"


def show_progress(mode: Mode) -> None:
    """How this process shows progress from now on: "bar" (on a terminal alone), "lines" or "off"."""
    global _mode
    _mode = mode


def is_quiet() -> bool:
    """Whether nothing is to be shown."""
    return _mode == "off"


def say(line: str) -> None:
    """A line on stderr, where progress is shown in lines."""
    if _mode == "lines":
        sys.stderr.write(f"gapless: {line}\n")
        sys.stderr.flush()


def progress_bar(
    items: Iterable[Item] | None = None, *, what: str, unit: str, total: int | None = None, done: int = 0
) -> Any:
    """A bar, or what prints lines in its place: an iterator over the items, or a context with `update(count)`.

    Args:
        items: what is gone through; None where the caller calls `update`.
        what: a label.
        unit: what is counted, in the singular.
        total: how many there are; None where nobody knows.
        done: how many were done by an earlier call.
    """
    if _mode == "lines":
        return Lines(items, what, unit, total, done)
    from tqdm.auto import tqdm

    return tqdm(
        items, desc=what, unit=unit, total=total, initial=done, mininterval=0.5, disable=True if is_quiet() else None
    )


class Lines(Generic[Item]):
    """What stands in for a bar off a terminal; it has the part of tqdm's methods that is used here."""

    def __init__(self, items: Iterable[Item] | None, what: str, unit: str, total: int | None, done: int) -> None:
        self.items = items
        self.what = what
        self.unit = unit
        self.total = len(items) if total is None and hasattr(items, "__len__") else total  # type: ignore[arg-type]
        self.n = self.first = done
        self.postfix = ""
        self.started = time.monotonic()
        self.next_line = self.started + FIRST_LINE
        self.is_closed = False

    def __iter__(self) -> Iterator[Item]:
        assert self.items is not None
        with self:
            for item in self.items:
                yield item
                self.update(1)

    def __enter__(self) -> "Lines[Item]":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def update(self, count: int = 1) -> None:
        """Count more of the work; a line follows when it is time for one."""
        self.n += count
        now = time.monotonic()
        if now >= self.next_line and self.n != self.total:
            say(self.line(now - self.started))
            self.next_line = now + max(FIRST_LINE, LATER_LINES * (now - self.started))

    def set_postfix(self, values: dict[str, Any]) -> None:
        """Figures that the next lines show."""
        self.postfix = ", ".join(f"{name} {value}" for name, value in values.items())

    def set_postfix_str(self, text: str) -> None:
        """A text that the next lines show."""
        self.postfix = text

    def close(self) -> None:
        """The last line, for work that took long enough to have one."""
        seconds = time.monotonic() - self.started
        if not self.is_closed and seconds >= FIRST_LINE:
            ended = f"{self.counted()} in {duration(seconds)}"
            say(f"{self.what}: {ended}{', ' if self.postfix else ''}{self.postfix}")
        self.is_closed = True

    def counted(self) -> str:
        """How much of the work is done: "5 of 7 batches"."""
        several = self.n if self.total is None else self.total
        noun = self.unit if several == 1 else f"{self.unit}es" if self.unit.endswith("ch") else f"{self.unit}s"
        return f"{self.n:,} {noun}" if self.total in (None, self.n) else f"{self.n:,} of {self.total:,} {noun}"

    def line(self, seconds: float) -> str:
        """How much is done, how long it took, and how long the rest takes at the same rate."""
        parts = [self.counted()]
        if self.postfix:
            parts.append(self.postfix)
        parts.append(duration(seconds))
        if self.total is not None and self.n > self.first:
            parts.append(f"about {duration(seconds * (self.total - self.n) / (self.n - self.first))} left")
        return f"{self.what}: {', '.join(parts)}"


def duration(seconds: float) -> str:
    """Seconds as a person says them.

    >>> [duration(seconds) for seconds in (0.4, 59, 61, 3599, 3661, 90000)]
    ['0 s', '59 s', '1 min 1 s', '59 min 59 s', '1 h 1 min', '25 h 0 min']
    """
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"
