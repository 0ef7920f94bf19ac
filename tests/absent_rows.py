"""Manifests and models whose rows lack modalities, for tests."""

from collections.abc import Iterable, Mapping
from typing import Any

import pyarrow as pa
import torch
from fakes import tiny_modalities

from gapless.manifest.manifest import Manifest
from gapless.models.aligner import GaplessConfig, GaplessModel, assemble

NAMES = ("image", "text", "waveform")


def without(manifest: Manifest, absent: Mapping[str, Iterable[int]]) -> Manifest:
    """The manifest with null cells: modality -> the rows that lack it."""
    table = manifest.table
    for name, rows in absent.items():
        column, gone = manifest.column_of(name), set(rows)
        place = table.column_names.index(column)
        cells = [None if row in gone else cell for row, cell in enumerate(table[column].to_pylist())]
        table = table.set_column(place, column, pa.array(cells, table[column].type))
    return Manifest(manifest.path, manifest.info, table)


def three_modalities() -> dict[str, Any]:
    """`tiny_modalities` and the phantom's waveform."""
    waveform = {
        "input": {"kind": "vector", "size": 64},
        "encoder": {"kind": "vector", "size": 64},
        "head": [{"kind": "mlp", "hidden": 32, "size": 24}],
    }
    return {**tiny_modalities(), "waveform": waveform}


def vectors_model(names: Iterable[str] = NAMES, size: int = 6, dim: int = 5, **loss: Any) -> GaplessModel:
    """A model of vectors with linear heads, always the same."""
    modalities = {
        name: {"input": {"kind": "vector", "size": size}, "encoder": {"kind": "vector", "size": size}} for name in names
    }
    torch.manual_seed(0)
    return assemble(GaplessConfig(modalities=modalities, embedding_dim=dim, loss={"anchor": "text", **loss}))


def present_part(values: Mapping[str, torch.Tensor], present: Mapping[str, torch.Tensor]) -> dict[str, Any]:
    """A batch of vectors: the values of the rows that have each modality, without modalities that none has."""
    return {name: {"values": rows[present[name]]} for name, rows in values.items() if present[name].any()}
