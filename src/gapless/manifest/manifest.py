"""Reads manifests, the table of rows that every command reads; `writer` writes them.

A directory with `manifest.parquet` (one row per sample), `manifest.json` (where it comes from, what was counted) and
`skipped.jsonl` (every row that was left out, with the reason). Version 1 holds an image and captions in every row;
version 2 holds any modalities, any of them absent.
"""

import os
import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from gapless.core import files
from gapless.core.errors import DataRefused, UsageError, listed, one_line, unknown_name
from gapless.manifest.modality_columns import contents_of, is_filled, specs_in, views_in
from gapless.manifest.modality_spec import ModalitySpec
from gapless.modalities.base import FILES, TEXTS

SPLITS = TRAIN, VALIDATION, TEST = ("train", "validation", "test")
# Common names of the three splits, in any case; "training set" and "test_split" are recognised too.
_SPLIT_OF = {
    **dict.fromkeys(("train", "training", "trn"), "train"),
    **dict.fromkeys(("validation", "validate", "validating", "valid", "val", "vali"), "validation"),
    **dict.fromkeys(("dev", "devel", "development", "eval", "evaluate", "evaluation"), "validation"),
    **dict.fromkeys(("test", "testing", "tst"), "test"),
}
_SET = re.compile(r"[\s_-]*(set|split)$")
FORMAT = "gapless-manifest"
VERSION = 1  # an image and captions in every row
MODALITIES_VERSION = 2  # any modalities, any of them absent
TABLE_FILE = "manifest.parquet"
INFO_FILE = "manifest.json"
SKIPPED_FILE = "skipped.jsonl"


def split_named(text: str) -> str | None:
    """The split that a word means, in any case and with any spaces: one of `SPLITS`, or None when it is none."""
    return _SPLIT_OF.get(_SET.sub("", " ".join(text.split()).casefold()))


@dataclass(frozen=True)
class Manifest:
    """A manifest in memory, or a selection of its rows.

    Args:
        path: its directory.
        info: the content of `manifest.json`.
        table: the rows, or the selected ones.
    """

    path: Path
    info: Mapping[str, Any]
    table: pa.Table

    @classmethod
    def of(cls, data: "str | Path | Manifest") -> "Manifest":
        """An open manifest as it is; of a path, the manifest that is read there (see `read`)."""
        return data if isinstance(data, Manifest) else cls.read(data)

    @classmethod
    def read(cls, path: str | Path) -> "Manifest":
        """Open a manifest directory; its checksums and counts are checked, its images are not opened again.

        Raises:
            UsageError: no such directory, or not a manifest.
            DataRefused: a file of it is missing or damaged.
        """
        path = Path(path)
        if not path.exists():
            raise UsageError(f"{path} does not exist; build a manifest with 'gapless data ...'")
        if not (path / INFO_FILE).is_file():
            raise UsageError(f"{path} is no manifest ({INFO_FILE} is missing); build one with 'gapless data ...'")
        info = files.read_json(path / INFO_FILE)
        if not isinstance(info, dict) or info.get("format") != FORMAT:
            raise UsageError(f"{path / INFO_FILE} does not describe a manifest; build one with 'gapless data ...'")
        if info.get("version") not in (VERSION, MODALITIES_VERSION):
            raise UsageError(
                f"{path} is a manifest of version {info.get('version')!r}, this gapless reads {VERSION} and "
                f"{MODALITIES_VERSION}"
            )
        table_file = path / TABLE_FILE
        if not table_file.is_file():
            raise DataRefused(f"{path} is damaged: {TABLE_FILE} is missing; build the manifest again")
        if files.sha256_of(table_file) != info.get("table_sha256"):
            raise DataRefused(f"{table_file} is damaged (its checksum differs); build the manifest again")
        try:
            table = pq.read_table(table_file, memory_map=True)
        except (pa.ArrowException, OSError, ValueError) as error:
            raise DataRefused(f"{table_file} cannot be read ({one_line(error)}); build the manifest again") from None
        _check_description(path, info, table)
        return cls(path, info, table)

    def __len__(self) -> int:
        return int(self.table.num_rows)

    @property
    def fingerprint(self) -> str:
        """sha256 of the whole manifest's content: ids, groups, splits, captions, labels, the images' bytes."""
        return str(self.info["fingerprint"])

    @property
    def labels(self) -> tuple[str, ...]:
        """Names of the label columns."""
        return tuple(self.info["labels"])

    @property
    def modalities(self) -> tuple[str, ...]:
        """The names of the modalities; of version 1 `image`, `text` and then further columns of numbers."""
        if self.version == MODALITIES_VERSION:
            return tuple(spec.name for spec in self.specs)
        return tuple(self.info["modalities"])

    @property
    def version(self) -> int:
        """1 (an image and captions in every row) or 2 (any modalities, any of them absent)."""
        return int(self.info.get("version", 1))

    @cached_property
    def specs(self) -> tuple[ModalitySpec, ...]:
        """What the manifest says of each modality: name, kind, columns of the source, params."""
        if self.version == MODALITIES_VERSION:
            return specs_in(self.info, self.table, self.path / INFO_FILE)
        first = (ModalitySpec("image", "image", ("image",)), ModalitySpec("text", "text", ("captions",)))
        return (*first, *(ModalitySpec(name, "vector", (name,)) for name in self.modalities[2:]))

    def spec(self, name: str) -> ModalitySpec:
        """What the manifest says of one modality.

        Raises:
            UsageError: it has none of this name.
        """
        for spec in self.specs:
            if spec.name == name:
                return spec
        raise unknown_name("modality", name, self.modalities)

    def column_of(self, name: str) -> str:
        """The column that holds a modality: its own name, or `captions` for the text of image-text manifests."""
        return "captions" if name == "text" and "text" not in self.table.column_names else name

    def presence(self, names: Iterable[str] | None = None) -> dict[str, NDArray[np.bool_]]:
        """Modality -> [row] whether a row of this table has it; of all modalities, in their order, or of these.

        A null cell is an absent modality, and so are an empty text and an empty list.
        """
        chosen = self.modalities if names is None else names
        return {name: is_filled(self.table[self.column_of(name)]) for name in chosen}

    def rows_with(self, name: str) -> NDArray[np.int64]:
        """The numbers of the rows that have a modality. Raises UsageError: there is none of this name."""
        self.spec(name)
        return np.flatnonzero(self.presence()[name])

    def cells(self, name: str) -> list[list[Any] | None]:
        """The views of a modality in each row of this table; None where it is absent.

        Returns:
            Paths of files, texts, lists of numbers, or one mapping of a table's fields (None where a field is missing).

        Raises:
            UsageError: there is no modality of this name. DataRefused: a name that leads out of the image root.
        """
        spec = self.spec(name)
        if self.version == VERSION:
            if name == "image":
                return [[self.image_path(row)] for row in range(len(self))]
            column = self.table[self.column_of(name)].to_pylist()
            return column if name == "text" else [[numbers] for numbers in column]
        cells = [views_in(cell, spec) for cell in self.table[name].to_pylist()]
        if spec.form == FILES:
            return [None if views is None else [self._path_of(file) for file in views] for views in cells]
        return cells

    def views(self, name: str, row: int) -> list[Any] | None:
        """The views of a modality in one row of this table, as `cells` gives them; None where it is absent.

        Raises:
            UsageError: there is no modality of this name. DataRefused: a name that leads out of the image root.
        """
        spec = self.spec(name)
        if self.version == VERSION and name == "image":
            return None if self._image_names[row] is None else [self.image_path(row)]
        cell = self.table[self.column_of(name)][row].as_py()
        if self.version == VERSION and name != "text" and cell is not None:
            return [cell]  # a list of numbers
        views = views_in(cell, spec)
        if not views:
            return None
        return [self._path_of(file) for file in views] if spec.form == FILES else views

    def contents(self) -> dict[str, list[list[str] | None]]:
        """Modality of files or numbers -> the sha256 of each view, row by row; None where it is absent.

        Rows that share one are copies. Of version 1 it is that of the image.
        """
        if self.version == MODALITIES_VERSION:
            return contents_of(self.table, self.specs)
        if "sha256" not in self.table.column_names:
            return {}
        return {"image": [None if digest is None else [digest] for digest in self.table["sha256"].to_pylist()]}

    @cached_property
    def image_root(self) -> Path:
        """Where the names of images and of other files start; inside the manifest when it holds its own."""
        return self.path / str(self.info["image_root"])

    @cached_property
    def _image_names(self) -> list[str | None]:
        if "image" not in self.modalities:
            raise UsageError(f"{self.path} has no modality 'image', only {listed(self.modalities)}")
        names: list[Any] = self.table["image"].to_pylist()
        return names if self.version == VERSION else [None if views is None else views[0] for views in names]

    def image_path(self, row: int) -> Path:
        """The image file of a row of this table; the first one where it has several.

        Raises:
            DataRefused: the row has none, or a name that leads out of the image root.
        """
        name = self._image_names[row]
        if name is None:
            raise DataRefused(f"{self.path}: the row {self.table['id'][row].as_py()!r} has no image")
        return self._path_of(name)

    def _path_of(self, name: str) -> Path:
        path = os.path.normpath(self.image_root / name)
        if "\0" in name or not (
            _is_below(path, os.path.normpath(self.image_root))
            or _is_below(os.path.realpath(path), os.path.realpath(self.image_root))  # the same folder by another path
        ):
            raise DataRefused(f"{self.path}: the image {name[:80]!r} lies outside the image root")
        return Path(path)

    @property
    def first_captions(self) -> list[str]:
        """The first caption of each row, which is the one that is embedded and measured; "" where a row has none.

        They are those of `caption_column`.

        Raises:
            UsageError: no modality is of texts.
        """
        column = self.caption_column
        if column is None:
            raise UsageError(f"{self.path} has no texts, only {listed(self.modalities)}")
        return [texts[0] if texts else "" for texts in self.table[column].to_pylist()]

    @property
    def caption_column(self) -> str | None:
        """The column with the captions of the rows.

        Of version 2 it is that of the modality `text`, else `caption`, else the first one of texts; None without texts.
        """
        if self.version == VERSION:
            return "captions"
        texts = [spec.name for spec in self.specs if spec.form == TEXTS]
        return next((name for name in ("text", "caption") if name in texts), texts[0] if texts else None)

    def rows_per_split(self) -> dict[str, int]:
        """How many rows each split has, in the usual order."""
        return _count_splits([self.table["split"]])

    def select(self, split: str) -> "Manifest":
        """The rows of one split, in their order.

        Raises:
            UsageError: an unknown split, or one without rows.
        """
        present = self.rows_per_split()
        if split not in present:
            raise UsageError(
                f"{self.path} has no rows in split {split!r}, only {', '.join(present)}; 'gapless data split' makes one"
            )
        return Manifest(self.path, self.info, self.table.filter(pc.equal(self.table["split"], split)))


def written_rows_per_split(path: Path) -> dict[str, int]:
    """`Manifest.rows_per_split` of a manifest on disk, of which a few rows are in memory at a time."""
    with pq.ParquetFile(path / TABLE_FILE) as table:
        return _count_splits(batch.column(0) for batch in table.iter_batches(columns=["split"]))


def written_columns(path: Path) -> list[str]:
    """The columns of a manifest on disk, in their order."""
    return list(pq.read_schema(path / TABLE_FILE).names)


def _count_splits(columns: Iterable[pa.Array | pa.ChunkedArray]) -> dict[str, int]:
    counted = Counter(split for column in columns for split in column.to_pylist())
    return {split: counted[split] for split in SPLITS if counted[split]}


def _is_below(path: str, root: str) -> bool:
    return path.startswith(os.path.join(root, ""))


def _check_description(path: Path, info: Mapping[str, Any], table: pa.Table) -> None:
    """Raise DataRefused for a description that names columns which the table lacks."""
    modalities = info.get("modalities")
    is_mapping = info.get("version") == MODALITIES_VERSION and isinstance(modalities, Mapping)
    lists = [info.get("labels"), list(modalities or ()) if is_mapping else modalities]
    named = [name for names in lists if isinstance(names, list) for name in names]
    is_plain = all(isinstance(names, list) for names in lists) and all(isinstance(name, str) for name in named)
    if not is_plain or not all(isinstance(info.get(key), str) for key in ("image_root", "fingerprint")):
        raise DataRefused(f"{path / INFO_FILE} is damaged: it does not describe its table; build the manifest again")
    if info.get("version") == MODALITIES_VERSION:
        specs_in(info, table, path / INFO_FILE)
        needed = {"id", "group", "split", *named}
    else:
        needed = {"id", "group", "split", "image", "captions", *named} - {"text"}
    missing = sorted(needed - set(table.column_names))
    if missing:
        raise DataRefused(f"{path} is damaged: {TABLE_FILE} has no column {missing[0]!r}; build the manifest again")
