"""The gap-closing loss in the sentence-transformers trainer: findings and impressions of reports as two modalities.

    python examples/sentence_transformers_loss.py [--model sentence-transformers/all-MiniLM-L6-v2] [--steps 30]

Without --model a tiny BERT from a configuration is trained on made-up sentences: no download.
"""

import argparse
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from sentence_transformers import SentenceTransformer, SentenceTransformerTrainer, SentenceTransformerTrainingArguments
from torch import Tensor, nn

from gapless import GapClosingLoss, measure

SIDES = ("left", "right")
ORGANS = ("lung", "liver", "kidney", "spleen", "pleura", "femur", "thyroid", "pancreas")
SIGNS = (("opacity", "infiltrate"), ("round lesion", "mass"), ("low density fluid", "cyst"), ("dark line", "fracture"))


class SentenceGapLoss(nn.Module):
    """A loss as sentence-transformers takes it; `names` are the columns of the data set, in order."""

    def __init__(self, model: SentenceTransformer, names: tuple[str, ...], **options: Any) -> None:
        super().__init__()
        self.model = model
        self.names = names
        self.loss = GapClosingLoss(anchor=names[-1], **options)

    def forward(
        self, sentence_features: Iterable[dict[str, Tensor]], labels: Tensor | None = None
    ) -> dict[str, Tensor]:
        self.loss.clamp_logit_scale()
        rows = [self.model(features)["sentence_embedding"] for features in sentence_features]
        embeddings = {
            name: nn.functional.normalize(matrix, dim=-1) for name, matrix in zip(self.names, rows, strict=True)
        }
        terms = self.loss(embeddings)
        # the trainer sums the dictionary and logs each part
        return {"contrastive": terms.contrastive, "gap": terms.total - terms.contrastive}


def reports() -> dict[str, list[str]]:
    """Every side, organ and sign once: what was seen, and what it means."""
    cases = [(side, organ, sign) for side in SIDES for organ in ORGANS for sign in SIGNS]
    return {
        "finding": [f"there is a {sign[0]} of the {side} {organ}" for side, organ, sign in cases],
        "impression": [f"{side} {organ} {sign[1]}" for side, organ, sign in cases],
    }


def tiny_model(folder: Path, texts: list[str]) -> str:
    from transformers import BertConfig, BertModel, BertTokenizer

    words = sorted({word for text in texts for word in text.split()})
    vocabulary = folder / "vocab.txt"
    vocabulary.write_text("\n".join(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *words]))
    BertTokenizer(str(vocabulary)).save_pretrained(folder)
    config = BertConfig(
        vocab_size=len(words) + 5,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=1,
        num_attention_heads=2,
        max_position_embeddings=32,
    )
    BertModel(config).save_pretrained(folder)
    return str(folder)


def figures(model: SentenceTransformer, columns: dict[str, list[str]]) -> str:
    embeddings = {name: model.encode(texts, convert_to_tensor=True).cpu() for name, texts in columns.items()}
    found = measure(embeddings, include=("gap", "retrieval"))
    keys = ("gap/centroid_distance_unbiased", "gap/true_pair_cosine", "retrieval/mean/R@10")
    return " ".join(f"{key} {found[key]:.3f}" for key in keys)


def main() -> None:
    from datasets import Dataset

    parser = argparse.ArgumentParser()
    parser.add_argument("--model", default=None)
    parser.add_argument("--steps", type=int, default=30)
    args = parser.parse_args()
    torch.manual_seed(0)
    columns = reports()
    with tempfile.TemporaryDirectory() as name:
        source = args.model or tiny_model(Path(name), columns["finding"] + columns["impression"])
        model = SentenceTransformer(source)
        print("before", figures(model, columns))
        trainer = SentenceTransformerTrainer(
            model=model,
            args=SentenceTransformerTrainingArguments(
                output_dir=f"{name}/out",
                max_steps=args.steps,
                per_device_train_batch_size=32,
                learning_rate=2e-3 if args.model is None else 2e-5,
                save_strategy="no",
                report_to=[],
                dataloader_pin_memory=torch.cuda.is_available(),
                disable_tqdm=True,
            ),
            train_dataset=Dataset.from_dict(columns),
            loss=SentenceGapLoss(model, tuple(columns)),
        )
        trainer.train()
        print("after", figures(model, columns))


if __name__ == "__main__":
    main()
