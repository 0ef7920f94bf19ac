"""Keeps the few numbers that a loss learns in fp32."""

from collections.abc import Callable

import torch
from torch import Tensor, nn


class KeptInFp32(nn.Module):
    """A module whose parameters and buffers stay in fp32 in `half()` and `bfloat16()`, also as part of a model.

    A temperature in bf16 would change in steps of 0.8 %.
    """

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> "KeptInFp32":
        before = {name: tensor.detach().clone() for name, tensor in self._own_tensors().items()}
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        for name, tensor in self._own_tensors().items():
            if tensor.dtype in (torch.float16, torch.bfloat16):
                tensor.data = before[name].to(tensor.device)
        return self

    def _own_tensors(self) -> dict[str, Tensor]:
        return {**dict(self.named_parameters()), **dict(self.named_buffers())}
