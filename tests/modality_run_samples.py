"""A small data set of images, reports, lab values and ECGs, some of them absent, for runs through the real command."""

import csv
from pathlib import Path

import numpy as np
from data_samples import noise_image

from gapless.manifest.manifest import Manifest
from gapless.manifest.readers.table import read_table
from gapless.models.aligner import GaplessModel
from gapless.training.from_manifest import completed_recipe
from gapless.training.recipes import Recipe
from gapless.training.run import Run, initial_model

WORDS = [
    "scan=image:file,lateral",
    "report=text:report",
    "labs=table:age,sex,hb,categories=sex",
    "ecg=waveform:ecg,rate=100",
]
ROWS = 44
TINY_IMAGE = {
    "input": {"size": 16},
    "encoder": {
        "kind": "transformers",
        "config": {
            "model_type": "resnet",
            "num_channels": 1,
            "embedding_size": 8,
            "hidden_sizes": [8, 8],
            "depths": [1, 1],
            "layer_type": "basic",
        },
        "pooling": "pooler",
    },
}
TINY_TEXT = {
    "input": {"max_length": 16},
    "encoder": {
        "kind": "transformers",
        "config": {
            "model_type": "bert",
            "hidden_size": 16,
            "num_hidden_layers": 1,
            "num_attention_heads": 2,
            "intermediate_size": 16,
            "max_position_embeddings": 16,
        },
        "pooling": "mean",
    },
}
TRAINING = {
    "num_train_epochs": 2,
    "per_device_train_batch_size": 8,
    "save_strategy": "epoch",
    "logging_steps": 1,
    "use_cpu": True,
}
SETTINGS = {
    "modalities": {
        "scan": TINY_IMAGE,
        "report": TINY_TEXT,
        "labs": {"encoder": {"kind": "mlp", "hidden": 8, "output": 8}},
        "ecg": {"input": {"seconds": 2.0}},
    },
    "embedding_dim": 8,
    "vocab_size": 200,
    "training": TRAINING,
}


def absent(number: int) -> set[str]:
    """The modalities that a row lacks: some an ECG, some labs, a few the report or the image; none two or more."""
    return {0: {"ecg"}, 1: {"ecg"}, 2: {"labs"}, 4: {"report"}, 5: {"scan"}}.get(number % 8, set())


def write_samples(folder: Path) -> Path:
    """`table.csv` of 44 rows of 22 patients; every ninth row has two images."""
    folder.mkdir(parents=True, exist_ok=True)
    random = np.random.default_rng(0)
    lines = []
    for number in range(ROWS):
        gone, ill = absent(number), number // 2 % 2
        images = [f"{number}.png", f"{number}b.png"] if number % 9 == 3 else [f"{number}.png"]
        for place, name in enumerate(images):
            noise_image(number + 100 * place).save(folder / name)
        wave = np.sin(np.arange(200) / (5 + 10 * ill)) + 0.1 * random.standard_normal((2, 200))
        np.save(folder / f"{number}.npy", wave.astype(np.float32))
        lines.append(
            {
                "file": "" if "scan" in gone else images[0],
                "lateral": "" if "scan" in gone or len(images) == 1 else images[1],
                "report": "" if "report" in gone else f"{'large' if ill else 'no'} effusion of patient {number // 2}",
                "age": "" if "labs" in gone else 40 + number,
                "sex": "" if "labs" in gone else "mf"[number % 2],
                "hb": "" if "labs" in gone or number % 3 == 0 else round(11 + 3 * ill + random.random(), 1),
                "ecg": "" if "ecg" in gone else f"{number}.npy",
                "patient": f"p{number // 2}",
            }
        )
    with (folder / "table.csv").open("w", newline="", encoding="utf-8") as stream:
        writer = csv.DictWriter(stream, list(lines[0]))
        writer.writeheader()
        writer.writerows(lines)
    return folder / "table.csv"


def samples_manifest(folder: Path) -> Manifest:
    """The manifest of the samples, every row in train."""
    return read_table(write_samples(folder / "source"), folder / "M", modality=WORDS, group_key="patient", workers=1)


def untrained_model(manifest: Manifest) -> GaplessModel:
    """The model that a training on the manifest starts from."""
    return initial_model(
        Run("any-small", "gapless", 0, completed_recipe(Recipe(**SETTINGS), manifest), manifest.fingerprint), manifest
    )
