"""Covariances of two modalities from blocks of rows, and their spectra: no copy of all rows in float64 is made."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from gapless.core.geometry import blocks
from gapless.embeddings.stored_rows import Rows

ROWS_AT_ONCE = 4096
ROUNDING = 1e-10  # of the largest eigenvalue; smaller ones are directions in which the rows do not vary


@dataclass(frozen=True)
class Moments:
    """Sums over rows of two modalities less an origin, in float64; those of several parts can be added.

    Args:
        count: rows.
        sums: [dim] of each modality.
        inside: [dim, dim] sums of `x^T x` of each modality.
        across: [dim of the first, dim of the second] sum of `x^T y`.
    """

    count: int
    sums: tuple[Tensor, Tensor]
    inside: tuple[Tensor, Tensor]
    across: Tensor

    def __add__(self, other: "Moments") -> "Moments":
        return Moments(
            self.count + other.count,
            (self.sums[0] + other.sums[0], self.sums[1] + other.sums[1]),
            (self.inside[0] + other.inside[0], self.inside[1] + other.inside[1]),
            self.across + other.across,
        )

    @property
    def means(self) -> tuple[Tensor, Tensor]:
        """[dim] means of each modality, relative to the origin."""
        return self.sums[0] / self.count, self.sums[1] / self.count

    def covariance(self, side: int) -> Tensor:
        """[dim, dim] covariance of one modality (0 or 1), over the number of rows."""
        mean = self.means[side]
        return self.inside[side] / self.count - torch.outer(mean, mean)

    def cross_covariance(self) -> Tensor:
        """[dim of the first, dim of the second]."""
        return self.across / self.count - torch.outer(*self.means)


@dataclass(frozen=True)
class Spectrum:
    """The directions in which rows vary.

    Args:
        values: [direction] eigenvalues of the covariance, rising, those of about 0 left out.
        vectors: [dim, direction] their eigenvectors, orthonormal.
        mean_value: the mean of all eigenvalues, those of 0 too: what a ridge is relative to.
    """

    values: Tensor
    vectors: Tensor
    mean_value: float

    def scale(self, ridge: float) -> Tensor:
        """[direction] `(value + ridge * mean_value)^-1/2`: each direction times it is whitened, with a ridge."""
        return (self.values + ridge * self.mean_value).rsqrt()


def mean_of(rows: Rows, chosen: np.ndarray | None = None) -> Tensor:
    """[dim] mean of all rows, or of the chosen ones, in float64.

    >>> mean_of(torch.tensor([[1.0, 2.0], [3.0, 4.0], [9.0, 9.0]]), np.array([0, 1]))
    tensor([2., 3.], dtype=torch.float64)
    """
    count = len(rows) if chosen is None else len(chosen)
    total = torch.zeros(rows.shape[1], dtype=torch.float64)
    for part in blocks(count, ROWS_AT_ONCE):
        total += rows[part if chosen is None else chosen[part]].double().sum(dim=0)
    return total / count


def column_mean(rows: Rows) -> Tensor:
    """[dim] mean in fp32: summed in fp32 by torch where the rows are in memory, in float64 where they are stored."""
    return rows.mean(dim=0) if isinstance(rows, Tensor) else mean_of(rows).float()


def column_variance(rows: Rows) -> tuple[Tensor, Tensor]:
    """[dim] variance over the number of rows, and mean, in fp32; summed as in `column_mean`."""
    if isinstance(rows, Tensor):
        variance, mean = torch.var_mean(rows, dim=0, correction=0)
        return variance, mean
    middle = mean_of(rows)
    total = torch.zeros_like(middle)
    for part in blocks(len(rows), ROWS_AT_ONCE):
        total += (rows[part].double() - middle).square().sum(dim=0)
    return (total / len(rows)).float(), middle.float()


def centred_product(first: Rows, second: Rows, offset: Tensor, middle: Tensor) -> Tensor:
    """[dim of the first, dim of the second] sum of `(x - offset)^T (y - middle)` over aligned rows, in float64."""
    total = torch.zeros(first.shape[1], second.shape[1], dtype=torch.float64)
    for part in blocks(len(first), ROWS_AT_ONCE):
        total.addmm_((first[part] - offset).double().T, second[part].double() - middle)
    return total


def covariance_of(rows: Rows, mean: Tensor, chosen: np.ndarray) -> Tensor:
    """[dim, dim] covariance of the chosen rows, in float64; `mean` is theirs."""
    total = torch.zeros(rows.shape[1], rows.shape[1], dtype=torch.float64)
    for part in blocks(len(chosen), ROWS_AT_ONCE):
        block = rows[chosen[part]].double() - mean
        total.addmm_(block.T, block)
    return total / len(chosen)


def moments_of(first: Rows, second: Rows, origins: tuple[Tensor, Tensor], chosen: np.ndarray | None = None) -> Moments:
    """The moments of all pairs of rows, or of the chosen ones, less an origin that is near their mean.

    Args:
        first, second: [pair, dim] rows, aligned; dims may differ.
        origins: [dim] of each modality; any would do, but far from the mean the covariances lose digits.
        chosen: row numbers.
    """
    count = len(first) if chosen is None else len(chosen)
    sizes = first.shape[1], second.shape[1]
    sums = tuple(torch.zeros(size, dtype=torch.float64) for size in sizes)
    inside = tuple(torch.zeros(size, size, dtype=torch.float64) for size in sizes)
    across = torch.zeros(sizes, dtype=torch.float64)
    for part in blocks(count, ROWS_AT_ONCE):
        index = part if chosen is None else chosen[part]
        block = [rows[index].double() - origin for rows, origin in zip((first, second), origins, strict=True)]
        for side, rows in enumerate(block):
            sums[side].add_(rows.sum(dim=0))
            inside[side].addmm_(rows.T, rows)
        across.addmm_(block[0].T, block[1])
    return Moments(count, (sums[0], sums[1]), (inside[0], inside[1]), across)


def summed(parts: Sequence[Moments]) -> Moments:
    """The moments of several parts together."""
    total = parts[0]
    for part in parts[1:]:
        total = total + part
    return total


def spectrum_of(covariance: Tensor, dim: int) -> Spectrum:
    """Eigenvalues and eigenvectors of a covariance of rows that have `dim` numbers.

    Args:
        covariance: [size, size]; of fewer numbers than `dim` where the rows are in a basis of the space they span.
        dim: what the mean of the eigenvalues is over.
    """
    values, vectors = torch.linalg.eigh(covariance)
    limits = torch.finfo(values.dtype)
    varies = values > max(max(ROUNDING, 10 * limits.eps) * float(values[-1]), limits.tiny)
    return Spectrum(values[varies], vectors[:, varies], float(values.sum().clamp_min(0)) / dim)


def spanned_basis(rows: Rows, chosen: np.ndarray, mean: Tensor) -> Tensor | None:
    """[dim, rank] orthonormal basis of what some rows less their mean span, where they are far fewer than their dims.

    By way of the rows' Gram matrix, which is smaller than the covariance; None where there are rows enough.
    """
    if 2 * len(chosen) >= rows.shape[1]:  # with more, the covariance is no dearer
        return None
    centred = rows[chosen].double() - mean
    spectrum = spectrum_of(centred @ centred.T, len(chosen))
    basis: Tensor = torch.linalg.qr(centred.T @ (spectrum.vectors * spectrum.values.rsqrt())).Q
    return basis
