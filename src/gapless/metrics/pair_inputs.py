"""The embeddings of one pair of modalities, with what its figures share, computed once on first use."""

from dataclasses import dataclass
from functools import cached_property

from torch import Tensor

from gapless.metrics import gap
from gapless.metrics.neighbours import Neighbours
from gapless.metrics.score_moments import PairScores, centred_scores, raw_scores
from gapless.metrics.spectrum import PairSpectra, spectrum
from gapless.metrics.uncertainty import Figure, GroupSums, mean_figure


@dataclass(frozen=True)
class PairInputs:
    """The arguments of a further figure's function: the embeddings of one pair of modalities.

    Args:
        first, second: [pair, dim] unit-norm rows, row i of both one pair.
        groups: [pair] integers from 0; rows of one group must stay in one fold.
        seed: for a function that draws random numbers.
        names: of the two modalities, for keys that carry one.
        inside: the 10 nearest rows of each row in its own modality, one list per modality; None where the
            similarities are not computed.
        across: the same in the other modality.
    """

    first: Tensor
    second: Tensor
    groups: Tensor
    seed: int
    names: tuple[str, str] = ("first", "second")
    inside: tuple[Neighbours, Neighbours] | None = None
    across: tuple[Neighbours, Neighbours] | None = None

    @cached_property
    def group_sums(self) -> GroupSums:
        return GroupSums(self.groups, int(self.groups.max()) + 1)

    @cached_property
    def centroid_distances(self) -> tuple[Figure, Figure, Figure]:
        """Biased, unbiased, unbiased by group (`gap.centroid_distance`)."""
        return gap.centroid_distance(self.first, self.second, self.group_sums)

    @cached_property
    def true_pair_cosine(self) -> Figure:
        return mean_figure((self.first * self.second).sum(dim=1).double(), self.group_sums)

    @cached_property
    def negative_cosine(self) -> Figure:
        return gap.off_diagonal_cosine(self.first, self.second, self.group_sums)

    @cached_property
    def within_cosines(self) -> tuple[Figure, Figure]:
        """The mean cosine of different rows of each modality."""
        return (
            gap.off_diagonal_cosine(self.first, self.first, self.group_sums),
            gap.off_diagonal_cosine(self.second, self.second, self.group_sums),
        )

    @cached_property
    def separability(self) -> tuple[Figure, Figure]:
        """Area under the curve and accuracy of the probe; needs two groups."""
        return gap.separability(self.first, self.second, self.group_sums, self.seed)

    @cached_property
    def scores(self) -> PairScores:
        """The cosines of true pairs and non-pairs, less one constant."""
        return raw_scores(self.first, self.second)

    @cached_property
    def centred_scores(self) -> PairScores:
        """The same after each modality's mean is removed and the rows are scaled to norm 1 again."""
        return centred_scores(self.first, self.second)

    @cached_property
    def spectra(self) -> PairSpectra:
        """The spectra of the modalities' covariances."""
        return PairSpectra(spectrum(self.first), spectrum(self.second))
