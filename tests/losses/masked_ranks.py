"""What each process of the distributed tests of masks runs."""

import math
from itertools import product

import torch
import torch.distributed as dist
from loss_ranks import DIM, GLOBAL_BATCH, POSITIVES, Towers, batches, share
from torch.nn.parallel import DistributedDataParallel

from gapless.losses.engine.cached import cached_embeddings, split_batch
from gapless.losses.gap_closing import GapClosingLoss

NAMES = ("image", "text", "wave")
# Of four ranks the second has no wave, the third one has one image, and the last one has every row whole.
PRESENT = {
    "image": torch.tensor([1, 1, 0, 1, 0, 1, 0, 1, 0, 1, 1, 1]).bool(),
    "text": torch.tensor([1, 0, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1]).bool(),
    "wave": torch.tensor([0, 1, 1, 0, 0, 0, 1, 0, 1, 1, 1, 1]).bool(),
}
COMPLETE = {name: torch.ones(GLOBAL_BATCH, dtype=torch.bool) for name in NAMES}
NUMBERS = {"none": None, "rows": POSITIVES, "modalities": {"text": POSITIVES, "wave": POSITIVES.flip(0)}}


def part(x, rank, num_ranks):
    """This rank's rows of a tensor, or of each tensor of a mapping."""
    if isinstance(x, dict):
        return {name: share(rows, rank, num_ranks) for name, rows in x.items()}
    return None if x is None else share(x, rank, num_ranks)


class MaskedTowers(Towers):
    """Encoders whose rows are NaN where they are absent."""

    def forward(self, inputs, present, positives):
        if self.micro_batch_size:
            rows = cached_embeddings(self.encode, split_batch(inputs, self.micro_batch_size))
        else:
            rows = self.encode(inputs)
        rows = {name: torch.where(present[name][:, None], x, torch.full_like(x, math.nan)) for name, x in rows.items()}
        return self.loss(rows, present=present, positives=positives)


def gradients(rank, num_ranks, positives, pairs, present=PRESENT, micro_batch_size=None, **options):
    loss = GapClosingLoss(temperature=0.1, alignment_weight=0.5, uniformity_weight=2.0, pairs=pairs, **options).double()
    model = MaskedTowers(loss, micro_batch_size)
    run = DistributedDataParallel(model) if num_ranks > 1 else model
    inputs = part(batches()[0], rank, num_ranks)
    terms = run(inputs, part(present, rank, num_ranks), part(NUMBERS[positives], rank, num_ranks))
    terms.total.backward()
    found = {name: parameter.grad for name, parameter in model.named_parameters()}
    return {**found, "terms": torch.stack(list(terms)).detach()}


def exact(rank, num_ranks):
    cases = product(NUMBERS, ("anchor", "all"), (None, {"wave": 0.25}))
    return {
        f"{positives}-{pairs}-{weights}": gradients(rank, num_ranks, positives, pairs, modality_weights=weights)
        for positives, pairs, weights in cases
    }


def cached(rank, num_ranks):
    return gradients(rank, num_ranks, "rows", "all", micro_batch_size=2)


def complete(rank, num_ranks):
    return gradients(rank, num_ranks, "rows", "anchor", COMPLETE)


def each_rank_alone(rank, num_ranks):
    return gradients(rank, num_ranks, "none", "anchor", gather=False)


def refusal(rank, num_ranks):
    rows = {name: torch.eye(DIM) for name in NAMES}
    try:
        GapClosingLoss()(rows, present={} if rank == 0 else None)
    except ValueError as error:
        return str(error)
    return "accepted"


CASES = (exact, cached, complete, each_rank_alone, refusal)


def work(rank, num_ranks, cases, init_file, out):
    """Run the cases and leave their results in `out`."""
    torch.set_num_threads(1)
    if num_ranks > 1:
        dist.init_process_group("gloo", init_method=f"file://{init_file}", rank=rank, world_size=num_ranks)
    torch.save({case.__name__: case(rank, num_ranks) for case in CASES if case.__name__ in cases}, out)
    if num_ranks > 1:
        dist.destroy_process_group()
