"""Embeddings as the files of TensorBoard's projector: `tensors.tsv`, `metadata.tsv` and `projector_config.pbtxt`.

    write_projector(embeddings, "logs")        # tensorboard --logdir logs, or load the two TSV files by hand
    read_projector("logs")

Every line is one row of one modality, so that the projector shows the modalities as colours of one cloud.
"""

import csv
from pathlib import Path

import numpy as np

from gapless.core.errors import DataRefused, UsageError
from gapless.core.files import new_directory, write_text
from gapless.core.values import name_of
from gapless.embeddings.embedding_set import EmbeddingSet
from gapless.embeddings.missing import KEEP, settled

TENSORS, METADATA, CONFIG = "tensors.tsv", "metadata.tsv", "projector_config.pbtxt"
CONFIG_TEXT = f"""embeddings {{
  tensor_name: "gapless"
  tensor_path: "{TENSORS}"
  metadata_path: "{METADATA}"
}}
"""


def write_projector(embeddings: EmbeddingSet, folder: str | Path) -> None:
    """Write the three files into a new directory; absent rows are left out.

    The metadata are `id`, `modality`, then group, split, caption and labels where they are known. Numbers have the
    fewest digits that give the same fp32 numbers.

    Raises:
        UsageError: the directory is in use, or the modalities have no space in common.
    """
    dims = {name: matrix.shape[1] for name, matrix in embeddings.embeddings.items()}
    if len(set(dims.values())) > 1:
        raise UsageError(f"the projector shows one space, and the modalities have different sizes: {dims}")
    known = {"group": embeddings.groups, "split": embeddings.splits, "caption": embeddings.captions}
    columns = {name: values for name, values in known.items() if values is not None} | dict(embeddings.labels)
    tensors, metadata = [], ["\t".join(_cell(name) for name in ("id", "modality", *columns))]
    for name, mask in embeddings.presence.items():
        matrix = np.asarray(embeddings.embeddings[name], dtype=np.float32)
        for row in np.flatnonzero(mask).tolist():
            tensors.append("\t".join(map(str, matrix[row])))
            cells = [embeddings.ids[row], name, *(values[row] for values in columns.values())]
            metadata.append("\t".join(map(_cell, cells)))
    with new_directory(Path(folder)) as partial:
        write_text(partial / TENSORS, "\n".join(tensors) + "\n")
        write_text(partial / METADATA, "\n".join(metadata) + "\n")
        write_text(partial / CONFIG, CONFIG_TEXT)


def read_projector(folder: str | Path) -> EmbeddingSet:
    """The embeddings of such a directory; a sample lacks the modalities of which it has no line.

    Raises:
        UsageError: a file is missing. DataRefused: lines that do not fit, rows of zeros or NaN.
    """
    place = Path(folder)
    for name in (TENSORS, METADATA):
        if not (place / name).is_file():
            raise UsageError(f"{place / name} does not exist; write_projector writes it")
    with (place / METADATA).open(newline="", encoding="utf-8") as stream:
        lines = list(csv.DictReader(stream, delimiter="\t", quoting=csv.QUOTE_NONE))
    try:
        rows = np.loadtxt(place / TENSORS, dtype=np.float32, delimiter="\t", ndmin=2)
        ids = list(dict.fromkeys(line["id"] for line in lines))
        modalities = list(dict.fromkeys(line["modality"] for line in lines))
    except (ValueError, KeyError) as error:
        raise DataRefused(f"{place} holds no rows of numbers with id and modality ({error})") from None
    if len(rows) != len(lines):
        raise DataRefused(f"{place}: {TENSORS} has {len(rows)} lines and {METADATA} describes {len(lines)}")
    number = {sample: row for row, sample in enumerate(ids)}
    matrices = {name: np.zeros((len(ids), rows.shape[1]), dtype=np.float32) for name in modalities}
    present = {name: np.zeros(len(ids), dtype=bool) for name in modalities}
    columns: dict[str, list[str]] = {name: [""] * len(ids) for name in lines[0] if name not in ("id", "modality")}
    for line, vector in zip(lines, rows, strict=True):
        row = number[line["id"]]
        matrices[line["modality"]][row] = vector
        present[line["modality"]][row] = True
        for name, values in columns.items():
            values[row] = line[name] or ""
    embeddings = EmbeddingSet(
        ids,
        matrices,
        groups=columns.pop("group", None),
        splits=columns.pop("split", None),
        captions=columns.pop("caption", None),
        labels=dict(columns),
        origin=str(place),
        present=None if all(mask.all() for mask in present.values()) else present,
    )
    return settled(embeddings, KEEP, least=1)


def _cell(value: object) -> str:
    """A cell of a TSV file without quotes, as the projector reads it: tabs and line ends become spaces."""
    return " ".join(name_of(value).split())
