"""Time and memory of the loss on an accelerator, forward and backward, beside the published formula and a CLIP loss.

    python benchmarks/loss_device.py                 # 1k to 64k pairs of 512-d
    python benchmarks/loss_device.py --json out.json

Times are medians of device events over interleaved repeats; memory is the allocator's peak beyond the inputs. The CLIP
loss is symmetric cross-entropy over one matrix of logits, as open_clip computes it on one device.
"""

import argparse
import json
import statistics
from collections.abc import Callable
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from gapless.losses.gap_closing import GapClosingLoss

SIZES = (1024, 4096, 8192, 16384, 32768, 65536)
Rows = tuple[Tensor, Tensor]


def clip_term(z: Tensor, w: Tensor, scale: float = 1 / 0.07) -> Tensor:
    logits = scale * z @ w.T
    targets = torch.arange(len(z), device=z.device)
    return (F.cross_entropy(logits, targets) + F.cross_entropy(logits.T, targets)) / 2


def published(z: Tensor, w: Tensor) -> Tensor:
    centroids = F.normalize((z + w) / 2, dim=-1)
    uniformity = torch.pdist(centroids).pow(2).mul(-2).exp().mean().log()
    return clip_term(z, w) + (z - w).square().sum(dim=1).mean() + uniformity


def methods() -> dict[str, Callable[[Tensor, Tensor], Tensor]]:
    loss = GapClosingLoss().cuda()
    return {
        "gapless": lambda z, w: loss({"image": z, "text": w}).total,
        "published formula": published,
        "CLIP loss (contrastive alone)": clip_term,
    }


def inputs(num_pairs: int, dim: int) -> Rows:
    generator = torch.Generator("cuda").manual_seed(0)
    shared = torch.randn(num_pairs, dim, generator=generator, device="cuda")
    z, w = (shared + torch.randn(num_pairs, dim, generator=generator, device="cuda") + s for s in (0.5, -0.5))
    return F.normalize(z, dim=1).requires_grad_(), F.normalize(w, dim=1).requires_grad_()


def step(method: Callable[[Tensor, Tensor], Tensor], rows: Rows) -> tuple[float, int]:
    """Milliseconds and peak bytes beyond the inputs."""
    for part in rows:
        part.grad = None
    torch.cuda.synchronize()
    before = torch.cuda.memory_allocated()
    torch.cuda.reset_peak_memory_stats()
    start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
    start.record()
    method(*rows).backward()
    end.record()
    torch.cuda.synchronize()
    return start.elapsed_time(end), torch.cuda.max_memory_allocated() - before


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dim", type=int, default=512)
    parser.add_argument("--repeats", type=int, default=10)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    print(f"{torch.cuda.get_device_name()}, torch {torch.__version__}, {options.dim}-d, fp32, no TF32")
    found = []
    for num_pairs in SIZES:
        rows = inputs(num_pairs, options.dim)
        broken: set[str] = set()
        times: dict[str, list[float]] = {}
        peaks: dict[str, int] = {}
        for repeat in range(options.repeats + 2):
            for name, method in methods().items():
                if name in broken:
                    continue
                try:
                    elapsed, peak = step(method, rows)
                except (torch.OutOfMemoryError, RuntimeError) as error:
                    broken.add(name)
                    print(f"{num_pairs:8} {name:32} {type(error).__name__}: {str(error).splitlines()[0][:60]}")
                    torch.cuda.empty_cache()
                    continue
                if repeat >= 2:
                    times.setdefault(name, []).append(elapsed)
                    peaks[name] = peak
        for name, values in times.items():
            median = statistics.median(values)
            found.append({"pairs": num_pairs, "method": name, "ms": median, "peak_bytes": peaks[name]})
            print(f"{num_pairs:8} {name:32} {median:10.2f} ms {peaks[name] / 2**20:10.1f} MiB")
    if options.json:
        options.json.write_text(json.dumps({"device": torch.cuda.get_device_name(), "rows": found}, indent=2) + "\n")


if __name__ == "__main__":
    main()
