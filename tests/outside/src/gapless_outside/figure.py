"""A figure of somebody else's: the share of true pairs that are nearer to each other than a right angle."""

from torch import Tensor

from gapless.metrics import FigureEntry, PairInputs


def acute_pairs(inputs: PairInputs) -> Tensor:
    """[pair] 1 where the cosine of a true pair is above 0, else 0."""
    return ((inputs.first * inputs.second).sum(dim=1) > 0).double()


ENTRY = FigureEntry(
    "gap/outside",
    "acute true pairs",
    "share of true pairs whose cosine is above 0",
    low=0.0,
    high=1.0,
    better="higher",
    family="modality gap",
    short="acute",
    unit="fraction",
    closed="1",
    misleads="says nothing of false pairs",
    compute=acute_pairs,
)
