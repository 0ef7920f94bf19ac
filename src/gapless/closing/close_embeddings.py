"""`gapless close` as one call: embeddings in files, to a model directory whose gap is closed."""

from dataclasses import replace
from pathlib import Path

from gapless.closing.base import ClosingSettings
from gapless.closing.close import ClosedGap, close_set
from gapless.core.files import check_new_directory
from gapless.embeddings.sources import EmbeddingsSource, PathName, read_rows


def close(
    source: EmbeddingsSource,
    *,
    out: PathName,
    method: str | None = None,
    settings: ClosingSettings | None = None,
    seed: int = 0,
    labels: PathName | None = None,
    groups: PathName | None = None,
    positives: PathName | None = None,
    missing: str | None = None,
) -> ClosedGap:
    """Close the gap of frozen embeddings, and measure on rows that were held back what that did.

    Examples:
        >>> import numpy as np
        >>> from tempfile import mkdtemp
        >>> place, random = Path(mkdtemp()), np.random.default_rng(0)
        >>> hidden = random.standard_normal((60, 4))
        >>> for name, shift in (("image", 2), ("text", -2)):
        ...     np.save(place / f"{name}.npy", (hidden @ random.standard_normal((4, 8)) + shift).astype(np.float32))
        >>> files = {name: place / f"{name}.npy" for name in ("image", "text")}
        >>> closed = close(files, method="center", out=place / "closed")
        >>> closed.figures["gap/centroid_distance"] < closed.before["gap/centroid_distance"]
        True

    Args:
        source: directories, files, one array per modality, or rows in memory; see `gapless.embeddings.read_rows`.
        out: model directory to write, with `results.json`.
        method: a name of `gapless.closing.CLOSING_METHODS`; default: that of the settings, and without them auto, which
            fits the others, judges them on held-out groups and takes the best.
        settings: of the method, of the type that it names; by default that type's defaults.
        seed: of the weights, the order and the split.
        labels, groups, positives: files of one value per row.
        missing: "keep" or "drop" rows that lack a modality; see `gapless.embeddings.read_rows`.

    Returns:
        The model and its figures. It takes raw inputs where the model that made the embeddings is named by them and
        still the same, else vectors.

    Raises:
        UsageError: nothing there, an unknown method, setting or modality, an output directory in use.
        DataRefused: row counts that differ, rows of NaN or zeros, too few groups.
        ValueError: settings of another method.
    """
    check_new_directory(Path(out))
    rows = read_rows(source, labels=labels, groups=groups, positives=positives, missing=missing)
    return replace(close_set(rows, settings, method, seed, out=Path(out)), notes=rows.notes)
