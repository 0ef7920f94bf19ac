"""Describes a loss in the `config.json` of a model, and builds it again: method, package, anchor, settings.

Models of earlier versions hold keyword arguments of `GapClosingLoss` there.
"""

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from torch import Tensor, nn

from gapless.core.errors import UsageError
from gapless.losses.base import METHODS, Method
from gapless.losses.gap_closing import GapClosingLoss
from gapless.losses.schedules import as_weight


class MissingLoss(nn.Module):
    """The placeholder for the loss of a model when the package that defines it is not installed.

    Such a model can embed, which needs no loss.
    """

    def __init__(self, name: str, package: str, anchor: str) -> None:
        super().__init__()
        self.name = name
        self.package = package
        self.anchor = anchor

    def forward(
        self,
        embeddings: Mapping[str, Tensor],
        *,
        present: Mapping[str, Tensor] | None = None,
        positives: Tensor | Mapping[str, Tensor] | None = None,
    ) -> Any:
        """Refuse to train.

        Raises:
            UsageError: always; the sentence names the package.
        """
        raise UsageError(
            f"this model was trained with the method {self.name!r} of the package {self.package!r}, which is not "
            "installed; install it to train the model further"
        )


def describe_loss(method: Method, settings: Any, anchor: str) -> dict[str, Any]:
    """The entry `loss` of `config.json`, from which `build_loss` builds the loss again."""
    return {"method": method.name, "package": method.package, "anchor": anchor, "settings": asdict(settings)}


def build_loss(described: Mapping[str, Any]) -> nn.Module:
    """The loss of a configuration.

    Args:
        described: what `describe_loss` gives, or keyword arguments of `GapClosingLoss`, in which a schedule is a list
            of [progress, weight] points.

    Returns:
        The loss, or a `MissingLoss` when no such method is installed.
    """
    if "method" not in described:
        return GapClosingLoss(**{name: as_weight(value) for name, value in described.items()})
    name, anchor = described["method"], described["anchor"]
    if name not in METHODS:
        return MissingLoss(name, described.get("package", "unknown"), anchor)
    method = METHODS[name]
    return method.build(type(method.settings)(**described["settings"]), anchor)
