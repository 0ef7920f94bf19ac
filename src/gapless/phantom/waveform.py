"""The phantom's third modality: a short signal whose rhythm depends on the finding, with random phase and noise."""

import numpy as np
from numpy.typing import NDArray

from gapless.phantom.cases import FINDINGS, NORMAL, Figure

NUM_SAMPLES = 64
_KINDS = (NORMAL, *FINDINGS)
_STRENGTH = {"none": 0.3, "small": 0.5, "medium": 0.8, "large": 1.1}


def draw_waveform(figure: Figure) -> NDArray[np.float32]:
    """float32 [64]: cycles and overtone by finding, overtone's strength by size; phase, drift and noise at random."""
    rng = np.random.default_rng([figure.seed, 3])
    kind = _KINDS.index(figure.finding)
    cycles = (2.0 + 0.9 * kind) * (1 + rng.normal(0, 0.04))
    phase, overtone_phase = rng.uniform(0, 2 * np.pi, 2)
    time = np.linspace(0, 1, NUM_SAMPLES)
    base = np.sin(2 * np.pi * cycles * time + phase)
    overtone = np.sin(2 * np.pi * (2 + kind % 3) * cycles * time + overtone_phase)
    drift = np.cumsum(rng.normal(0, 0.08, NUM_SAMPLES)) + rng.normal(0, 0.3)
    signal = (1 + 0.2 * rng.normal()) * (base + _STRENGTH[figure.size] * overtone) + drift
    return np.asarray(signal + rng.normal(0, 0.35, NUM_SAMPLES), np.float32)
