"""CLIP's loss with a temperature that does not throttle the gap, or with modalities that are swapped while training.

Yaras et al. (arXiv 2412.07909) show that a learned temperature, 1 / tau = exp(nu), falls so fast that the gap stops
closing. They control the temperature (a schedule that rises, another parameter for it, a lower learning rate), or break
up the two modalities by exchanging entries of the two rows of a pair in a share of the training.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn
from torch.nn.functional import softplus

from gapless.core.errors import UsageError, unknown_name
from gapless.core.geometry import unit_norm
from gapless.losses.base import METHODS, Method, ParameterRule
from gapless.losses.contrastive import symmetric_info_nce
from gapless.losses.engine.gathered import Ranks, chosen_symmetric_info_nce
from gapless.losses.engine.tiled import tiled_symmetric_info_nce
from gapless.losses.gap_closing import is_small
from gapless.losses.learned_temperature import MAX_LOGIT_SCALE
from gapless.losses.pairs import ANCHOR, Pair, Pairs, checked_pairs, checked_weights
from gapless.losses.pairwise import PairwiseLoss
from gapless.losses.present import PresentBatch
from gapless.losses.schedules import Schedule, as_weight
from gapless.losses.step_draws import StepDraws

EXP, SOFTPLUS = "exp", "softplus"
NONE, HARD, SOFT = SWAPS = ("none", "hard", "soft")


@dataclass(frozen=True)
class TemperatureSettings:
    """The settings of CLIP's loss with another temperature, or with swapped modalities.

    Args:
        temperature: the start value of a learned one; or [[progress, temperature], ...] with progress in [0, 1], which
            is followed and not learned.
        parameter: of the learned factor on the cosines; exp is exp(nu / divisor), softplus is log(1 + exp(nu)).
        divisor: of nu, at least 1.
        learning_rate_factor: multiplies the learning rate of nu, which has no weight decay.
        swap: hard exchanges half of the entries of the two rows of a pair, drawn anew for every row; soft mixes each
            entry of one with that of the other in a proportion drawn from [0, 1]; none leaves the rows as they are.
        swap_share: the share of training steps that swap.
        mask_duplicates: pairs whose captions are the same are not negatives of each other.
        pairs: the pairs of modalities that are compared: anchor (each with the anchor), all (each with each), or a list
            of two names each.
        modality_weights: weight of a modality ("ecg") or of a pair ("ecg+text"), 1 by default; only ratios matter.
    """

    temperature: float | list[list[float]] = 0.07
    parameter: str = EXP
    divisor: float = 1.0
    learning_rate_factor: float = 1.0
    swap: str = NONE
    swap_share: float = 0.0
    mask_duplicates: bool = False
    pairs: Pairs = ANCHOR
    modality_weights: Mapping[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        object.__setattr__(self, "pairs", checked_pairs(self.pairs))
        checked_weights(self.modality_weights)
        for name, value, known in (("parameter", self.parameter, (EXP, SOFTPLUS)), ("swap", self.swap, SWAPS)):
            if value not in known:
                raise unknown_name(name, value, known)
        _check_temperature(self.temperature)
        if not 1 <= self.divisor < math.inf:
            raise UsageError(f"divisor must be at least 1, got {self.divisor}")
        if not 0 <= self.swap_share <= 1:
            raise UsageError(f"swap_share must be in [0, 1], got {self.swap_share}")


def _check_temperature(temperature: float | list[list[float]]) -> None:
    """Raise UsageError for a temperature below 0.01, or for points that are no schedule."""
    try:
        values = [temperature] if not isinstance(temperature, list) else [x for _, x in as_weight(temperature).points]
    except (ValueError, IndexError, TypeError) as error:
        raise UsageError(f"temperature: {error}") from None
    if not all(1 / MAX_LOGIT_SCALE <= value < math.inf for value in values):
        raise UsageError(f"temperature must be at least 0.01, got {temperature}")


def swapped(a: Tensor, b: Tensor, shares: Tensor) -> tuple[Tensor, Tensor]:
    """Rows whose entries are exchanged, or mixed, with those of their partners, at unit norm again.

    Args:
        a, b: [pair, dim], row i of each is pair i.
        shares: [pair, dim] in [0, 1], of the own entry; 0 and 1 alone are a hard swap.

    Returns:
        `shares a + (1 - shares) b` and `shares b + (1 - shares) a`, unit-norm. Equal rows stay as they are.
    """
    return unit_norm(b + shares * (a - b)), unit_norm(a + shares * (b - a))


class TemperatureLoss(PairwiseLoss):
    """Symmetric InfoNCE of each pair of modalities, with the temperature and the swaps of its settings.

    Swaps are drawn for the batch of all ranks from the seed of the run and the number of the step (`begin_step`), so
    that a resumed run, or one with another number of ranks, draws the same; only while training (`train()`), never in
    `eval()`.

    Args:
        settings: see there.
        anchor, gather: as in `PairwiseLoss`.

    Attributes:
        nu: the parameter of a learned temperature, fp32.
        logit_scale: log(1 / temperature).
    """

    scheduled: Tensor

    def __init__(self, settings: TemperatureSettings, anchor: str, gather: bool = True) -> None:
        super().__init__(anchor, settings.pairs, settings.modality_weights, gather)
        self.settings = settings
        self.parameter_rules: Mapping[str, ParameterRule] = {}
        self.schedule: Schedule | None = None
        if isinstance(settings.temperature, list):
            self.schedule = as_weight(settings.temperature)
            self.register_buffer("scheduled", torch.zeros((), dtype=torch.float32))
        else:
            self.nu = nn.Parameter(torch.tensor(self._nu_at(1 / settings.temperature), dtype=torch.float32))
            self.parameter_rules = {"nu": ParameterRule(learning_rate_factor=settings.learning_rate_factor)}
        self.set_progress(0.0)
        self.draws = StepDraws("swap")

    def _nu_at(self, factor: float) -> float:
        """The parameter at which the factor on the cosines has this value."""
        if self.settings.parameter == SOFTPLUS:
            return factor + math.log(-math.expm1(-factor))
        return self.settings.divisor * math.log(factor)

    @property
    def logit_scale(self) -> Tensor:
        """log(1 / temperature)."""
        if self.schedule is not None:
            return self.scheduled
        return softplus(self.nu).log() if self.settings.parameter == SOFTPLUS else self.nu / self.settings.divisor

    def set_progress(self, progress: float) -> None:
        """Set the share of the training that is done, from 0 to 1, which decides a scheduled temperature."""
        if self.schedule is not None:
            self.scheduled.fill_(-math.log(self.schedule(progress)))

    def begin_step(self, seed: int, step: int) -> None:
        """Set the seed of the run and the number of the step, from which swaps are drawn."""
        self.draws.begin(seed, step)

    @torch.no_grad()
    def after_step(self) -> None:
        """Keep a learned temperature at or above 0.01."""
        if self.schedule is None:
            self.nu.clamp_(max=self._nu_at(MAX_LOGIT_SCALE))

    def two_modalities(self, batch: PresentBatch, pair: Pair) -> tuple[Tensor, Tensor]:
        first, second = (batch.rows[name] for name in pair)
        shares = self._shares(first, batch) if self.training and self.settings.swap != NONE else None
        if shares is None:
            return super().two_modalities(batch, pair)
        first, second = swapped(first, second, shares)
        return first, second if batch.ranks is None else batch.ranks.gather(second)

    def _shares(self, rows: Tensor, batch: PresentBatch) -> Tensor | None:
        """[row, dim] of the own entries in this rank's rows; None where this step does not swap."""
        generator = self.draws.generator()
        if float(torch.rand((), generator=generator)) >= self.settings.swap_share:
            return None
        num_rows = batch.num_rows * (batch.ranks.num_ranks if batch.ranks else 1)
        drawn = torch.rand(num_rows, rows.shape[1], generator=generator)[batch.begin : batch.begin + batch.num_rows]
        return (drawn.round() if self.settings.swap == HARD else drawn).to(rows)

    def of_pair(
        self, rows: Tensor, columns: Tensor, positives: Tensor | None, own: slice, ranks: Ranks | None
    ) -> Tensor:
        scale = self.logit_scale.exp()
        if ranks is not None:
            return chosen_symmetric_info_nce(rows, columns, scale, positives, own, ranks)
        info_nce = symmetric_info_nce if is_small(rows) else tiled_symmetric_info_nce
        return info_nce(rows, columns, scale, positives)


SOURCE = "Yaras et al., arXiv 2412.07909"


def _add(name: str, summary: str, settings: TemperatureSettings, *fixed: str) -> None:
    METHODS.add(name, Method(name, summary, settings, TemperatureLoss, SOURCE, fixed))


_add(
    "clip-temperature-schedule",
    "CLIP's loss, its temperature rising from 0.01 to 0.05 over the training",
    TemperatureSettings(temperature=[[0.0, 0.01], [1.0, 0.05]]),
    "temperature",
)
_add(
    "clip-temperature-softplus",
    "CLIP's loss, the factor on its cosines learned as a softplus",
    TemperatureSettings(parameter=SOFTPLUS),
    "parameter",
)
_add(
    "clip-temperature-slow",
    "CLIP's loss, its temperature learned at a tenth of the learning rate",
    TemperatureSettings(learning_rate_factor=0.1),
    "learning_rate_factor",
)
_add(
    "clip-swap-hard",
    "CLIP's loss, entries exchanged between the modalities in 0.1 % of the steps",
    TemperatureSettings(swap=HARD, swap_share=1e-3),
    "swap",
)
_add(
    "clip-swap-soft",
    "CLIP's loss, entries mixed between the modalities in 5 % of the steps",
    TemperatureSettings(swap=SOFT, swap_share=5e-2),
    "swap",
)
