"""The one table that every command reads: built from any layout, verified, split, continued."""

from typing import TYPE_CHECKING

from gapless.core.lazy import lazy_names

__all__ = [
    "BuildOptions",
    "Manifest",
    "build_manifest",
    "split_manifest",
]

if TYPE_CHECKING:
    from gapless.manifest.build import build_manifest
    from gapless.manifest.manifest import Manifest
    from gapless.manifest.options import BuildOptions
    from gapless.manifest.split import split_manifest

__getattr__ = lazy_names(
    __name__,
    {
        "BuildOptions": "gapless.manifest.options",
        "Manifest": "gapless.manifest.manifest",
        "build_manifest": "gapless.manifest.build",
        "split_manifest": "gapless.manifest.split",
    },
)
