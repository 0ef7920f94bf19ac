"""Reads and writes manifests, the table of pairs that every command reads.

A directory with `manifest.parquet` (one row per pair), `manifest.json` (where it comes from, what was counted) and
`skipped.jsonl` (every row that was left out, with the reason).
"""

import hashlib
import json
import os
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from types import TracebackType
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from gapless.core import files
from gapless.core.errors import DataRefused, UsageError, one_line

SPLITS = ("train", "validation", "test")
# Common names of the three splits, in any case; "training set" and "test_split" are recognised too.
_SPLIT_OF = {
    **dict.fromkeys(("train", "training", "trn"), "train"),
    **dict.fromkeys(("validation", "validate", "validating", "valid", "val", "vali"), "validation"),
    **dict.fromkeys(("dev", "devel", "development", "eval", "evaluate", "evaluation"), "validation"),
    **dict.fromkeys(("test", "testing", "tst"), "test"),
}
_SET = re.compile(r"[\s_-]*(set|split)$")
FORMAT = "gapless-manifest"
VERSION = 1
TABLE_FILE = "manifest.parquet"
INFO_FILE = "manifest.json"
SKIPPED_FILE = "skipped.jsonl"
FIXED_COLUMNS = ("id", "group", "split", "image", "captions", "width", "height", "sha256", "licence")
ROWS_PER_WRITE = 2048


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
        if info.get("version") != VERSION:
            raise UsageError(f"{path} is a manifest of version {info.get('version')!r}, this gapless reads {VERSION}")
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
        """`image`, `text`, then the names of further modalities, each a column."""
        return tuple(self.info["modalities"])

    @cached_property
    def image_root(self) -> Path:
        """Where the names in the column `image` start; inside the manifest when it holds its own images."""
        return self.path / str(self.info["image_root"])

    @cached_property
    def _image_names(self) -> list[str]:
        names: list[str] = self.table["image"].to_pylist()
        return names

    def image_path(self, row: int) -> Path:
        """The image file of a row of this table.

        Raises:
            DataRefused: a name that leads out of the image root.
        """
        name = self._image_names[row]
        path = os.path.normpath(self.image_root / name)
        if "\0" in name or not (
            _is_below(path, os.path.normpath(self.image_root))
            or _is_below(os.path.realpath(path), os.path.realpath(self.image_root))  # the same folder by another path
        ):
            raise DataRefused(f"{self.path}: the image {name[:80]!r} lies outside the image root")
        return Path(path)

    @property
    def first_captions(self) -> list[str]:
        """The first caption of each row, which is the one that is embedded and measured."""
        return [captions[0] for captions in self.table["captions"].to_pylist()]

    def rows_per_split(self) -> dict[str, int]:
        """How many rows each split has, in the usual order."""
        counted = Counter(self.table["split"].to_pylist())
        return {split: counted[split] for split in SPLITS if counted[split]}

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


def _is_below(path: str, root: str) -> bool:
    return path.startswith(os.path.join(root, ""))


def _check_description(path: Path, info: Mapping[str, Any], table: pa.Table) -> None:
    """Raise DataRefused for a description that names columns which the table lacks."""
    lists = [info.get("labels"), info.get("modalities")]
    named = [name for names in lists if isinstance(names, list) for name in names]
    is_plain = all(isinstance(names, list) for names in lists) and all(isinstance(name, str) for name in named)
    if not is_plain or not all(isinstance(info.get(key), str) for key in ("image_root", "fingerprint")):
        raise DataRefused(f"{path / INFO_FILE} is damaged: it does not describe its table; build the manifest again")
    needed = {"id", "group", "split", "image", "captions", *named} - {"text"}
    missing = sorted(needed - set(table.column_names))
    if missing:
        raise DataRefused(f"{path} is damaged: {TABLE_FILE} has no column {missing[0]!r}; build the manifest again")


def manifest_schema(labels: Sequence[str], signals: Sequence[str], with_licence: bool) -> pa.Schema:
    """The columns of a manifest, in the order they are written."""
    clash = sorted({*labels, *signals} & set(FIXED_COLUMNS))
    if clash:
        raise UsageError(f"the column name {clash[0]!r} is taken by the manifest itself; rename that column")
    columns = Counter([*labels, *signals, *(["licence"] if with_licence else [])])
    if twice := [name for name, count in columns.items() if count > 1]:
        raise UsageError(f"a manifest cannot have the column {twice[0]!r} twice; name it once, or rename that column")
    return pa.schema(
        [
            *((name, pa.string()) for name in ("id", "group", "split", "image")),
            ("captions", pa.list_(pa.string())),
            *((name, pa.string()) for name in labels),
            *((name, pa.list_(pa.float32())) for name in signals),
            *([("licence", pa.string())] if with_licence else []),
            ("width", pa.int32()),
            ("height", pa.int32()),
            ("sha256", pa.string()),
        ]
    )


class ManifestWriter:
    """Fills a directory with a manifest, a few rows in memory at a time.

    Use as a context inside `files.new_directory`, then call `finish`.
    """

    def __init__(
        self, directory: Path, *, labels: Sequence[str] = (), signals: Sequence[str] = (), with_licence: bool = False
    ) -> None:
        self.directory = directory
        self.labels = tuple(labels)
        self.signals = tuple(signals)
        self.schema = manifest_schema(labels, signals, with_licence)
        self.kept = 0
        self.skipped: Counter[str] = Counter()
        self._pending: list[Mapping[str, Any]] = []
        self._digest = hashlib.sha256(json.dumps(self.schema.names).encode())
        self._parquet = pq.ParquetWriter(directory / TABLE_FILE, self.schema, compression="zstd")
        self._skipped_file = (directory / SKIPPED_FILE).open("w", encoding="utf-8", errors="backslashreplace")

    def __enter__(self) -> "ManifestWriter":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._parquet.close()
        self._skipped_file.close()

    def keep(self, row: Mapping[str, Any]) -> None:
        """Add a row: column -> value, for every column of the schema."""
        self.kept += 1
        # The path of the image is left out, so that the fingerprint stays the same when images are moved.
        content = [row[name] for name in self.schema.names if name != "image"]
        self._digest.update(json.dumps(content).encode())
        self._pending.append(row)
        if len(self._pending) >= ROWS_PER_WRITE:
            self._write_pending()

    def skip(self, origin: str, reason: str, detail: str = "") -> None:
        """Count a row that is left out, and write it to `skipped.jsonl`."""
        self.skipped[reason] += 1
        line = {"row": origin, "reason": reason, "detail": detail}
        self._skipped_file.write(json.dumps(line, ensure_ascii=False) + "\n")

    def keep_all(self, rows: Iterable[Mapping[str, Any]]) -> None:
        """Add rows, as `keep` does."""
        for row in rows:
            self.keep(row)

    def _write_pending(self) -> None:
        if self._pending:
            self._parquet.write_table(pa.Table.from_pylist(self._pending, schema=self.schema))
            self._pending = []

    def finish(self, *, source: str, image_root: str, licence: str | None, **more: Any) -> None:
        """Write what is pending and `manifest.json`.

        Args:
            source: what the rows were read from, for people.
            image_root: where the names in `image` start; "." when the manifest holds its images.
            licence: of the whole data set, when one is known.
            more: further entries of `manifest.json`.
        """
        self._write_pending()
        self._parquet.close()
        num_skipped = sum(self.skipped.values())
        info = {
            **more,
            "format": FORMAT,
            "version": VERSION,
            "source": source,
            "licence": licence,
            "image_root": image_root,
            "labels": list(self.labels),
            "modalities": ["image", "text", *self.signals],
            "counts": {"read": self.kept + num_skipped, "kept": self.kept, "skipped": num_skipped},
            "skipped": dict(sorted(self.skipped.items())),
            "fingerprint": self._digest.hexdigest(),
            "table_sha256": files.sha256_of(self.directory / TABLE_FILE),
        }
        files.write_json(self.directory / INFO_FILE, info)
