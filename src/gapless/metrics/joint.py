"""Joint queries: several modalities of a row together look for another one of it.

measure(embeddings, joint=["image+history->text"])["retrieval/image+history_to_text/R@10"]
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from gapless.core.errors import UsageError, unknown_name
from gapless.core.geometry import unit_norm
from gapless.metrics.complete import retrieval_figures
from gapless.metrics.inputs import MIN_ROWS
from gapless.metrics.measured_rows import MeasuredRows
from gapless.metrics.positives import distinct_rows, item_recalls
from gapless.metrics.similarity import scan_pair
from gapless.metrics.uncertainty import Figure

FORM = "PART+PART->TARGET, such as image+history->text, or image=2+history->text with weights"


@dataclass(frozen=True)
class JointQuery:
    """Parts with their weights, and the modality that is looked for."""

    parts: Mapping[str, float]
    target: str

    @property
    def direction(self) -> str:
        """As keys have it: `image+history_to_text`."""
        return f"{'+'.join(self.parts)}_to_{self.target}"


def joint_queries(texts: Sequence[str], names: Sequence[str]) -> list[JointQuery]:
    """The joint queries of some modalities.

    Raises:
        UsageError: another form, an unknown modality, a part twice or as the target, one part, a weight that is no
            number above 0, one direction twice.

    >>> joint_queries(["image=2+history:text"], ["image", "history", "text"])[0].parts
    {'image': 2.0, 'history': 1.0}
    """
    queries = [_joint_query(text, names) for text in texts]
    directions = [query.direction for query in queries]
    for direction in directions:
        if directions.count(direction) > 1:
            raise UsageError(f"the joint query {direction} is given twice; its figures have one key")
    return queries


def _joint_query(text: str, names: Sequence[str]) -> JointQuery:
    left, arrow, target = text.partition("->") if "->" in text else text.partition(":")
    given = [part.partition("=") for part in left.split("+")]
    parts = [name.strip() for name, _, _ in given]
    target = target.strip()
    if not arrow or len(parts) < 2:
        raise UsageError(f"a joint query is {FORM}; got {text!r}")
    for name in (*parts, target):
        if name not in names:
            raise unknown_name(f"modality of the joint query {text!r}", name, names)
    if len({*parts, target}) < len(parts) + 1:
        raise UsageError(f"a joint query has different parts and looks for none of them; got {text!r}")
    try:
        weights = [float(weight) if equals else 1.0 for _, equals, weight in given]
    except ValueError:
        weights = [math.nan]
    if not all(0 < weight < math.inf for weight in weights):
        raise UsageError(f"the weights of a joint query are numbers above 0; got {text!r}")
    return JointQuery(dict(zip(parts, weights, strict=True)), target)


def joint_figures(
    measured: MeasuredRows, queries: Sequence[JointQuery], block_size: int
) -> tuple[dict[str, Figure], dict[str, Any]]:
    """`retrieval/<a>+<b>_to_<c>/*` on the rows that have the target and at least one part, and what each stands on.

    A query is the weighted mean of the unit-norm parts that its row has, at unit norm; the gallery is the target of all
    those rows.

    Returns:
        the figures; direction -> n, gallery_size, the weights, the rows that have each part and all parts, or why there
        are no figures.
    """
    figures: dict[str, Figure] = {}
    stands_on: dict[str, Any] = {}
    for query in queries:
        chosen = measured.having([query.target])
        part = measured.take(chosen)
        masks = {name: part.having([name]) for name in query.parts}
        is_asked = torch.stack(list(masks.values())).any(dim=0)
        num_rows = int(is_asked.sum())
        stands_on[query.direction] = {
            "n": num_rows,
            "gallery_size": num_rows,
            "weights": dict(query.parts),
            "parts": {name: int(mask.sum()) for name, mask in masks.items()},
            "all_parts": int(torch.stack(list(masks.values())).all(dim=0).sum()),
        }
        if num_rows < MIN_ROWS:
            stands_on[query.direction]["left_out"] = f"fewer than {MIN_ROWS} rows have the target and a part"
            continue
        rows = torch.zeros_like(chosen)
        rows[chosen.nonzero().flatten()[is_asked]] = True
        figures |= _figures_of(query, measured, rows, block_size)
    return figures, stands_on


def _figures_of(query: JointQuery, measured: MeasuredRows, chosen: Tensor, block_size: int) -> dict[str, Figure]:
    asked, gallery = joint_rows(query, measured)[chosen], measured.rows[query.target][chosen]
    own = measured.take(chosen)
    # Sums by all groups, so that the figures are resampled by the draws of all of them.
    sums = type(measured.sums)(measured.groups[chosen], measured.sums.num_groups)
    prefix = f"retrieval/{query.direction}"
    scan = scan_pair(asked, gallery, classes=own.classes if own.items is None else None, block_size=block_size)
    figures = retrieval_figures(prefix, scan, 0, sums)
    if own.items is not None:
        distinct = distinct_rows(asked, own.items), distinct_rows(gallery, own.items)
        recalls = item_recalls(asked, gallery, *distinct, own.items, sums)
        figures |= {f"{prefix}/{key}": figure for key, figure in recalls.items()}
    return figures


def joint_rows(query: JointQuery, measured: MeasuredRows) -> Tensor:
    """[row, dim] unit-norm weighted means of the parts that each row has; zeros where it has none."""
    total = torch.zeros_like(measured.rows[query.target])
    for name, weight in query.parts.items():
        total += weight * measured.having([name])[:, None] * measured.rows[name]
    return unit_norm(total)
