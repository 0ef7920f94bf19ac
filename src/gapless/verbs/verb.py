"""The form of a verb and of what it gives back."""

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from shutil import get_terminal_size
from typing import Any

from gapless.errors import GaplessError

Arguments = Any
Parser = Any


@dataclass(frozen=True)
class Outcome:
    """What a verb gives back: the object that `--json` prints, and the text that a person reads."""

    value: dict[str, Any]
    text: str
    refusal: GaplessError | None = None  # raised after the outcome is printed
    notes: tuple[str, ...] = ()  # sentences for stderr, also with `--json`


@dataclass(frozen=True)
class Verb:
    """One verb: its line in the help, what it takes, what it does.

    `late_defaults` gives defaults that depend on other options (a recipe's values on its name); `late_arguments` adds
    options that the words themselves name (one per modality).
    """

    summary: str
    add_arguments: Callable[[Parser], None]
    run: Callable[[Arguments], Outcome]
    late_defaults: Callable[[Arguments], dict[str, Any]] | None = None
    late_arguments: Callable[[Parser, Sequence[str]], None] | None = None


# Least and most of options whose name means the same in every verb; `options` checks them once for all verbs.
LIMITS: dict[str, tuple[float, float | None]] = {
    "k": (1, None),
    "image_weight": (0, 1),
    "batch_size": (1, None),
    "workers": (0, None),
    "ann_above": (0, None),
    "port": (0, 65535),
    "seed": (0, None),
    "num_bootstrap": (0, None),
}


def terminal_width() -> int:
    return get_terminal_size((110, 40)).columns


def ascii_only() -> bool:
    return (sys.stdout.encoding or "ascii").lower().replace("-", "") not in ("utf8", "utf16")
