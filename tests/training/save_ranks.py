"""Trains in the processes of torchrun, with a save that fails in one of them: save_ranks.py DATA OUT RANK PLACE."""

import os
import sys

from transformers import Trainer

from gapless.cli.main import main
from gapless.models.aligner import GaplessModel

PLACES = {
    "model": (GaplessModel, "save_pretrained"),
    "random numbers": (Trainer, "_save_rng_state"),
}


def full_disk(*args, **kwargs):
    raise OSError(28, "No space left on device")


if __name__ == "__main__":
    data, out, rank, place = sys.argv[1:]
    if os.environ["RANK"] == rank:
        setattr(*PLACES[place], full_disk)
    options = ["--training.use_cpu=true", "--training.num_train_epochs=1", "--training.per_device_train_batch_size=8"]
    sys.exit(main(["train", "phantom-small", "--data", data, "--out", out, *options]))
