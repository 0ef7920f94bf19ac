"""Writes manifests, a few rows in memory at a time."""

import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from gapless.core import files
from gapless.core.errors import UsageError
from gapless.manifest.manifest import (
    FORMAT,
    INFO_FILE,
    MODALITIES_VERSION,
    SKIPPED_FILE,
    SPLITS,
    TABLE_FILE,
    VERSION,
)
from gapless.manifest.modality_columns import file_columns, modality_schema
from gapless.manifest.modality_spec import ModalitySpec
from gapless.manifest.presence import PresenceCount

FIXED_COLUMNS = ("id", "group", "split", "image", "captions", "width", "height", "sha256", "licence")
ROWS_PER_WRITE = 2048


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

    Use as a context inside `files.new_directory`, then call `finish`. With `modalities` the manifest is of version 2.
    """

    def __init__(
        self,
        directory: Path,
        *,
        labels: Sequence[str] = (),
        signals: Sequence[str] = (),
        with_licence: bool = False,
        modalities: Sequence[ModalitySpec] = (),
    ) -> None:
        self.directory = directory
        self.labels = tuple(labels)
        self.signals = tuple(signals)
        self.modalities = tuple(modalities)
        if self.modalities:
            self.schema = modality_schema(self.modalities, labels, with_licence)
        else:
            self.schema = manifest_schema(labels, signals, with_licence)
        # Where files lie is left out, so that the fingerprint stays the same when they are moved.
        self._places = set(file_columns(self.modalities) if self.modalities else ["image"])
        self._presence = PresenceCount(spec.name for spec in self.modalities)
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
        content = [row[name] for name in self.schema.names if name not in self._places]
        if self.modalities:
            self._presence.add(row["split"], (name for name in self._presence.names if row[name] is not None))
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
            "version": MODALITIES_VERSION if self.modalities else VERSION,
            "source": source,
            "licence": licence,
            "image_root": image_root,
            "labels": list(self.labels),
            **self._described_modalities(),
            "counts": {"read": self.kept + num_skipped, "kept": self.kept, "skipped": num_skipped},
            "skipped": dict(sorted(self.skipped.items())),
            "fingerprint": self._digest.hexdigest(),
            "table_sha256": files.sha256_of(self.directory / TABLE_FILE),
        }
        files.write_json(self.directory / INFO_FILE, info)

    def _described_modalities(self) -> dict[str, Any]:
        if not self.modalities:
            return {"modalities": ["image", "text", *self.signals]}
        entries = {spec.name: {**spec.as_json(), "present": self._presence.of(spec.name)} for spec in self.modalities}
        return {"modalities": entries, "presence": self._presence.as_json(SPLITS)}
