"""Models: encoders of the field, heads on them, and the aligner that puts every modality into one unit-norm space."""

from typing import TYPE_CHECKING

from gapless.core.lazy import lazy_names

__all__ = [
    "Exported",
    "GaplessConfig",
    "GaplessModel",
    "fingerprint_of",
    "load_model",
]

if TYPE_CHECKING:
    from gapless.models.aligner import GaplessConfig, GaplessModel
    from gapless.models.export_model import Exported
    from gapless.models.fingerprint import fingerprint_of
    from gapless.models.load import load_model

__getattr__ = lazy_names(
    __name__,
    {
        "Exported": "gapless.models.export_model",
        "GaplessConfig": "gapless.models.aligner",
        "GaplessModel": "gapless.models.aligner",
        "fingerprint_of": "gapless.models.fingerprint",
        "load_model": "gapless.models.load",
    },
)
