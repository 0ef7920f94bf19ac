"""What a manifest says of a modality (name, kind, columns, params), and how `--modality` words are read.

parse_modalities(["image=image:file", "labs=table:age,sex,hb", "ecg=waveform:path,rate=500"])
"""

import dataclasses
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from gapless.core.errors import DataRefused, UsageError, did_you_mean
from gapless.modalities.base import FIELDS, FILES, MODALITIES, Form
from gapless.modalities.params import LIST_SEPARATOR

NUMBER, CATEGORY = "number", "category"  # types of a table's fields

# Columns of every manifest with modalities; no modality and no label may have one of these names.
RESERVED = ("id", "group", "split", "licence", "content", "facts", "captions", "width", "height", "sha256")
_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_]{0,63}")
_NUMBER = re.compile(r"[+-]?(?:\d+(?:\.\d*)?|\.\d+)(?:[eE][+-]?\d+)?")
EXAMPLE = "write NAME=KIND:COLUMN, as in ecg=waveform:path,rate=500"


@dataclass(frozen=True)
class ModalitySpec:
    """A modality of a manifest.

    Args:
        name: a word of letters, digits and underscores; the name of its column in the manifest's table.
        kind: a kind of `modalities`.
        columns: of the source that it is read from.
        params: how its items are read, as `check` of the kind takes them; those of a table are `columns`, its fields,
            and `categories`, those that hold words; the others hold numbers.
    """

    name: str
    kind: str
    columns: tuple[str, ...]
    params: Mapping[str, Any] = field(default_factory=dict)

    @property
    def form(self) -> Form:
        """What one view is in the table: the name of a file, a text, a list of numbers, or fields."""
        return form_of(self.kind)

    @property
    def fields(self) -> dict[str, str]:
        """Field -> "number" or "category" of a table; empty for other kinds."""
        if self.form != FIELDS:
            return {}
        categories = self.params.get("categories", ())
        return {name: CATEGORY if name in categories else NUMBER for name in self.params.get("columns", ())}

    @property
    def input_params(self) -> dict[str, Any]:
        """The params that are settings of its kind, which must be installed; of a table and its fields as `columns`."""
        known = {field.name for field in dataclasses.fields(MODALITIES[self.kind].Input)}
        params = {name: value for name, value in self.params.items() if name in known}
        return {"columns": list(self.fields), **params} if self.fields and "columns" in known else params

    def as_json(self) -> dict[str, Any]:
        """Its entry in `manifest.json`, without the count."""
        return {"kind": self.kind, "columns": list(self.columns), "params": dict(self.params)}

    @classmethod
    def from_json(cls, name: str, entry: Any) -> "ModalitySpec":
        """The modality of an entry in `manifest.json`. Raises DataRefused: an entry that is none."""
        is_whole = isinstance(entry, Mapping) and isinstance(entry.get("kind"), str)
        if not is_whole or not isinstance(entry.get("columns"), list) or not isinstance(entry.get("params"), Mapping):
            raise DataRefused(f"the manifest does not describe its modality {name!r}; build the manifest again")
        return cls(name, entry["kind"], tuple(map(str, entry["columns"])), dict(entry["params"]))


def form_of(kind: str) -> Form:
    """What one view of a kind is in a manifest's column; "files" for a kind that is not installed."""
    return MODALITIES[kind].manifest_form if kind in MODALITIES else FILES


def parse_modality(text: str) -> ModalitySpec:
    """`NAME=KIND:COLUMN[,COLUMN...][,param=value...]`.

    Args:
        text: after the colon, words without `=` are columns, the others are params of the kind; the items of a list
            stand between slashes: `labs=table:age,sex,site,categories=site`.

    Raises:
        UsageError: naming the wrong word, and the nearest right one.

    >>> parse_modality("ecg=waveform:path,rate=500").params
    {'rate': 500}
    """
    name, equals, rest = text.partition("=")
    kind, colon, words = rest.partition(":")
    name, kind = name.strip(), kind.strip()
    if not equals or not colon or not kind:
        raise UsageError(f"--modality {text}: {EXAMPLE}")
    if not _NAME.fullmatch(name):
        raise UsageError(
            f"--modality {text}: the name {name!r} must begin with a letter and have letters, digits and underscores "
            f"only; {EXAMPLE}"
        )
    if name in RESERVED:
        raise UsageError(
            f"--modality {text}: {name!r} is a column of the manifest itself; give the modality another name"
        )
    _check_known(text, "kind", kind, MODALITIES.names())
    columns, params = _columns_and_params(text, words.split(","))
    if not columns:
        raise UsageError(f"--modality {text}: no column is named; {EXAMPLE}")
    return ModalitySpec(name, kind, columns, _checked_params(text, kind, columns, params))


def _columns_and_params(text: str, words: Sequence[str]) -> tuple[tuple[str, ...], dict[str, str]]:
    columns: list[str] = []
    params: dict[str, str] = {}
    for word in map(str.strip, words):
        key, equals, value = (part.strip() for part in word.partition("="))
        if not key or (equals and not value):
            raise UsageError(f"--modality {text}: there is an empty word after the colon; {EXAMPLE}")
        if (key in params) if equals else (key in columns):
            raise UsageError(f"--modality {text}: {key!r} is named twice")
        if equals:
            params[key] = value
        else:
            columns.append(key)
    return tuple(columns), params


def _checked_params(text: str, kind: str, columns: Sequence[str], params: Mapping[str, str]) -> dict[str, Any]:
    known = {field.name for field in dataclasses.fields(MODALITIES[kind].Input)}
    known -= {"columns", "fields"}  # of a table: they follow from its columns and its training rows
    for name in params:
        _check_known(text, f"param of the kind {kind!r}:", name, sorted(known))
    values = {name: _value(value) for name, value in params.items()}
    if form_of(kind) == FIELDS and "categories" in params:
        values["categories"] = params["categories"].split(LIST_SEPARATOR)
        if len(columns) > 1:
            for name in values["categories"]:
                _check_known(text, "field", name, columns)
    return values


def _value(text: str) -> Any:
    """A param's value: a number, true or false, or the text."""
    if text.lower() in ("true", "false"):
        return text.lower() == "true"
    if re.fullmatch(r"[+-]?\d+", text):
        return int(text)
    return float(text) if _NUMBER.fullmatch(text) else text


def number_in(text: str) -> float | None:
    """The number that a text is, None when it is none; "nan", "inf" and "1_000" are none."""
    return float(text) if _NUMBER.fullmatch(text) else None


def _check_known(text: str, what: str, name: str, valid: Sequence[str]) -> None:
    if name not in valid:
        raise UsageError(f"--modality {text}: unknown {what} {name!r}{nearest(name, valid)}")


def nearest(name: str, valid: Sequence[str]) -> str:
    """The end of a message about an unknown name: the nearest valid one, and the valid ones."""
    return f"{did_you_mean(name, valid, cutoff=0.5)} (known: {', '.join(valid[:40]) or 'none'})"


def parse_modalities(texts: Iterable[str], labels: Sequence[str] = ()) -> tuple[ModalitySpec, ...]:
    """The modalities of the words, in their order.

    Args:
        texts: as for `parse_modality`.
        labels: columns that are kept as labels, whose names are taken.

    Raises:
        UsageError: a word that is none, or one name for two modalities or for a modality and a label.
    """
    specs = tuple(map(parse_modality, texts))
    check_names(specs, labels)
    return specs


def check_names(specs: Sequence[ModalitySpec], labels: Sequence[str] = ()) -> None:
    """Refuse one name for two modalities, or for a modality and a label. Raises UsageError."""
    seen: set[str] = set()
    for spec in specs:
        if spec.name in seen:
            raise UsageError(f"there are two modalities {spec.name!r}; give each a name of its own")
        if spec.name in labels:
            raise UsageError(f"{spec.name!r} is a modality and a label; give the modality another name")
        seen.add(spec.name)
