"""Several closing methods together: side by side in one space, or one after another."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, is_dataclass, replace
from math import sqrt
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from gapless.closing.base import (
    CLOSING_METHODS,
    ClosingMethod,
    ClosingPairs,
    ClosingSettings,
    FittedMethod,
    closing_method,
)
from gapless.closing.fitting import fit_method, mapped_rows
from gapless.closing.layers import FittedLayer, layers_of, parallel_layer, unit_norm_layer, vector_model
from gapless.closing.trained_heads import usual_settings
from gapless.core.errors import UsageError, unknown_name
from gapless.embeddings.stored_rows import Rows

if TYPE_CHECKING:
    from gapless.models.aligner import GaplessModel

PART_SETTINGS: Mapping[str, Mapping[str, Any]] = {"adapter": {"remove_mean": True}}  # beside another method
Settings = TypeVar("Settings")


@dataclass(frozen=True)
class StackSettings(ClosingSettings):
    """The settings of stack.

    Args:
        methods: names of closing methods in order, `adapter,cca`.
        weights: of the concatenated parts, `0.5,0.5`; default: all alike. The cosine of the result is the mean of the
            cosines of the parts with these weights.
        how: concatenate puts the unit-norm spaces of all methods side by side, each fitted on the rows themselves;
            chain fits each method on what the one before gives.
        settings: method -> settings object, or mapping of single settings such as {"cca": {"ridge": 3}}; the others are
            the defaults of the method, but an adapter that is concatenated has remove_mean true.
    """

    methods: tuple[str, ...] | str = "adapter,cca"
    weights: tuple[float, ...] | str | None = None
    how: Literal["concatenate", "chain"] = "concatenate"
    settings: Mapping[str, Any] | None = None

    def __post_init__(self) -> None:
        if self.how not in ("concatenate", "chain"):
            raise unknown_name("how", self.how, ("concatenate", "chain"))
        if len(self.names) < 2:
            raise UsageError(f"a stack has at least 2 methods, got {', '.join(self.names) or 'none'}")
        if self.how == "chain" and self.weights is not None:
            raise UsageError("weights are of concatenated methods; a chain has none")
        for name in self.settings or {}:
            if name not in self.names:
                raise unknown_name("method with settings in the stack", name, self.names)
        _ = self.shares

    @property
    def names(self) -> tuple[str, ...]:
        """The methods in order."""
        listed = self.methods.split(",") if isinstance(self.methods, str) else self.methods
        return tuple(name.strip() for name in listed if name.strip())

    @property
    def shares(self) -> tuple[float, ...]:
        """The weight of each method; together 1.

        Raises:
            UsageError: no numbers above 0, or not one for each method.
        """
        if self.weights is None:
            return (1 / len(self.names),) * len(self.names)
        listed = self.weights.split(",") if isinstance(self.weights, str) else self.weights
        try:
            weights = [float(weight) for weight in listed]
        except ValueError:
            weights = []
        if len(weights) != len(self.names) or not all(0 < weight < float("inf") for weight in weights):
            raise UsageError(
                f"weights are {len(self.names)} numbers above 0, one for each method, got {self.weights!r}"
            )
        return tuple(weight / sum(weights) for weight in weights)


class Stack:
    """Puts methods side by side or one after another."""

    name = "stack"
    summary = "several methods, their spaces side by side with weights, or one after another"
    source = "concatenated similarities are their weighted mean; measured in docs/close.md"
    settings = StackSettings
    trains = True
    takes_absent = True  # where its parts do, each of which is asked

    def fit(self, pairs: ClosingPairs, settings: StackSettings, seed: int, *, folder: Path) -> FittedMethod:
        parts = [(part_method(name), part_settings(settings, name, pairs.anchor)) for name in settings.names]
        fit = concatenated if settings.how == "concatenate" else chained
        return fit(pairs, parts, settings.shares, seed, folder)


Part = tuple[ClosingMethod[Any], ClosingSettings]


def concatenated(
    pairs: ClosingPairs, parts: Sequence[Part], shares: Sequence[float], seed: int, folder: Path
) -> FittedMethod:
    """All methods on the same rows, their unit-norm outputs side by side, each times the root of its share.

    So `<x, y>` of the result is the sum of share times cosine over the parts, and its norm is 1.
    """
    fitted = [fit_part(number, part, pairs, seed, folder) for number, part in enumerate(parts, 1)]
    heads = {
        name: [
            parallel_layer(
                [[*layers_of(part.model, name), unit_norm_layer()] for part in fitted], [sqrt(one) for one in shares]
            )
        ]
        for name in pairs.sizes
    }
    facts = [
        {"method": method.name, "weight": share, **part.facts}
        for (method, _), share, part in zip(parts, shares, fitted, strict=True)
    ]
    return FittedMethod(vector_model(pairs, heads, loss_of=fitted[0].model), {"parts": facts})


def chained(
    pairs: ClosingPairs, parts: Sequence[Part], shares: Sequence[float], seed: int, folder: Path
) -> FittedMethod:
    """Each method on the unit-norm output of the one before, and their layers in that order."""
    heads: dict[str, list[FittedLayer]] = {name: [] for name in pairs.sizes}
    facts, current, fitted = [], pairs, None
    with TemporaryDirectory(dir=folder) as between:  # for rows that are not in memory
        for number, (method, settings) in enumerate(parts, 1):
            if fitted is not None:
                current = replace(current, embeddings=mapped(current, fitted.model, Path(between), number), fits={})
            fitted = fit_part(number, (method, settings), current, seed, folder)
            facts.append({"method": method.name, **fitted.facts})
            for name, layers in heads.items():
                layers += [*([unit_norm_layer()] if layers else []), *layers_of(fitted.model, name)]
    assert fitted is not None
    return FittedMethod(vector_model(pairs, heads, loss_of=fitted.model), {"parts": facts})


def mapped(pairs: ClosingPairs, model: "GaplessModel", folder: Path, number: int) -> dict[str, Rows]:
    """All rows in the space of a model, for part `number` of a chain; in the folder where they are not in memory."""
    return {
        name: mapped_rows(model, name, rows, folder / f"{number}-{place}.npy")
        for place, (name, rows) in enumerate(pairs.embeddings.items())
    }


def fit_part(number: int, part: Part, pairs: ClosingPairs, seed: int, folder: Path) -> FittedMethod:
    """One method, with a folder of its own for what its training writes."""
    method, settings = part
    own = folder / f"part-{number}-{method.name}"
    own.mkdir(parents=True)
    fitted = fit_method(method, pairs, settings, seed, folder=own)
    if not any(own.iterdir()):
        own.rmdir()
    return fitted


def part_method(name: str) -> ClosingMethod[Any]:
    """The method of that name.

    Raises:
        UsageError: no such method, or a stack inside the stack.
    """
    method = closing_method(name)
    if method.name == Stack.name:
        raise UsageError("a stack has no stack inside it; name the methods themselves")
    return method


def part_settings(settings: StackSettings, name: str, anchor: str) -> ClosingSettings:
    """The settings of one method of the stack: the defaults, and what the stack says of it.

    Raises:
        UsageError: settings of another method, an unknown setting, a value of another type.
    """
    method = part_method(name)
    given = (settings.settings or {}).get(name, {})
    if isinstance(given, ClosingSettings):
        if not isinstance(given, method.settings):
            raise UsageError(f"{name} takes {method.settings.__name__}, got {type(given).__name__}")
        taken: ClosingSettings = replace(given, anchor=anchor)
        return taken
    if not isinstance(given, Mapping):
        raise UsageError(f"the settings of {name} are a mapping of names to values, got {given!r}")
    usual = PART_SETTINGS.get(method.name, {}) if settings.how == "concatenate" else {}
    return replace(changed(usual_settings(method), {**usual, **given}, name), anchor=anchor)


def changed(settings: Settings, changes: Mapping[str, Any], where: str) -> Settings:
    """The dataclass with some fields changed, those of dataclasses inside it by mappings.

    Raises:
        UsageError: an unknown field, or a value of another type than the field's default.
    """
    values = {}
    known = [field.name for field in fields(settings)]  # type: ignore[arg-type]
    for key, value in changes.items():
        if key not in known:
            raise unknown_name(f"setting of {where}", str(key), known)
        usual = getattr(settings, key)
        if is_dataclass(usual) and isinstance(value, Mapping):
            value = changed(usual, value, f"{where}.{key}")
        elif not is_alike(value, usual):
            raise UsageError(f"{key} of {where} is {type(usual).__name__}, as {usual!r} is; got {value!r}")
        elif isinstance(value, int) and isinstance(usual, float | list):
            value = float(value)
        values[key] = tuple(value) if isinstance(usual, tuple) and isinstance(value, list) else value
    try:
        return replace(settings, **values)  # type: ignore[type-var]
    except TypeError as error:
        raise UsageError(f"the settings of {where} cannot be used: {error}") from None


def is_alike(value: Any, usual: Any) -> bool:
    """Whether a value may stand where the usual one does: a number for a schedule and the other way round, a text for a
    list, anything for null.
    """
    if usual is None or type(value) is type(usual):
        return True
    if isinstance(value, bool) or isinstance(usual, bool | int):
        return False
    if isinstance(usual, float):
        return isinstance(value, int | list)
    return isinstance(usual, str | tuple | list) and isinstance(value, str | tuple | list | int | float)


METHOD = CLOSING_METHODS.add(Stack.name, Stack())
