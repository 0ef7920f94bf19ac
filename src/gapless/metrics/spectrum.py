"""The spectrum of a modality: the variance along its principal directions, and what each row contributes to it."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from gapless.core.geometry import blocks
from gapless.metrics.uncertainty import Figure, GroupSums, mean_figure

ROWS_AT_ONCE = 2048
ROUNDING = 1e-12  # of the largest eigenvalue; smaller ones are rounding errors of float64


@dataclass(frozen=True)
class Spectrum:
    """The eigenvalues of the centred covariance, and the squared coordinates of the rows in its eigenvectors.

    Args:
        rows: [pair, dim] the unit-norm rows.
        mean: [dim]. vectors: [dim, dim] eigenvectors as columns. values: [dim] eigenvalues, falling, float64.
    """

    rows: Tensor
    mean: Tensor
    vectors: Tensor
    values: Tensor

    def weighted(self, slopes: Tensor) -> Tensor:
        """[pair, slope] float64: `sum_k slope_k y_ik^2` with the coordinates y of row i, whose mean over the rows is
        `sum_k slope_k values_k`. With the slope of a function of the eigenvalues it is what each row adds to it, to
        first order.

        Args:
            slopes: [dim, slope].
        """
        result = torch.empty(len(self.rows), slopes.shape[1], dtype=torch.float64)
        # The slope of a direction without much variance is large and its coordinates are small: both are scaled.
        scale = self.values.clamp_min(ROUNDING).sqrt()
        vectors, scaled = (self.vectors / scale).to(self.rows.dtype), (slopes * scale.square()[:, None])
        for part in blocks(len(self.rows), ROWS_AT_ONCE):
            centred = (self.rows[part].double() - self.mean).to(self.rows.dtype)
            result[part] = ((centred @ vectors).square() @ scaled.to(self.rows.dtype)).double()
        return result


def spectrum(rows: Tensor) -> Spectrum:
    """The spectrum of [pair, dim] rows; a pass over the rows and an eigendecomposition of [dim, dim]."""
    parts = list(blocks(len(rows), ROWS_AT_ONCE))
    mean = torch.stack([rows[part].double().sum(dim=0) for part in parts]).sum(dim=0) / len(rows)
    covariance = torch.zeros(rows.shape[1], rows.shape[1], dtype=torch.float64)
    for part in parts:
        centred = rows[part].double() - mean
        covariance += centred.T @ centred
    return spectrum_of(rows, mean, covariance / len(rows))


def spectrum_of(rows: Tensor, mean: Tensor, covariance: Tensor) -> Spectrum:
    """The spectrum of a mean and a covariance; the rows may be a sample of what these are of."""
    values, vectors = torch.linalg.eigh(covariance)
    floor = max(ROUNDING * float(values[-1]), 64 * float(torch.finfo(rows.dtype).eps) ** 2)  # equal rows do not vary
    values = torch.where(values > floor, values, torch.zeros_like(values))
    return Spectrum(rows, mean, vectors.flip(1), values.flip(0))


@dataclass(frozen=True)
class PairSpectra:
    """The spectra of two modalities; what each row adds to the figures is computed when they are first resampled."""

    first: Spectrum
    second: Spectrum
    width: float = 1.0  # of the intervals, times that of the rows: less where the spectra are of more rows

    def effective_ranks(self, groups: GroupSums) -> tuple[Figure, Figure]:
        """The effective rank of each modality; the interval holds the principal directions fixed (delta method)."""
        return (
            _resampled(effective_rank(self.first), lambda: self._added[0][:, 0], groups, self.width),
            _resampled(effective_rank(self.second), lambda: self._added[1][:, 0], groups, self.width),
        )

    def difference(self, groups: GroupSums) -> Figure:
        """`spread_difference`, with an interval of the same kind."""
        value = spread_difference(self.first, self.second)
        return _resampled(value, lambda: self._added[0][:, 1] + self._added[1][:, 1], groups, self.width)

    @cached_property
    def _added(self) -> tuple[Tensor, Tensor]:
        """Of each modality, [pair, 2]: what its rows add to its effective rank and to the difference of spread."""
        sides = ((self.first, self.second), (self.second, self.first))
        first, second = (
            one.weighted(torch.stack([_slope_of_rank(one), _slope_of_difference(one, other)], dim=1))
            for one, other in sides
        )
        return first, second


def _resampled(value: float, added: Callable[[], Tensor], groups: GroupSums, width: float) -> Figure:
    """A function of the eigenvalues, at least 0, whose replicates are those of the mean of what the rows add."""

    def replicates(draws: Tensor) -> Tensor:
        rows = added()
        figure = mean_figure(value + width * (rows - rows.mean()), groups)
        assert figure.replicates is not None
        return figure.replicates(draws).clamp_min(0)

    return Figure(value, replicates)


def effective_rank(spectrum: Spectrum) -> float:
    """`exp(-sum p ln p)` with p the singular values of the centred rows as shares of their sum; 1 to dim, high = even.

    NaN where the rows do not vary.

    Reference: Roy and Vetterli, The effective rank, EUSIPCO 2007.

    >>> axes = torch.cat([torch.eye(4), -torch.eye(4)])
    >>> round(effective_rank(spectrum(axes)), 4)
    4.0
    """
    singular = spectrum.values[spectrum.values > 0].sqrt()
    if not len(singular):
        return math.nan
    share = singular / singular.sum()
    return float((-(share * share.log()).sum()).exp())


def _slope_of_rank(spectrum: Spectrum) -> Tensor:
    """[dim] its derivative by each eigenvalue, by d entropy / d singular_k = -(ln p_k + entropy) / sum."""
    slope = torch.zeros_like(spectrum.values)
    varies = spectrum.values > 0
    singular = spectrum.values[varies].sqrt()
    share = singular / singular.sum()
    entropy = -(share * share.log()).sum()
    slope[varies] = -entropy.exp() * (share.log() + entropy) / singular.sum() / (2 * singular)
    return slope


def spread_difference(first: Spectrum, second: Spectrum) -> float:
    """`sum_k (sqrt(l_k) - sqrt(m_k))^2` of the falling eigenvalues l, m of two modalities; 0 = equal spread, at most 1.

    It is the squared 2-Wasserstein distance of two centred Gaussians with these spectra after the best rotation: the
    part of the distance that neither a shift nor a rotation removes.
    """
    return float((first.values.sqrt() - second.values.sqrt()).square().sum())


def _slope_of_difference(one: Spectrum, other: Spectrum) -> Tensor:
    """[dim] derivative of the difference of spread by each eigenvalue of `one`."""
    root = one.values.sqrt()
    safe = torch.where(root > 0, root, torch.ones_like(root))
    return torch.where(root > 0, 1 - other.values.sqrt() / safe, torch.zeros_like(root))
