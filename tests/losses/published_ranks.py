"""What each process of the distributed tests of the published losses runs."""

import math
from dataclasses import replace
from unittest.mock import patch

import torch
import torch.distributed as dist
from loss_ranks import POSITIVES, Towers, batches
from masked_ranks import NUMBERS, PRESENT, part
from torch.nn.parallel import DistributedDataParallel

from gapless.losses.base import METHODS
from gapless.losses.engine import row_blocks
from gapless.losses.engine.gathered import Ranks

PAIRWISE = ("cua", "cuaxu", "cyclip", "cs-aligner", "align-clip")
WHOLE = ("gram", "triangle", "symile", "pmrl")


class BareTowers(Towers):
    """Encoders alone: the loss stands beside them."""

    def forward(self, inputs):
        return self.encode(inputs)


def built(name, **changes):
    settings = replace(METHODS[name].settings, **changes)
    if hasattr(settings, "learn_temperature"):
        settings = replace(settings, temperature=0.2, learn_temperature=True)
    return METHODS[name].build(settings, "text").double()


def gradients(rank, num_ranks, loss, masked=False, positives=None, takes_reference=False):
    """Terms and gradients of one batch; the loss stands outside of DDP, and its own gradient is not averaged."""
    model = BareTowers()
    run = DistributedDataParallel(model) if num_ranks > 1 else model
    rows = run(part(batches()[0], rank, num_ranks))
    options = {"positives": part(positives, rank, num_ranks)}
    if masked:
        present = part(PRESENT, rank, num_ranks)
        rows = {name: torch.where(present[name][:, None], x, torch.full_like(x, math.nan)) for name, x in rows.items()}
        options["present"] = present
    if takes_reference:
        options["raw"] = {name: 3 * x for name, x in rows.items()}
        options["reference"] = part({name: x[:, :5] for name, x in batches()[1].items()}, rank, num_ranks)
        loss.begin_step(3, 4)
    torch.manual_seed(7)  # of the orders of Symile, which the first rank draws
    if rank > 0:
        torch.manual_seed(rank)
    terms = loss(rows, **options)
    terms.total.backward()
    named = [*model.named_parameters(), *loss.named_parameters()]
    found = {name: torch.zeros_like(x) if x.grad is None else x.grad for name, x in named}
    return {**found, "terms": torch.stack(list(terms)).detach()}


def exact(rank, num_ranks):
    found = {name: gradients(rank, num_ranks, built(name), positives=POSITIVES) for name in (*PAIRWISE, *WHOLE)}
    every_pair = built("symile", negatives="n_squared")
    return {
        **found,
        "symile-all": gradients(rank, num_ranks, every_pair, positives=POSITIVES),
        "clip-refine": refined(rank, num_ranks),
    }


def refined(rank, num_ranks):
    loss = built("clip-refine", contrastive_weight=0.5, logit_factor=0.7)
    return gradients(rank, num_ranks, loss, positives=POSITIVES, takes_reference=True)


def masked(rank, num_ranks):
    """Of four ranks one has no row of a modality."""
    return {name: gradients(rank, num_ranks, built(name), True, NUMBERS["modalities"]) for name in PAIRWISE}


def some(rank, num_ranks, names):
    return {name: gradients(rank, num_ranks, built(name), positives=POSITIVES) for name in names}


def in_blocks(rank, num_ranks):
    with patch.object(row_blocks, "BLOCK_ELEMENTS", 24):  # blocks of two rows
        return {
            **some(rank, num_ranks, ("gram", "symile", "align-clip")),
            "clip-refine": refined(rank, num_ranks),
        }


def without_gradient_through_the_gather(rank, num_ranks):
    honest = Ranks.gather
    with patch.object(Ranks, "gather", lambda self, x: honest(self, x.detach())):
        return {
            **some(rank, num_ranks, ("cuaxu", "cs-aligner", "gram", "pmrl")),
            "clip-refine": refined(rank, num_ranks),
        }


def with_a_temperature_of_its_own(rank, num_ranks):
    with patch.object(Ranks, "shared", lambda self, x: x):
        return some(rank, num_ranks, ("align-clip", "gram"))


CASES = (exact, masked, in_blocks, without_gradient_through_the_gather, with_a_temperature_of_its_own)


def work(rank, num_ranks, cases, init_file, out):
    """Run the cases and leave their results in `out`."""
    torch.set_num_threads(1)
    if num_ranks > 1:
        dist.init_process_group("gloo", init_method=f"file://{init_file}", rank=rank, world_size=num_ranks)
    torch.save({case.__name__: case(rank, num_ranks) for case in CASES if case.__name__ in cases}, out)
    if num_ranks > 1:
        dist.destroy_process_group()
