"""The temperature that losses with a softmax share: a learned or a fixed `logit_scale`."""

import math

import torch
from torch import Tensor, nn

from gapless.losses.precision import KeptInFp32

MAX_LOGIT_SCALE = 100.0


class WithTemperature(KeptInFp32):
    """A module with `logit_scale`, the logarithm of 1 / temperature, as in open_clip.

    Args:
        temperature: the initial, or fixed, temperature.
        learn_temperature: whether `logit_scale` is a parameter; call `clamp_logit_scale` after each optimizer step and
            give it no weight decay.

    Raises:
        ValueError: a temperature that is not above 0, or below 0.01 where it is learned.

    Attributes:
        logit_scale: log(1 / temperature) in fp32, also after `module.bfloat16()`.
    """

    logit_scale: Tensor

    def __init__(self, temperature: float, learn_temperature: bool) -> None:
        super().__init__()
        lowest = 1 / MAX_LOGIT_SCALE if learn_temperature else 0.0
        if not (math.isfinite(temperature) and temperature > 0 and temperature >= lowest):
            raise ValueError(f"the temperature must be above 0 (at least 0.01 when it is learned), got {temperature}")
        log_scale = torch.tensor(-math.log(temperature), dtype=torch.float32)
        if learn_temperature:
            self.logit_scale = nn.Parameter(log_scale)
        else:
            self.register_buffer("logit_scale", log_scale)

    @torch.no_grad()
    def clamp_logit_scale(self) -> None:
        """Keep a learned temperature at or above 0.01; to be called after each optimizer step."""
        if isinstance(self.logit_scale, nn.Parameter):
            self.logit_scale.clamp_(max=math.log(MAX_LOGIT_SCALE))

    def after_step(self) -> None:
        """Clamp the temperature; the trainer calls this after each optimizer step."""
        self.clamp_logit_scale()
