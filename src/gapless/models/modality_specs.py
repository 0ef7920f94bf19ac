"""The modalities of a recipe or of a saved model as typed specifications: the one place that checks them together."""

from collections.abc import Mapping
from typing import Any

from torch import nn

from gapless.core.errors import UsageError, unknown_name
from gapless.models.spec import ModalitySpec, modality_spec


def modality_specs(
    modalities: Mapping[str, Mapping[str, Any]], anchor: str | None = None, embedding_dim: int | None = None
) -> dict[str, ModalitySpec]:
    """The specification of each modality, by name.

    Args:
        modalities: name -> its input, encoder and head, the mappings of `modality_spec`; at least one.
        anchor: the modality that a loss contrasts the others with; None for a model without a loss.
        embedding_dim: size of the shared space, at least 1; None for encoders that share none.

    Raises:
        UsageError: no modality, a name that a module of PyTorch cannot have, an anchor that is none of them, a size
            below 1, or a part, key or value of a modality that does not fit; the sentence names it.
    """
    if not modalities:
        raise UsageError("a model needs at least one modality")
    if anchor is not None and anchor not in modalities:
        raise unknown_name("anchor modality", anchor, modalities)
    if embedding_dim is not None and embedding_dim < 1:
        raise UsageError(f"embedding_dim must be at least 1, got {embedding_dim}")
    for name in modalities:
        if hasattr(nn.ModuleDict, name) or "." in name:
            raise UsageError(
                f"a model can have no modality {name!r}: PyTorch uses this name itself; give the modality another one"
            )
    return {name: modality_spec(name, spec) for name, spec in modalities.items()}
