"""Reads and validates the results of `gapless caption evaluate`; a file with a wrong entry is refused by name."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from gapless.captioning.names import KIND
from gapless.core.errors import DataRefused
from gapless.core.files import read_json, read_object

Form = Callable[[Any], bool]


def is_caption_results(path: Path) -> bool:
    """Whether a directory holds scores of captions."""
    results = path / "results.json"
    return results.is_file() and isinstance(content := read_json(results), dict) and content.get("kind") == KIND


def read_results(path: Path) -> dict[str, Any]:
    """The scores of a directory.

    Raises:
        DataRefused: entries that the report needs are not there, or of another form than they are written in.
    """
    results = read_object(path / "results.json")
    missing = [key for key in NEEDED if key not in results]
    if missing:
        raise DataRefused(
            f"{path / 'results.json'} has no {' and no '.join(missing)}; write it with gapless caption evaluate"
        )
    forms = {**NEEDED, **{key: form for key, form in OPTIONAL.items() if results.get(key) is not None}}
    wrong = [key for key, has_form in forms.items() if not has_form(results[key])]
    if wrong:
        raise DataRefused(
            f"{path / 'results.json'} is damaged: {', '.join(wrong)} of another form than it is written in"
        )
    return results


def samples_at(path: Path, key: str = "samples") -> list[dict[str, Any]]:
    """The samples of a directory; none where there is no file.

    Args:
        key: "samples", drawn at random, or "worst", which older files have not.
    """
    if not path.is_file():
        return []
    content = read_json(path)
    samples = content.get(key, [] if key == "worst" else None) if isinstance(content, dict) else None
    if not isinstance(samples, list) or not all(map(is_sample, samples)):
        keys = ", ".join(SAMPLE)
        raise DataRefused(f"{path} holds no samples with {keys}; write it with gapless caption evaluate")
    return samples


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _is_text(value: Any) -> bool:
    return isinstance(value, str)


def _is_figure(value: Any) -> bool:
    """A number, one with its interval, or none."""
    numbers = value.values() if isinstance(value, Mapping) else [value]
    return all(number is None or _is_number(number) for number in numbers)


def _mapping_of(is_entry: Form) -> Form:
    return lambda value: isinstance(value, Mapping) and all(map(is_entry, value.values()))


def _are_bins(value: Any) -> bool:
    keys = ("n", "confidence", "right")
    return isinstance(value, list) and all(
        isinstance(one, Mapping) and all(_is_number(one.get(k)) for k in keys) for one in value
    )


def _is_anything(_: Any) -> bool:
    return True


def _is_data(value: Any) -> bool:
    if not isinstance(value, Mapping):
        return False
    return all(value.get(key) is None or _mapping_of(_is_figure)(value[key]) for key in ("rows", "leakage"))


def _is_generation(value: Any) -> bool:
    return isinstance(value, Mapping) and isinstance(value.get("settings") or {}, Mapping)


def is_sample(value: Any) -> bool:
    """Whether a value is a sample of `samples.json`."""
    return (
        isinstance(value, dict) and value.keys() >= SAMPLE.keys() and all(form(value[k]) for k, form in SAMPLE.items())
    )


NEEDED: dict[str, Form] = {
    "figures": _mapping_of(_is_figure),
    "baselines": _mapping_of(_mapping_of(_is_figure)),
    "n": _is_number,
    "split": _is_text,
    "tokenizer": _is_text,
}
OPTIONAL: dict[str, Form] = {
    "data": _is_data,
    "generation": _is_generation,
    "judge": _is_text,
    "reliability": lambda value: isinstance(value, Mapping) and _are_bins(value.get("bins")),
    "missing": _mapping_of(_is_text),
    "versions": _mapping_of(_is_anything),
}
SAMPLE: dict[str, Form] = {
    "id": _is_text,
    "references": lambda value: isinstance(value, list) and all(map(_is_text, value)),
    "caption": _is_text,
    "image": lambda value: value is None or _is_text(value),
}
