"""The loss as `config.json` of a model describes it: the method's name, the package of its code, anchor and settings.

Models of earlier versions have no name there: what they hold are the keyword arguments of `GapClosingLoss`.
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
    """Stands where the loss of a model would, when the package that brings it is not installed.

    Such a model embeds as ever: embedding asks nothing of the loss.
    """

    def __init__(self, name: str, package: str, anchor: str) -> None:
        super().__init__()
        self.name = name
        self.package = package
        self.anchor = anchor

    def forward(self, embeddings: Mapping[str, Tensor], *, positives: Tensor | None = None) -> Any:
        """Refuse: there is nothing to train with.

        Raises:
            UsageError: always; the sentence names the package.
        """
        raise UsageError(
            f"this model was trained with the method {self.name!r} of the package {self.package!r}, which is not "
            "installed; install it to train the model further"
        )


def describe_loss(method: Method, settings: Any, anchor: str) -> dict[str, Any]:
    """What `config.json` holds of a loss; `build_loss` makes the loss of it again."""
    return {"method": method.name, "package": method.package, "anchor": anchor, "settings": asdict(settings)}


def build_loss(described: Mapping[str, Any]) -> nn.Module:
    """The loss of a configuration.

    Args:
        described: what `describe_loss` gives, or keyword arguments of `GapClosingLoss`, in which a schedule is a list
            of [progress, weight] points.

    Returns:
        the loss, or a `MissingLoss` where no such method is installed.
    """
    if "method" not in described:
        return GapClosingLoss(**{name: as_weight(value) for name, value in described.items()})
    name, anchor = described["method"], described["anchor"]
    if name not in METHODS:
        return MissingLoss(name, described.get("package", "unknown"), anchor)
    method = METHODS[name]
    return method.build(type(method.settings)(**described["settings"]), anchor)
