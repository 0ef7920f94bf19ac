"""Formats the help of a verb: what a user types and what it does, without Python's notation.

It is imported only when options are parsed, because importing jsonargparse would slow down `gapless --help`.
"""

import re
from argparse import SUPPRESS, Action
from collections.abc import Iterable, Mapping
from pathlib import Path
from textwrap import fill
from typing import Any

from jsonargparse import DefaultHelpFormatter

from gapless.cli.verb import RARE

SHOWN_ELSEWHERE = "--print_config shows it"
SCALARS = (str, int, float, Path)
# Words of docstrings -> words of the command line; "Align True Pairs" is a name and stays.
TYPED = (
    (re.compile(r"\bNone\b"), "no value"),
    (re.compile(r"\bTrue\b(?! Pairs)"), "true"),
    (re.compile(r"\bFalse\b"), "false"),
)
MAX_SHOWN = 3  # entries of a mapping; a larger one is shown by --print_config


class FullHelp(DefaultHelpFormatter):
    """Help without types, and defaults only where they say something."""

    def _get_help_string(self, action: Action) -> str:
        text = action.help or ""
        for python, typed in TYPED:
            text = python.sub(typed, text)
        if action.option_strings[:1] == ["--print_config"]:
            return "print the configuration that would be used, and end"
        if action.default == SUPPRESS or "(required)" in text or "(default" in text:
            return text
        if is_required(action):
            return f"{text} (required)".strip()
        default = "false" if action.default is False and action.nargs != 0 else default_text(action.default)
        return f"{text} (default: {default})".strip() if default else text

    def _fill_text(self, text: str, width: int, indent: str) -> str:
        """Lines stay lines; those of examples are not folded, so that they can be copied."""
        lines = text.splitlines()
        folded = [line if line.startswith("  ") else fill(line, width) for line in lines]
        return "\n".join(indent + line for line in folded)

    def _format_action_invocation(self, action: Action) -> str:
        """The spellings of an option, less the library's own `--option+`, which appends to a list."""
        whole = action.option_strings
        action.option_strings = [option for option in whole if not option.endswith("+")]
        try:
            return super()._format_action_invocation(action)
        finally:
            action.option_strings = whole

    def add_usage(self, usage: str | None, actions: Iterable[Action], *args: Any, **kwargs: Any) -> None:
        """The verb, what it must be given, and `[options]`: the list of all options follows below."""
        if usage is None:
            given = [action for action in actions if is_required(action) or not action.option_strings]
            words = [self.usage_word(action) for action in given]
            usage = " ".join([self._prog, *words, "[options]"]).replace("%", "%%")
        super().add_usage(usage, [], *args, **kwargs)

    def usage_word(self, action: Action) -> str:
        if not action.option_strings:
            many = f"{action.dest} ..." if action.nargs in ("+", "*") else action.dest
            return f"[{many}]" if action.nargs in ("?", "*") else many
        return f"{action.option_strings[-1]} {self._get_default_metavar_for_optional(action)}"


class ShortHelp(FullHelp):
    """The same help without the rare options."""

    def add_argument(self, action: Action) -> None:
        if not is_rare(action):
            super().add_argument(action)


def is_rare(action: Action) -> bool:
    """Whether only `--help-all` shows it: what must be given is never rare, the settings of a part always are."""
    return not is_required(action) and (action.dest in RARE or "." in action.dest)


def epilogue(name: str, example: str, actions: Iterable[Action], further: str | None, short: bool) -> str:
    """What follows the options: the parser's own lines, an example, and how many options are not shown."""
    num_hidden = sum(is_rare(action) and action.help != SUPPRESS for action in actions) if short else 0
    hidden = f"{num_hidden} more options: gapless {name} --help-all" if num_hidden else None
    return "\n\n".join(part for part in (further, f"example:\n  gapless {example}", hidden) if part)


def is_required(action: Action) -> bool:
    """Whether the user must give it; an option whose default a recipe fills in is marked as required and is not."""
    return action.required and action.default is None and action.nargs not in ("?", "*")


def default_text(value: Any) -> str | None:
    """A default as a person would type it; None for nothing worth showing: absent, off, empty."""
    if value is None or value is False or value is SUPPRESS:
        return None
    if value is True:
        return "true"
    if isinstance(value, SCALARS):
        return str(value) or None
    if isinstance(value, list | tuple):
        return ", ".join(map(str, value)) if all(isinstance(one, SCALARS) for one in value) else SHOWN_ELSEWHERE
    entries = dict(value) if isinstance(value, Mapping) else vars(value) if hasattr(value, "__dict__") else {}
    if len(entries) <= MAX_SHOWN and all(isinstance(one, SCALARS) for one in entries.values()):
        return ", ".join(f"{name}={one}" for name, one in entries.items()) or None
    return SHOWN_ELSEWHERE
