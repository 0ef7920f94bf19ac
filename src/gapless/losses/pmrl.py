"""PMRL: the modalities of a row share one principal direction, and those of other rows have others (Liu et al.)."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn

from gapless.core.errors import UsageError
from gapless.core.geometry import unit_norm
from gapless.losses.base import METHODS, Method
from gapless.losses.contrastive import symmetric_info_nce
from gapless.losses.engine.gathered import gathered_symmetric_info_nce
from gapless.losses.engine.tiled import tiled_symmetric_info_nce
from gapless.losses.gap_closing import is_small
from gapless.losses.gram import root
from gapless.losses.present import GivenPositives
from gapless.losses.whole_rows import WholeRows, check_count, open_whole_rows

DISTINCT = 1e-6  # relative gap of two eigenvalues whose directions are told apart


@dataclass(frozen=True)
class PmrlSettings:
    """The settings of PMRL, with the values of the authors' code.

    Args:
        temperature: of the singular values of a row, the paper's tau 1; fixed.
        instance_temperature: of the cosines between the principal directions of rows, the paper's tau 2; fixed.
        mask_duplicates: rows whose captions are the same are not negatives of each other.
        instance_weight: of the term between rows.
    """

    temperature: float = 0.05
    instance_temperature: float = 0.1
    mask_duplicates: bool = False
    instance_weight: float = 1.0

    def __post_init__(self) -> None:
        for name in ("temperature", "instance_temperature"):
            if not getattr(self, name) > 0:
                raise UsageError(f"loss.{name} must be above 0, got {getattr(self, name)!r}")

    def check_modalities(self, names: Sequence[str]) -> None:
        """Raise UsageError for fewer than two modalities."""
        check_count("pmrl", names, 2, None)


class PmrlTerms(NamedTuple):
    """The total, and the terms without their weights."""

    total: Tensor
    within_rows: Tensor
    between_rows: Tensor


class PmrlLoss(nn.Module):
    """Cross entropy of a row's singular values to the first, and of principal directions to their own row.

    The singular values `sigma` of the [dim, modality] matrix of a row: `within = -log softmax(sigma / tau 1)_1`, 0 in
    the limit where its modalities are equal and log(modality) where they are orthonormal. Its first left singular
    vector u: `between` is the InfoNCE of u with itself, `u_i.u_j / tau 2`.

    They come from the [modality, modality] products of a row; the shipped code makes a [dim, dim] matrix for each. The
    term between rows runs through the tile engine, so that memory is linear in the batch. Differentiable once.

    Known to fail: the sign of a singular vector is arbitrary, so that `u_i.u_j` means nothing unless it is fixed; here
    u points to the same side as the mean of the modalities (the shipped code leaves it open). And singular values do
    not see signs: a modality that is the opposite of another counts as aligned with it.

    Reference: Liu et al., arXiv 2507.17343, and the authors' code.
    """

    def __init__(self, settings: PmrlSettings, anchor: str, gather: bool = True) -> None:
        super().__init__()
        self.settings = settings
        self.anchor = anchor
        self.gather = gather

    def forward(self, embeddings: Mapping[str, Tensor], *, positives: GivenPositives = None) -> PmrlTerms:
        """The terms of one batch; arguments and errors as in `WholeRowLoss.forward`."""
        self.settings.check_modalities(list(embeddings))
        batch = open_whole_rows(embeddings, self.anchor, positives, self.gather)
        with torch.autocast(batch.device.type, enabled=False):
            values, directions = principal_directions(list(batch.own.values()))
            within = _first_of(values / self.settings.temperature)
            if batch.ranks is not None:
                within = batch.ranks.average(within)
            between = _between_rows(directions, 1 / self.settings.instance_temperature, batch)
            return PmrlTerms(within + self.settings.instance_weight * between, within, between)


def principal_directions(modalities: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    """The singular values of the [dim, modality] matrix of each row, and its first left singular vector.

    Args:
        modalities: one [row, dim] unit-norm matrix for each, rows aligned.

    Returns:
        [row, modality], largest first, and [row, dim] of norm 1, on the side of the mean of the modalities. The first
        derivatives are exact where the first value stands apart, and finite everywhere: between equal values, whose
        vectors are any of a plane, no derivative passes.
    """
    stacked = torch.stack(list(modalities), dim=1)  # [row, modality, dim]
    gram = stacked @ stacked.transpose(1, 2)
    with torch.no_grad():
        eigenvalues, vectors = (x.flip(-1) for x in torch.linalg.eigh(gram))
    values = root(torch.einsum("nam,nab,nbm->nm", vectors, gram, vectors))
    # dv_1 = sum_k v_k (v_k' dG v_1) / (lambda_1 - lambda_k), written out: in eigh it is NaN where two others are equal
    gaps = eigenvalues[:, :1] - eigenvalues
    apart = gaps > DISTINCT * eigenvalues[:, :1]
    factors = torch.where(apart, 1 / torch.where(apart, gaps, torch.ones_like(gaps)), torch.zeros_like(gaps))
    first = vectors[:, :, 0]
    moved = torch.einsum("nam,nab,nb->nm", vectors, gram - gram.detach(), first) * factors
    weights = first + torch.einsum("nam,nm->na", vectors, moved)
    directions = unit_norm(torch.einsum("na,nad->nd", weights, stacked))
    with torch.no_grad():
        side = (directions * stacked.mean(dim=1)).sum(dim=1, keepdim=True)
    return values, torch.where(side < 0, -directions, directions)


def _first_of(logits: Tensor) -> Tensor:
    """The mean cross entropy to the first column."""
    return (torch.logsumexp(logits, dim=1) - logits[:, 0]).mean()


def _between_rows(directions: Tensor, scale: float, batch: WholeRows) -> Tensor:
    """The InfoNCE of the principal directions with themselves, over all ranks."""
    if batch.ranks is None:
        info_nce = symmetric_info_nce if is_small(directions) else tiled_symmetric_info_nce
        return info_nce(directions, directions, scale, batch.positives)
    own = batch.positives
    if own is not None:
        own = own[batch.first : batch.first + batch.num_rows]
    (loss,) = gathered_symmetric_info_nce([directions], directions, directions.new_tensor(scale), own, batch.ranks)
    return loss


METHODS.add(
    "pmrl",
    Method(
        "pmrl",
        "one principal direction for the modalities of a row, others for other rows",
        PmrlSettings(),
        PmrlLoss,
        "Liu et al., arXiv 2507.17343",
    ),
)
