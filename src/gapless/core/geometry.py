"""Formulas on embeddings that losses and metrics share.

Everything is differentiable. Half-precision input is raised to fp32, float64 stays float64: similarities and
exponentials in half precision tie and underflow.
"""

import math
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor
from torch._C._functorch import is_functorch_wrapped_tensor as _is_wrapped
from torch.autograd import forward_ad

from gapless.core.shapes import Embeddings, Positives, Rows, Scalar

UNIFORMITY_SCALE = 2.0  # the t of exp(-t d^2), Wang and Isola 2020 and the paper


def at_least_fp32(x: Tensor) -> Tensor:
    """fp16 and bf16 become fp32; fp32 and float64 stay."""
    return x if x.dtype in (torch.float32, torch.float64) else x.float()


def at_one_precision(*tensors: Tensor) -> list[Tensor]:
    """fp32, or float64 where one of them is: fp16, bf16 and fp32 beside float64 become float64."""
    if any(x.dtype == torch.float64 for x in tensors):
        return [x.double() for x in tensors]
    return [at_least_fp32(x) for x in tensors]


def unit_norm(x: Tensor) -> Tensor:
    """Rows scaled to norm 1; a zero row stays zero, with a zero gradient, instead of NaN.

    >>> unit_norm(torch.tensor([[3.0, 4.0], [0.0, 0.0]]))
    tensor([[0.6000, 0.8000],
            [0.0000, 0.0000]])
    """
    norm_squared = x.square().sum(dim=-1, keepdim=True)
    is_zero = norm_squared == 0
    scale = torch.where(is_zero, torch.ones_like(norm_squared), norm_squared).rsqrt()
    return x * torch.where(is_zero, torch.zeros_like(scale), scale)


def blocks(num_rows: int, size: int) -> Iterator[slice]:
    """Consecutive slices of at most `size` rows that cover `num_rows`.

    >>> list(blocks(5, 2))
    [slice(0, 2, None), slice(2, 4, None), slice(4, 5, None)]
    """
    for start in range(0, num_rows, size):
        yield slice(start, min(start + size, num_rows))


def pairwise_cosine(a: Embeddings, b: Embeddings) -> Rows:
    """Cosine of row i of `a` with row i of `b`, for unit-norm rows; in [-1, 1].

    >>> pairwise_cosine(torch.tensor([[1.0, 0.0], [0.0, 1.0]]), torch.tensor([[1.0, 0.0], [1.0, 0.0]]))
    tensor([1., 0.])
    """
    return (a * b).sum(dim=-1)


def pairwise_squared_distance(a: Embeddings, b: Embeddings) -> Rows:
    """`||a_i - b_i||^2`, row by row; in [0, 4] for unit-norm rows. Exact for coinciding rows (no 2 - 2 cos).

    >>> pairwise_squared_distance(torch.tensor([[1.0, 0.0], [0.0, 1.0]]), torch.tensor([[1.0, 0.0], [1.0, 0.0]]))
    tensor([0., 2.])
    """
    return (a - b).square().sum(dim=-1)


def squared_distances(a: Tensor, b: Tensor) -> Tensor:
    """`||a_i - b_j||^2`, all by all, as one matrix product; never negative.

    Rounding can make the square of equal rows negative. It is raised to 0 by a constant and not by a clamp, which would
    have no derivatives there: the second derivative of equal rows is not 0.

    >>> squared_distances(torch.eye(2), torch.eye(2))
    tensor([[0., 2.],
            [2., 0.]])
    """
    norms = a.square().sum(-1, keepdim=True) + b.square().sum(-1)
    squares = torch.addmm(norms, a, b.T, alpha=-2.0)
    return squares - squares.detach().clamp_max(0.0)


def pair_centroids(embeddings: Sequence[Embeddings], normalise: bool = True) -> Embeddings:
    """`mu_i`, the mean over the modalities of each pair's rows (paper, eq. of L_CU).

    Args:
        embeddings: one [pair, dim] matrix per modality, rows aligned.
        normalise: back to unit norm, as the authors' published code does; False is the paper's text.

    Returns:
        [pair, dim]. Antipodal pairs have a zero centroid, which stays zero with a finite gradient.

    >>> pair_centroids([torch.tensor([[1.0, 0.0]]), torch.tensor([[1.0, 0.0]])])
    tensor([[1., 0.]])
    >>> pair_centroids([torch.tensor([[1.0, 0.0]]), torch.tensor([[-1.0, 0.0]])])
    tensor([[0., 0.]])
    """
    total = embeddings[0]
    for rows in embeddings[1:]:
        total = total + rows
    centroid = total / len(embeddings)
    return unit_norm(centroid) if normalise else centroid


def log_mean_gaussian_kernel(points: Embeddings, positives: Positives | None = None, block_size: int = 1024) -> Scalar:
    """`log mean_{i != j} exp(-2 ||x_i - x_j||^2)` (uniformity); lower is more uniform, 0 when all points coincide.

    Args:
        points: [pair, dim].
        positives: [pair] integers; pairs of rows that share one are left out of the mean.
        block_size: rows per block; without a gradient, memory is one block of `block_size * pair` numbers.

    Raises:
        ValueError: no pair of rows is left. On an accelerator, where reading positives would make the host wait, the
            value is NaN instead.

    >>> log_mean_gaussian_kernel(torch.tensor([[1.0, 0.0], [-1.0, 0.0]]))
    tensor(-8.)
    """
    points = at_least_fp32(points)
    num_rows = len(points)
    every_pair = torch.full((), num_rows * (num_rows - 1), device=points.device)
    num_pairs = every_pair if positives is None else num_pairs_apart(positives)
    if num_rows < 2 or (can_read_values(points) and not num_pairs):
        what = "rows that are no positives of each other" if positives is not None else "at least 2 rows"
        raise ValueError(f"uniformity needs {what}, got {num_rows} row(s)")
    index = torch.arange(num_rows, device=points.device) if positives is None else positives
    row_totals = []
    for rows in blocks(num_rows, block_size):
        exponents = -UNIFORMITY_SCALE * squared_distances(points[rows], points)
        same = index[rows, None] == index[None, :]
        row_totals.append(torch.logsumexp(exponents.masked_fill(same, -math.inf), dim=1))
    return torch.logsumexp(torch.cat(row_totals), dim=0) - num_pairs.to(points).log()


def num_pairs_apart(positives: Positives) -> Tensor:
    """How many ordered pairs of rows are no positives of each other, as a tensor: nothing waits for an accelerator.

    >>> num_pairs_apart(torch.tensor([0, 0, 1]))
    tensor(4)
    """
    in_order = positives.sort().values
    sizes = torch.searchsorted(in_order, in_order, right=True) - torch.searchsorted(in_order, in_order)
    return (len(positives) - sizes).sum()


def can_read_values(*tensors: Tensor) -> bool:
    """Whether values may be read: reading waits for an accelerator, breaks a compiled graph, and fails in `vmap`."""
    on_cpu = all(x.device.type == "cpu" for x in tensors)
    return on_cpu and not torch.compiler.is_compiling() and not is_transformed(*tensors)


def is_transformed(*tensors: Tensor) -> bool:
    """Whether `torch.func` (grad, jvp, vmap, ...) or forward-mode differentiation looks through any of the tensors.

    Only the operations of torch itself can be followed there.
    """
    if torch.compiler.is_compiling():
        return False
    return any(_is_wrapped(x) or forward_ad.unpack_dual(x).tangent is not None for x in tensors)
