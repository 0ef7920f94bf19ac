"""An interactive map of embeddings in one HTML file: modalities by colour and mark, true pairs joined, caption and
thumbnail under the pointer, figures beside it. Its content security policy forbids every request to other addresses.
"""

import base64
import hashlib
import re
from collections.abc import Mapping, Sequence
from importlib.resources import files as package_files
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import torch

from gapless import __version__
from gapless.core.errors import DataRefused, missing_extra
from gapless.core.files import write_text
from gapless.core.geometry import unit_norm
from gapless.core.progress import progress_bar
from gapless.images.thumbnails import thumbnail
from gapless.manifest.manifest import Manifest
from gapless.metrics.catalogue import GAP_HEADLINES, headline_of
from gapless.metrics.projection import principal_plane
from gapless.pages.page import jpeg_address, json_for_page, render_page
from gapless.pages.palette import modality_mark
from gapless.study.drawing import inline_svg
from gapless.study.figures import Panel, cosine_figure
from gapless.study.renderings import figure_text
from gapless.study.table import number_of

MAX_PAIRS = 1000
MIN_DRAWN = 2  # modalities of a row that is drawn


def write_map(
    out: Path,
    embeddings: Mapping[str, np.ndarray | torch.Tensor],
    results: Mapping[str, Any],
    *,
    ids: Sequence[str] | None = None,
    captions: Sequence[str] | None = None,
    labels: Mapping[str, Sequence[Any]] | None = None,
    manifest: Manifest | None = None,
    title: str = "embeddings",
    max_pairs: int = MAX_PAIRS,
    present: Mapping[str, np.ndarray] | None = None,
) -> None:
    """Write the map of paired embeddings.

    Args:
        out: the HTML file; one that is there is replaced.
        embeddings: modality -> [pair, dim], rows aligned; they need not be unit-norm. Memory maps are read in the
            drawn rows only.
        results: the content of `results.json`: "figures", and "n", "gallery_size", "split", "versions" where known.
        ids: [pair] names of the rows, by which captions, labels and images are looked up in `manifest`.
        captions: [pair] texts to show under the pointer; the manifest's first caption by default.
        labels: name -> [pair], to colour by; the manifest's labels by default.
        manifest: where captions, labels and thumbnails come from.
        max_pairs: the largest number of pairs to draw; of more pairs a fixed random choice is drawn, as the page says.
        present: modality -> [pair] bool, whether a row has it; a modality that is not named is in every row. Rows with
            fewer than two modalities are not drawn, of the others what they have.

    Raises:
        UsageError: plotly is not installed.
        DataRefused: one modality, row counts that differ, no id that occurs in the manifest.
    """
    script = _plotly_script()
    num_pairs = {len(matrix) for matrix in embeddings.values()}
    if len(embeddings) < 2 or len(num_pairs) != 1:
        raise DataRefused(f"a map needs 2 modalities or more with as many rows each, got {_shapes_of(embeddings)}")
    num_rows = num_pairs.pop()
    masks = {name: np.ones(num_rows, dtype=bool) for name in embeddings} | dict(present or {})
    paired = np.flatnonzero(np.sum([masks[name] for name in embeddings], axis=0) >= MIN_DRAWN)
    if num_rows and not len(paired):
        raise DataRefused("a map joins modalities of a row, and no row has two of them; leave --html away")
    rows = paired[sampled_rows(len(paired), max_pairs)]
    drawn = {name: _present_part(matrix, rows, masks[name]) for name, matrix in embeddings.items()}
    pairs: list[dict[str, Any]] = [{"id": str(ids[row]) if ids is not None else f"row {row}"} for row in rows]
    if manifest is not None:
        _add_manifest(pairs, manifest)
    for pair, row in zip(pairs, rows, strict=True):
        if captions is not None:
            pair["caption"] = str(captions[row])
        if labels is not None:
            pair["labels"] = {name: _label_text(values[row]) for name, values in labels.items()}
    write_text(out, _render(script, drawn, pairs, results, title, num_rows - len(paired)))


def _shapes_of(embeddings: Mapping[str, np.ndarray | torch.Tensor]) -> str:
    return ", ".join(f"{name} {tuple(matrix.shape)}" for name, matrix in embeddings.items()) or "none"


def chosen(matrix: np.ndarray | torch.Tensor, rows: np.ndarray) -> torch.Tensor:
    """[row, dim] unit-norm fp32 rows of a matrix or memory map, of which no other row is read."""
    some = matrix[torch.from_numpy(rows)] if isinstance(matrix, torch.Tensor) else np.asarray(matrix)[rows]
    return unit_norm(torch.as_tensor(some).to("cpu", torch.float32))


def _present_part(matrix: np.ndarray | torch.Tensor, rows: np.ndarray, present: np.ndarray) -> np.ndarray:
    """[row, dim] unit-norm rows; NaN where a row lacks the modality."""
    has = present[rows]
    part = np.full((len(rows), matrix.shape[1]), np.nan, dtype=np.float32)
    part[has] = chosen(matrix, rows[has]).numpy()
    return part


def sampled_rows(num_rows: int, at_most: int) -> np.ndarray:
    """All rows, or a random choice of them that is the same every time, in order."""
    if num_rows <= at_most:
        return np.arange(num_rows)
    return np.sort(np.random.default_rng(0).permutation(num_rows)[:at_most])


def _label_text(value: Any) -> str:
    return "" if value is None or value != value else str(value)


def _add_manifest(pairs: list[dict[str, Any]], manifest: Manifest) -> None:
    """Add captions, labels and thumbnails to the pairs whose id is in the manifest."""
    names = manifest.table["id"].to_pylist()
    where = {str(name): row for row, name in enumerate(names)}
    matched = [(pair, where[pair["id"]]) for pair in pairs if pair["id"] in where]
    if not matched:
        raise DataRefused(
            f"no id of the embeddings ({pairs[0]['id']!r}, ...) occurs in {manifest.path} ({names[0]!r}, ...); "
            "name the manifest that they were made from"
        )
    captions = [""] * len(manifest) if manifest.caption_column is None else manifest.first_captions
    has_image = manifest.presence(["image"])["image"] if "image" in manifest.modalities else None
    columns = manifest.table.select(["id", *manifest.labels]).take([row for _, row in matched]).to_pylist()
    for (pair, row), values in zip(progress_bar(matched, what="thumbnails", unit="image"), columns, strict=True):
        pair["caption"] = captions[row]
        pair["labels"] = {name: _label_text(values[name]) for name in manifest.labels}
        picture = thumbnail_of(manifest, row) if has_image is not None and has_image[row] else None
        if picture:
            pair["thumbnail"] = picture


def thumbnail_of(manifest: Manifest, row: int) -> str | None:
    """A small JPEG as a data address; None for a row whose image is gone or cannot be read."""
    content = thumbnail(manifest.image_path(row))
    return None if content is None else jpeg_address(content)


def _plotly_script() -> str:
    """plotly's script without any address: those of map tiles, fonts and services, and those in comments."""
    try:
        from plotly.offline import get_plotlyjs
    except ImportError:
        raise missing_extra("plotly", "map") from None
    script: str = get_plotlyjs()
    script = re.sub(r"""(?<=["'`])https?://(?!www\.w3\.org/)""", "about:blank#", script)
    return re.sub(r"https?://(?!www\.w3\.org/)(?=\w)", "", script)


def _script_hash(script: str) -> str:
    """The script as the page's content security policy names it."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()}'"


def _render(
    plotly: str,
    drawn: Mapping[str, np.ndarray],
    pairs: list[dict[str, Any]],
    results: Mapping[str, Any],
    title: str,
    num_left_out: int,
) -> str:
    masks = {name: ~np.isnan(matrix[:, 0]) for name, matrix in drawn.items()}
    points, shares = principal_plane({name: matrix[masks[name]] for name, matrix in drawn.items()})
    modalities = [
        {"name": name, **_coordinates(where, masks[name]), **modality_mark(index)}
        for index, (name, where) in enumerate(points.items())
    ]
    for pair, cosine in zip(pairs, _mean_cosines(drawn).tolist(), strict=True):
        pair["cosine"] = round(cosine, 4)
    label_names = sorted({name for pair in pairs for name in pair.get("labels", {})})
    page = {"modalities": modalities, "pairs": pairs, "labels": label_names, "shares": [round(s, 4) for s in shares]}
    script = (package_files("gapless.study") / "templates" / "map.js").read_text(encoding="utf-8")
    figures = results.get("figures", {})
    return render_page(
        "gapless.study",
        "map.html",
        title=title,
        facts=_facts_of(results, len(pairs), num_left_out),
        headlines=[(headline_of(key), figure_text(figures[key])) for key in GAP_HEADLINES if has(figures, key)],
        figures=[(key, figure_text(figures[key])) for key in sorted(figures) if has(figures, key)],
        modalities=modalities,
        label_names=label_names,
        has_thumbnails=any("thumbnail" in pair for pair in pairs),
        has_captions=any("caption" in pair for pair in pairs),
        histogram=inline_svg(cosine_figure([Panel("", drawn)]), "Cosines of true and false pairs"),
        data=json_for_page(page),
        plotly=plotly,
        script=script,
        hashes=f"{_script_hash(plotly)} {_script_hash(script)}",
        version=__version__,
    )


def _coordinates(where: np.ndarray, has: np.ndarray) -> dict[str, list[float | None]]:
    """`x` and `y` of every drawn row; None where it lacks the modality.

    Args:
        where: [present row, 2].
        has: [drawn row] bool.
    """
    placed = np.full((len(has), 2), None, dtype=object)
    placed[has] = where.round(5)
    return {"x": placed[:, 0].tolist(), "y": placed[:, 1].tolist()}


def _mean_cosines(drawn: Mapping[str, np.ndarray]) -> np.ndarray:
    """[row] the mean cosine over every two modalities that a row has."""
    cosines = np.stack([(a * b).sum(axis=1) for a, b in combinations(drawn.values(), 2)])
    mean: np.ndarray = np.nanmean(cosines, axis=0)
    return mean


def has(figures: Mapping[str, Any], key: str) -> bool:
    """Whether a figure has a value."""
    return number_of(figures.get(key)) is not None


def _facts_of(results: Mapping[str, Any], num_drawn: int, num_left_out: int) -> list[str]:
    """The split, the gallery size and the share of pairs that is drawn, as text."""
    num_pairs = results.get("n", num_drawn)
    lacking = f"{num_left_out:,} rows that have fewer than two modalities are not drawn"
    what = "rows" if "pairs" in results else "pairs"  # where rows lack modalities they are no pairs
    drawn = f"all {num_pairs:,} {what} drawn"
    if num_drawn < num_pairs:
        drawn = f"{num_drawn:,} of {num_pairs:,} {what} drawn, a fixed random choice; the figures are of all"
    return [
        *([f"split {results['split']}"] if results.get("split") else []),
        *([f"gallery {results['gallery_size']:,}"] if results.get("gallery_size") else []),
        drawn,
        *([lacking] if num_left_out else []),
    ]
