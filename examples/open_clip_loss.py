"""The gap-closing loss in open_clip's own trainer: its command line, data and schedule, another loss.

    python examples/open_clip_loss.py                                      # drawn radiology, both methods, seconds
    python examples/open_clip_loss.py --pairs 5000 --size 64 --batch 256   # as many pairs as the demonstration, minutes
    python examples/open_clip_loss.py --method gapless --train-data pairs.csv --model ViT-B-32 ...

The last line takes every option of `open_clip_train`.
"""

import argparse
import csv
import json
import math
import sys
import tempfile
from pathlib import Path
from typing import Any

import torch
from phantom_pairs import TRAINING, columns_of, drawn_pairs, line_of, loss_of, phantom_options
from torch import Tensor, nn

from gapless import GapClosingLoss, measure
from gapless.manifest import Manifest


class OpenClipGapLoss(nn.Module):
    """`loss(image_features, text_features, logit_scale)` as open_clip calls it; the temperature stays open_clip's.

    With several processes the batch is that of all of them together, with exact gradients.

    Args:
        loss: its weights are used, its temperature is not.
        num_steps: how often it will be called, for weights that change with the progress of the training.
    """

    def __init__(self, loss: GapClosingLoss | None = None, num_steps: int = 1) -> None:
        super().__init__()
        self.loss = GapClosingLoss(anchor="text") if loss is None else loss
        self.num_steps = num_steps
        self.step = 0

    def forward(
        self,
        image_features: Tensor,
        text_features: Tensor,
        logit_scale: Tensor,
        logit_bias: Tensor | None = None,  # of SigLIP; a softmax does not feel it
        output_dict: bool = False,
    ) -> Tensor | dict[str, Tensor]:
        self.loss.set_progress(min(1.0, self.step / self.num_steps))
        self.step += 1
        embeddings = {"image": image_features, "text": text_features}
        temperature = {"logit_scale": logit_scale.float().log()}
        terms = torch.func.functional_call(self.loss, temperature, (embeddings,))
        # open_clip sums what the dictionary holds, and logs each
        parts = {"contrastive_loss": terms.contrastive, "gap_loss": terms.total - terms.contrastive}
        return parts if output_dict else terms.total


def steps_of(args: Any) -> int:
    """How many batches open_clip's trainer will see; a CSV file is counted, for shards it needs --train-num-samples."""
    num_samples: int = args.train_num_samples or 0
    if not num_samples:
        with Path(args.train_data).open(newline="", encoding="utf-8") as stream:
            num_samples = sum(1 for _ in csv.reader(stream, delimiter=args.csv_separator)) - 1
    batches: int = num_samples // (args.batch_size * args.world_size)
    return max(1, int(args.epochs) * batches)


def train(method: str, options: list[str]) -> None:
    """open_clip's trainer with these options of its command line, and our loss of a method in place of its own."""
    from open_clip_train import main as trainer

    trainer.create_loss = lambda args: OpenClipGapLoss(loss_of(method), steps_of(args))
    trainer.main(options)


def register_model(folder: Path, size: int) -> None:
    """A small ResNet and text transformer of open_clip under the name `small`, from 64 pixels on wider ones."""
    import open_clip

    width, layers, embedding_dim = (64, 1, 128) if size < 64 else (128, 2, 512)
    vision = {"image_size": size, "layers": [1, 1, 1, 1], "width": width // 4, "head_width": 64, "patch_size": None}
    text = {"context_length": 48, "vocab_size": 49408, "width": width, "heads": width // 32, "layers": layers}
    config = {"embed_dim": embedding_dim, "vision_cfg": vision, "text_cfg": text}
    (folder / "small.json").write_text(json.dumps(config))
    open_clip.add_model_config(folder / "small.json")


def trainer_options(args: argparse.Namespace, pairs: Path, num_pairs: int) -> list[str]:
    """What the demonstration trains with, as options of `open_clip_train`; the images are not cut."""
    warmup = math.ceil(TRAINING["warmup_steps"] * args.epochs * (num_pairs // args.batch))
    words = f"--train-data {pairs} --dataset-type csv --model small --precision fp32 --workers 0"
    words += f" --epochs {args.epochs} --batch-size {args.batch} --seed {args.seed} --aug-cfg scale=(1.0,1.0)"
    words += f" --lr {TRAINING['learning_rate']} --wd {TRAINING['weight_decay']} --warmup {warmup}"
    return f"{words} --grad-clip-norm {TRAINING['max_grad_norm']}".split()


def write_pairs(file: Path, manifest: Manifest) -> None:
    """The table that open_clip reads."""
    columns = columns_of(manifest)
    with file.open("w", newline="", encoding="utf-8") as stream:
        table = csv.writer(stream, delimiter="\t")
        table.writerow(["filepath", "title"])
        table.writerows(zip(columns["image"], columns["text"], strict=True))


def figures_of(checkpoint: Path, rows: Manifest) -> dict[str, Any]:
    """The figures of the model that the trainer saved, on these rows."""
    import open_clip
    from PIL import Image

    model, _, preprocess = open_clip.create_model_and_transforms("small", pretrained=str(checkpoint))
    model.eval()
    columns = columns_of(rows)
    with torch.no_grad():
        images = torch.stack([preprocess(Image.open(path)) for path in columns["image"]])
        embeddings = {
            "image": torch.cat([model.encode_image(part) for part in images.split(128)]),
            "text": torch.cat(
                [model.encode_text(part) for part in open_clip.get_tokenizer("small")(columns["text"]).split(128)]
            ),
        }
    return measure(embeddings, include=("gap", "retrieval"))


def main() -> None:
    if "--train-data" in sys.argv:
        parser = argparse.ArgumentParser(add_help=False)
        parser.add_argument("--method", default="gapless")
        ours, options = parser.parse_known_args()
        train(ours.method, options)
        return
    args = phantom_options("the gap-closing loss in open_clip's trainer").parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        manifest = drawn_pairs(folder / "phantom", args.pairs, args.size)
        write_pairs(folder / "pairs.csv", manifest.select("train"))
        register_model(folder, args.size)
        options = trainer_options(args, folder / "pairs.csv", len(manifest.select("train")))
        for method in args.methods:
            train(method, [*options, "--logs", str(folder), "--name", method])
            checkpoint = folder / method / "checkpoints" / f"epoch_{args.epochs}.pt"
            print(line_of(method, figures_of(checkpoint, manifest.select("test"))))
            log = (folder / method / "out.log").read_text()
            print(next(line for line in reversed(log.splitlines()) if "Gap_loss" in line))


if __name__ == "__main__":
    main()
