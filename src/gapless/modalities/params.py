"""The parameters with which a manifest says how a modality is read, as the settings of its kind."""

from collections.abc import Mapping
from dataclasses import fields
from types import UnionType
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from gapless.core.errors import UsageError, unknown_name

Settings = TypeVar("Settings")
LIST_SEPARATOR = "/"  # a comma stands between parameters


def settings_of(kind: type[Settings], params: Mapping[str, Any]) -> Settings:
    """The settings of a kind from parameters that may be texts, as `rate=500` on a command line.

    Args:
        kind: the `Input` of a modality, whose fields all have a default.
        params: names of its fields -> values; the items of a list in a text stand between slashes.

    Raises:
        UsageError: an unknown name, or a text that is no such value.

    >>> from gapless.modalities.waveform import WaveformInput
    >>> settings_of(WaveformInput, {"rate": "500", "channels": "I/II"}).channels
    ('I', 'II')
    """
    hints = get_type_hints(kind)
    names = [field.name for field in fields(kind)]  # type: ignore[arg-type]
    what = getattr(kind, "kind", "")
    for name in params:
        if name not in names:
            raise unknown_name(f"parameter of the kind {what}", name, names)
    return kind(
        **{name: _converted(value, hints[name], f"{name} of the kind {what}") for name, value in params.items()}
    )


def _converted(value: Any, hint: Any, where: str) -> Any:
    options = get_args(hint) if get_origin(hint) in (Union, UnionType) else (hint,)
    for option in options:
        try:
            return _as_type(value, option)
        except (TypeError, ValueError):
            continue
    raise UsageError(f"{where} cannot be {value!r}")


def _as_type(value: Any, option: Any) -> Any:
    """The value as this type. Raises ValueError or TypeError: it is none."""
    if get_origin(option) is tuple:
        items = value.split(LIST_SEPARATOR) if isinstance(value, str) else list(value)
        return tuple(_as_type(item, get_args(option)[0]) for item in items)
    if get_origin(option) is Literal:
        return get_args(option)[get_args(option).index(value)]
    if option is bool:
        return value if isinstance(value, bool) else ("false", "true").index(value) == 1
    if option in (int, float):
        if isinstance(value, bool):
            raise TypeError
        number = option(value)
        if number != float(value):
            raise ValueError
        return number
    if isinstance(value, get_origin(option) or option):
        return value
    raise TypeError
