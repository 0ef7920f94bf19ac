"""The phantom: synthetic radiology data, images drawn with numpy and captions written by a grammar.

`cases` draws the content of a figure at random, `anatomy` and `findings` draw its image, `acquisition` applies the look
of an X-ray or a CT, `captions` writes its caption and `waveform` its third modality.
"""

from typing import TYPE_CHECKING

from gapless.core.lazy import lazy_names

__all__ = [
    "Figure",
    "articles",
    "draw_figure",
    "draw_waveform",
    "write_caption",
]

if TYPE_CHECKING:
    from gapless.phantom.acquisition import draw_figure
    from gapless.phantom.captions import write_caption
    from gapless.phantom.cases import Figure, articles
    from gapless.phantom.waveform import draw_waveform

__getattr__ = lazy_names(
    __name__,
    {
        "Figure": "gapless.phantom.cases",
        "articles": "gapless.phantom.cases",
        "draw_figure": "gapless.phantom.acquisition",
        "draw_waveform": "gapless.phantom.waveform",
        "write_caption": "gapless.phantom.captions",
    },
)
