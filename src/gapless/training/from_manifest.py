"""What a recipe takes from a manifest: kinds of modalities that it does not describe, statistics of training rows."""

from collections.abc import Mapping
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

from transformers import TrainingArguments

from gapless.core.errors import DataRefused, UsageError
from gapless.core.files import read_object
from gapless.manifest.manifest import Manifest
from gapless.manifest.modality_spec import ModalitySpec
from gapless.modalities.base import MODALITIES, NUMBERS, Modality, RowRefused
from gapless.modalities.params import settings_of
from gapless.models.spec import MlpEncoderSpec, with_encoder, with_fitted_input
from gapless.training.first_rank import by_first
from gapless.training.recipes import OTHERS, SMALL_INPUTS, Recipe, is_described


def completed_recipe(recipe: Recipe, manifest: Manifest) -> Recipe:
    """The recipe with every modality described: what an entry leaves open is as the manifest says.

    An entry without `kind` in its input has the kind and the parameters of the manifest's modality of that name, small
    sizes, and the encoder of the kind; what it says itself goes before. The entry "*" stands for all other modalities.

    Raises:
        UsageError: an entry that is no modality of the manifest, or one that does not fit.
    """
    if is_described(recipe.modalities):
        return recipe
    others = [name for name in manifest.modalities if name not in recipe.modalities]
    shared = recipe.modalities.get(OTHERS)
    given = {name: entry for name, entry in recipe.modalities.items() if name != OTHERS}
    if shared is not None:
        given = {name: given.get(name, shared) for name in (*manifest.modalities, *given)} if others else given
    described = {
        name: entry if is_described({name: entry}) else _described(manifest, manifest.spec(name), entry)
        for name, entry in given.items()
    }
    return replace(recipe, modalities=described)


def _described(manifest: Manifest, spec: ModalitySpec, entry: Mapping[str, Any]) -> dict[str, Any]:
    """The entry of a modality, with the input that the manifest describes."""
    if spec.kind not in MODALITIES:
        raise UsageError(f"{manifest.path} holds {spec.name!r} of the kind {spec.kind!r}, which is not installed")
    kind = MODALITIES[spec.kind]
    params = spec.input_params
    if spec.form == NUMBERS and "size" not in params and "size" in {field.name for field in fields(kind.Input)}:
        params["size"] = _vector_size(manifest, spec.name)
    settings = settings_of(kind.Input, params)
    of_manifest = {name: _plain(getattr(settings, name)) for name in params}
    own = dict(entry.get("input") or {})
    return {**entry, "input": {"kind": spec.kind, **SMALL_INPUTS.get(spec.kind, {}), **of_manifest, **own}}


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value


def _vector_size(manifest: Manifest, name: str) -> int:
    """The length of the vectors of a modality, which the manifest holds of one length."""
    for row in manifest.rows_with(name).tolist():
        views = manifest.views(name, row)
        if views:
            return len(views[0])
    raise DataRefused(f"no row of {manifest.path} has {name!r}; leave it out of the recipe")


def fitted_recipe(
    recipe: Recipe, rows: Manifest, arguments: TrainingArguments | None = None, checkpoint: Path | None = None
) -> Recipe:
    """The recipe with the statistics of the training rows in the inputs of its modalities (`Modality.fit`).

    Args:
        recipe: with every modality described.
        rows: the training rows.
        arguments: of a training by several processes: the first one fits, and gives the others what it found.
        checkpoint: of a run that is continued; its statistics are taken, and nothing is fitted again.

    Raises:
        DataRefused: an input that cannot be read, or that does not fit to the others; the row and the modality are
            named.
    """
    if not any(_is_fitted(entry) for entry in recipe.modalities.values()):
        return recipe
    if checkpoint is not None:
        saved = read_object(checkpoint / "config.json").get("modalities")
        if isinstance(saved, Mapping) and all(name in saved for name in recipe.modalities):
            return replace(recipe, modalities={name: saved[name] for name in recipe.modalities})

    def fitted() -> dict[str, Any]:
        return _fitted_modalities(recipe.modalities, rows)

    return replace(recipe, modalities=fitted() if arguments is None else by_first(arguments, fitted))


def _kind_of(entry: Mapping[str, Any]) -> type[Modality[Any]]:
    return MODALITIES[entry["input"]["kind"]]


def _is_fitted(entry: Mapping[str, Any]) -> bool:
    """Whether the kind of a modality has statistics."""
    return _kind_of(entry).fit.__func__ is not Modality.fit.__func__  # type: ignore[attr-defined]


def _fitted_modalities(modalities: Mapping[str, Mapping[str, Any]], rows: Manifest) -> dict[str, Any]:
    return {
        name: _fitted_entry(name, entry, rows) if _is_fitted(entry) else dict(entry)
        for name, entry in modalities.items()
    }


def _fitted_entry(name: str, entry: Mapping[str, Any], rows: Manifest) -> dict[str, Any]:
    """An entry with the statistics of the rows that have the modality, every view of them."""
    places: list[int] = []
    sources: list[Any] = []
    for row in rows.rows_with(name).tolist():
        views = rows.views(name, row) or ()
        places += [row] * len(views)
        sources += views
    try:
        fitted = with_fitted_input(name, entry, sources)
    except RowRefused as error:
        row_id = rows.table["id"][places[error.row]].as_py()
        raise DataRefused(f"{row_id}: {name}: {error}; build the manifest again") from None
    except DataRefused as error:
        raise DataRefused(f"{name}: {error}") from None
    return _with_size(name, with_encoder(name, fitted))


def _with_size(name: str, entry: dict[str, Any]) -> dict[str, Any]:
    """The entry with the size of an MLP that says none, which follows from the statistics."""
    encoder = entry["encoder"]
    if encoder.get("kind") != MlpEncoderSpec.kind or encoder.get("size") is not None:
        return entry
    default = with_encoder(name, {"input": entry["input"]})["encoder"]
    return {**entry, "encoder": {**encoder, "size": default.get("size")}}
