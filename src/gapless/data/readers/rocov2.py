"""`gapless data rocov2`: ROCOv2 as its authors publish it (CSV files and folders of images), or as Parquet.

    <root>/{train,valid,test}_captions.csv, *_concepts_manual.csv, cui_mapping.csv, license_information.csv,
           {train,valid,test}_images/ or {train,valid,test}/ with <ID>.jpg or <ID>.png
    <root>/**/train-*.parquet, validation-*.parquet, test-*.parquet    columns image, image_id, caption, cui

Copies of it disagree about counts and licence: neither is assumed. Nothing is downloaded.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from gapless.data.build import MAX_BAD, BuildOptions, build_manifest
from gapless.data.manifest import SPLITS, Manifest, split_named
from gapless.data.rows import BytesSource, FileSource, ImageSource, RawRow, faulty_row, select_licences
from gapless.data.table_format import Cells
from gapless.data.tables import image_cell, read_lines, texts_of
from gapless.errors import UsageError
from gapless.values import text_of

LABELS = ("concept",)
LICENCE_FILE = "license_information.csv"
_SPLIT_STEMS = {"train": ("train",), "validation": ("valid", "validation", "val"), "test": ("test",)}
_LICENCE = re.compile(r"CC0|CC[ -]BY(?:-[A-Z]{2})*", re.IGNORECASE)
_CUI = re.compile(r"C\d{7}")


@dataclass(frozen=True)
class _Context:
    """What is known of the images beside their captions, by image id or concept code."""

    articles: Mapping[str, tuple[str, str | None]]
    concepts: Mapping[str, Sequence[str]]
    names: Mapping[str, str]

    def row(self, origin: str, id: str, image: ImageSource, image_name: str, caption: str, split: str) -> RawRow:
        article, licence = self.articles.get(id, ("", None))
        if self.articles and not article:
            return faulty_row(origin, "no article", f"{id} is not in {LICENCE_FILE}", id)
        concepts = self.concepts.get(id, ())
        concept = self.names.get(concepts[0], concepts[0]) if concepts else None
        return RawRow(
            origin=origin,
            id=id,
            image=image,
            image_name=image_name,
            captions=[caption],
            split=split,
            group=article or None,
            labels={"concept": concept},
            licence=licence,
        )


def read_rocov2(
    source: str | Path,
    out: str | Path,
    splits: Sequence[str] = SPLITS,
    licences: Sequence[str] = (),
    store_images: bool = False,
    max_bad: float = MAX_BAD,
    workers: int | None = None,
) -> Manifest:
    """Build a manifest from a local copy of ROCOv2, in whichever of its two forms it is.

    The article, which must not be split, is in `license_information.csv`; put that file beside the Parquet files to
    have it there too. Without it every image is its own group, and `manifest.json` says `"groups": "image"`.

    Args:
        source: the folder.
        out: the manifest's directory; must be new.
        splits: which of the official splits to read.
        licences: keep only images under these ("CC BY", "CC BY-NC"); empty keeps all.
        store_images: copy the images into the manifest (always so for Parquet).
        max_bad: the largest share of bad rows; images that are not there are bad rows.
        workers: processes that verify; None uses all cores.

    Raises:
        UsageError: neither form is found, or `out` is in use.
        DataRefused: too many bad rows.
    """
    root = Path(source)
    tables = [(split, path) for split in splits for path in _caption_tables(root, split)]
    parquets = [(split, path) for split, path in _parquet_files(root) if split in splits]
    if not tables and not parquets:
        raise UsageError(f"{root} is no ROCOv2 folder: neither train_captions.csv nor train-*.parquet is there")
    context = _Context(_articles(root), _concepts(root), _concept_names(root))
    rows = _rows_of_tables(root, tables, context) if tables else _rows_of_parquet(parquets, context)
    options = BuildOptions(
        source="ROCOv2",
        labels=LABELS,
        image_root=None if store_images or not tables else root,
        with_licence=True,
        max_bad=max_bad,
        workers=workers,
        details={"groups": "article" if context.articles else "image"},
    )
    return build_manifest(select_licences(rows, licences), out, options)


def _caption_tables(root: Path, split: str) -> list[Path]:
    candidates = (root / f"{stem}_captions.csv" for stem in _SPLIT_STEMS[split])
    return [path for path in candidates if path.is_file()][:1]


def _parquet_files(root: Path) -> list[tuple[str, Path]]:
    """(split, file): the split is in the name (train-00000-of-00027) or in the folder's (train/0000)."""
    found = []
    for path in sorted(root.rglob("*.parquet")):
        for word in (re.split(r"[-_.]", path.stem)[0].lower(), path.parent.name.lower()):
            if split := split_named(word):
                found.append((split, path))
                break
    return found


def _columns(cells: Cells) -> dict[str, str]:
    """Cells as text under lower-case names: the published files vary in both."""
    return {str(name).strip().lower(): text_of(value) for name, value in cells.items()}


def _articles(root: Path) -> dict[str, tuple[str, str | None]]:
    articles = {}
    for cells in _parsed(root / LICENCE_FILE):
        licence = _LICENCE.search(cells.get("attribution", "") or cells.get("license", ""))
        articles[cells.get("id", "")] = (cells.get("pmcid", ""), licence.group().upper() if licence else None)
    return articles


def _concepts(root: Path) -> dict[str, list[str]]:
    """The hand-made concepts, whose first is the kind of examination."""
    return {
        cells.get("id", ""): _CUI.findall(cells.get("cuis", ""))
        for stems in _SPLIT_STEMS.values()
        for stem in stems
        for cells in _parsed(root / f"{stem}_concepts_manual.csv")
    }


def _concept_names(root: Path) -> dict[str, str]:
    pairs = (list(cells.values())[:2] for cells in _parsed(root / "cui_mapping.csv"))
    return {pair[0]: pair[1] for pair in pairs if len(pair) == 2}


def _parsed(path: Path) -> Iterator[dict[str, str]]:
    if path.is_file():
        for _, cells, _ in read_lines(path):
            if cells is not None:
                yield _columns(cells)


def _rows_of_tables(root: Path, tables: Sequence[tuple[str, Path]], context: _Context) -> Iterator[RawRow]:
    for split, path in tables:
        folder = _image_folder(root, split)
        for origin, raw, fault in read_lines(path):
            if raw is None:
                yield faulty_row(origin, "malformed row", fault)
                continue
            cells = _columns(raw)
            id = cells.get("id", "")
            if not re.fullmatch(r"[A-Za-z0-9_-]+", id):
                yield faulty_row(origin, "malformed row", f"ID {id[:80]!r}")
                continue
            suffix = ".png" if (folder / f"{id}.png").exists() else ".jpg"
            name = f"{folder.relative_to(root).as_posix()}/{id}{suffix}"
            image = FileSource(folder, f"{id}{suffix}")
            yield context.row(origin, id, image, name, cells.get("caption", ""), split)


def _image_folder(root: Path, split: str) -> Path:
    stems = _SPLIT_STEMS[split]
    names = [*(f"{stem}_images/{stem}" for stem in stems), *(f"{stem}_images" for stem in stems), *stems]
    return next((root / name for name in names if (root / name).is_dir()), root / f"{stems[0]}_images")


def _rows_of_parquet(parquets: Sequence[tuple[str, Path]], context: _Context) -> Iterator[RawRow]:
    for split, path in parquets:
        for origin, cells, _ in read_lines(path):
            assert cells is not None
            content, name = image_cell(cells.get("image"), origin)
            id = text_of(cells.get("image_id")) or origin
            if content is None:
                yield faulty_row(origin, "missing image", "the column 'image' holds no bytes", id)
                continue
            known = context
            if id not in context.concepts:
                known = _Context(context.articles, {id: texts_of(cells.get("cui"))}, context.names)
            yield known.row(origin, id, BytesSource(content, name), name, text_of(cells.get("caption")), split)
