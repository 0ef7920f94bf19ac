"""A closing method that is not affine: random waves of each modality, fitted by ridge onto the centred anchor."""

from dataclasses import dataclass
from math import pi
from pathlib import Path

import torch
from torch import Tensor

from gapless.closing.base import ClosingPairs, ClosingSettings, FittedMethod
from gapless.closing.layers import (
    FittedLayer,
    activation_layer,
    affine_layer,
    linear_layer,
    unit_norm_layer,
    vector_model,
)


@dataclass(frozen=True)
class WaveSettings(ClosingSettings):
    """The settings of outside-shift.

    Args:
        width: random waves that stand for each modality.
        frequency: standard deviation of their frequencies.
        ridge: of the fit onto the anchor.
    """

    width: int = 128
    frequency: float = 1.0
    ridge: float = 1e-3


class Waves:
    """`cos(x W + b) B`: random features of a Gaussian kernel (Rahimi and Recht, NIPS 2007), then a linear fit."""

    name = "outside-shift"
    summary = "fit random waves of every modality onto the centred anchor"
    source = "Rahimi and Recht, NIPS 2007"
    settings = WaveSettings

    def fit(self, pairs: ClosingPairs, settings: WaveSettings, seed: int, *, folder: Path) -> FittedMethod:
        rows = pairs.training
        target = rows[pairs.anchor] - rows[pairs.anchor].mean(dim=0)
        random = torch.Generator().manual_seed(seed)
        heads = {name: waves(matrix, target, settings, random) for name, matrix in rows.items()}
        return FittedMethod(vector_model(pairs, heads), {"width": settings.width})


def waves(rows: Tensor, target: Tensor, settings: WaveSettings, random: torch.Generator) -> list[FittedLayer]:
    frequencies = torch.randn(rows.shape[1], settings.width, generator=random) * settings.frequency
    phases = torch.rand(settings.width, generator=random) * 2 * pi
    features = (rows @ frequencies + phases).cos()
    mean = features.mean(dim=0)
    centred = (features - mean).double()
    gram = centred.T @ centred + settings.ridge * len(rows) * torch.eye(settings.width, dtype=torch.float64)
    fitted = torch.linalg.solve(gram, centred.T @ target.double())
    return [unit_norm_layer(), linear_layer(frequencies, phases), activation_layer("cos"), affine_layer(mean, fitted)]


METHOD = Waves()
