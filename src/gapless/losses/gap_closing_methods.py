"""The methods that train with `GapClosingLoss`: they differ in settings alone, and an ablation is a weight of 0."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from gapless.core.errors import unknown_name
from gapless.losses.base import METHODS, Method
from gapless.losses.gap_closing import GapClosingLoss
from gapless.losses.pairs import ANCHOR, Pairs, checked_pairs, checked_weights
from gapless.losses.schedules import PUBLISHED_ALIGNMENT, PUBLISHED_TEMPERATURE, PUBLISHED_UNIFORMITY, as_weight

PAPER = "Grassucci et al., arXiv 2602.20046"
CLIP_PAPER = "Radford et al., arXiv 2103.00020"
Weight = float | list[list[float]]
CLOCK, HELD_OUT = "clock", "held-out"


@dataclass(frozen=True)
class GapClosingSettings:
    """The settings of `GapClosingLoss`, as files hold them; the defaults are the paper's loss.

    Args:
        temperature: start value, or the fixed value.
        learn_temperature: train `logit_scale` (fp32, clamped to 100, no weight decay).
        alignment_weight: weight of Align True Pairs; a number, or [[progress, weight], ...] with progress in [0, 1].
        uniformity_weight: weight of Centroid Uniformity; likewise.
        normalise_centroids: True is the authors' published code, False the paper's text.
        mask_duplicates: pairs whose captions are the same are not negatives of each other.
        pairs: the pairs of modalities that are compared: anchor (each with the anchor), all (each with each), or a list
            of two names each.
        modality_weights: weight of a modality ("ecg") or of a pair ("ecg+text"), 1 by default; only ratios matter.
        alignment_modality_weights: likewise for Align True Pairs alone; none is modality_weights.
        follow: what the two weights follow: clock is their schedule; held-out takes the schedule as a limit and gives
            as much of it as held-out pairs have earned (docs/method.md).
    """

    temperature: float = 0.07
    learn_temperature: bool = True
    alignment_weight: Weight = 1.0
    uniformity_weight: Weight = 1.0
    normalise_centroids: bool = True
    mask_duplicates: bool = False
    pairs: Pairs = ANCHOR
    modality_weights: Mapping[str, float] = field(default_factory=dict)
    alignment_modality_weights: Mapping[str, float] | None = None
    follow: str = CLOCK

    def __post_init__(self) -> None:
        if self.follow not in (CLOCK, HELD_OUT):
            raise unknown_name("follow", self.follow, (CLOCK, HELD_OUT))
        object.__setattr__(self, "pairs", checked_pairs(self.pairs))  # tuples, because a list is a schedule elsewhere
        checked_weights(self.modality_weights)
        checked_weights(self.alignment_modality_weights, "alignment_modality_weights")


def _gap_closing_loss(settings: GapClosingSettings, anchor: str) -> GapClosingLoss:
    """The loss of these settings."""
    return GapClosingLoss(
        anchor=anchor,
        temperature=settings.temperature,
        learn_temperature=settings.learn_temperature,
        alignment_weight=as_weight(settings.alignment_weight),
        uniformity_weight=as_weight(settings.uniformity_weight),
        normalise_centroids=settings.normalise_centroids,
        pairs=settings.pairs,
        modality_weights=settings.modality_weights,
        alignment_modality_weights=settings.alignment_modality_weights,
    )


def _ramped(alignment: float, uniformity: float = 1.0) -> GapClosingSettings:
    """Contrast first, then close the gap: both weights wait for 30 % of the training, then rise to the end.

    Weights 1 and 1 hardly move the cosine on small sets, and a large constant alignment collapses a model that starts
    from scratch; docs/method.md has the figures.

    Args:
        alignment: the weight of Align True Pairs at the end.
        uniformity: that of Centroid Uniformity.
    """
    return GapClosingSettings(
        alignment_weight=[[0.0, 0.0], [0.3, 0.0], [1.0, alignment]],
        uniformity_weight=[[0.0, 0.0], [0.3, 0.0], [1.0, uniformity]],
    )


def _add(
    name: str,
    summary: str,
    settings: GapClosingSettings,
    source: str = PAPER,
    fixed: tuple[str, ...] = (),
    frozen_settings: GapClosingSettings | None = None,
) -> None:
    weights = ("alignment_weight", "uniformity_weight")
    METHODS.add(name, Method(name, summary, settings, _gap_closing_loss, source, (*weights, *fixed), frozen_settings))


_add(
    "clip",
    "the contrastive term alone, its temperature learned",
    GapClosingSettings(alignment_weight=0.0, uniformity_weight=0.0),
    CLIP_PAPER,
)
_add(
    "clip-fixed",
    "the contrastive term alone, its temperature fixed",
    GapClosingSettings(learn_temperature=False, alignment_weight=0.0, uniformity_weight=0.0),
    CLIP_PAPER,
    fixed=("temperature", "learn_temperature"),
)
_add("align-only", "contrastive and Align True Pairs", GapClosingSettings(uniformity_weight=0.0))
_add("uniform-only", "contrastive and Centroid Uniformity", GapClosingSettings(alignment_weight=0.0))
_add("gapless-published", "the paper's loss, both weights 1", GapClosingSettings())
_add(
    "gapless-scheduled",
    "the paper's loss with the schedule that the authors' code ships, temperature fixed at 0.1",
    GapClosingSettings(
        temperature=PUBLISHED_TEMPERATURE,
        learn_temperature=False,
        alignment_weight=[list(point) for point in PUBLISHED_ALIGNMENT.points],
        uniformity_weight=[list(point) for point in PUBLISHED_UNIFORMITY.points],
    ),
    fixed=("temperature", "learn_temperature"),
)
_add(
    "gapless",
    "the paper's terms with weights that rise while training; our best recipe",
    _ramped(alignment=8.0),
    # The one difference between `gapless` in `train` and in `close`. Small heads overfit frozen embeddings, after which
    # the alignment gradient vanishes; the strong dropout that `close` gives them keeps a distance between pairs, and
    # stands twice the weight. Many frozen rows share a caption, so that pairs of one caption are masked.
    frozen_settings=replace(_ramped(alignment=16.0), mask_duplicates=True),
)
_add(
    "gapless-held-out",
    "the paper's terms, as strong as held-out pairs allow while training",
    # Limits, of which held-out pairs earn a part.
    replace(_ramped(alignment=16.0, uniformity=2.0), follow=HELD_OUT),
    frozen_settings=replace(_ramped(alignment=24.0, uniformity=2.5), mask_duplicates=True, follow=HELD_OUT),
)
