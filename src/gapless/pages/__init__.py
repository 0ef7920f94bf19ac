"""The parts that all pages of gapless share (report, map, search): templates, colours, a base style."""

from typing import TYPE_CHECKING

from gapless.core.lazy import lazy_names

__all__ = [
    "Documentation",
    "documentation",
    "json_for_page",
    "modality_mark",
    "modality_style",
    "page_colour",
    "render_page",
]

if TYPE_CHECKING:
    from gapless.pages.built_site import Documentation, documentation
    from gapless.pages.page import json_for_page, render_page
    from gapless.pages.palette import modality_mark, modality_style, page_colour

__getattr__ = lazy_names(
    __name__,
    {
        "Documentation": "gapless.pages.built_site",
        "documentation": "gapless.pages.built_site",
        "json_for_page": "gapless.pages.page",
        "modality_mark": "gapless.pages.palette",
        "modality_style": "gapless.pages.palette",
        "page_colour": "gapless.pages.palette",
        "render_page": "gapless.pages.page",
    },
)
