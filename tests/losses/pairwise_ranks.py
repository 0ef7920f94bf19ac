"""What each process of the distributed tests of the pairwise losses runs."""

import torch
import torch.distributed as dist
from loss_ranks import POSITIVES, Towers, batches, share
from masked_ranks import NUMBERS, PRESENT, MaskedTowers, part
from torch.nn.parallel import DistributedDataParallel

from gapless.losses.base import METHODS

NAMES = (
    "siglip",
    "soft-targets",
    "clip-temperature-softplus",
    "clip-temperature-schedule",
    "clip-swap-soft",
    "clip-swap-hard",
)
# Three labels; the fourth row has two of them, and the sixth has none.
LABELS = torch.nn.functional.one_hot(POSITIVES % 3, 3).double()
LABELS[3, 0] = LABELS[3, 1] = 1.0
LABELS[5] = 0.0


def loss_of(name, **options):
    method = METHODS[name]
    changes = {"swap_share": 1.0} if "swap" in name else {}
    changes |= {"bias": -2.0} if name == "siglip" else {}
    loss = method.build(method.changed({**changes, **options}), "text").double()
    loss.begin_step(3, 4) if "swap" in name else None
    return loss


class Labelled(torch.nn.Module):
    """A loss that compares labels, given those of this rank's rows."""

    def __init__(self, loss, labels):
        super().__init__()
        self.loss, self.labels = loss, labels

    def forward(self, embeddings, *, present=None, positives=None):
        return self.loss(embeddings, present=present, labels=self.labels)


def gradients(rank, num_ranks, loss, present, positives):
    if type(loss).__name__ == "SoftTargetLoss":
        loss = Labelled(loss, share(LABELS, rank, num_ranks))
    model = (Towers if present is None else MaskedTowers)(loss)
    run = DistributedDataParallel(model) if num_ranks > 1 else model
    inputs = part(batches()[0], rank, num_ranks)
    arguments = (share(POSITIVES, rank, num_ranks) if positives else None,)
    if present is not None:
        arguments = (
            part(PRESENT, rank, num_ranks),
            part(NUMBERS["modalities"] if positives else None, rank, num_ranks),
        )
    terms = run(inputs, *arguments)
    terms.total.backward()
    found = {name: parameter.grad for name, parameter in model.named_parameters()}
    return {**found, "terms": torch.stack(list(terms)).detach()}


def exact(rank, num_ranks):
    return {
        f"{name}-{masked}-{positives}": gradients(
            rank, num_ranks, loss_of(name, pairs="all" if masked else "anchor"), PRESENT if masked else None, positives
        )
        for name in NAMES
        for masked in (False, True)
        for positives in (False, True)
    }


def alone(rank, num_ranks):
    loss = loss_of("siglip")
    loss.gather = False
    return gradients(rank, num_ranks, loss, None, False)


def work(rank, num_ranks, cases, init_file, out):
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{init_file}", rank=rank, world_size=num_ranks)
    torch.save({case: globals()[case](rank, num_ranks) for case in cases}, out)
    dist.destroy_process_group()
