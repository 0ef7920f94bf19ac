"""The three terms over the global batch of all ranks, with the exact gradient.

Each rank holds its rows, the anchor's rows of all ranks and everyone's centroids, and computes only its share of
the tiles: its own rows against all columns, and every world_size-th tile of the uniformity term. The gathers carry
gradients back (all-gather forward, reduce-scatter backward).

Scaling, as open_clip with `gather_with_grad`: on every rank the gradient of the embeddings is `world_size` times that
of the global loss, because DistributedDataParallel averages over the ranks: what DDP leaves in every parameter is
exactly the gradient of one process on the whole batch. The gradient of `logit_scale` is whole and equal on every rank,
so that it is right inside DDP and outside of it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.distributed import _functional_collectives as collectives

from gapless.core.geometry import at_least_fp32, is_transformed, pair_centroids
from gapless.losses.engine.tiled import gaussian_kernel_share, info_nce_share

# torch 2.15 renamed it; the older name warns there.
_all_gather: Any = getattr(collectives, "all_gather_single_autograd", None) or collectives.all_gather_tensor_autograd
_wait: Any = collectives.wait_tensor


@dataclass(frozen=True)
class Ranks:
    """The processes that share one global batch."""

    rank: int
    num_ranks: int

    @classmethod
    def current(cls) -> "Ranks | None":
        """The ranks of `torch.distributed`, or None where one process works alone."""
        if not (dist.is_available() and dist.is_initialized()) or dist.get_world_size() == 1:
            return None
        return cls(dist.get_rank(), dist.get_world_size())

    def gather(self, x: Tensor) -> Tensor:
        """All ranks' rows in the order of the ranks; its backward sums the ranks' gradients."""
        gathered: Tensor = _wait(_all_gather(x.contiguous(), 0, dist.group.WORLD))
        return gathered

    def add_up(self, x: Tensor) -> Tensor:
        """The sum over the ranks, without a gradient."""
        total = x.detach().clone()
        dist.all_reduce(total)
        return total

    def average(self, x: Tensor) -> Tensor:
        """The mean over the ranks, whose gradient is that of this rank's own value."""
        return x + (self.add_up(x) / self.num_ranks - x.detach())

    def total(self, x: Tensor) -> Tensor:
        """The sum over the ranks; its gradient is `num_ranks` times that of this rank's own part, as said above."""
        return self.average(x * self.num_ranks)

    def merge_logsumexp(self, x: Tensor) -> Tensor:
        """Log-sum-exp over the ranks, without a gradient."""
        return torch.logsumexp(self.gather(x.detach()[None]), dim=0)

    def total_logsumexp(self, x: Tensor) -> Tensor:
        """Log-sum-exp over the ranks; its gradient is `num_ranks` times that of this rank's own part.

        Args:
            x: of any shape; -inf where this rank has nothing to add.
        """
        merged = self.merge_logsumexp(x)
        share = (x.detach() - merged).exp() * x.nan_to_num(neginf=0.0)
        return merged + self.num_ranks * (share - share.detach())

    def shared(self, x: Tensor) -> Tensor:
        """A parameter of which every rank uses its copy: the same value, its gradient averaged over the ranks.

        The terms of a rank have a gradient of `num_ranks` times their own part, so that the average is the gradient of
        the global loss, whole and equal on every rank.
        """
        averaged: Tensor = _AveragedGradient.apply(x, self)
        return averaged

    def check_batches(
        self, rows: Tensor, positives: Tensor | Mapping[str, Tensor] | None, has_masks: bool = False
    ) -> None:
        """Refuse ranks that hold different numbers of rows, or together nothing but positives of each other.

        Masks, and positives by modality, are given by all ranks or by none: otherwise the ranks would wait for
        different exchanges.

        The check is a collective on the host, which does not wait for an accelerator: positives are read only when they
        are on the CPU, and a process group without a CPU backend ("nccl" alone) is not checked.
        """
        if torch.compiler.is_compiling() or "cpu" not in dist.get_backend_config():
            return
        bounds = torch.tensor([0, 1])
        if isinstance(positives, Tensor) and positives.device.type == "cpu":
            bounds = torch.stack(positives.aminmax()).long()
        kind = 0 if positives is None else 1 if isinstance(positives, Tensor) else 2 + len(positives)
        facts = torch.cat([torch.tensor([len(rows), kind, has_masks]), bounds])
        of_ranks = [torch.empty_like(facts) for _ in range(self.num_ranks)]
        dist.all_gather(of_ranks, facts)
        sizes, have_positives, have_masks, lowest, highest = torch.stack(of_ranks).T.tolist()
        if len(set(sizes)) > 1:
            raise ValueError(f"the ranks hold batches of different sizes {sizes}: drop the last, uneven batch")
        if len(set(have_positives)) > 1:
            raise ValueError("some ranks were given positives and others were not")
        if len(set(have_masks)) > 1:
            raise ValueError("some ranks were given present-masks and others were not: give them on all, or on none")
        if min(lowest) == max(highest):
            raise ValueError(f"all {sum(sizes)} rows are positives of each other ({lowest[0]}): nothing to tell apart")


class _AveragedGradient(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, ranks: Ranks) -> Tensor:
        ctx.ranks = ranks
        return x.view_as(x)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, upstream: Tensor) -> Any:
        return ctx.ranks.add_up(upstream) / ctx.ranks.num_ranks, None


def gathered_symmetric_info_nce(
    others: Sequence[Tensor], anchor: Tensor, logit_scale: Tensor, positives: Tensor | None, ranks: Ranks
) -> list[Tensor]:
    """`contrastive.symmetric_info_nce` of each of `others` with the anchor, over the global batch.

    Args:
        others: matrices [row, dim] of this rank.
        anchor: [row, dim] of this rank.
        logit_scale: 1 / temperature.
        positives: [row] integers of this rank, comparable between ranks, or None.
        ranks: who shares the batch.
    """
    refuse_transforms(anchor, *others)
    columns = ranks.gather(at_least_fp32(anchor))
    column_positives = None if positives is None else ranks.gather(positives)
    return [
        info_nce_share(
            rows,
            columns,
            logit_scale,
            positives,
            column_positives,
            first=ranks.rank * len(rows),
            merge_logsumexp=ranks.merge_logsumexp,
            add_up=ranks.add_up,
            gradient_factor=ranks.num_ranks,
        )
        for rows in others
    ]


def chosen_symmetric_info_nce(
    rows: Tensor, columns: Tensor, logit_scale: Tensor, positives: Tensor | None, own: slice, ranks: Ranks
) -> Tensor:
    """`contrastive.symmetric_info_nce` over rows that were chosen from those of all ranks.

    Args:
        rows: [n of this rank, dim], this rank's part of the first modality; may have no row.
        columns: [n, dim], the second modality on all ranks.
        logit_scale: 1 / temperature.
        positives: [n] integers or None.
        own: where this rank's rows are among the columns.
        ranks: who shares the batch.
    """
    refuse_transforms(rows, columns)
    return info_nce_share(
        rows,
        columns,
        logit_scale,
        None if positives is None else positives[own],
        positives,
        first=own.start,
        merge_logsumexp=ranks.merge_logsumexp,
        add_up=ranks.add_up,
        gradient_factor=ranks.num_ranks,
    )


def refuse_transforms(*tensors: Tensor) -> None:
    """Raise ValueError where `torch.func` or forward-mode differentiation would have to look through the ranks."""
    if is_transformed(*tensors):
        raise ValueError(
            "over several ranks the loss cannot be followed by torch.func or forward-mode differentiation: "
            "make it with gather=False"
        )


def gathered_centroid_uniformity(
    embeddings: Sequence[Tensor], positives: Tensor | None, normalise_centroids: bool, ranks: Ranks
) -> Tensor:
    """`gap_closing.centroid_uniformity` over the global batch."""
    centroids = ranks.gather(pair_centroids([at_least_fp32(rows) for rows in embeddings], normalise_centroids))
    return gathered_uniformity(centroids, None if positives is None else ranks.gather(positives), ranks)


def gathered_uniformity(centroids: Tensor, positives: Tensor | None, ranks: Ranks) -> Tensor:
    """`geometry.log_mean_gaussian_kernel` of centroids that every rank holds, each rank computing its share.

    Args:
        centroids: [pair, dim] of all ranks.
        positives: [pair] integers of all ranks, or None.
        ranks: who shares the batch.
    """
    return gaussian_kernel_share(
        centroids, positives, ranks.rank, ranks.num_ranks, add_up=ranks.add_up, gradient_factor=ranks.num_ranks
    )
