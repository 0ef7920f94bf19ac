"""Sizes, memory and time of training the paper's encoders, computed from parts that are measured on any machine.

    python benchmarks/real_encoders.py                       the table of docs/train.md
    python benchmarks/real_encoders.py --forward             also time one forward of each encoder here

Measured: the weights of each encoder (built on the meta device), the operations of one forward (torch's counter), and
the bytes that one block keeps for the backward pass (autograd's hooks, bf16). Assumed, and printed: the rate of the
GPU, and that a backward pass costs two forwards, or one where the weights are frozen. No weights are downloaded.
"""

import argparse
import time
from dataclasses import dataclass
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

from gapless.models.encoders import Encoder, build_encoder
from gapless.models.spec import modality_spec
from gapless.training.recipes import get_recipe

ROWS = 65_000  # about the training pairs of ROCO
GIB = 2**30
TFLOPS, UTILISATION = 165.0, 0.35  # bf16 of a consumer GPU of 24 GB, and the share of it that training reaches
VOCABULARY = 30_522


@dataclass(frozen=True)
class Part:
    """One encoder: its weights, those that learn under adapters, the operations and the kept bytes of one row.

    Under checkpointing the inputs of the blocks are kept, and the whole of the one block that is computed again.
    """

    weights: int
    adapters: int
    operations: float
    kept: int
    kept_checkpointed: int


def inputs_of(name: str, rows: int, device: str) -> dict[str, torch.Tensor]:
    """Inputs of the encoder at the sizes of the recipe."""
    if name == "image":
        return {"pixel_values": torch.zeros(rows, 3, 224, 224, device=device)}
    shape = (rows, get_recipe("roco-eva-bert").modalities["text"]["input"]["max_length"])
    return {key: torch.ones(shape, dtype=torch.long, device=device) for key in ("input_ids", "attention_mask")}


def encoder_of(name: str, with_adapters: bool = False, depth: int | None = None) -> Encoder:
    """The paper's encoder without weights from elsewhere; `depth` blocks where it is given."""
    recipe = get_recipe("roco-eva-bert-lora" if with_adapters else "roco-eva-bert")
    described: dict[str, Any] = dict(recipe.modalities[name])
    config = dict(described["encoder"]["config"])
    if depth is not None:
        config |= {"model_args": {"depth": depth}} if name == "image" else {"num_hidden_layers": depth}
    described["encoder"] = {**described["encoder"], "pretrained": None, "config": config}
    return build_encoder(modality_spec(name, described).encoder)


def kept_bytes(name: str, depth: int, checkpointed: bool) -> int:
    """Bytes that the forward of one row keeps for its backward pass, weights left out."""
    encoder = encoder_of(name, depth=depth).train()
    if checkpointed:
        encoder.model.activation_checkpointing_enable()
    weights = {weight.untyped_storage().data_ptr() for weight in encoder.parameters()}
    kept: dict[int, int] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor), torch.autocast("cpu", torch.bfloat16):
        output = encoder(**inputs_of(name, 1, "cpu"))
    del output
    return sum(kept.values())


def measured(name: str, depth: int) -> Part:
    """The parts of one encoder; the kept bytes grow by the same for every block, which three depths show."""
    with torch.device("meta"):
        adapted = encoder_of(name, with_adapters=True)
    where = "meta" if name == "image" else "cpu"  # a mask of texts is looked into, and a meta tensor has no values
    with torch.device(where):
        plain = encoder_of(name)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        plain(**inputs_of(name, 1, where))
    sizes = {}
    for checkpointed in (False, True):
        one, two, three = (kept_bytes(name, blocks, checkpointed) for blocks in (1, 2, 3))
        assert abs((three - two) - (two - one)) <= 0.05 * (two - one), "the bytes do not grow with the blocks alone"
        sizes[checkpointed] = one + (depth - 1) * (two - one)
        if not checkpointed:
            one_block = two - one
    adapters = sum(weight.numel() for weight in adapted.parameters() if weight.requires_grad)
    weights = sum(weight.numel() for weight in plain.parameters())
    return Part(weights, adapters, float(counter.get_total_flops()), sizes[False], sizes[True] + one_block)


def row(what: str, parts: list[Part], learning: int, forwards: float, kept: int, rows: int) -> str:
    """A line of the table: fp32 weights, a gradient and two moments for each that learns, and what is kept."""
    weights = sum(part.weights for part in parts)
    added = learning if learning < weights else 0  # adapters come beside the weights
    state = (weights + added) * 4 + learning * 12
    activations = kept * rows
    hours = ROWS * forwards * sum(part.operations for part in parts) / (TFLOPS * 1e12 * UTILISATION) / 3600
    return (
        f"| {what} | {learning / 1e6:,.1f} M | {state / GIB:.1f} | {activations / GIB:.1f} | "
        f"{(state + activations) / GIB:.1f} | {hours:.2f} |"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--forward", action="store_true", help="time one forward of each encoder on this machine, fp32")
    options = parser.parse_args()
    image, text = measured("image", 40), measured("text", 12)
    parts = [image, text]
    for name, part in (("image", image), ("text", text)):
        print(
            f"{name}: {part.weights / 1e6:,.1f} M weights, {part.adapters / 1e6:.1f} M in adapters, "
            f"{part.operations / 1e9:,.0f} G operations a row, {part.kept / 2**20:,.0f} MiB a row kept for the "
            f"backward pass, {part.kept_checkpointed / 2**20:,.1f} MiB under checkpointing"
        )
    everything, adapters = sum(part.weights for part in parts), sum(part.adapters for part in parts)
    plain, checkpointed = sum(part.kept for part in parts), sum(part.kept_checkpointed for part in parts)
    print(f"\nan epoch of {ROWS:,} pairs at {UTILISATION:.0%} of {TFLOPS:.0f} TFLOP/s\n")
    print("| what learns | weights that learn | weights and optimizer, GiB | activations, GiB | together | hours |")
    print("|---|---|---|---|---|---|")
    print(row("everything, 64 rows", parts, everything, 3, plain, 64))
    print(row("everything, checkpointed, 64 rows", parts, everything, 4, checkpointed, 64))
    print(row("adapters, checkpointed, 256 rows in parts of 64", parts, adapters, 1 + 3, checkpointed, 64))
    print(row("heads alone, towers frozen, 256 rows", parts, 0, 1, 0, 256))
    if options.forward:
        for name in ("image", "text"):
            encoder = encoder_of(name).eval()
            rows = 4 if name == "image" else 32
            with torch.inference_mode():
                start = time.process_time()
                encoder(**inputs_of(name, rows, "cpu"))
                print(f"{name}: {(time.process_time() - start) / rows:.2f} seconds of one core a row, fp32")


if __name__ == "__main__":
    main()
