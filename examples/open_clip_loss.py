"""The gap-closing loss in open_clip's own trainer: its command line, data and schedule, another loss.

python examples/open_clip_loss.py --train-data pairs.csv --model ViT-B-32 ...    # any options of open_clip_train
python examples/open_clip_loss.py --demo                                         # made-up pairs, a few seconds
"""

import csv
import json
import sys
import tempfile
from pathlib import Path

import torch
from torch import Tensor, nn

from gapless import GapClosingLoss


class OpenClipGapLoss(nn.Module):
    """`loss(image_features, text_features, logit_scale)` as open_clip calls it; the temperature stays open_clip's.

    With several processes the batch is that of all of them together, with exact gradients.
    """

    def __init__(self, alignment_weight: float = 1.0, uniformity_weight: float = 1.0) -> None:
        super().__init__()
        self.loss = GapClosingLoss(
            anchor="text",
            learn_temperature=False,
            alignment_weight=alignment_weight,
            uniformity_weight=uniformity_weight,
        )

    def forward(
        self,
        image_features: Tensor,
        text_features: Tensor,
        logit_scale: Tensor,
        logit_bias: Tensor | None = None,  # of SigLIP; a softmax does not feel it
        output_dict: bool = False,
    ) -> Tensor | dict[str, Tensor]:
        embeddings = {"image": image_features, "text": text_features}
        temperature = {"logit_scale": logit_scale.float().log()}
        terms = torch.func.functional_call(self.loss, temperature, (embeddings,))
        # open_clip sums what the dictionary holds, and logs each
        parts = {"contrastive_loss": terms.contrastive, "gap_loss": terms.total - terms.contrastive}
        return parts if output_dict else terms.total


def train(options: list[str]) -> None:
    from open_clip_train import main as trainer

    trainer.create_loss = lambda args: OpenClipGapLoss()
    trainer.main(options)


def demo() -> None:
    """A tiny model on made-up pictures, trained for one epoch by open_clip's trainer."""
    import numpy as np
    import open_clip
    from PIL import Image

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        vision = {"image_size": 32, "layers": 1, "width": 32, "head_width": 16, "patch_size": 16}
        text = {"context_length": 16, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 1}
        (folder / "tiny.json").write_text(json.dumps({"embed_dim": 16, "vision_cfg": vision, "text_cfg": text}))
        open_clip.add_model_config(folder / "tiny.json")
        random = np.random.default_rng(0)
        with (folder / "pairs.csv").open("w", newline="") as stream:
            table = csv.writer(stream, delimiter="\t")
            table.writerow(["filepath", "title"])
            for i in range(32):
                Image.fromarray(random.integers(0, 256, (32, 32, 3), dtype=np.uint8)).save(folder / f"{i}.png")
                table.writerow([folder / f"{i}.png", f"finding number {i}"])
        options = f"--train-data {folder / 'pairs.csv'} --dataset-type csv --model tiny --batch-size 8 --epochs 1"
        train([*options.split(), "--workers", "0", "--warmup", "1", "--logs", str(folder), "--name", "demo"])
        log = (folder / "demo" / "out.log").read_text()
        print(next(line for line in reversed(log.splitlines()) if "Gap_loss" in line))


if __name__ == "__main__":
    if sys.argv[1:] == ["--demo"]:
        demo()
    else:
        train(sys.argv[1:])
