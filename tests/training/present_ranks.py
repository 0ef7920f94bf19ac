"""What each process of the test of a model under DDP runs, where a rank has no row of a modality."""

import torch
import torch.distributed as dist
from absent_rows import NAMES, present_part, vectors_model
from torch.nn.parallel import DistributedDataParallel

NUM_STEPS, GLOBAL_BATCH = 3, 8


def batches():
    """Three steps of (values, masks): of two ranks the second has no waveform, then the first, then none has."""
    generator = torch.Generator().manual_seed(5)
    for step in range(NUM_STEPS):
        values = {name: torch.randn(GLOBAL_BATCH, 6, generator=generator) for name in NAMES}
        waveform = torch.tensor([[1, 0, 1, 1, 0, 0, 0, 0], [0, 0, 0, 0, 1, 1, 0, 1], [0] * 8][step]).bool()
        image = torch.rand(GLOBAL_BATCH, generator=generator) < 0.8
        yield values, {"image": image, "text": torch.ones(GLOBAL_BATCH, dtype=torch.bool), "waveform": waveform}


def trained(rank, num_ranks, micro_batch_size=None, pairs="anchor"):
    """The gradient of every weight at each step, and the weights after them."""
    model = vectors_model(pairs=pairs).train()
    model.micro_batch_size = micro_batch_size
    run = DistributedDataParallel(model, find_unused_parameters=False) if num_ranks > 1 else model
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    gradients = []
    for values, present in batches():
        own = {name: mask.chunk(num_ranks)[rank] for name, mask in present.items()}
        batch = present_part({name: x.chunk(num_ranks)[rank] for name, x in values.items()}, own)
        optimizer.zero_grad()
        run(batch=batch, present=own).loss.backward()
        gradients.append({name: weight.grad.clone() for name, weight in model.named_parameters()})
        optimizer.step()
    return gradients


CASES = {"plain": {}, "cached": {"micro_batch_size": 3}, "all": {"pairs": "all"}}


def work(rank, num_ranks, cases, init_file, out):
    """Run the cases and leave their results in `out`."""
    torch.set_num_threads(1)
    if num_ranks > 1:
        dist.init_process_group("gloo", init_method=f"file://{init_file}", rank=rank, world_size=num_ranks)
    torch.save({case: trained(rank, num_ranks, **CASES[case]) for case in cases}, out)
    if num_ranks > 1:
        dist.destroy_process_group()
