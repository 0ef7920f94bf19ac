"""Reads the facts on ROCOv2's images beside their captions: article, licence and concepts, by image id."""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from gapless.core.values import name_of, text_of
from gapless.manifest.raw_rows import RawRow, faulty_row
from gapless.tables.table_format import Cells
from gapless.tables.tables import read_lines

LICENCE_FILE = "license_information.csv"
_LICENCE = re.compile(r"CC0|CC[ -]BY(?:-[A-Z]{2})*", re.IGNORECASE)
_CUI = re.compile(r"C\d{7}")


@dataclass(frozen=True)
class Context:
    """Facts by image id; `odd` has a bad row for every line of these files that could not be read."""

    articles: Mapping[str, tuple[str, str | None]]
    concepts: Mapping[str, Sequence[str]]
    names: Mapping[str, str]
    odd: Sequence[RawRow]

    def complete(self, row: RawRow, concepts: Sequence[str] = ()) -> RawRow:
        """The row with its article, licence and first concept; `concepts` are used when no file has the image's."""
        article, licence = self.articles.get(row.id, ("", None))
        if self.articles and not article:
            return faulty_row(row.origin, "no article", f"{row.id} has none in {LICENCE_FILE}", row.id)
        codes = self.concepts.get(row.id, concepts)
        concept = self.names.get(codes[0], codes[0]) if codes else None
        return replace(row, group=article or None, labels={"concept": concept}, licence=licence)


def read_context(root: Path, stems: Sequence[str]) -> Context:
    """The facts of the splits whose files begin with `stems`."""
    odd: list[RawRow] = []
    articles: dict[str, tuple[str, str | None]] = {}
    for origin, cells in _parsed(root / LICENCE_FILE, odd):
        licence = _LICENCE.search(cells.get("attribution", "") or cells.get("license", ""))
        entry = cells.get("pmcid", ""), licence.group().upper() if licence else None
        if articles.setdefault(name_of(cells.get("id")), entry) != entry:
            odd.append(
                faulty_row(origin, "two articles", "an earlier line gives this image another article or licence")
            )
    concepts: dict[str, list[str]] = {}
    for stem in stems:
        # The hand-made concepts, whose first is the kind of examination.
        for origin, cells in _parsed(root / f"{stem}_concepts_manual.csv", odd):
            codes = _CUI.findall(cells.get("cuis", ""))
            if concepts.setdefault(name_of(cells.get("id")), codes) != codes:
                odd.append(faulty_row(origin, "two lists of concepts", "an earlier line gives this image others"))
    pairs = (list(cells.values())[:2] for _, cells in _parsed(root / "cui_mapping.csv", odd))
    return Context(articles, concepts, {pair[0]: pair[1] for pair in pairs if len(pair) == 2}, odd)


def columns(cells: Cells) -> dict[str, str]:
    """Cells as text under lower-case names: the published files vary in both. Raises ValueError: no text."""
    return {str(name).strip().lower(): text_of(value) for name, value in cells.items()}


def _parsed(path: Path, odd: list[RawRow]) -> Iterator[tuple[str, dict[str, str]]]:
    if not path.is_file():
        return
    for origin, cells, fault in read_lines(path):
        try:
            if cells is not None:
                yield origin, columns(cells)
                continue
        except ValueError as error:
            fault = str(error)[:200]
        odd.append(faulty_row(origin, "malformed row", fault))
