"""The settings of losses as options `--loss.*`; the methods on the command line decide which options there are."""

from collections.abc import Mapping, Sequence
from dataclasses import fields
from itertools import pairwise
from pathlib import Path
from typing import Any, get_type_hints

from gapless.cli.verb import Parser
from gapless.core.errors import DataRefused


def value_of(option: str, words: Sequence[str], default: str) -> str:
    """The value of an option on which other options depend: the last word on it, or what a configuration file says."""
    value = default
    for word, following in pairwise([*words, ""]):
        name, equals, attached = word.partition("=")
        word_value = attached if equals else following
        if name == f"--{option}":
            value = word_value
        elif name == "--config":
            value = _in_file(option, Path(word_value)) or value
    return value


def _in_file(option: str, path: Path) -> str | None:
    from gapless.core.files import read_yaml

    try:
        value = read_yaml(path).get(option)
    except (DataRefused, OSError):
        return None  # the parser refuses the file with a sentence
    return value if isinstance(value, str) else None


def add_loss_arguments(parser: Parser, methods: Sequence[str], prefix: str = "loss") -> None:
    """An option for every setting of these methods.

    Its default is the value that the methods agree on; where they do not, each keeps its own, unless the option is
    given.
    """
    from docstring_parser import parse

    group = parser.add_argument_group(f"the loss ({', '.join(methods)})")
    for name, (settings, default) in _shared(methods).items():
        described = {one.arg_name: one.description for one in parse(type(settings).__doc__ or "").params}
        kind = get_type_hints(type(settings))[name]
        group.add_argument(
            f"--{prefix}.{name}",
            type=kind if default is not None else kind | None,
            default=default,
            help=" ".join((described.get(name) or "").split()),
        )


def changed_settings(methods: Sequence[str], given: Mapping[str, Any]) -> dict[str, Any]:
    """Those of the given settings that are not the common value of the methods."""
    defaults = {name: default for name, (_, default) in _shared(methods).items()}
    return {name: value for name, value in given.items() if value != defaults[name]}


def _shared(methods: Sequence[str]) -> dict[str, tuple[Any, Any]]:
    """Every setting of the methods: an instance of settings that has it, and the value that they agree on, or None."""
    from gapless.losses.base import METHODS

    chosen = [METHODS[name] for name in methods]
    shared: dict[str, tuple[Any, Any]] = {}
    for method in chosen:
        for field in fields(method.settings):
            # A single method shows all its settings; of several, those that are not fixed can be changed together.
            values = [
                getattr(one.settings, field.name) for one in chosen if len(chosen) == 1 or one.takes(field.name)
            ] or [getattr(method.settings, field.name)]
            shared.setdefault(field.name, (method.settings, values[0] if _all_equal(values) else None))
    return shared


def _all_equal(values: Sequence[Any]) -> bool:
    return all(value == values[0] for value in values)
