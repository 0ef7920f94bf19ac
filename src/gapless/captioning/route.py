"""From which modalities captions are made, and which text they are: `--from image=2,history --to findings`.

The sources of a row are joined by the normalised weighted mean of their embeddings; a row that lacks some of them is
captioned from the others.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor

from gapless.core.errors import DataRefused, UsageError, did_you_mean
from gapless.core.geometry import unit_norm
from gapless.manifest.manifest import TRAIN, Manifest
from gapless.modalities.base import TEXTS

IMAGE, TEXT = "image", "text"


@dataclass(frozen=True)
class Route:
    """What a captioner reads and writes.

    Args:
        sources: modality -> its weight in the joined embedding.
        target: the modality of texts that is written.
    """

    sources: Mapping[str, float] = field(default_factory=lambda: {IMAGE: 1.0})
    target: str = TEXT

    @property
    def is_usual(self) -> bool:
        """Whether it is from the image to the text, which files do not name."""
        return dict(self.sources) == {IMAGE: 1.0} and self.target == TEXT

    @property
    def names(self) -> str:
        """The sources as a message names them."""
        return ", ".join(self.sources)

    def as_json(self) -> dict[str, Any]:
        """What files say of it; nothing for the usual one."""
        return {} if self.is_usual else {"from": dict(self.sources), "to": self.target}

    @classmethod
    def of_json(cls, described: Mapping[str, Any]) -> "Route":
        """The route that a file names, or the usual one."""
        sources, target = described.get("from"), described.get("to")
        return cls(sources if isinstance(sources, Mapping) and sources else {IMAGE: 1.0}, str(target or TEXT))


def route_of(sources: str | Sequence[str] | Mapping[str, float] | None, target: str | None, usual: Route) -> Route:
    """The route of options, where what is not given is that of another route.

    Args:
        sources: `"image=2,history"`, names, or modality -> weight.

    Raises:
        UsageError: no name, a name twice, a weight that is no number above 0, a target that is among the sources.

    >>> route_of("image=2, history", "findings", Route())
    Route(sources={'image': 2.0, 'history': 1.0}, target='findings')
    """
    weights = dict(usual.sources) if sources is None else _weights_of(sources)
    route = Route(weights, target or usual.target)
    if route.target in route.sources:
        raise UsageError(f"--to {route.target} is also in --from, and a text is not made from itself; leave it out")
    return route


def _weights_of(sources: str | Sequence[str] | Mapping[str, float]) -> dict[str, float]:
    if isinstance(sources, Mapping):
        given: list[tuple[str, Any]] = [(str(name), weight) for name, weight in sources.items()]
    else:
        parts = sources.split(",") if isinstance(sources, str) else list(sources)
        split = [part.partition("=") for part in parts]
        given = [(name.strip(), weight if equals else 1.0) for name, equals, weight in split]
    names = [name for name, _ in given]
    if not names or "" in names:
        raise UsageError(f"--from is one name of a modality or several, such as image=2,history; got {sources!r}")
    for name in names:
        if names.count(name) > 1:
            raise UsageError(f"--from names {name} more than once")
    return {name: _weight(name, weight) for name, weight in given}


def _weight(name: str, given: Any) -> float:
    try:
        weight = float(given)
    except (TypeError, ValueError):
        weight = math.nan
    if not 0 < weight < math.inf:
        raise UsageError(f"the weight of {name} in --from is a number above 0, got {given!r}")
    return weight


def check_manifest(route: Route, manifest: Manifest, needs_sources: bool = True, needs_target: bool = True) -> None:
    """Raise UsageError for a manifest without one of the modalities, or with a target that is not of texts.

    Args:
        needs_sources: False where captions are learnt from texts alone.
        needs_target: False where captions are generated.
    """
    named = {
        "--to": [route.target] if needs_target else [],
        "--from": list(route.sources) if needs_sources else [],
    }
    for option, names in named.items():
        for name in names:
            if name not in manifest.modalities:
                raise _unknown(option, name, manifest, route)
    if not needs_target:
        return
    spec = manifest.spec(route.target)
    if spec.form != TEXTS:
        texts = ", ".join(one.name for one in manifest.specs if one.form == TEXTS) or "none"
        raise UsageError(
            f"--to {route.target} is of the kind {spec.kind}, and captions are texts; the texts of {manifest.path}: "
            f"{texts}"
        )


def _unknown(option: str, name: str, manifest: Manifest, route: Route) -> UsageError:
    has = ", ".join(manifest.modalities)
    if option == "--to" and name == TEXT:
        return UsageError(
            f"{manifest.path} has no modality named text, whose captions a captioner learns (it has {has}); "
            "name another one with --to, or build it with --modality text=text:COLUMN"
        )
    near = did_you_mean(name, manifest.modalities)
    return UsageError(f"{option} names the modality {name!r}, which {manifest.path} has not{near} (it has {has})")


def usable_rows(
    rows: Manifest, route: Route, needs_sources: bool = True, needs_target: bool = True
) -> tuple[Manifest, dict[str, int]]:
    """The rows that have the target and at least one source, and how many others there are, by what they lack.

    Args:
        needs_sources, needs_target: whether such a row is left out.

    Returns:
        The rows, the same object where none is left out; and `{"target": n, "sources": n}` of those that lack it, a row
        without both counted as one without the target.
    """
    has_target = np.ones(len(rows), dtype=bool)
    if needs_target:
        has_target = rows.presence([route.target])[route.target]
    has_source = np.ones(len(rows), dtype=bool)
    if needs_sources:
        has_source = np.any(list(rows.presence(list(route.sources)).values()), axis=0)
    counts = {"target": int((~has_target).sum()), "sources": int((has_target & ~has_source).sum())}
    mask = has_target & has_source
    if mask.all():
        return rows, counts
    return Manifest(rows.path, rows.info, rows.table.filter(pa.array(mask))), counts


def left_out(counts: Mapping[str, int], route: Route, num_rows: int, what: str) -> str:
    """A sentence on the rows that are left out; empty where there are none.

    Args:
        counts: of `usable_rows`.
        num_rows: of which they are.
        what: the rows, such as "train rows".
    """
    total = sum(counts.values())
    if not total:
        return ""
    sources = f"lack {route.names}" if len(route.sources) == 1 else f"have none of {route.names}"
    parts = {f"lack {route.target}": counts["target"], sources: counts["sources"]}
    listed = " and ".join(f"{count:,} {lack}" for lack, count in parts.items() if count)
    return f"{total:,} of {num_rows:,} {what} are left out: {listed}"


def trainable(manifest: Manifest, route: Route, needs_sources: bool) -> tuple[Manifest, str]:
    """The rows of all splits that a captioner can learn from, and a sentence on the train rows that are left out.

    Raises:
        UsageError: as `check_manifest`, or no train rows. DataRefused: no train row has both.
    """
    check_manifest(route, manifest, needs_sources)
    train = manifest.select(TRAIN)
    chosen, counts = usable_rows(train, route, needs_sources)
    if not len(chosen):
        of = f" and {'one of ' if len(route.sources) > 1 else ''}{route.names}" if needs_sources else ""
        raise DataRefused(
            f"none of the {len(train):,} {TRAIN} rows of {manifest.path} has {route.target}{of}; choose other "
            "modalities with --from and --to"
        )
    return usable_rows(manifest, route, needs_sources)[0], left_out(counts, route, len(train), f"{TRAIN} rows")


def texts_of(rows: Manifest, name: str) -> list[str]:
    """Every text of a modality, in the order of the rows."""
    return [text for views in rows.cells(name) if views for text in views]


def joined(embeddings: Mapping[str, Tensor], weights: Mapping[str, float]) -> Tensor:
    """[row, dim] the normalised weighted mean over the modalities of a row.

    Args:
        embeddings: modality -> [row, dim] unit-norm rows, zero where a row lacks it.
        weights: modality -> a number above 0.

    >>> rows = {"image": torch.tensor([[1.0, 0.0]]), "history": torch.tensor([[0.0, 0.0]])}
    >>> joined(rows, {"image": 2.0, "history": 1.0})
    tensor([[1., 0.]])
    """
    if len(embeddings) == 1:
        return next(iter(embeddings.values()))
    return unit_norm(torch.stack([weights[name] * rows for name, rows in embeddings.items()]).sum(dim=0))
