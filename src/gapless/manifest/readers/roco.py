"""`gapless data roco`: the original ROCO layout, as its own download script leaves it. Nothing is downloaded.

    <root>/data/{train,validation,test}/{radiology,non-radiology}/
        captions.txt licences.txt keywords.txt cuis.txt semtypes.txt dlinks.txt images/ROCO_xxxxx.jpg

The article, which must not be split, is the PMC id in `licences.txt` (`dlinks.txt` where that has no line).
"""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Any, TypeVar

from gapless.core.errors import DataRefused, UsageError, unknown_name
from gapless.manifest.clean_text import clean_text
from gapless.manifest.manifest import SPLITS, Manifest
from gapless.manifest.options import MAX_BAD, BuildOptions, ImageOptions
from gapless.manifest.raw_rows import FileSource, RawRow, faulty_row, select_licences
from gapless.manifest.readers.base import LICENCE_HELP, READERS, Names, Option, Reader, ReaderOptions, Reading
from gapless.manifest.readers.image_folder import ImageFolder
from gapless.manifest.readers.passed_over import PassedOver, say_absent

KINDS = ("radiology", "non-radiology")
LABELS = ("kind", "semantic_type")
TEXT_FILES = ("captions.txt", "licences.txt", "keywords.txt", "cuis.txt", "semtypes.txt", "dlinks.txt")
_ID = re.compile(r"ROCO_\d+")
_ARTICLE = re.compile(r"PMC\d+")
# The beginning of another line inside a line, in files whose lines end with a carriage return alone.
_SWALLOWED = re.compile(r"\sROCO_\d+[\t,]")


Value = TypeVar("Value")


@dataclass(frozen=True, kw_only=True)
class RocoOptions(ReaderOptions):
    """Build a manifest from a local ROCO tree.

    Args:
        splits: which of the official splits to read.
        kinds: "radiology", "non-radiology" or both.
        licences: keep only images under these ("CC BY", "CC0", ...); empty keeps all.
        store_images: copy the images into the manifest.
        max_bad: the largest share of bad rows; images that are not there are bad rows.
        workers: processes that verify; None uses all cores.
    """

    splits: Annotated[Names, Option("splits", "which of the official splits to read (default: all)")] = SPLITS
    kinds: Annotated[Names, Option("kinds", "radiology, non-radiology or both (default: radiology)")] = ("radiology",)
    licences: Annotated[Names, Option("licence", LICENCE_HELP)] = ()
    store_images: bool = False
    max_bad: float = MAX_BAD
    workers: int | None = None


def read_roco(source: str | Path, out: str | Path, **options: Any) -> Manifest:
    """Build a manifest from a local ROCO tree, the folder that holds `data/`, with the options of `RocoOptions`."""
    return READER.build(source, out, **options)


def _read(sources: Sequence[str | Path], options: RocoOptions) -> Reading:
    """The rows and the build options of a tree. Raises UsageError: no such tree, an unknown split or kind."""
    source = Path(sources[0])
    folders = roco_folders(source, options.splits, options.kinds)
    root = _roco_root(source)
    say_absent(root, [split for split in options.splits if split not in {split for split, _, _ in folders}])
    passed_over = PassedOver("files")
    build = BuildOptions(
        source=f"ROCO ({', '.join(f'{split}/{kind}' for split, kind, _ in folders)})",
        labels=LABELS,
        images=ImageOptions(None if options.store_images else root),
        with_licence=True,
        max_bad=options.max_bad,
        workers=options.workers,
        details={"passed_over": passed_over.counts},
    )
    return Reading(select_licences(roco_rows(folders, passed_over), options.licences), build)


def _roco_root(source: Path) -> Path:
    """The folder with the splits."""
    root = source / "data" if (source / "data").is_dir() else source
    if not any((root / split / kind).is_dir() for split in SPLITS for kind in KINDS):
        raise UsageError(f"{source} is no ROCO tree: it has no data/train/radiology or the like")
    return root


def roco_folders(source: Path, splits: Sequence[str], kinds: Sequence[str]) -> list[tuple[str, str, Path]]:
    """(split, kind, folder) of the requested folders that exist. Raises UsageError when none does."""
    root = _roco_root(source)
    for split in splits:
        if split not in SPLITS:
            raise unknown_name("split", split, SPLITS)
    for kind in kinds:
        if kind not in KINDS:
            raise unknown_name("kind", kind, KINDS)
    folders = [(split, kind, root / split / kind) for split in splits for kind in kinds]
    present = [entry for entry in folders if entry[2].is_dir()]
    if not present:
        raise UsageError(f"{root} has none of {', '.join(f'{split}/{kind}' for split, kind, _ in folders)}")
    return present


def roco_rows(folders: Sequence[tuple[str, str, Path]], passed_over: PassedOver | None = None) -> Iterator[RawRow]:
    """One row for every id that any text file names, and one for every line that names none.

    Args:
        folders: (split, kind, folder) of each part.
        passed_over: counts the images that no line names.
    """
    passed_over = PassedOver("files") if passed_over is None else passed_over
    for split, kind, folder in folders:
        yield from _folder_rows(split, kind, folder, passed_over)
    passed_over.say()


def _folder_rows(split: str, kind: str, folder: Path, passed_over: PassedOver) -> Iterator[RawRow]:
    name = f"{split}/{kind}"
    captions, odd_captions = _read_column(folder / "captions.txt", name)
    licences, odd_licences = read_licences(folder / "licences.txt", name)
    links, odd_links = _read_column(folder / "dlinks.txt", name)
    types, odd_types = _read_column(folder / "semtypes.txt", name)
    yield from (*odd_captions, *odd_licences, *odd_links, *odd_types)
    # The folder of images is the root: it may be a link to a larger disk.
    images = ImageFolder(folder / "images", passed_over)
    ids = dict.fromkeys((*captions, *licences, *links, *types))
    images.pass_over_unnamed(ids, passed_over)
    for id in ids:
        origin = f"{name}: {id}"
        if id not in captions:
            yield faulty_row(origin, "no caption", "not in captions.txt", id)
            continue
        article, licence = licences.get(id, ("", ""))
        article_match = _ARTICLE.match(article) or _ARTICLE.search(links.get(id, ""))
        if article_match is None:
            yield faulty_row(origin, "no article", "neither in licences.txt nor in dlinks.txt", id)
            continue
        file = images.name_of(id)
        yield images.fault(origin, id) or RawRow(
            origin=origin,
            id=id,
            image=FileSource(images.folder, file),
            image_name=f"{name}/images/{file}",
            captions=[captions[id]],
            split=split,
            group=article_match.group(),
            labels={"kind": kind, "semantic_type": _first_semantic_type(types.get(id, ""))},
            licence=licence or None,
        )


def _read_column(path: Path, name: str) -> tuple[dict[str, str], list[RawRow]]:
    """({id: rest of the line}, bad rows for lines without an id or with one that came before)."""
    return _read_by_id(path, name, "\t", lambda rest: rest)


def read_licences(path: Path, name: str) -> tuple[dict[str, tuple[str, str]], list[RawRow]]:
    """({id: (PMC file name, licence)}, bad rows for malformed lines); the file name may hold commas."""

    def article_and_licence(rest: str) -> tuple[str, str] | None:
        article, comma, licence = rest.rpartition(",")
        return (article.strip(), licence.strip()) if comma and _ARTICLE.match(article.strip()) else None

    return _read_by_id(path, name, ",", article_and_licence, heading="ROCO_ID")


def _read_by_id(
    path: Path, name: str, separator: str, value_of: Callable[[str], Value | None], heading: str | None = None
) -> tuple[dict[str, Value], list[RawRow]]:
    """({id: value of the rest of the line}, bad rows); a line whose value is None is malformed."""
    values: dict[str, Value] = {}
    odd = []
    for origin, line in _lines(path, name):
        id, _, rest = line.partition(separator)
        id, value = id.strip(), value_of(rest)
        if id == heading:
            continue
        if value is None or not _ID.fullmatch(id):
            odd.append(faulty_row(origin, "malformed line", repr(line[:80])))
        elif _SWALLOWED.search(rest):
            odd.append(faulty_row(origin, "malformed line", "it holds another line: only a line feed ends a line"))
        elif id in values:
            odd.append(faulty_row(origin, "duplicate id", id))
        else:
            values[id] = value
    return values, odd


def _lines(path: Path, name: str) -> Iterator[tuple[str, str]]:
    """(origin, line) of each line that is not empty; only a line feed ends a line, captions hold stranger ones.

    Bytes that are not UTF-8 become lone surrogates, so that their row is bad; a replacement would stay in a caption.
    """
    if not path.is_file():
        return
    content = path.read_bytes()
    if content.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise DataRefused(f"{path} is UTF-16: save it as UTF-8, as in `iconv -f UTF-16 -t UTF-8`")
    text = content.decode("utf-8-sig", errors="surrogateescape")
    for number, line in enumerate(text.split("\n"), start=1):
        if line.strip():
            yield f"{name}/{path.name}:{number}", line.rstrip("\r")


def _first_semantic_type(rest: str) -> str | None:
    """The name after the first UMLS type code (T046, Pathologic Function, ...)."""
    cells = [clean_text(cell) for cell in rest.split("\t")]
    return next((after for code, after in pairwise(cells) if re.fullmatch(r"T\d{3}", code)), None)


def roco_articles(source: str | Path) -> Mapping[str, list[str]]:
    """The article of every radiology image by split, from the text files alone: what leakage can be measured on.

    Returns:
        split -> one PMC id per image.
    """
    articles: dict[str, list[str]] = {}
    for split, kind, folder in roco_folders(Path(source), SPLITS, ("radiology",)):
        licences, _ = read_licences(folder / "licences.txt", f"{split}/{kind}")
        matches = (_ARTICLE.match(article) for article, _ in licences.values())
        articles[split] = [match.group() for match in matches if match]
    return articles


def roco_coverage(source: str | Path) -> dict[str, dict[str, int]]:
    """How many of the named images are there: split/kind -> {"named", "present"}."""
    coverage = {}
    for split, kind, folder in roco_folders(Path(source), SPLITS, KINDS):
        ids = {*_read_column(folder / "captions.txt", "")[0], *read_licences(folder / "licences.txt", "")[0]}
        images = ImageFolder(folder / "images", PassedOver("files"))
        coverage[f"{split}/{kind}"] = {"named": len(ids), "present": sum(map(images.has, ids))}
    return coverage


READER = READERS.add(
    "roco",
    Reader(
        "roco",
        "ROCO's own layout -> manifest",
        RocoOptions,
        _read,
        "the folder that holds data/",
        example="data roco roco-dataset --out manifest",
    ),
)
