"""What each process of the distributed tests runs."""

from unittest.mock import patch

import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from gapless.losses import gap_closing
from gapless.losses.engine import tiled
from gapless.losses.engine.cached import cached_embeddings, split_batch
from gapless.losses.engine.gathered import Ranks
from gapless.losses.gap_closing import GapClosingLoss

GLOBAL_BATCH, NUM_BATCHES, DIM = 12, 2, 6
POSITIVES = torch.tensor([0, 1, 2, 0, 3, 3, 4, 5, 6, 0, 7, 3])


class Towers(nn.Module):
    """Three small encoders and, when asked, the loss inside the model (as training has it)."""

    def __init__(self, loss=None, micro_batch_size=None):
        super().__init__()
        self.micro_batch_size = micro_batch_size
        torch.manual_seed(0)
        self.encoders = nn.ModuleDict({name: nn.Linear(DIM, 5) for name in ("image", "text", "wave")}).double()
        self.loss = loss

    def encode(self, inputs):
        return {name: nn.functional.normalize(self.encoders[name](x), dim=1) for name, x in inputs.items()}

    def forward(self, inputs, positives):
        if self.micro_batch_size:
            rows = cached_embeddings(self.encode, split_batch(inputs, self.micro_batch_size))
        else:
            rows = self.encode(inputs)
        return rows if self.loss is None else self.loss(rows, positives=positives)


def batches():
    generator = torch.Generator().manual_seed(1)
    return [
        {
            name: torch.randn(GLOBAL_BATCH, DIM, generator=generator, dtype=torch.float64)
            for name in ("image", "text", "wave")
        }
        for _ in range(NUM_BATCHES)
    ]


def share(x, rank, num_ranks):
    return x.chunk(num_ranks)[rank]


def make_loss(**options):
    return GapClosingLoss(temperature=0.1, alignment_weight=0.5, uniformity_weight=2.0, **options).double()


def gradients(rank, num_ranks, grouped, loss_inside, micro_batch_size=None, **options):
    """Terms of the last batch and the gradient of two accumulated batches; one process when num_ranks is 1."""
    loss = make_loss(**options)
    model = Towers(loss if loss_inside else None, micro_batch_size)
    run = DistributedDataParallel(model) if num_ranks > 1 else model
    for index, inputs in enumerate(batches()):
        positives = share(POSITIVES, rank, num_ranks) if grouped else None
        inputs = {name: share(x, rank, num_ranks) for name, x in inputs.items()}
        if num_ranks > 1:
            run.require_backward_grad_sync = index == NUM_BATCHES - 1  # as `no_sync` and accelerate do
        terms = run(inputs, positives) if loss_inside else loss(run(inputs, positives), positives=positives)
        terms.total.backward()
    named = {name: p.grad for name, p in model.named_parameters()}
    return {**named, "logit_scale": loss.logit_scale.grad, "terms": torch.stack(list(terms)).detach()}


def exact(rank, num_ranks):
    return {
        f"{grouped}{inside}": gradients(rank, num_ranks, grouped, inside) for grouped in (0, 1) for inside in (0, 1)
    }


def with_cached_embeddings(rank, num_ranks):
    return gradients(rank, num_ranks, 1, 1, micro_batch_size=4)


def without_gradient_through_the_gather(rank, num_ranks):
    honest = Ranks.gather
    with patch.object(Ranks, "gather", lambda self, x: honest(self, x.detach())):
        return gradients(rank, num_ranks, 0, 0)


def each_rank_alone(rank, num_ranks):
    return gradients(rank, num_ranks, 0, 0, gather=False)


def refusal(rows, positives=None):
    try:
        make_loss()({"image": rows, "text": rows}, positives=positives)
    except ValueError as error:
        return str(error)
    return "accepted"


def refusals(rank, num_ranks):
    rows = torch.eye(6, dtype=torch.float64)
    return [
        refusal(rows[: 4 if rank == 0 else 3]),
        refusal(rows, torch.full((6,), 5)),
        refusal(rows, torch.arange(6) if rank == 0 else None),
        refusal(rows, torch.full((6,), rank)),
    ]


def one_row_each(rank, num_ranks):
    rows = torch.eye(6, dtype=torch.float64)[rank : rank + 1]
    return make_loss()({"image": rows, "text": rows}).uniformity.item()


def products(rank, num_ranks):
    """Multiplications of the matrix products that this rank does for a global batch of 256."""
    total = 0

    def counted(product):
        def call(*operands, **options):
            nonlocal total
            a, b = operands[-2:]
            total += a.shape[0] * a.shape[1] * b.shape[1]
            return product(*operands, **options)

        return call

    torch_products = patch.multiple(torch, mm=counted(torch.mm), addmm=counted(torch.addmm))
    tensor_products = patch.multiple(torch.Tensor, addmm_=counted(torch.Tensor.addmm_))
    rows = nn.functional.normalize(torch.randn(256 // num_ranks, 32, dtype=torch.float64), dim=1).requires_grad_()
    with torch_products, tensor_products, small_tiles():
        make_loss()({"image": rows, "text": rows.flip(1)}).total.backward()
    return total / (256 * 256 * 32)


def small_tiles():
    return patch.multiple(tiled, CPU_TILE=16, KEPT_ELEMENTS=0)


CASES = (
    exact,
    with_cached_embeddings,
    without_gradient_through_the_gather,
    each_rank_alone,
    refusals,
    one_row_each,
    products,
)


def work(rank, num_ranks, cases, init_file, out):
    """Run the cases and leave their results in `out`; counting products, even a small batch takes the tiled engine."""
    torch.set_num_threads(1)
    if num_ranks > 1:
        dist.init_process_group("gloo", init_method=f"file://{init_file}", rank=rank, world_size=num_ranks)
    with patch.multiple(gap_closing, PLAIN_ON_CPU=0 if "products" in cases else 256):
        results = {case.__name__: case(rank, num_ranks) for case in CASES if case.__name__ in cases}
    torch.save(results, out)
    if num_ranks > 1:
        dist.destroy_process_group()
