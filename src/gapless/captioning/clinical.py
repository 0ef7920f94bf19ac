"""Clinical scores of captions: findings that are named rightly, invented, missed or confused; sides; numbers.

Every score is a ratio of counts summed over rows, so that a bootstrap over groups resamples it. `findings_of` reads the
findings, or a labeller with weights of its own.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from gapless.captioning.finding_terms import vocabulary
from gapless.captioning.findings import NAMED, STATUSES, Mention, findings_of, numbers_of
from gapless.captioning.labellers.base import Labeller
from gapless.metrics.uncertainty import Figure, GroupSums, share_of_sums

FINDINGS, NUMBERS = "caption/findings", "caption/numbers/F1"
NO_SUCH = "no caption or reference has what it counts (the vocabulary is English; see --findings)"
Found = Mapping[str, Mention]


@dataclass(frozen=True)
class Errors:
    """What a caption says of findings against its references.

    Args:
        named, denied: findings that both name, and that both deny.
        invented: named by the caption, and not named by any reference.
        missed: named by a reference, and not named by the caption.
        confused: named by one and denied by the other; also among the invented or missed.
        sides: named by both, with different sides.
        num_sides: named by both, each with a side.
        num_denied: findings denied by the caption plus findings denied by the references.
        num_both: findings that both speak of, whatever their status.
    """

    named: tuple[str, ...] = ()
    denied: tuple[str, ...] = ()
    invented: tuple[str, ...] = ()
    missed: tuple[str, ...] = ()
    confused: tuple[str, ...] = ()
    sides: tuple[str, ...] = ()
    num_sides: int = 0
    num_denied: int = 0
    num_both: int = 0

    @property
    def f1(self) -> float | None:
        """F1 of the named findings; None where neither names one."""
        total = 2 * len(self.named) + len(self.invented) + len(self.missed)
        return 2 * len(self.named) / total if total else None

    @property
    def num_wrong(self) -> int:
        return len(self.invented) + len(self.missed) + len(self.sides)

    def sentence(self) -> str:
        """What is wrong, in words."""
        parts = {"invented": self.invented, "missed": self.missed, "named for denied": self.confused}
        parts["wrong side"] = self.sides
        return "; ".join(f"{what}: {', '.join(names)}" for what, names in parts.items() if names)


def errors_of(caption: Found, reference: Found) -> Errors:
    """Compare the findings of a caption with those of its references."""
    said, true = _named(caption), _named(reference)
    denied = {name for name, one in caption.items() if one.status == "denied"}
    not_there = {name for name, one in reference.items() if one.status == "denied"}
    shared = sorted(said & true)
    sided = [name for name in shared if caption[name].side and reference[name].side]
    return Errors(
        named=tuple(shared),
        denied=tuple(sorted(denied & not_there)),
        invented=tuple(sorted(said - true)),
        missed=tuple(sorted(true - said)),
        confused=tuple(sorted((said & not_there) | (denied & true))),
        sides=tuple(name for name in sided if caption[name].side != reference[name].side),
        num_sides=len(sided),
        num_denied=len(denied) + len(not_there),
        num_both=len(caption.keys() & reference.keys()),
    )


def _named(found: Found) -> set[str]:
    return {name for name, one in found.items() if one.status in NAMED}


def together(several: Sequence[Found]) -> dict[str, Mention]:
    """The findings of several references of one row: present in any counts first, then uncertain, then denied."""
    merged: dict[str, Mention] = {}
    for found in several:
        for name, one in found.items():
            if name not in merged or STATUSES.index(one.status) < STATUSES.index(merged[name].status):
                merged[name] = one
    return merged


class ClinicalScorer:
    """Clinical scores against one set of references, which are read once.

    Args:
        references: per row, one or more texts.
        groups: of the rows, resampled together.
        own: a user's own vocabulary file, beside the one here.
        labellers: name -> a further reader of findings.
    """

    def __init__(
        self,
        references: Sequence[Sequence[str]],
        groups: GroupSums,
        own: Path | None = None,
        labellers: Mapping[str, Labeller] | None = None,
    ) -> None:
        words = vocabulary(own)
        self.groups = groups
        self.labellers: dict[str, Labeller] = {
            FINDINGS.rpartition("/")[2]: lambda texts: [findings_of(text, words) for text in texts],
            **(labellers or {}),
        }
        flat = [text for texts in references for text in texts]
        self.references: dict[str, list[dict[str, Mention]]] = {}
        for name, labeller in self.labellers.items():
            found = iter(labeller(flat))
            self.references[name] = [together([next(found) for _ in texts]) for texts in references]
        self.numbers = [set().union(*map(numbers_of, texts)) for texts in references]

    def errors(self, captions: Sequence[str], labeller: str = "findings") -> list[Errors]:
        """What each caption says wrongly, one per row."""
        distinct = sorted(set(captions))
        found = dict(zip(distinct, self.labellers[labeller](distinct), strict=True))
        pairs = zip(captions, self.references[labeller], strict=True)
        return [errors_of(found[caption], reference) for caption, reference in pairs]

    def figures(self, captions: Sequence[str]) -> dict[str, Figure]:
        """`caption/<labeller>/...` -> Figure; one whose denominator is 0 is left out."""
        ratios: dict[str, tuple[Tensor, Tensor]] = {}
        for name in self.labellers:
            ratios |= {f"caption/{name}/{key}": pair for key, pair in _ratios(self.errors(captions, name)).items()}
        said = [numbers_of(caption) for caption in captions]
        shared = [2.0 * len(own & true) for own, true in zip(said, self.numbers, strict=True)]
        ratios[NUMBERS] = (
            torch.tensor(shared, dtype=torch.float64),
            torch.tensor([len(own) + len(true) for own, true in zip(said, self.numbers, strict=True)]).double(),
        )
        return {key: share_of_sums(top, below, self.groups) for key, (top, below) in ratios.items() if below.sum() > 0}

    def missing(self, figures: Mapping[str, Figure]) -> dict[str, str]:
        """Why scores are not among the figures."""
        keys = [f"caption/{name}/{key}" for name in self.labellers for key in _ratios([Errors()])]
        return {key: NO_SUCH for key in [*keys, NUMBERS] if key not in figures}


def _ratios(errors: Sequence[Errors]) -> dict[str, tuple[Tensor, Tensor]]:
    """Score -> [row] numerator and denominator."""

    def column(values: Sequence[float]) -> Tensor:
        return torch.tensor(values, dtype=torch.float64)

    named = column([len(one.named) for one in errors])
    said = named + column([len(one.invented) for one in errors])
    true = named + column([len(one.missed) for one in errors])
    return {
        "precision": (named, said),
        "recall": (named, true),
        "F1": (2 * named, said + true),
        "denied_F1": (2 * column([len(one.denied) for one in errors]), column([one.num_denied for one in errors])),
        "confused": (column([len(one.confused) for one in errors]), column([one.num_both for one in errors])),
        "side_errors": (column([len(one.sides) for one in errors]), column([one.num_sides for one in errors])),
    }
