"""TRIANGLE: the area between the three modalities of a row is small for true rows and large for false ones."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from gapless.core.shapes import Embeddings
from gapless.losses.anchored import ContrastiveSettings
from gapless.losses.base import METHODS, Method
from gapless.losses.engine.row_blocks import two_way_cross_entropy
from gapless.losses.gram import VolumeTerms, check_smoothing, root
from gapless.losses.whole_rows import WholeRowLoss, WholeRows, check_count


@dataclass(frozen=True)
class TriangleSettings(ContrastiveSettings):
    """The settings of TRIANGLE, with the values of the authors' code.

    Args:
        temperature: start value, or the fixed value.
        learn_temperature: train `logit_scale` (fp32, clamped to 100, no weight decay).
        mask_duplicates: pairs whose captions are the same are not negatives of each other.
        label_smoothing: the share of each target that is spread over all rows.
        use_area: train with the area, as the paper writes; the authors' training code has twice its square.
    """

    label_smoothing: float = 0.1
    use_area: bool = False

    def __post_init__(self) -> None:
        check_smoothing(self.label_smoothing)

    def check_modalities(self, names: Sequence[str]) -> None:
        """Raise UsageError for any other number than three."""
        check_count("triangle", names, 3, 3)


class TriangleLoss(WholeRowLoss):
    """Cross entropy of `-A / temperature` both ways, A_ij the area between anchor i and the two others of row j.

    `A = 1/2 sqrt(|u|^2 |v|^2 - (u.v)^2)`, u and v the differences of the anchor to the others; the authors' code trains
    with `(|u|^2 |v|^2 - (u.v)^2) / 2 = 2 A^2`, and so does this unless `use_area`. 0 where the three are on one line,
    0.866 where they are orthonormal.

    The paper adds 0.1 times a matching loss, which needs a network that reads two inputs together; there is none here.

    Memory: [pair, pair] areas in blocks of rows, about 16 MiB for each of ten matrices whatever the batch; all at once,
    each would take 64 MiB at 4,096 pairs and 16 GiB at 65,536.

    Known to fail: it takes exactly three modalities, and A is 0 as soon as any two of them are equal, whatever the
    third is.

    Reference: Cicchetti et al., arXiv 2509.24734, and the authors' code.
    """

    def terms(self, batch: WholeRows) -> VolumeTerms:
        """The terms of a batch that is checked."""
        anchor, (one, other) = batch.own[self.anchor], batch.others(self.anchor)
        everyone = batch.everyone[one], batch.everyone[other]
        scale, use_area = self.scale(batch.ranks), self.settings.use_area

        def logits_of(rows: slice) -> Tensor:
            squares = four_squared_areas(anchor[rows], *everyone)
            return -scale * (root(squares) if use_area else squares) / 2

        total = two_way_cross_entropy(
            logits_of,
            batch.num_rows,
            batch.count,
            batch.device,
            batch.positives,
            self.settings.label_smoothing,
            batch.first,
            batch.ranks,
        )
        with torch.no_grad():
            true_size = _row_areas(anchor, batch.own[one], batch.own[other]).mean()
        return VolumeTerms(total, true_size if batch.ranks is None else batch.ranks.average(true_size))


def four_squared_areas(anchor: Embeddings, one: Tensor, other: Tensor) -> Tensor:
    """`|u|^2 |v|^2 - (u.v)^2` of every anchor i with the others of every row j: four times the square of the area.

    Args:
        anchor: [row, dim], unit-norm.
        one, other: [column, dim], unit-norm, rows aligned.

    Returns:
        [row, column], at least 0.
    """
    norms = anchor.square().sum(dim=1, keepdim=True)
    to_one, to_other = anchor @ one.T, anchor @ other.T
    u_norm = norms + one.square().sum(dim=1) - 2 * to_one
    v_norm = norms + other.square().sum(dim=1) - 2 * to_other
    between = norms - to_one - to_other + (one * other).sum(dim=1)
    squares = u_norm * v_norm - between.square()
    return squares - squares.detach().clamp_max(0.0)  # rounding can make it negative


def _row_areas(anchor: Tensor, one: Tensor, other: Tensor) -> Tensor:
    """The area of each row's own three modalities, [row]."""
    u, v = anchor - one, anchor - other
    squares = u.square().sum(dim=1) * v.square().sum(dim=1) - (u * v).sum(dim=1).square()
    return root(squares) / 2


METHODS.add(
    "triangle",
    Method(
        "triangle",
        "cross entropy of the area between three modalities of a row",
        TriangleSettings(),
        TriangleLoss,
        "Cicchetti et al., arXiv 2509.24734",
    ),
)
