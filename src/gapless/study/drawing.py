"""The style of matplotlib figures, and figures as SVG, PDF or PNG; the same figure always gives the same bytes."""

import io
import re
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from gapless.pages.palette import AMBER, BLUE, FAINT, GREEN, INK, PAGE_COLOURS, PURPLE, SKY, page_colour

METHOD_STYLES = ((FAINT, "-"), (GREEN, "-"), (BLUE, "--"), (PURPLE, "-."), (AMBER, ":"), (SKY, (0, (5, 1, 1, 1, 1, 1))))
TRUE_COLOUR, FALSE_COLOUR = GREEN, FAINT

STYLE = {
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans"],
    "font.size": 9,
    "axes.titlesize": 10,
    "axes.edgecolor": FAINT,
    "axes.labelcolor": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.linewidth": 0.8,
    "text.color": INK,
    "text.parse_math": False,  # a dollar sign in a name must not start a formula
    "xtick.color": INK,
    "ytick.color": INK,
    "xtick.labelsize": 8,
    "ytick.labelsize": 8,
    "legend.frameon": False,
    "legend.fontsize": 8,
    "savefig.facecolor": "white",
    "svg.hashsalt": "gapless",
    "pdf.fonttype": 42,
}
FORMATS = ("svg", "pdf", "png")


@contextmanager
def style(changes: Mapping[str, Any] | None = None) -> Iterator[None]:
    """matplotlib's settings for the block; the caller's settings are restored after it."""
    settings: Any = {**STYLE, **(changes or {})}
    with rc_context(settings), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing from font")  # a name in a script the font lacks
        yield


def method_style(index: int) -> tuple[str, str | tuple[int, tuple[int, ...]]]:
    """Colour and dash of the index-th method; the first is the baseline, in grey."""
    return METHOD_STYLES[index % len(METHOD_STYLES)]


def new_figure(
    width: float, height: float, columns: int = 1, rows: int = 1, height_ratios: Sequence[float] | None = None
) -> tuple[Figure, list[Axes]]:
    """A figure of the given size in inches with its axes in reading order, outside pyplot's global state."""
    with style():
        figure = Figure(figsize=(width, height), layout="constrained")
        axes = figure.subplots(rows, columns, squeeze=False, height_ratios=height_ratios)
    return figure, list(axes.flat)


def _settle_layout(figure: Figure) -> None:
    """Compute the layout once: a second pass would move elements slightly and change the bytes."""
    if figure.get_layout_engine() is None:
        return
    figure.draw_without_rendering()
    figure.set_layout_engine(None)  # a placeholder engine would make every savefig draw twice


SVG_METADATA = ("Date", "Creator", "Format", "Type")  # when all are None, matplotlib omits the metadata block


def image_bytes(figure: Figure, image_format: str, dpi: int = 200) -> bytes:
    """The figure as SVG (text as paths), PDF or PNG on white; no dates, so that bytes repeat, and no addresses."""
    left_out = {"svg": SVG_METADATA, "pdf": ("CreationDate", "Creator", "Producer"), "png": ("Software",)}
    metadata: dict[str, str | None] = dict.fromkeys(left_out[image_format])
    stream = io.BytesIO()
    with style():
        _settle_layout(figure)
        figure.savefig(stream, format=image_format, dpi=dpi, metadata=metadata)
    content = stream.getvalue()
    return re.sub(rb"<!DOCTYPE[^>]*>\s*", b"", content, count=1) if image_format == "svg" else content


def inline_svg(figure: Figure, description: str) -> str:
    """The figure as an `<svg>` element for a page, with the page's colours, text as text, and no address."""
    stream = io.BytesIO()
    with style({"svg.fonttype": "none"}):
        _settle_layout(figure)
        figure.savefig(stream, format="svg", metadata={"Date": None}, transparent=True)
    svg = stream.getvalue().decode()
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    svg = re.sub(r'\s+xmlns(:\w+)?="[^"]*"', "", svg).replace("xlink:href", "href")
    svg = re.sub(r'<g id="[a-z]+[0-9a-z_.]*_\d+">', "<g>", svg)
    for colour in PAGE_COLOURS:
        svg = svg.replace(colour, page_colour(colour))
    svg = re.sub(r'<svg [^>]*?(viewBox="[^"]*")[^>]*>', r'<svg \1 role="img" aria-label="">', svg, count=1)
    return svg.replace('aria-label=""', f'aria-label="{_plain_attribute(description)}"', 1)


def _plain_attribute(text: str) -> str:
    """A text escaped for an attribute in double quotes in HTML."""
    for character, entity in {"&": "&amp;", "<": "&lt;", ">": "&gt;", '"': "&quot;"}.items():
        text = text.replace(character, entity)
    return text


def method_legend(axes: Axes, methods: Sequence[str]) -> None:
    """A legend of the methods, for a figure outside the report."""
    for index, method in enumerate(methods):
        colour, dash = method_style(index)
        axes.plot([], [], color=colour, linestyle=dash, linewidth=1.6, label=method)
