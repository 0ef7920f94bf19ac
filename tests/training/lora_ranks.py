"""Trains the recipes of the paper's encoders, made small, in the processes of torchrun: lora_ranks.py FOLDER."""

import sys
from pathlib import Path

import torch.distributed as dist

sys.path.insert(0, str(Path(__file__).parent.parent))

from test_training_lora import run_of, small

from gapless.manifest.manifest import Manifest
from gapless.manifest.readers.phantom import write_phantom
from gapless.training.run import train_run

folder = Path(sys.argv[1])
dist.init_process_group("gloo")
if dist.get_rank() == 0:
    write_phantom(folder / "data", num_pairs=80, num_validation=10, num_test=10, image_size=28)
dist.barrier()
data = Manifest.of(folder / "data")
for name in ("roco-eva-bert", "roco-eva-bert-lora"):
    train_run(run_of(small(name), data), data, folder / name)
