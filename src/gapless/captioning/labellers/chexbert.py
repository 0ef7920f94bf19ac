"""CheXbert (Smit et al., arXiv 2004.09167): a BERT with a head for each of 14 observations of chest radiographs.

The directory holds `config.json` and the tokenizer of the BERT, and `model.safetensors`: the entries of the published
checkpoint's `model_state_dict`. docs/captioning.md shows how to convert it; a pickled checkpoint is not read here.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from gapless.captioning.findings import Mention, Status
from gapless.captioning.labellers.base import LABELLERS, Labeller
from gapless.core.errors import DataRefused, UsageError, listed
from gapless.models.safe_loading import loading, saved_tokenizer

OBSERVATIONS = (
    *("enlarged cardiomediastinum", "cardiomegaly", "lung opacity", "lung lesion", "edema", "consolidation"),
    *("pneumonia", "atelectasis", "pneumothorax", "pleural effusion", "pleural other", "fracture", "support devices"),
    "no finding",
)
CLASSES: tuple[Status | None, ...] = (None, "present", "denied", "uncertain")  # blank, positive, negative, uncertain
NO_FINDING = len(OBSERVATIONS) - 1  # its head has two classes
LONGEST, AT_ONCE = 512, 32
NEEDED = ("config.json", "tokenizer_config.json", "model.safetensors")


class CheXbert(nn.Module):
    """The network: a BERT, and linear heads on its first token.

    Args:
        config: of the BERT.
    """

    def __init__(self, config: Any) -> None:
        from transformers import BertModel

        super().__init__()
        self.bert: Any = BertModel(config)
        sizes = [len(CLASSES)] * NO_FINDING + [2]
        self.linear_heads = nn.ModuleList(nn.Linear(config.hidden_size, size) for size in sizes)

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """[text, observation] the likeliest class of each."""
        first = self.bert(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state[:, 0]
        return torch.stack([head(first).argmax(dim=1) for head in self.linear_heads], dim=1)


def load(directory: Path) -> Labeller:
    """The labeller of a directory.

    Raises:
        UsageError: a file is missing. DataRefused: weights of another network.
    """
    from safetensors.torch import load_file
    from transformers import BertConfig

    missing = [name for name in NEEDED if not (directory / name).is_file()]
    if missing:
        raise UsageError(
            f"--labeller chexbert={directory} lacks {listed(missing)}; docs/captioning.md says how to convert the "
            "published checkpoint"
        )
    with loading(directory):
        model = CheXbert(BertConfig.from_pretrained(directory))
        weights = {name.removeprefix("module."): weight for name, weight in load_file(directory / NEEDED[-1]).items()}
        found = model.load_state_dict(weights, strict=False)
        wrong = [*found.missing_keys, *(key for key in found.unexpected_keys if not key.endswith("position_ids"))]
        if wrong:
            raise DataRefused(f"{directory} holds no weights of CheXbert: {len(wrong)} differ ({listed(wrong, 3)})")
        tokenizer = saved_tokenizer(directory)
    model.train(False)

    @torch.inference_mode()
    def label(texts: Sequence[str]) -> list[dict[str, Mention]]:
        labelled = []
        longest = min(LONGEST, model.bert.config.max_position_embeddings)
        for start in range(0, len(texts), AT_ONCE):
            batch = [" ".join(text.split()) for text in texts[start : start + AT_ONCE]]
            tokens = tokenizer(batch, padding=True, truncation=True, max_length=longest, return_tensors="pt")
            for classes in model(tokens["input_ids"], tokens["attention_mask"]).tolist():
                statuses = zip(OBSERVATIONS, (CLASSES[number] for number in classes), strict=True)
                labelled.append({name: Mention(status) for name, status in statuses if status is not None})
        return labelled

    return label


LABELLER = LABELLERS.add("chexbert", load)
